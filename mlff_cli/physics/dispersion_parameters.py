"""Which D3(BJ) parameters belong to which functional, and which labels hold dispersion already.

    E_disp = -1/2 sum_{i!=j} [ s6 C6/(R^6 + R0^6) + s8 C8/(R^8 + R0^8) ] + s9 E_ATM
    R0     = a1 sqrt(C8/C6) + a2

The numbers come from the table that the `dftd3` package ships. Names match exactly, with case, '-'
and '_' set aside: pbesol is another functional than pbe, so nothing is ever matched in part.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from mlff_cli.core.errors import MissingDependencyError, UsageError


@dataclass(frozen=True)
class D3Parameters:
    """Parameters of D3 with rational (Becke-Johnson) damping.

    Args:
        s6: scale of the C6 term.
        s8: scale of the C8 term.
        a1: share of sqrt(C8/C6) in the damping radius.
        a2: constant part of the damping radius (Bohr).
        s9: scale of the three-body (ATM) term; 0 is the two-body correction.
        source: where the numbers come from; it takes no part in comparisons.

    Raises:
        UsageError: a value is not a finite number.
    """

    s6: float
    s8: float
    a1: float
    a2: float
    s9: float = 0.0
    source: str = field(default="given by the user", compare=False)

    def __post_init__(self) -> None:
        for name in ("s6", "s8", "a1", "a2", "s9"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise UsageError(
                    f"D3 parameters are finite numbers, found {name}={value}",
                    remedy="give s6, s8, a1 and a2, or the name of a functional",
                )


# Absent from dftd3's BJ table. The value is the one this combination is quoted with.
_LITERATURE = {
    "m062x": D3Parameters(
        s6=1.0,
        s8=0.0,
        a1=0.0,
        a2=5.058,
        source="attributed to the GMTKN55 study, Goerigk et al. 2017, doi 10.1039/c7cp04913g",
    )
}

# Other spellings of an entry of the table; each is one functional under two names.
_ALIASES = {
    "b1p86": "b1p",
    "b3p86": "b3p",
    "bhandhlyp": "bhlyp",
    "bp86": "bp",
    "lcwhpbe": "lc_whpbe",
    "mpw1pw91": "mpw1pw",
    "mpwpw91": "mpwpw",
    "pbeh": "pbe0",
}

# Composite methods that are defined with the three-body term. dftd3's table carries s9 = 1 in every
# entry, as a default of its library, so the table cannot tell them from the others.
_THREE_BODY_BY_DEFINITION = {"b973c", "pbeh3c"}


def _key(name: str) -> str:
    return re.sub(r"[-_\s]", "", name.lower())


def _table() -> dict[str, Any]:
    """dftd3's parameter file: inside the wheel, or under share/ in a conda environment.

    Read with tomllib, because dftd3's own reader needs one more package (tomli).
    """
    places = [Path(sys.prefix) / "share" / "s-dftd3" / "parameters.toml"]
    try:
        places.insert(0, Path(str(files("dftd3"))) / "parameters.toml")
    except ModuleNotFoundError:
        places = places[-1:]
    for place in places:
        if place.is_file():
            return tomllib.loads(place.read_text(encoding="utf-8"))
    raise MissingDependencyError(
        "D3 parameters come from the package dftd3, which is not installed",
        remedy="pip install dftd3",
    )


def functionals() -> dict[str, D3Parameters]:
    """Every functional with D3(BJ) parameters, by its name in dftd3's table (sorted).

    Raises:
        MissingDependencyError: the package dftd3 is not installed.
    """
    table = _table()
    default = table["default"]["parameter"]["d3"]["bj"]
    found = dict(_LITERATURE)
    for name, entry in table["parameter"].items():
        if "bj" not in entry.get("d3", {}):
            continue
        values = default | entry["d3"]["bj"]
        doi = values.get("doi")
        found[name] = D3Parameters(
            **{key: float(values[key]) for key in ("s6", "s8", "a1", "a2")},
            s9=float(_key(name) in _THREE_BODY_BY_DEFINITION),
            source="table of the package dftd3" + (f", doi {doi}" if doi else ""),
        )
    return dict(sorted(found.items()))


def _by_key() -> dict[str, str]:
    names = {_key(name): name for name in functionals()}
    return names | {alias: name for alias, name in _ALIASES.items() if _key(name) in names}


def functional_parameters(name: str) -> D3Parameters:
    """D3(BJ) parameters of a functional: `pbe`, `PBE`, `B97-3c`, `m06-2x`.

    s9 is 0 (two-body) unless the method is defined with the three-body term (B97-3c, PBEh-3c);
    `dataclasses.replace(parameters, s9=1.0)` adds it.

    Raises:
        UsageError: no functional has that name; the message lists near ones.
        MissingDependencyError: the package dftd3 is not installed.
    """
    names = _by_key()
    key = _key(name)
    if key in names:
        return functionals()[names[key]]
    near = difflib.get_close_matches(key, names, n=5, cutoff=0.5)
    hint = f"near names: {', '.join(near)}; or give" if near else "give"
    raise UsageError(
        f"no D3(BJ) parameters are known for functional {name!r}",
        remedy=f"{hint} s8, a1 and a2",
    )


# A part of a method's name, between '-', '+' or '/', that says "with dispersion": D2/D3/D4 in all
# their variants, the PMx-DHx corrections, VV10 (-V), many-body and Tkatchenko-Scheffler, XDM,
# the van der Waals functionals, and the three-letter composites (-3c).
_PART = re.compile(
    r"(d|d[234][a-z0-9]*|dh\d?|dftd\w*|r?v|r?vv10|nl|mbd\w*|ts|xdm|vdw\w*|[a-z0-9]*3cv?)"
)
# The same in one word (pbed3bj, r2scan3c, wb97xd, wb97mv), and the methods that hold dispersion by
# construction: the xTB family and PM7.
_WHOLE = re.compile(
    r".*(3cv?|d[34](bj|zero|0|op|cso|m|bjm|zerom|mbj|m0)?(atm|gcp)?|vv10)"
    r"|wb97xd|(wb97[xm]|b97m)r?v|b97d"
    r"|(gfn|ipea)\d*(xtb|ff)?|gxtb|pm7(ts)?"
)


# Behind the basis set ('PBE/def2-SVP + D3(BJ)') only what no basis set is called.
_APPENDED = re.compile(r"d[234][a-z0-9]*|dftd\w*|r?vv10|mbd\w*|xdm")


def _method_and_basis(level_of_theory: str) -> tuple[str, str]:
    """'pyscf:PBE/def2-SVP' -> ('pbe', 'def2-svp')."""
    text = re.sub(r"^\s*[a-z_0-9]+:", "", level_of_theory.lower()).strip()
    text = re.sub(r"\((bj|zero|0|op|cso)\)", r"\1", text)  # d3(bj) -> d3bj
    method, _, basis = text.partition("/")
    return method.strip(), basis.strip()


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r"[-+_\s(),]+", text) if part]


def contains_dispersion(level_of_theory: str) -> bool:
    """Whether energies of this level of theory hold dispersion already, so that none may be added.

    True for wb97m-d3bj/def2-tzvpp, b3lyp-d4, wb97x-d, wb97m-v, b97-3c, gfn2-xtb, pm7; false for
    pbe/def2-svp.
    """
    method, basis = _method_and_basis(level_of_theory)
    first, *rest = _parts(method) or [""]
    return (
        first == "vdw"
        or any(_PART.fullmatch(part) for part in rest)
        or _WHOLE.fullmatch("".join([first, *rest])) is not None
        or any(_APPENDED.fullmatch(part) for part in _parts(basis))
    )


def functional_of(level_of_theory: str) -> str | None:
    """The functional whose D3 may be added to energies of this level of theory.

    pbe/def2-svp -> pbe, pyscf:wB97M/def2-TZVPP -> wb97m. None when the level of theory names no
    functional with D3(BJ) parameters, and when its energies contain dispersion already.

    Raises:
        MissingDependencyError: the package dftd3 is not installed.
    """
    if contains_dispersion(level_of_theory):
        return None
    return _by_key().get(_key(_method_and_basis(level_of_theory)[0]))
