"""Regression errors over whole sets, in total and per fidelity, exact whatever the batches.

    MAE = 1/n sum |y - y'|     RMSE = sqrt(1/n sum (y - y')^2)
    R2 = 1 - sum (y - y')^2 / (sum y'^2 - (sum y')^2 / n)

n counts values: one per molecule for energies, one per atom for charges, three per atom for forces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import FIELDS
from mlff_cli.core.units import KCAL_MOL, KJ_MOL
from mlff_cli.training.allowlist import Allowlist
from mlff_cli.training.distributed import World
from mlff_cli.training.settings_loss import MetricOptions, MetricsSection

ENERGY_UNITS = {"eV": 1.0, "meV": 1000.0, "kcal/mol": 1 / KCAL_MOL, "kJ/mol": 1 / KJ_MOL}
SCALE_TOLERANCE = 1e-3  # relative; configurations round 23.0605 to 23.06
KINDS = Allowlist(
    "metrics.class", ("aimnet2mult.train.metrics", "aimnet.train.metrics"), {"RegMultiMetric": 0}
)
_N, _ABS, _SQ, _TRUE, _TRUE_SQ = range(5)


class RegressionMetrics:
    """Accumulates errors on the device, without waiting for it, and computes at the end.

    Args:
        options: label -> how to report it.
        n_fidelities: K.
        device: where the batches are.

    Attributes:
        units: unit of every metric's name ("" for R2).
    """

    def __init__(
        self, options: Mapping[str, MetricOptions], n_fidelities: int, device: torch.device
    ) -> None:
        self._options = dict(options)
        self._scale: dict[str, float] = {}
        self._n_fidelities = n_fidelities
        self._sums = torch.zeros(
            len(self._options), n_fidelities, 5, dtype=torch.float64, device=device
        )
        self.units: dict[str, str] = {}
        for label, option in self._options.items():
            self._scale[label], unit = scale_and_unit(label, option)
            for prefix in ("", *(f"fid{k}/" for k in range(n_fidelities))):
                for kind, u in (("mae", unit), ("rmse", unit), ("r2", "")):
                    self.units[f"{prefix}{option.abbr}_{kind}"] = u

    @torch.no_grad()
    def update(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a batch."""
        n_atoms, fidelity = batch["n_atoms"], batch["fidelity"]
        for row, label in enumerate(self._options):
            if label not in predicted or label not in batch:
                continue
            y = (
                predicted[label].detach().double().flatten(1)
                if predicted[label].dim() > 1
                else (predicted[label].detach().double()[:, None])
            )
            t = batch[label].double().reshape(y.shape)  # [b, values]
            per_atom = "N" in FIELDS[label].dims
            width = y.shape[1] // batch["numbers"].shape[1] if per_atom else y.shape[1]
            count = n_atoms * width if per_atom else torch.full_like(n_atoms, width)
            real = torch.arange(y.shape[1], device=y.device) < count[:, None]
            real = real & batch[f"{label}_mask"][:, None]
            e = torch.where(real, y - t, 0.0)
            t = torch.where(real, t, 0.0)
            sums = torch.stack(
                [
                    real.double().sum(1),
                    e.abs().sum(1),
                    e.square().sum(1),
                    t.sum(1),
                    t.square().sum(1),
                ],
                dim=1,
            )  # [b, 5]
            self._sums[row].index_add_(0, fidelity, sums)

    def state(self) -> Tensor:
        """The sums, to continue from."""
        return self._sums.clone()

    def load(self, state: Tensor) -> None:
        """Continue from `state`."""
        self._sums.copy_(state)

    def reduce(self, world: World) -> None:
        """Sum over all processes; every one must call it."""
        world.sum_(self._sums)

    def compute(self) -> dict[str, float]:
        """All metrics that have data: `E_rmse`, `fid0/E_rmse`, ..."""
        sums = self._sums.cpu()
        result: dict[str, float] = {}
        for row, (label, option) in enumerate(self._options.items()):
            parts = {"": sums[row].sum(0)} | {
                f"fid{k}/": sums[row, k] for k in range(self._n_fidelities)
            }
            for prefix, s in parts.items():
                values = _errors([float(v) for v in s], self._scale[label])
                result |= {f"{prefix}{option.abbr}_{kind}": v for kind, v in values.items()}
        return result


def _errors(sums: list[float], scale: float) -> dict[str, float]:
    """MAE, RMSE and R2 from accumulated sums; nothing when there is no data."""
    n = sums[_N]
    if n == 0:
        return {}
    spread = sums[_TRUE_SQ] - sums[_TRUE] * sums[_TRUE] / n  # ** would raise where * overflows
    errors = {"mae": scale * sums[_ABS] / n, "rmse": scale * math.sqrt(sums[_SQ] / n)}
    if spread > 0:
        errors["r2"] = 1.0 - sums[_SQ] / spread
    return errors


def scale_and_unit(label: str, option: MetricOptions) -> tuple[float, str]:
    """Factor from our unit to the reported one, and its name.

    Raises:
        ConfigError: unit unknown, or scale and unit contradict each other.
    """
    if label not in ("energy", "forces"):
        scale = option.scale or 1.0
        return scale, FIELDS[label].unit if scale == 1.0 else f"{FIELDS[label].unit}/{scale:g}"
    per = "/A" if label == "forces" else ""
    unit = option.unit.removesuffix(per) if option.unit else None
    if unit is not None and unit not in ENERGY_UNITS:
        raise ConfigError(
            f"metrics.kwargs.cfg.{label}.unit must be one of {sorted(ENERGY_UNITS)}, found {unit!r}"
        )
    if option.scale is None:
        unit = unit or "kcal/mol"
        return ENERGY_UNITS[unit], unit + per
    close = [u for u, s in ENERGY_UNITS.items() if abs(option.scale / s - 1) < SCALE_TOLERANCE]
    if unit is not None and unit not in close:
        raise ConfigError(
            f"metrics.kwargs.cfg.{label}: scale {option.scale} contradicts unit {unit!r}",
            remedy="leave out one of them",
        )
    return option.scale, (close[0] if close else f"eV/{option.scale:g}") + per


def check_metrics(section: MetricsSection) -> dict[str, MetricOptions]:
    """The labels to measure.

    Raises:
        ConfigError: unknown class, label or unit, or a shape that is not the label's.
    """
    KINDS.find(section.class_)
    for label, option in section.kwargs.cfg.items():
        if label not in FIELDS or FIELDS[label].role != "label":
            raise ConfigError(f"metrics.kwargs.cfg: {label!r} is no label")
        dims = FIELDS[label].dims
        values = math.prod(int(d) for d in dims if d != "N")  # per atom, or per molecule
        for name, known in (("peratom", "N" in dims), ("mult", values)):
            if getattr(option, name) not in (None, known):
                raise ConfigError(
                    f"metrics.kwargs.cfg.{label}.{name} is {known} for this label, "
                    f"found {getattr(option, name)}",
                    remedy="leave it out",
                )
        scale_and_unit(label, option)
    return dict(section.kwargs.cfg)
