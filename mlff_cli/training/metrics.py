"""Regression errors over whole sets, in total and per fidelity, exact whatever the batches.

    MAE = 1/n sum |y - y'|     RMSE = sqrt(1/n sum (y - y')^2)     R2 = 1 - sum (y - y')^2 / M2
    M2 = sum (y' - mean y')^2

n counts values: one per molecule for energies, one per atom for charges, three per atom for forces.
M2 never is a difference of large sums: sets r are merged as (Chan, Golub, LeVeque 1983)

    n = sum_r n_r     mean = sum_r n_r mean_r / n     M2 = sum_r [M2_r + n_r (mean_r - mean)^2]
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import FIELDS, LABELS
from mlff_cli.training.allowlist import Allowlist
from mlff_cli.training.distributed import World
from mlff_cli.training.metric_units import scale_and_unit
from mlff_cli.training.settings_loss import MetricOptions, MetricsSection

KINDS = Allowlist(
    "metrics.class", ("aimnet2mult.train.metrics", "aimnet.train.metrics"), {"RegMultiMetric": 0}
)
_N, _ABS, _SQ, _MEAN, _M2 = range(5)
CONSTANT = 1e-13  # labels whose relative spread is smaller are all the same: they have no R2


@dataclass(frozen=True)
class Quantity:
    """One measured quantity.

    Attributes:
        label: the label it is about.
        name: beginning of its metrics' names.
        kinds: of metrics: mae, rmse, r2.
        scale: from our unit to the reported one.
        unit: the reported one.
        by_atoms: whether the label is divided by the molecule's number of atoms.
    """

    label: str
    name: str
    kinds: tuple[str, ...]
    scale: float
    unit: str
    by_atoms: bool = False


def quantities(options: Mapping[str, MetricOptions]) -> list[Quantity]:
    """What is measured: every label, and the energy per atom.

    Raises:
        ConfigError: a unit is unknown, or scale and unit contradict each other.
    """
    found = []
    for label, option in options.items():
        scale, unit = scale_and_unit(label, option)
        found.append(Quantity(label, option.abbr, ("mae", "rmse", "r2"), scale, unit))
        if label == "energy":
            name = f"{option.abbr}_per_atom"
            found.append(Quantity(label, name, ("mae", "rmse"), scale, f"{unit}/atom", True))
    return found


class RegressionMetrics:
    """Accumulates errors on the device, without waiting for it, and computes at the end.

    Args:
        options: label -> how to report it.
        n_fidelities: K.
        device: where the batches are.
        having: label -> fidelities that have it, to name no metric that can have no data; None:
            all have all.

    Attributes:
        units: unit of every metric's name ("" for R2), in the order of columns.

    Raises:
        ConfigError: a unit is unknown, or scale and unit contradict each other.
    """

    def __init__(
        self,
        options: Mapping[str, MetricOptions],
        n_fidelities: int,
        device: torch.device,
        having: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        self._quantities = quantities(options)
        self._prefixes = ("", *(f"fid{k}/" for k in range(n_fidelities)))
        shape = (n_fidelities, len(self._quantities), 5)  # [k, q, n |e| e^2 mean M2]
        self._sums = torch.zeros(shape, dtype=torch.float64, device=device)
        self.units: dict[str, str] = {}
        for q in self._quantities:
            of = range(n_fidelities) if having is None else having.get(q.label, ())
            for prefix in ("", *(f"fid{k}/" for k in sorted(of))) if of else ():
                for kind in q.kinds:
                    self.units[f"{prefix}{q.name}_{kind}"] = "" if kind == "r2" else q.unit

    @torch.no_grad()
    def update(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            predicted: by label (B, ...); what nobody in the batch has a label of may be absent.
            batch: labels, masks, n_atoms and fidelity.
        """
        if not self._quantities:
            return
        n_atoms, fidelity = batch["n_atoms"], batch["fidelity"]
        columns = [_columns(q, predicted, batch, n_atoms) for q in self._quantities]
        widths = [values.shape[1] for values, _, _ in columns]
        y, t, real = (torch.cat(parts, dim=1) for parts in zip(*columns, strict=True))  # [b, v]
        e, t = (y - t).masked_fill(~real, 0.0), t.masked_fill(~real, 0.0)

        def by_fidelity(values: Tensor) -> Tensor:
            """Sums (K, Q, S) of values (S, B, V) over molecules and each quantity's columns."""
            parts = torch.split(values, widths, dim=2)
            per_molecule = torch.stack([p.sum(dim=2) for p in parts], dim=2)  # [s, b, q]
            out = self._sums.new_zeros(len(self._sums), len(widths), len(values))
            return out.index_add_(0, fidelity, per_molecule.permute(1, 2, 0))

        sums = by_fidelity(torch.stack([real.to(e.dtype), e.abs(), e.square(), t]))  # [k, q, 4]
        mean = sums[..., 3:] / sums[..., :1].clamp(min=1)  # [k, q, 1]
        of_molecule = mean[fidelity]  # [b, q, 1]
        centre = torch.cat([of_molecule[:, i].expand(-1, w) for i, w in enumerate(widths)], dim=1)
        m2 = by_fidelity((t - centre).masked_fill(~real, 0.0).square()[None])  # [k, q, 1]
        added = torch.cat([sums[..., :3], mean, m2], dim=-1)
        self._sums = merged(torch.stack([self._sums, added]))

    def reduce(self, world: World) -> None:
        """Take in what the other processes saw; all must call it, and only `compute` follows."""
        if world.size > 1:
            stacked = self._sums.new_zeros(world.size, *self._sums.shape)
            stacked[world.rank] = self._sums
            self._sums = merged(world.sum_(stacked))

    def compute(self) -> dict[str, float]:
        """All metrics that have data: `E_rmse`, `fid0/E_rmse`, ...; waits for the device."""
        sums = self._sums.cpu()
        sets = torch.cat([merged(sums)[None], sums]).tolist()  # [1 + k, q, 5]
        result: dict[str, float] = {}
        for i, q in enumerate(self._quantities):
            for prefix, of in zip(self._prefixes, sets, strict=True):
                values = _errors(of[i], q.scale)
                names = {kind: f"{prefix}{q.name}_{kind}" for kind in q.kinds}
                result |= {
                    name: values[kind]
                    for kind, name in names.items()
                    if kind in values and name in self.units
                }
        return result

    def state(self) -> Tensor:
        """What was accumulated, to continue from; those of several processes merge (`merged`)."""
        return self._sums.clone()

    def load(self, state: Tensor) -> None:
        """Continue from `state`."""
        self._sums = state.to(self._sums).reshape(self._sums.shape).clone()

    def merge(self, states: Tensor) -> Tensor:
        """The state of all data of several states (R, ...)."""
        return merged(states)


