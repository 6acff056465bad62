"""Laws that hold for every flow; each kind's test calls them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlff_cli.flows.body_frame import BodyFrame
from mlff_cli.flows.flow import Flow
from mlff_cli.flows.molecule import FlowMolecule
from tests.flows.dipeptide import distances, handedness, moved


def jacobian_log_det(flow: Flow, molecule: FlowMolecule, x: Tensor, *, inverse: bool) -> Tensor:
    """ln|det| (B,) of the flow on 60 body-fixed coordinates, by autograd, volumes included."""
    frame = BodyFrame(molecule.zmatrix)
    run = flow.inverse if inverse else flow.forward
    found = []
    for one in x:
        v, ln_v = frame(one[None])
        after, jacobian = jacobian_of(lambda v: frame(run(frame.positions(v))[0])[0], v[0])
        assert jacobian.shape == (3 * molecule.n_atoms - 6,) * 2
        volume = frame.log_volume(after[None])[0] - ln_v[0]
        found.append(torch.linalg.slogdet(jacobian).logabsdet + volume)
    return torch.stack(found).detach()


def jacobian_of(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Value (m,) and Jacobian (m, n) at z (n,) of a function of batches, by one backward pass.

    The batch is z as often as there are outputs; output k is taken of copy k.
    """
    with torch.no_grad():
        m = function(z[None]).shape[1]
    batch = z.expand(m, -1).clone().requires_grad_()
    y = function(batch)
    (jacobian,) = torch.autograd.grad(y.diagonal().sum(), batch)
    return y[0].detach(), jacobian


def check_flow(flow: Flow, molecule: FlowMolecule, x: Tensor) -> None:
    """Log-determinants, both inverses, frame, hand, rigid motions; x (B, N, 3) in float64."""
    with torch.no_grad():
        y, log_det = flow(x)
        back, log_det_back = flow.inverse(y)
        other, log_det_other = flow.inverse(x)
        again, log_det_again = flow(other)
        shifted, log_det_shifted = flow(moved(x, 5))
    few = x[:2]
    assert torch.allclose(
        log_det[:2], jacobian_log_det(flow, molecule, few, inverse=False), atol=1e-8, rtol=0
    )
    assert torch.allclose(
        log_det_other[:2], jacobian_log_det(flow, molecule, few, inverse=True), atol=1e-8, rtol=0
    )
    # round trips, either way
    placed = BodyFrame(molecule.zmatrix).placed(x)
    assert torch.allclose(back, placed, atol=1e-7, rtol=0)
    assert torch.allclose(again, placed, atol=1e-7, rtol=0)
    assert torch.allclose(log_det + log_det_back, torch.zeros_like(log_det), atol=1e-6)
    assert torch.allclose(log_det_other + log_det_again, torch.zeros_like(log_det), atol=1e-6)
    # what goes in may lie anywhere, what comes out lies in the frame
    assert torch.allclose(shifted, y, atol=1e-9)
    assert torch.allclose(log_det_shifted, log_det, atol=1e-8)
    assert torch.allclose(BodyFrame(molecule.zmatrix).placed(y), y, atol=1e-10)
    assert float(y.mean(1).abs().max()) < 1e-12
    assert torch.equal(handedness(x), handedness(back))


def check_identity(flow: Flow, x: Tensor) -> None:
    """The naive swap: same distances, same hand, log-determinant zero, both ways."""
    with torch.no_grad():
        for run in (flow.forward, flow.inverse):
            y, log_det = run(x)
            assert torch.allclose(distances(y), distances(x), atol=1e-10)
            assert torch.equal(handedness(y), handedness(x))
            assert float(log_det.abs().max()) < 1e-9


def check_float32(flow: Flow, x: Tensor) -> None:
    """inverse(forward(x)) = x to 1e-5 nm in single precision; flow and x are float32."""
    with torch.no_grad():
        y, _ = flow(x)
        back, _ = flow.inverse(y)
    assert y.dtype == torch.float32
    assert float((distances(back) - distances(x)).abs().max()) < 1e-5
