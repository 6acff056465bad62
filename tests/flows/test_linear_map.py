"""The untrained baselines, and the statistics they stand on."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.flows.build import build_flow
from mlff_cli.flows.circle import circular_mean_and_spread, stretch, wrap
from mlff_cli.flows.internal_coordinates import InternalCoordinates
from mlff_cli.flows.spec import FlowSpec
from tests.flows.dipeptide import dipeptide, frames, handedness
from tests.flows.laws import check_float32, check_flow, check_identity


@pytest.fixture(scope="module")
def linear():
    flow = build_flow(FlowSpec(kind="linear"), dipeptide(), torch.float64)
    flow.fit(frames(400), frames(400, heat=1.5, seed=1))
    return flow


def test_the_linear_map_obeys_the_laws(linear):
    check_flow(linear, dipeptide(), frames(8, seed=2))
    y, _ = linear(frames(200, seed=2))
    assert torch.equal(handedness(y), handedness(frames(200, seed=2)))


def test_the_identity_is_the_naive_swap():
    flow = build_flow(FlowSpec(kind="identity"), dipeptide(), torch.float64)
    check_identity(flow, frames(8))
    check_flow(flow, dipeptide(), frames(4))


def test_single_precision_comes_back(linear):
    flow = build_flow(FlowSpec(kind="linear"), dipeptide(), torch.float32)
    flow.load_state_dict(linear.state_dict())
    check_float32(flow, frames(64, seed=3, dtype=torch.float32))


def test_exact_scaling_gives_the_published_log_determinant():
    """((60 - soft) / 2) ln 1.5 = 11.35 with four soft torsions, at the means."""
    flow = build_flow(FlowSpec(kind="linear", scaling="temperature"), dipeptide(), torch.float64)
    flow.fit(frames(200), frames(200, heat=9.0), ratio=1.5)
    u = flow.source.mean[None].clone()
    hand = flow.coordinates(frames(1))[1]
    _, log_det = flow(flow.coordinates.positions(u, hand))
    assert float(log_det) == pytest.approx(28 * math.log(1.5), abs=1e-9)
    assert 28 * math.log(1.5) == pytest.approx(11.35, abs=5e-3)


def test_stiff_coordinates_get_the_spread_of_the_target_and_soft_ones_stay(linear):
    molecule = dipeptide()
    x, hot = frames(400, seed=4), frames(400, heat=1.5, seed=5)
    coordinates = InternalCoordinates(molecule)
    before, after, wanted = (coordinates(z)[0] for z in (x, linear(x)[0], hot))
    assert torch.allclose(after[:, :49].std(0), wanted[:, :49].std(0), rtol=0.3)
    soft = 49 + torch.from_numpy(molecule.soft)[coordinates.free].nonzero().squeeze(1)
    assert len(soft) == 4
    assert torch.allclose(wrap(after - before)[:, soft], torch.zeros(()).double(), atol=1e-12)


def test_the_hydrogens_of_a_threefold_rotor_keep_their_places(linear):
    free = linear.coordinates.free.numpy()
    row = 49 + int((dipeptide().periods[free] == 3).argmax())
    x = frames(200, seed=6)
    before, after = (linear.coordinates(z)[0][:, row] for z in (x, linear(x)[0]))
    assert float(wrap(after - before).abs().max()) < math.pi / 3


def test_statistics_travel_in_the_state_dict(linear):
    again = build_flow(FlowSpec(kind="linear"), dipeptide(), torch.float64)
    again.load_state_dict(linear.state_dict())
    x = frames(4)
    assert torch.equal(again(x)[0], linear(x)[0])


@pytest.mark.parametrize("periods", [1.0, 3.0])
@pytest.mark.parametrize("k", [0.3, 1.0, 4.0])
def test_a_stretch_is_a_bijection_of_the_circle(k, periods):
    phi = torch.linspace(-math.pi, math.pi, 1001, dtype=torch.float64)[:-1, None]
    factor, n = torch.tensor([k], dtype=phi.dtype), torch.tensor([periods], dtype=phi.dtype)
    y, ladj = stretch(phi, factor, n)
    back, ladj_back = stretch(y, 1 / factor, n)
    assert torch.allclose(wrap(back - phi), torch.zeros_like(phi), atol=1e-12)
    assert torch.allclose(ladj + ladj_back, torch.zeros_like(ladj), atol=1e-10)
    # once around: the mean derivative of a map of the circle to itself is one
    assert float(ladj.exp().mean()) == pytest.approx(1.0, abs=1e-6)
    tiny = torch.tensor([[1e-6]], dtype=phi.dtype)
    assert float(stretch(tiny, factor, n)[0]) == pytest.approx(k * 1e-6, rel=1e-6)


def test_rare_turns_of_a_stiff_torsion_do_not_widen_it():
    generator = torch.Generator().manual_seed(0)
    angle = 3.0 + 0.1 * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    angle[:80] += math.pi  # cis
    mean, spread = circular_mean_and_spread(angle)
    assert float(mean) == pytest.approx(3.0, abs=0.02)
    assert float(spread) == pytest.approx(0.1, rel=0.1)
    assert float(circular_mean_and_spread(angle + 1)[1]) == pytest.approx(float(spread), abs=1e-9)


def test_frames_that_never_move_are_refused():
    flow = build_flow(FlowSpec(kind="linear"), dipeptide(), torch.float64)
    x = frames(1).expand(5, -1, -1)
    with pytest.raises(DataError, match=r"must fluctuate(.|\n)*--constraints none"):
        flow.fit(x, frames(5))
    with pytest.raises(DataError, match="2 frames at least, found 1"):
        flow.fit(x[:1], frames(5))


def test_frames_that_are_not_numbers_are_refused_by_their_number():
    flow = build_flow(FlowSpec(kind="linear"), dipeptide(), torch.float64)
    x = frames(5)
    x[3, 2, 1] = math.nan
    with pytest.raises(DataError, match="1 of 5 target frames are not, the first is frame 3"):
        flow.fit(frames(5), x)


def test_exact_scaling_without_temperatures_is_refused():
    flow = build_flow(FlowSpec(kind="linear", scaling="temperature"), dipeptide())
    with pytest.raises(ConfigError, match="ratio of the temperatures"):
        flow.fit(frames(5), frames(5))


@pytest.mark.parametrize(
    "bad", [{"kind": "glow"}, {"embedding": 10, "heads": 4}, {"bins": 1}, {"depth": 3}]
)
def test_specs_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValidationError):
        FlowSpec(**bad)
