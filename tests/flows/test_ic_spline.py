"""Splines of internal coordinates: laws, starts, the circle."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from mlff_cli.core.errors import MissingDependencyError
from mlff_cli.flows.build import build_flow
from mlff_cli.flows.circle import wrap
from mlff_cli.flows.ic_spline import SplineCore
from mlff_cli.flows.spec import FlowSpec
from tests.flows.dipeptide import dipeptide, frames, handedness
from tests.flows.laws import check_float32, check_flow, check_identity

pytest.importorskip("zuko")
SPEC = FlowSpec(transforms=4, bins=4, hidden=(16,))


def trained(spec: FlowSpec, dtype: torch.dtype = torch.float64, size: float = 0.1):
    """A flow whose networks end in random weights, as after training."""
    flow = build_flow(spec, dipeptide(), dtype)
    flow.fit(frames(200), frames(200, heat=1.5, seed=1))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for coupling in flow.core.couplings:
            for weights in coupling.network[-1].parameters():
                noise = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
                weights.copy_(size * noise)
    return flow


@pytest.mark.parametrize(
    "change", [{}, {"start": "identity"}, {"splines": "circular"}, {"conditioning": "soft"}]
)
def test_a_trained_flow_obeys_the_laws(change):
    check_flow(trained(SPEC.model_copy(update=change)), dipeptide(), frames(8, seed=2))


def test_single_precision_comes_back():
    check_float32(trained(SPEC, torch.float32, 0.1), frames(64, seed=3, dtype=torch.float32))


def test_the_identity_start_is_the_naive_swap():
    flow = build_flow(SPEC.model_copy(update={"start": "identity"}), dipeptide(), torch.float64)
    flow.fit(frames(50), frames(50, heat=1.5))
    check_identity(flow, frames(16, heat=3.0, seed=4))


def test_the_linear_start_is_the_linear_map():
    flows = [build_flow(s, dipeptide(), torch.float64) for s in (SPEC, FlowSpec(kind="linear"))]
    x = frames(16, seed=5)
    for flow in flows:
        flow.fit(frames(50), frames(50, heat=1.5, seed=1))
    for run in ("forward", "inverse"):
        (y, log_det), (wanted, log_det_wanted) = (getattr(flow, run)(x) for flow in flows)
        assert torch.allclose(y, wanted, atol=1e-11)
        assert torch.allclose(log_det, log_det_wanted, atol=1e-9)


def test_hands_are_kept_whatever_the_weights():
    flow = trained(SPEC, size=0.6)
    x = frames(256, seed=6)
    with torch.no_grad():
        assert torch.equal(handedness(flow(x)[0]), handedness(x))


def test_every_coordinate_is_moved_and_torsions_see_the_others_as_angles():
    core = trained(SPEC).core
    w = torch.randn(4, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w[:, 49:] = wrap(w[:, 49:])
    with torch.no_grad():
        out, ladj = core(w)
        turned = w.clone()
        turned[:, 49:] += 2 * math.pi  # the same molecule
        again, ladj_again = core(turned)
    assert bool((out != w).all())
    assert torch.allclose(again, out, atol=1e-9)
    assert torch.allclose(ladj, ladj_again, atol=1e-9)


def test_circles_close_where_they_were_cut():
    core = trained(SPEC).core
    w = torch.zeros(2, 60, dtype=torch.float64)
    ends = torch.tensor([-math.pi, math.pi - 1e-9], dtype=torch.float64)
    with torch.no_grad():
        for k in range(49, 60):
            z = w.clone()
            z[:, k] = ends
            out, ladj = core(z)
            apart = torch.cat([out[0, :49] - out[1, :49], wrap(out[0, 49:] - out[1, 49:])])
            assert float(apart.abs().max()) < 1e-6
            assert float((ladj[0] - ladj[1]).abs()) < 1e-6


def test_gradients_reach_every_weight_both_ways():
    flow = trained(SPEC)
    x = frames(4)
    for run in (flow.forward, flow.inverse):
        flow.zero_grad()
        y, log_det = run(x)
        ((y**2).sum() - log_det.sum()).backward()
        for name, weights in flow.named_parameters():
            assert weights.grad is not None, name
            assert bool(torch.isfinite(weights.grad).all()), name
            assert float(weights.grad.abs().sum()) > 0, name


def test_a_seed_is_a_flow_and_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = (build_flow(SPEC, dipeptide()) for _ in range(2))
    other = build_flow(SPEC.model_copy(update={"seed": 1}), dipeptide())
    assert torch.equal(before, torch.get_rng_state())
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    first = "core.couplings.0.network.0.weight"
    assert not torch.equal(one.state_dict()[first], other.state_dict()[first])


def test_a_state_dict_brings_its_halves_along():
    flow = trained(SPEC)
    again = build_flow(SPEC.model_copy(update={"seed": 9}), dipeptide(), torch.float64)
    again.load_state_dict(flow.state_dict())
    x = frames(4)
    assert torch.equal(again(x)[0], flow(x)[0])


def test_without_zuko_the_remedy_is_named(monkeypatch):

    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match="transport"):
        SplineCore(dipeptide(), SPEC)
