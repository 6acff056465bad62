"""Internal and body-fixed coordinates: round trips, hands, volumes."""

from __future__ import annotations

import pytest
import torch

from mlff_cli.flows.body_frame import BodyFrame
from mlff_cli.flows.internal_coordinates import InternalCoordinates
from tests.flows.dipeptide import FRAME, dipeptide, distances, frames, handedness, moved
from tests.flows.laws import jacobian_of


class Internal:
    """Internal coordinates with the hands of the first frame."""

    def __init__(self, molecule):
        self.of = InternalCoordinates(molecule)

    def __call__(self, x):
        u, self.hand, ln_v = self.of(x)
        return u, ln_v

    def positions(self, u):
        return self.of.positions(u, self.hand.expand(len(u), -1))


def body(molecule):
    return BodyFrame(molecule.zmatrix)


MAKERS = (Internal, body)


@pytest.fixture(scope="module")
def x():
    return frames(16)


@pytest.mark.parametrize("make", MAKERS)
def test_positions_come_back_with_their_hand(make, x):
    coordinates = make(dipeptide())
    y = coordinates.positions(coordinates(x)[0])
    assert torch.allclose(distances(y), distances(x), atol=1e-12)
    assert torch.equal(handedness(y), handedness(x))
    assert torch.allclose(y, BodyFrame(dipeptide().zmatrix).placed(x), atol=1e-12)


@pytest.mark.parametrize("make", MAKERS)
def test_coordinates_do_not_see_where_the_molecule_lies(make, x):
    coordinates = make(dipeptide())
    (u, v), (again, volume) = coordinates(x), coordinates(moved(x, 3))
    assert torch.allclose(u, again, atol=1e-10)
    assert torch.allclose(v, volume, atol=1e-10)


def test_the_mirror_image_has_the_other_torsions(x):
    coordinates = InternalCoordinates(dipeptide())
    (u, hand, _), (mirrored, other, _) = coordinates(x), coordinates(-x)
    assert torch.allclose(u[:, :49], mirrored[:, :49], atol=1e-12)
    assert torch.allclose(u[:, 49:], -mirrored[:, 49:], atol=1e-12)
    assert torch.equal(hand, -other)


@pytest.mark.parametrize("make", MAKERS)
def test_volume_is_that_of_all_cartesian_coordinates(make):
    """(u, shift, rotation vector) -> 66 positions: its determinant is V, and constant factors."""
    coordinates = make(dipeptide())

    def positions(z):
        a, b, c = z[:, 63:].unbind(1)
        o = torch.zeros_like(a)
        turn = torch.stack([o, -c, b, c, o, -a, -b, a, o], dim=1).view(-1, 3, 3)
        turn = torch.eye(3, dtype=z.dtype) + turn  # to first order
        x = coordinates.positions(z[:, :60]) @ turn.transpose(1, 2)
        return (x + z[:, None, 60:63]).flatten(1)

    found = []
    for one in (torch.tensor(FRAME, dtype=torch.float64), *frames(2, heat=4.0)):
        u, ln_v = coordinates(one[None])
        z = torch.cat([u[0], torch.zeros(6, dtype=u.dtype)])
        _, jacobian = jacobian_of(positions, z)
        found.append(float(torch.linalg.slogdet(jacobian).logabsdet - ln_v[0]))
    assert found[1:] == pytest.approx(found[:1] * 2, abs=1e-9)


def test_published_definition_of_the_volume(x):
    """Sum 2 ln r + ln sin theta in (r, theta, phi), and the logarithms' ln r + ln sin theta."""
    coordinates = InternalCoordinates(dipeptide())
    u, _, ln_v = coordinates(x)
    r, theta, phi = u[:, :21].exp(), 2 * u[:, 21:41].exp().atan(), 2 * u[:, 41:49].exp().atan()
    expected = 2 * r.log().sum(1) + theta.sin().log().sum(1)
    expected += r.log().sum(1) + theta.sin().log().sum(1) + phi.sin().log().sum(1)
    assert torch.allclose(ln_v, expected, atol=1e-10)


def test_any_real_coordinates_are_a_molecule():
    coordinates = InternalCoordinates(dipeptide())
    u = 3 * torch.randn(64, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hand = torch.ones(64, 8, dtype=u.dtype)
    x = coordinates.positions(u, hand)
    assert bool(torch.isfinite(x).all())
    again, kept, _ = coordinates(x)
    turns = (again - u)[:, 49:] / (2 * torch.pi)
    assert torch.equal(kept, hand)
    assert torch.allclose(again[:, :49], u[:, :49], atol=1e-5)
    assert torch.allclose(turns, turns.round(), atol=1e-5)
