"""Which dispersion an artifact gets: what was asked for, against what its labels hold already.

Dispersion is counted once. Labels that contain it get no second one; labels that do not may get
that of their own functional.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from mlff_cli.core.errors import UsageError
from mlff_cli.physics.dispersion_parameters import (
    D3Parameters,
    contains_dispersion,
    functional_of,
    functional_parameters,
    functionals,
)

METHODS = {"none": None, "d3bj": None, "d4": "comes in a later version; d3bj is there now"}
PAIR_RADII = (2.7, 20.5)  # Bohr: where R0 = sqrt(C8/C6) of every pair of elements lies


@dataclass(frozen=True)
class DispersionRequest:
    """What the command line says of dispersion.

    Attributes:
        method: none, or d3bj.
        functional: whose parameters to take; None takes those of the level of theory.
        s6: scale of the C6 term.
        s8: scale of the C8 term.
        a1: damping, share of sqrt(C8/C6).
        a2: damping, bohr.
        s9: scale of the three-body term.
    """

    method: str = "none"
    functional: str | None = None
    s6: float | None = None
    s8: float | None = None
    a1: float | None = None
    a2: float | None = None
    s9: float | None = None

    def custom(self) -> dict[str, float]:
        """Two-body parameters that were given one by one."""
        values = {name: getattr(self, name) for name in ("s6", "s8", "a1", "a2")}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class DispersionChoice:
    """What an artifact gets."""

    functional: str | None
    parameters: D3Parameters

    def plain(self) -> dict[str, object]:
        """Plain values for the artifact's metadata."""
        values = {f.name: getattr(self.parameters, f.name) for f in fields(self.parameters)}
        return {"method": "d3bj", "functional": self.functional, **values}


def choose_dispersion(request: DispersionRequest, level: str | None) -> DispersionChoice | None:
    """Decide on parameters, or on none.

    Args:
        request: what the command line says.
        level: level of theory of the labels, if known.

    Raises:
        UsageError: the method is unknown or comes later, parameters contradict each other or the
            level of theory, the functional cannot be told, or the labels contain dispersion.
    """
    method = request.method.lower()
    if method not in METHODS or METHODS[method]:
        raise UsageError(
            f"--dispersion {request.method} {METHODS.get(method) or 'is unknown'}",
            remedy="use --dispersion d3bj, or none",
        )
    if method == "none":
        given = [
            f.name
            for f in fields(request)
            if f.name != "method" and getattr(request, f.name) is not None
        ]
        if given:
            raise UsageError(
                f"--dispersion-{given[0]} needs a dispersion method, found --dispersion none",
                remedy="add --dispersion d3bj, or leave the parameters out",
            )
        return None
    if level is not None and contains_dispersion(level):
        raise UsageError(
            f"the labels ({level}) contain dispersion already; a second one would count it twice",
            remedy="compile with --dispersion none",
        )
    choice = _custom(request) if request.custom() else _named(request, level)
    if request.s9 is not None:
        choice = replace(choice, parameters=replace(choice.parameters, s9=request.s9))
    return choice


def _custom(request: DispersionRequest) -> DispersionChoice:
    """Parameters given one by one; s6 is 1 unless it is given."""
    custom = {"s6": 1.0, **request.custom()}
    if request.functional is not None:
        raise UsageError(
            f"--dispersion-functional {request.functional} and --dispersion-{min(request.custom())}"
            " both give parameters",
            remedy="name a functional, or give s8, a1 and a2",
        )
    missing = sorted({"s8", "a1", "a2"} - custom.keys())
    if missing:
        raise UsageError(
            f"custom D3(BJ) parameters need s8, a1 and a2, missing: {', '.join(missing)}",
            remedy=f"add --dispersion-{missing[0]}, or name a --dispersion-functional",
        )
    if any(custom["a1"] * r0 + custom["a2"] <= 0 for r0 in PAIR_RADII):
        raise UsageError(
            "the damping radius a1 R0 + a2 must be positive for every pair of elements, found "
            f"a1={custom['a1']:g}, a2={custom['a2']:g}",
            remedy="check both: a1 is usually 0 to 0.6, a2 some 3 to 6 Bohr",
        )
    return DispersionChoice(None, D3Parameters(**custom, source="given on the command line"))


def _named(request: DispersionRequest, level: str | None) -> DispersionChoice:
    """Parameters of a functional: the one asked for, else the one of the labels."""
    known = functional_of(level) if level is not None else None
    asked = request.functional
    if asked is None and known is None:
        raise UsageError(
            f"the level of theory ({level or 'unknown'}) names no functional with D3(BJ) "
            "parameters",
            remedy=f"add --dispersion-functional, one of: {', '.join(functionals())}",
        )
    if asked is None:
        asked = known
    assert asked is not None
    parameters = functional_parameters(asked)
    if known is not None and parameters != functional_parameters(known):
        raise UsageError(
            f"--dispersion-functional {asked} contradicts the labels, which are {level}",
            remedy=f"leave the option out ({known} is used), or give s8, a1 and a2 yourself",
        )
    return DispersionChoice(asked, parameters)
