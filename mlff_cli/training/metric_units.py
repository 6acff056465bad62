"""Units that errors are reported in, by label."""

from __future__ import annotations

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import FIELDS, LABELS
from mlff_cli.core.units import DEBYE, KCAL_MOL, KJ_MOL
from mlff_cli.training.settings_loss import EnergyUnit, MetricOptions

_ENERGY: dict[str, float] = {"eV": 1.0, "meV": 1e3, "kcal/mol": 1 / KCAL_MOL, "kJ/mol": 1 / KJ_MOL}
UNITS: dict[str, dict[str, float]] = {  # by label: factor from the vocabulary's unit
    **{label: {FIELDS[label].unit: 1.0} for label in LABELS},
    "energy": _ENERGY,
    "forces": {f"{unit}/A": scale for unit, scale in _ENERGY.items()},
    "dipole": {"e*angstrom": 1.0, "D": 1 / DEBYE},
    "quadrupole": {"e*angstrom^2": 1.0, "D*angstrom": 1 / DEBYE},
}
SCALE_TOLERANCE = 1e-3  # relative; configurations round 23.0605 to 23.06


def scale_and_unit(
    label: str, option: MetricOptions, energy_unit: EnergyUnit = "kcal/mol"
) -> tuple[float, str]:
    """Factor from our unit to the reported one, and its name.

    Args:
        label: what is reported.
        option: how.
        energy_unit: of energies, and of forces by angstrom, where `option` names none.

    Raises:
        ConfigError: unit unknown, or scale and unit contradict each other.
    """
    known, per = UNITS[label], "/A" if label == "forces" else ""
    usual = energy_unit + per if label in ("energy", "forces") else FIELDS[label].unit
    unit = option.unit
    if unit is not None and unit not in known and unit + per in known:
        unit += per  # forces by angstrom, written without it
    if unit is not None and unit not in known:
        raise ConfigError(
            f"metrics.kwargs.cfg.{label}.unit must be one of {sorted(known)}, found {unit!r}"
        )
    if option.scale is None:
        return known[unit or usual], unit or usual
    close = [u for u, s in known.items() if abs(option.scale / s - 1) < SCALE_TOLERANCE]
    if unit is not None and unit not in close:
        raise ConfigError(
            f"metrics.kwargs.cfg.{label}: scale {option.scale} contradicts unit {unit!r}",
            remedy="leave out one of them",
        )
    own = FIELDS[label].unit.replace("angstrom", "A") if per else FIELDS[label].unit
    return option.scale, close[0] if close else f"{own}/{option.scale:g}"
