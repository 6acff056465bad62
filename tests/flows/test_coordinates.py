"""Internal and body-fixed coordinates: round trips, hands, volumes."""

from __future__ import annotations

import pytest
import torch

from mlff_cli.flows.body_frame import BodyFrame
from mlff_cli.flows.internal_coordinates import InternalCoordinates
from tests.flows.dipeptide import FRAME, dipeptide, distances, frames, handedness, moved
from tests.flows.laws import jacobian_of

KINDS = (InternalCoordinates, BodyFrame)


@pytest.fixture(scope="module")
def x():
    return frames(16)


@pytest.mark.parametrize("kind", KINDS)
def test_positions_come_back_with_their_hand(kind, x):
    coordinates = kind(dipeptide().zmatrix)
    y = coordinates.positions(coordinates(x)[0])
    assert torch.allclose(distances(y), distances(x), atol=1e-12)
    assert torch.equal(handedness(y), handedness(x))
    assert torch.allclose(y, BodyFrame(dipeptide().zmatrix).placed(x), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_coordinates_do_not_see_where_the_molecule_lies(kind, x):
    coordinates = kind(dipeptide().zmatrix)
    (u, v), (again, volume) = coordinates(x), coordinates(moved(x, 3))
    assert torch.allclose(u, again, atol=1e-10)
    assert torch.allclose(v, volume, atol=1e-10)


def test_the_mirror_image_has_the_other_torsions(x):
    coordinates = InternalCoordinates(dipeptide().zmatrix)
    u, mirrored = coordinates(x)[0], coordinates(-x)[0]
    assert torch.allclose(u[:, :41], mirrored[:, :41], atol=1e-12)
    assert torch.allclose(u[:, 41:], -mirrored[:, 41:], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_volume_is_that_of_all_cartesian_coordinates(kind):
    """(u, shift, rotation vector) -> 66 positions: its determinant is V, and constant factors."""
    coordinates = kind(dipeptide().zmatrix)

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
    coordinates = InternalCoordinates(dipeptide().zmatrix)
    u, ln_v = coordinates(x)
    r, theta = u[:, :21].exp(), 2 * u[:, 21:41].exp().atan()
    expected = 3 * r.log().sum(1) + 2 * theta.sin().log().sum(1)
    assert torch.allclose(ln_v, expected, atol=1e-10)


def test_any_real_coordinates_are_a_molecule():
    coordinates = InternalCoordinates(dipeptide().zmatrix)
    u = 3 * torch.randn(64, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = coordinates.positions(u)
    assert bool(torch.isfinite(x).all())
    again = coordinates(x)[0]
    turns = (again - u)[:, 41:] / (2 * torch.pi)
    assert torch.allclose(again[:, :41], u[:, :41], atol=1e-5)
    assert torch.allclose(turns, turns.round(), atol=1e-5)
