"""Loss and errors of force matching, over the real beads of ragged batches.

    L = gamma_F MSE(F) + gamma_U MSE(U)
    MSE(F) = 1/(3n) sum_i |F_i - F'_i|^2  (n real beads of the batch),    MSE(U) over its frames

(Noid et al., J. Chem. Phys. 128, 244114, 2008). Every component of every bead counts alike,
whatever its molecule. Reported beside it, of forces:

    F_rmse = sqrt(MSE(F)),    F_relative = F_rmse / RMS(F')

F_relative has a floor above zero: atoms that beads do not show scatter the forces about their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.distributed import World
from mlff_cli.training.loss_errors import MolecularError
from mlff_cli.training.losses import LossValue, MultiTaskLoss, Term
from mlff_cli.training.metrics import merged

FORCE_UNIT, ENERGY_UNIT = "kcal/mol/A", "kcal/mol"
SEVERAL = 16  # molecules up to which each has errors of its own
CONSTANT = 1e-13  # labels whose relative spread is smaller are all the same: they have no R2


class ForceMatchingLoss(MultiTaskLoss):
    """gamma_F MSE(F) + gamma_U MSE(U); sums and counts are those of components and of frames.

    Args:
        gamma_f: weight of forces.
        gamma_u: weight of energies.

    Raises:
        ConfigError: neither is above zero.
    """

    def __init__(self, gamma_f: float, gamma_u: float = 0.0) -> None:
        weights = {"forces": gamma_f, "energy": gamma_u}
        if not any(weights.values()):
            raise ConfigError(
                "the loss has no component with a positive weight",
                remedy="set training.gamma_F=1",
            )
        super().__init__([Term(n, MolecularError(n), w) for n, w in weights.items()])
        active = [weights[name] for name in self.names]
        self.shares = torch.tensor(active, dtype=torch.float64)  # as they are, not scaled to 1

    def objective(self, sums: Tensor, counts: Tensor, whole: Tensor) -> Tensor:
        """Sum of gamma_c sums_c / whole_c (see `MultiTaskLoss`)."""
        return (self.shares * sums / whole.clamp(min=1)).sum()

    def forward(
        self,
        predicted: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        whole: Tensor | None = None,
    ) -> LossValue:
        """Loss of predictions (B, N, 3) and (B,) against a batch (see `MultiTaskLoss`)."""
        sums = []
        for name in self.names:
            if name in predicted:
                real = _real(name, batch)
                error = torch.where(real, predicted[name] - batch[name], 0.0)
                sums.append(error.square().sum(dtype=torch.float64))
            else:
                sums.append(torch.zeros((), dtype=torch.float64, device=batch["n_atoms"].device))
        stacked, counts = torch.stack(sums), self.counts([batch])
        total = self.objective(stacked, counts, counts if whole is None else whole)
        return LossValue(total, stacked.detach(), counts)

    def counts(self, batches: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """(C,) components of forces and energies that several batches hold together."""
        per_batch = [torch.stack([_count(name, b) for name in self.names]) for b in batches]
        return torch.stack(per_batch).sum(dim=0)


def _count(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    mask = batch[f"{name}_mask"]
    return 3 * (batch["n_atoms"] * mask).sum() if name == "forces" else mask.sum()


def _real(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Which values of a label count, broadcast to its shape."""
    mask = batch[f"{name}_mask"]
    if name != "forces":
        return mask
    places = torch.arange(batch["forces"].shape[1], device=mask.device)
    return ((places < batch["n_atoms"][:, None]) & mask[:, None])[..., None]  # [b, i, 1]


