"""The autoregressive transformer: laws, causality, its cache, its start."""

from __future__ import annotations

import pytest
import torch

from mlff_cli.core.errors import DataError
from mlff_cli.flows.build import build_flow
from mlff_cli.flows.spec import FlowSpec
from tests.flows.dipeptide import dipeptide, frames
from tests.flows.laws import check_float32, check_flow, check_identity, jacobian_of

SPEC = FlowSpec(kind="tarflow", layers=2, embedding=16, heads=2, blocks=2)


def trained(dtype: torch.dtype = torch.float64, size: float = 0.1, spec: FlowSpec = SPEC):
    """A flow whose layers end in random weights, as after training."""
    flow = build_flow(spec, dipeptide(), dtype)
    flow.fit(frames(200), frames(200, heat=1.5, seed=1))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in flow.layers:
            for weights in layer.write.parameters():
                noise = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
                weights.copy_(size * noise)
    return flow


def test_a_trained_flow_obeys_the_laws():
    check_flow(trained(), dipeptide(), frames(4, seed=2))


def test_single_precision_comes_back():
    check_float32(trained(torch.float32, 0.03), frames(64, seed=3, dtype=torch.float32))


def test_it_starts_as_the_naive_swap():
    flow = build_flow(SPEC, dipeptide(), torch.float64)
    flow.fit(frames(50), frames(50, heat=1.5, seed=1))
    check_identity(flow, frames(16, heat=3.0, seed=4))


def test_an_atom_is_moved_by_those_before_it_and_the_first_one_too():
    layer = trained().layers[0]
    z = torch.randn(63, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = z * layer.used.flatten()
    after, jacobian = jacobian_of(lambda z: layer(z.view(-1, 21, 3))[0].flatten(1), z)
    by_atom = jacobian.view(21, 3, 21, 3).abs().amax((1, 3))
    assert float(by_atom.triu(1).max()) == 0
    assert bool((by_atom.tril(-1)[2:, :2].sum(1) > 0).all())
    used = layer.used.flatten()
    assert bool((after[used] != z[used]).all())
    assert torch.equal(after[~used], z[~used])


@pytest.mark.parametrize("k", [0, 1])
def test_the_cached_inverse_is_the_plain_one(k):
    layer = trained().layers[k]
    z = torch.randn(4, 21, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = z * layer.used
    with torch.no_grad():
        cached, plain = layer.inverse(z), layer.inverse(z, cached=False)
        there, ladj = layer(cached[0])
    for one, other in zip(cached, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    assert torch.allclose(there, z, atol=1e-10)
    assert torch.allclose(ladj + cached[1], torch.zeros_like(ladj), atol=1e-10)


def test_gradients_are_the_same_through_the_cache():
    layer = trained().layers[1]
    z = torch.randn(2, 21, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = z * layer.used
    found = []
    for cached in (True, False):
        layer.zero_grad()
        x, ladj = layer.inverse(z, cached=cached)
        ((x**2).sum() - ladj.sum()).backward()
        found.append([weights.grad.clone() for weights in layer.parameters()])
    assert all(torch.allclose(*pair, atol=1e-9) for pair in zip(*found, strict=True))
    assert all(float(gradient.abs().sum()) > 0 for gradient in found[0])


def test_scales_are_bounded_whatever_the_weights():
    spec = SPEC.model_copy(update={"max_log_scale": 0.5, "layers": 1})
    flow = trained(size=100.0, spec=spec)
    z = frames(4)
    v, _ = flow.frame(z)
    with torch.no_grad():
        _, ladj = flow.layers[0](flow._atoms(v))
    assert float(ladj.abs().max()) <= 60 * 0.5 + 1e-9


def test_a_training_step_is_the_same_in_train_and_eval_mode():
    flow, x = trained(), frames(4)
    with torch.no_grad():
        train, evaluated = flow.train()(x)[0], flow.eval()(x)[0]
    assert torch.equal(train, evaluated)


def test_constrained_bonds_are_refused():
    flow = build_flow(SPEC, dipeptide(), torch.float64)
    with pytest.raises(DataError, match=r"must fluctuate(.|\n)*--constraints none"):
        flow.fit(*[frames(1).expand(4, -1, -1)] * 2)
