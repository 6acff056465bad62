"""What a flow between two canonical ensembles minimises.

f carries the source (inverse temperature beta_s) to the target (beta_t):

    L_fwd = < beta_t U(f(x)) - ln|det df/dx| >          x ~ exp(-beta_s U)
    L_inv = < beta_s U(f^-1(y)) - ln|det df^-1/dy| >    y ~ exp(-beta_t U)

Up to constants L_fwd is KL(f p_s || p_t), the training on energies, and L_inv is KL(p_t || f p_s),
the negative log-likelihood of the target's samples: both together are maximum likelihood in both
directions (Noe, Olsson, Koehler, Wu, Science 365, eaaw1147, 2019). The constants cancel in

    excess = L_fwd + L_inv - (beta_s <U>_s + beta_t <U>_t)
           = KL(f p_s || p_t) + KL(p_t || f p_s) >= 0

in nats, where all samples count with their raw energies. An optional symmetric term

    L_sym = ( <ln|det df/dx|>_s + <ln|det df^-1/dy|>_t )^2

vanishes for the perfect flow, whose two volume changes are each other's negative on average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mlff_cli.flows.gating import Gate

Map = Callable[[Tensor], tuple[Tensor, Tensor]]  # (B, N, 3) nm -> (B, N, 3) nm and log-det (B,)
Energy = Callable[[Tensor], Tensor]  # (B, N, 3) nm -> (B,) kJ/mol; +inf where it failed


@dataclass(frozen=True)
class Transported:
    """Samples behind a map.

    Attributes:
        U: (B,) raw energies, kJ/mol; +inf where the map or the energy failed.
        log_det: (B,) ln|det J|; NaN where the map failed.
    """

    U: Tensor
    log_det: Tensor


def transport(mapping: Map, x: Tensor, energy: Energy) -> Transported:
    """Carry samples over and evaluate them there.

    Samples that the map makes something infinite of are carried again without: a zero that meets
    an infinite derivative in the backward pass would make every gradient NaN.

    Args:
        mapping: f, or its inverse.
        x: (B, N, 3) nm.
        energy: of (B, N, 3), differentiable.
    """
    y, log_det = mapping(x)
    if x.device.type == "meta":  # an estimate of memory: there is nothing to look at
        return Transported(y.flatten(1).sum(1), log_det)
    good = torch.isfinite(y).flatten(1).all(1) & torch.isfinite(log_det)  # [i]
    if bool(good.all()):
        return Transported(energy(y), log_det)
    U = torch.full_like(log_det, torch.inf).detach()
    nowhere = torch.full_like(log_det, torch.nan).detach()
    if not bool(good.any()):
        return Transported(U, nowhere)
    y, log_det = mapping(x[good])
    rows = (good,)
    return Transported(U.index_put(rows, energy(y)), nowhere.index_put(rows, log_det))


def loss_terms(
    found: Transported, beta: float, gate: Gate | None, E_max: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Energy and volume (B,) of every sample, whose mean difference is the loss of a direction.

    Args:
        found: samples behind the map.
        beta: inverse temperature there, mol/kJ.
        gate: what of them counts; None: all as they are.
        E_max: threshold of the gate in force, kJ/mol.
    """
    if gate is None:
        return beta * found.U, found.log_det
    return gate.terms(found.U, found.log_det, beta, E_max)