class ForceMetrics:
    """Errors of forces and energies, in total and, of a few molecules, of each.

    Args:
        molecules: names, by the batches' `molecule`.
        device: where the batches are.
        energies: whether energies are measured.

    Attributes:
        units: see `task.Metrics`.
    """

    def __init__(
        self, molecules: Sequence[str], device: torch.device, *, energies: bool = False
    ) -> None:
        several = 1 < len(molecules) <= SEVERAL
        self._names = ("", *(f"{name}/" for name in molecules)) if several else ("",)
        self._labels = {"forces": ("F", FORCE_UNIT)}
        if energies:
            self._labels["energy"] = ("E", ENERGY_UNIT)
        rows = len(molecules) if several else 1
        shape = (rows, len(self._labels), 5)  # [molecule, label, n |e| e^2 mean M2]
        self._sums = torch.zeros(shape, dtype=torch.float64, device=device)
        self.units: dict[str, str] = {}
        for prefix in self._names:
            for abbr, unit in self._labels.values():
                own = {"mae": unit, "rmse": unit, "relative": "", "r2": ""}
                kinds = own if not prefix else {"rmse": unit, "relative": ""}
                if abbr == "E":
                    kinds = {k: u for k, u in kinds.items() if k != "relative"}
                self.units |= {f"{prefix}{abbr}_{kind}": u for kind, u in kinds.items()}

    @torch.no_grad()
    def update(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a batch (see `task.Metrics`)."""
        rows = len(self._sums)
        of = batch["molecule"] if rows > 1 else torch.zeros_like(batch["molecule"])
        added = torch.zeros_like(self._sums)
        for q, label in enumerate(self._labels):
            if label not in predicted:
                continue
            y, t = predicted[label].detach().double(), batch[label].double()
            real = _real(label, batch).expand(y.shape)
            e, t = (y - t).masked_fill(~real, 0.0), t.masked_fill(~real, 0.0)
            values = torch.stack([real.double(), e.abs(), e.square(), t])  # [s, b, ...]
            per_frame = values.flatten(2).sum(-1) if values.dim() > 2 else values  # [s, b]
            sums = added.new_zeros(rows, 4).index_add_(0, of, per_frame.T)
            mean = sums[:, 3] / sums[:, 0].clamp(min=1)  # [k]
            centre = mean[of].reshape(-1, *[1] * (t.dim() - 1))
            square = (t - centre).masked_fill(~real, 0.0).square()
            square = square.flatten(1).sum(-1) if square.dim() > 1 else square
            m2 = added.new_zeros(rows).index_add_(0, of, square)
            added[:, q] = torch.cat([sums[:, :3], mean[:, None], m2[:, None]], dim=1)
        self._sums = merged(torch.stack([self._sums, added]))

    def reduce(self, world: World) -> None:
        """Take in what the other processes saw (see `task.Metrics`)."""
        if world.size > 1:
            stacked = self._sums.new_zeros(world.size, *self._sums.shape)
            stacked[world.rank] = self._sums
            self._sums = merged(world.sum_(stacked))

    def compute(self) -> dict[str, float]:
        """All errors that have data: `F_rmse`, `chignolin/F_rmse`, ...; waits for the device."""
        sums = self._sums.cpu()
        sets = [merged(sums), *(sums if len(self._names) > 1 else ())]
        found: dict[str, float] = {}
        for prefix, own in zip(self._names, sets, strict=True):
            for (abbr, _), row in zip(self._labels.values(), own.tolist(), strict=True):
                values = {f"{prefix}{abbr}_{kind}": v for kind, v in _errors(row).items()}
                found |= {name: v for name, v in values.items() if name in self.units}
        return found

    def state(self) -> Tensor:
        """What was accumulated (see `task.Metrics`)."""
        return self._sums.clone()

    def load(self, state: Tensor) -> None:
        """Continue from `state`."""
        self._sums = state.to(self._sums).reshape(self._sums.shape).clone()

    def merge(self, states: Tensor) -> Tensor:
        """The state of all data of several states (R, ...)."""
        return merged(states)


def _errors(sums: Sequence[float]) -> dict[str, float]:
    """Errors from n, sum |e|, sum e^2, mean of the labels, and their summed squared deviation."""
    n, absolute, square, mean, m2 = sums
    if n == 0:
        return {}
    found = {"mae": absolute / n, "rmse": math.sqrt(square / n)}
    reference = m2 + n * mean * mean
    if reference > 0:
        found["relative"] = math.sqrt(square / reference)
    if m2 > n * (CONSTANT * mean) * (CONSTANT * mean):
        found["r2"] = 1.0 - square / m2
    return found
