"""Units of trajectories, by the names that files give them, in ours: angstrom, kcal/mol, ps.

1 kJ mol-1 nm-1 = 1 / 41.84 kcal/mol/angstrom
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from mlff_cli.core import units
from mlff_cli.core.errors import DataError

NM = 10.0  # angstrom
KJ_MOL = 1.0 / units.KJ_PER_KCAL  # kcal/mol
KJ_MOL_NM = KJ_MOL / NM  # kcal/mol/angstrom
_LENGTHS = {"a": 1.0, "ang": 1.0, "angstrom": 1.0, "angstroms": 1.0, "å": 1.0, "nm": NM,
            "nanometer": NM, "nanometers": NM, "pm": 0.01, "bohr": units.BOHR}  # fmt: skip
_ENERGIES = {
    "kcal/mol": 1.0,
    "kj/mol": KJ_MOL,
    "ev": 1.0 / units.KCAL_MOL,
    "hartree": units.HARTREE / units.KCAL_MOL,
}
SCALES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "length": _LENGTHS,
        "energy": _ENERGIES,
        "temperature": {"k": 1.0},
        "time": {"fs": 1e-3, "ps": 1.0, "ns": 1e3},
        "force": {f"{e}/{x}": a / b for e, a in _ENERGIES.items() for x, b in _LENGTHS.items()},
    }
)


def scale(quantity: str, name: str, where: str) -> float:
    """What a unit is worth in ours.

    >>> round(1 / scale("force", "kJ mol-1 nm-1", ""), 9)
    41.84
    >>> scale("length", "Angstrom", "")
    1.0

    Args:
        quantity: "length", "energy", "force", "temperature" or "time".
        name: as a file has it: "kJ mol-1 nm-1", "kcal/mol/A", "nm", ...
        where: file and array, for the message.

    Raises:
        DataError: nobody knows the unit.
    """
    found = SCALES[quantity].get(_plain(name))
    if found is None:
        raise DataError(
            f"unknown unit of {quantity} {name!r}",
            where=where,
            remedy=f"convert the values and name one of {', '.join(SCALES[quantity])}",
        )
    return found


def _plain(name: str) -> str:
    """One spelling of a unit: lower case, divisors behind a slash."""
    text = name.strip().lower().replace("*", " ").replace("·", " ").replace("ångström", "angstrom")
    text = re.sub(r"\s*/\s*", "/", text).replace("(", "").replace(")", "")
    text = re.sub(r"\s+(\w+?)\^?-1\b", r"/\1", text)  # kJ mol-1 nm-1
    text = re.sub(r"\s+", "/", text)
    return text.replace("kilocalorie", "kcal").replace("kilojoule", "kj").replace("mole", "mol")