def merged(stacked: Tensor) -> Tensor:
    """Sums of the union of disjoint sets (R, ..., 5) -> (..., 5)."""
    n = stacked[..., _N]
    count = n.sum(dim=0)
    mean = (n * stacked[..., _MEAN]).sum(dim=0) / count.clamp(min=1)
    m2 = (stacked[..., _M2] + n * (stacked[..., _MEAN] - mean).square()).sum(dim=0)
    errors = stacked[..., _ABS : _SQ + 1].sum(dim=0)
    return torch.cat([count[..., None], errors, mean[..., None], m2[..., None]], dim=-1)


def _columns(
    q: Quantity, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor], n_atoms: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, labels and whether they count, each (B, V)."""
    b = len(n_atoms)
    if q.label not in predicted or q.label not in batch:
        nothing = torch.zeros(b, 1, dtype=torch.float64, device=n_atoms.device)
        return nothing, nothing, nothing > 0
    y = predicted[q.label].detach().reshape(b, -1)
    t = batch[q.label].reshape(b, -1)
    real = batch[f"{q.label}_mask"][:, None]
    if "N" in FIELDS[q.label].dims:
        width = math.prod(int(d) for d in FIELDS[q.label].dims if d != "N")
        real = real & (torch.arange(y.shape[1], device=y.device) < width * n_atoms[:, None])
    if q.by_atoms:
        y, t = y / n_atoms[:, None], t / n_atoms[:, None]
    return y.double(), t.double(), real.expand(y.shape)


def _errors(sums: list[float], scale: float) -> dict[str, float]:
    """MAE, RMSE and R2 from accumulated sums; nothing when there is no data."""
    n, absolute, square, mean, m2 = sums
    if n == 0:
        return {}
    errors = {"mae": scale * absolute / n, "rmse": scale * math.sqrt(square / n)}
    if m2 > n * (CONSTANT * mean) * (CONSTANT * mean):  # ** would raise where * overflows
        errors["r2"] = 1.0 - square / m2
    return errors


def check_metrics(section: MetricsSection) -> dict[str, MetricOptions]:
    """The labels to measure, each with its unit.

    Raises:
        ConfigError: unknown class, label or unit, a shape that is not the label's, or two labels
            of one abbreviation.
    """
    KINDS.find(section.class_)
    checked: dict[str, MetricOptions] = {}
    for label, option in section.kwargs.cfg.items():
        if label not in LABELS:
            raise ConfigError(
                f"metrics.kwargs.cfg: {label!r} is no label",
                remedy=f"use one of {', '.join(LABELS)}",
            )
        dims = FIELDS[label].dims
        values = math.prod(int(d) for d in dims if d != "N")  # per atom, or per molecule
        for name, known in (("peratom", "N" in dims), ("mult", values)):
            if getattr(option, name) not in (None, known):
                raise ConfigError(
                    f"metrics.kwargs.cfg.{label}.{name} is {known} for this label, "
                    f"found {getattr(option, name)}",
                    remedy="leave it out",
                )
        same = next((n for n, o in checked.items() if o.abbr == option.abbr), None)
        if same:
            raise ConfigError(
                f"metrics.kwargs.cfg: {same} and {label} have the same abbr {option.abbr!r}",
                remedy=f"set metrics.kwargs.cfg.{label}.abbr to another one",
            )
        unit = scale_and_unit(label, option, section.kwargs.unit)[1]
        named = unit if option.scale is None else option.unit
        checked[label] = option.model_copy(update={"unit": named})
    return checked
