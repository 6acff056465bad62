"""Works of a map on frames of both of its ensembles, and what follows from them.

The formulas are those of `physics.reweighting`. Frames of a run are correlated: errors count as
many independent samples as the statistical inefficiency of the works themselves leaves, which is
far smaller than that of the slow dihedrals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlff_cli.flows.flow import Flow
from mlff_cli.physics.bennett import bennett, one_sided
from mlff_cli.physics.ensembles.decorrelation import statistical_inefficiency
from mlff_cli.physics.replica_exchange import K_B
from mlff_cli.physics.reweighting import (
    Estimate,
    acceptance,
    effective_share,
    excess_nats,
    forward_work,
    log_normal_acceptance,
    normalised_weights,
)

BATCH = 1024  # conformations that a flow is given at a time

Energy = Callable[[Tensor], Tensor]  # (B, N, 3) nm -> (B,) kJ/mol


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Frames of one temperature.

    Attributes:
        kelvin: their temperature.
        positions: (n, N, 3) nm, series after series.
        lengths: frames of each series.
        energy: (n,) potential energy, kJ/mol.
    """

    kelvin: float
    positions: np.ndarray
    lengths: tuple[int, ...]
    energy: np.ndarray

    @property
    def beta(self) -> float:
        """1 / (k_B T), mol/kJ."""
        return 1 / (K_B * self.kelvin)


@dataclass(frozen=True, eq=False)
class Carried:
    """An ensemble behind a map.

    Attributes:
        positions: (n, N, 3) nm.
        energy: (n,) kJ/mol, as the engine told it.
        log_det: (n,).
        work: (n,) reduced; +inf where there is no energy.
        round_trip: nm, largest change of a distance between two atoms when carried there and back.
        inefficiency: of the works, in frames.
    """

    positions: np.ndarray
    energy: np.ndarray
    log_det: np.ndarray
    work: np.ndarray
    round_trip: float
    inefficiency: float

    @property
    def independent(self) -> float:
        """Independent samples among the works."""
        return len(self.work) / self.inefficiency


@dataclass(frozen=True, eq=False)
class MapWorks:
    """Both ensembles behind a map and its inverse."""

    forward: Carried
    reverse: Carried

    @property
    def _independent(self) -> tuple[float, float]:
        return self.forward.independent, self.reverse.independent

    @property
    def acceptance(self) -> Estimate:
        """Of a mapped replica-exchange swap."""
        return acceptance(self.forward.work, self.reverse.work, self._independent)

    @property
    def excess(self) -> Estimate:
        """KL divergences of both directions together, nats."""
        return excess_nats(self.forward.work, self.reverse.work, self._independent)

    @property
    def effective(self) -> tuple[float, float]:
        """ESS / n of both directions."""
        return effective_share(self.forward.work), effective_share(self.reverse.work)

    @property
    def log_normal(self) -> tuple[float, float]:
        """The acceptance that log-normal weights with these ESS would have."""
        forward, reverse = self.effective
        return log_normal_acceptance(forward), log_normal_acceptance(reverse)

    @property
    def free_energy(self) -> Estimate:
        """Reduced difference dF by Bennett's method."""
        return bennett(self.forward.work, self.reverse.work, self._independent)

    @property
    def one_sided(self) -> tuple[Estimate, Estimate]:
        """Reduced dF of the forward works alone, and of the reverse ones."""
        forward = one_sided(self.forward.work, self.forward.independent)
        reverse = one_sided(self.reverse.work, self.reverse.independent)
        return forward, Estimate(-reverse.value, reverse.error)

    def reweighted(self, values: np.ndarray, *, inverse: bool = False) -> float:
        """Mean of values (n,) of carried frames, with the weights of the ensemble they came to."""
        return float(normalised_weights((self.reverse if inverse else self.forward).work) @ values)


def works(
    flow: Flow,
    source: Ensemble,
    target: Ensemble,
    energy: Energy,
    advance: Callable[[int], None] = lambda n: None,
) -> MapWorks:
    """Carry both ensembles.

    Args:
        flow: the map, in evaluation mode.
        source: where it comes from.
        target: where it leads to.
        energy: of any conformations; not finite where there is none.
        advance: told how many frames were carried.
    """
    return MapWorks(
        _carried(flow, False, source, target.beta, energy, advance),
        _carried(flow, True, target, source.beta, energy, advance),
    )


def energies(positions: np.ndarray, energy: Energy) -> np.ndarray:
    """(n,) kJ/mol of positions (n, N, 3) in nm."""
    parts = [
        energy(torch.as_tensor(positions[k : k + BATCH], dtype=torch.float64)).cpu().double()
        for k in range(0, len(positions), BATCH)
    ]
    return np.asarray(torch.cat(parts).numpy())


def _carried(
    flow: Flow,
    inverse: bool,
    frames: Ensemble,
    beta: float,
    energy: Energy,
    advance: Callable[[int], None],
) -> Carried:
    there, back = (flow.inverse, flow) if inverse else (flow, flow.inverse)
    dtype, device = _kind(flow)
    moved: list[np.ndarray] = []
    u: list[np.ndarray] = []
    dets: list[np.ndarray] = []
    worst = 0.0
    with torch.no_grad():
        for k in range(0, len(frames.positions), BATCH):
            x = torch.as_tensor(frames.positions[k : k + BATCH], dtype=dtype, device=device)
            y, log_det = there(x)
            again, _ = back(y)
            change = float((torch.cdist(again, again) - torch.cdist(x, x)).abs().max())
            worst = max(worst, change if np.isfinite(change) else float("inf"))
            moved.append(y.cpu().double().numpy())
            u.append(energy(y).cpu().double().numpy())
            dets.append(log_det.cpu().double().numpy())
            advance(len(x))
    energy_there, log_det_there = np.concatenate(u), np.concatenate(dets)
    work = forward_work(frames.energy, energy_there, log_det_there, frames.beta, beta)
    return Carried(
        np.concatenate(moved),
        energy_there,
        log_det_there,
        work,
        worst,
        _inefficiency(work, frames.lengths),
    )


def _kind(flow: Flow) -> tuple[torch.dtype, torch.device]:
    for t in (*flow.parameters(), *flow.buffers()):
        if t.is_floating_point():
            return t.dtype, t.device
    return torch.float64, torch.device("cpu")


def _inefficiency(work: np.ndarray, lengths: Sequence[int]) -> float:
    """G of tanh(w - median): an outlier cannot spoil it, and an infinite work has a value."""
    finite = np.isfinite(work)
    if not finite.any():
        return 1.0
    bounded = np.tanh(work - np.median(work[finite]))
    return statistical_inefficiency(np.split(bounded, np.cumsum(lengths)[:-1]))
