"""Parameters of generalized Born models from OpenMM's forces.

OpenMM's `implicit/*.xml` make a CustomGBForce, which is text: the model is recognised by its
expressions, and every number in them is read. What differs from the known ones in any other place
is an error: a guess would be an energy that nobody asked for.
"""

from __future__ import annotations

import re

import numpy as np
import openmm

from mlff_cli.core.errors import UsageError
from mlff_cli.physics.forcefield.born import NECK_REACH, BornParameters, Neck
from mlff_cli.physics.forcefield.pairs import COULOMB

OFFSET = 0.009  # nm, of GBSAOBCForce
OBC2 = (1.0, 0.8, 4.85)  # alpha, beta, gamma of GBSAOBCForce
_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_DESCREEN = (
    "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0)"
)
_LIMITS = "U=r+sr2;L=max(or1,D);D=abs(r-sr2)"
_NECK = (
    "Ivdw+neckScale*Ineck;Ineck=step(radius1+radius2+neckCut-r)*getm0(radindex1,radindex2)"
    "/(1+100*(r-getd0(radindex1,radindex2))^2+0.3*1000000*(r-getd0(radindex1,radindex2))^6);"
    f"Ivdw={_DESCREEN};{_LIMITS};radius1=or1+offset;radius2=or2+offset"
)
_SELF = "(1/soluteDielectric-1/solventDielectric)*charge^2/B"
_PAIR = (
    "(1/soluteDielectric-1/solventDielectric)*charge1*charge2/f;"
    "f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))"
)
_SURFACE = "*(radius+0.14)^2*(radius/B)^6;radius=or+offset"
_CURVE = re.compile(
    r"1/\(1/or-tanh\((?:([\w.]+)\*)?psi(?:-([\w.]+)\*psi\^2)?\+([\w.]+)\*psi\^3\)/radius\);"
    r"psi=I\*or;radius=or\+offset"
)


def read_gbsa_obc(force: openmm.GBSAOBCForce) -> BornParameters:
    """Parameters of OpenMM's built-in OBC2.

    Raises:
        UsageError: it has a cutoff.
    """
    if force.getNonbondedMethod() != openmm.GBSAOBCForce.NoCutoff:
        raise _unknown("GBSAOBCForce", f"nonbonded method {force.getNonbondedMethod()}")
    n = force.getNumParticles()
    rows = [[getattr(v, "_value", v) for v in force.getParticleParameters(i)] for i in range(n)]
    charges, radii, scale = np.array(rows).T
    curve = np.repeat(np.array(OBC2)[:, None], n, axis=1)
    dielectric = 1 / force.getSoluteDielectric() - 1 / force.getSolventDielectric()
    return BornParameters(
        charges,
        radii - OFFSET,
        scale * (radii - OFFSET),
        radii,
        curve,
        COULOMB * dielectric,
        4 * np.pi * force.getSurfaceAreaEnergy()._value,
        whole_inside=True,
    )


def read_custom_gb(force: openmm.CustomGBForce) -> BornParameters:
    """Parameters of a model that is written as expressions.

    Raises:
        UsageError: an expression is not one of HCT, OBC1, OBC2, GBn or GBn2 as OpenMM writes them.
    """
    if force.getNonbondedMethod() != openmm.CustomGBForce.NoCutoff or force.getNumExclusions():
        raise _unknown("CustomGBForce", "a cutoff or exclusions")
    values = [force.getComputedValueParameters(k) for k in range(force.getNumComputedValues())]
    pair, single = (
        openmm.CustomGBForce.ParticlePairNoExclusions,
        openmm.CustomGBForce.SingleParticle,
    )
    if [(v[0], v[2]) for v in values] != [("I", pair), ("B", single)]:
        raise _unknown("CustomGBForce", f"computed values {[v[0] for v in values]}")
    names = [
        force.getPerParticleParameterName(k) for k in range(force.getNumPerParticleParameters())
    ]
    n = force.getNumParticles()
    table = np.array([force.getParticleParameters(i) for i in range(n)], dtype=np.float64)
    columns = dict(zip(names, table.T, strict=True))
    if not {"charge", "or", "sr"} <= columns.keys():
        raise _unknown("CustomGBForce", f"parameters {names}")
    integral, constants = _split(values[0][1])
    curve, more = _split(values[1][1])
    offset = (constants | more).get("offset")
    polynomial = None
    if curve != "1/(1/or-I)":
        if not (match := _CURVE.fullmatch(curve)) or offset is None:
            raise _unknown("CustomGBForce", f"B = {values[1][1]}")
        given = [match[1] or "1", match[2] or "0", match[3]]
        polynomial = np.stack([_column(name, columns, n) for name in given])
    neck = None
    if integral != f"{_DESCREEN};{_LIMITS}":
        if integral != _NECK or constants.get("neckCut") != NECK_REACH or offset is None:
            raise _unknown("CustomGBForce", f"I = {values[0][1]}")
        neck = _neck(force, constants["neckScale"], columns["radindex"].astype(np.int64))
    tau, surface, terms_offset = _energies(force)
    offset = offset if offset is not None else terms_offset
    radii = columns["or"] + (offset or 0.0)
    charges, scaled = columns["charge"], columns["sr"]
    return BornParameters(
        charges, columns["or"], scaled, radii, polynomial, tau, surface, False, neck
    )


def _energies(force: openmm.CustomGBForce) -> tuple[float, float, float | None]:
    """tau, a and the offset of the energy terms, each of which must be there as expected."""
    single = openmm.CustomGBForce.SingleParticle
    pair = openmm.CustomGBForce.ParticlePairNoExclusions
    own, between, surface, offset = None, None, 0.0, None
    for k in range(force.getNumEnergyTerms()):
        written, kind = force.getEnergyTermParameters(k)
        text, constants = _split(written)
        offset = constants.get("offset", offset)
        tau = None
        if constants.get("kappa", 0.0) == 0.0 and "soluteDielectric" in constants:
            tau = 1 / constants["soluteDielectric"] - 1 / constants["solventDielectric"]
        if kind == single and tau and (m := re.fullmatch(rf"-0\.5\*{_NUMBER}\*(.*)", text)):
            own = float(m[1]) * tau if m[2] == _SELF else None
        elif kind == pair and tau and (m := re.fullmatch(rf"-{_NUMBER}\*(.*)", text)):
            between = float(m[1]) * tau if m[2] == _PAIR else None
        elif kind == single and (m := re.fullmatch(rf"{_NUMBER}(\*\(radius.*)", text)):
            if m[2] != _SURFACE:
                raise _unknown("CustomGBForce", f"energy {written}")
            surface += float(m[1])
        else:
            raise _unknown("CustomGBForce", f"energy {written}")
    if own is None or own != between:
        raise _unknown("CustomGBForce", "energies of atoms and pairs that differ from the known")
    return own, surface, offset


def _neck(force: openmm.CustomGBForce, scale: float, kind: np.ndarray) -> Neck:
    tables = {}
    for k in range(force.getNumTabulatedFunctions()):
        function = force.getTabulatedFunction(k)
        if not isinstance(function, openmm.Discrete2DFunction):
            raise _unknown("CustomGBForce", f"a table {type(function).__name__}")
        width, height, values = function.getFunctionParameters()
        table = np.array(values).reshape(height, width).T  # the first argument varies fastest
        tables[force.getTabulatedFunctionName(k)] = table[kind[:, None], kind[None, :]]
    return Neck(scale, tables["getm0"], tables["getd0"])


def _split(written: str) -> tuple[str, dict[str, float]]:
    """An expression without spaces and numbers that have names; these numbers."""
    parts = [re.sub(r"\s", "", part) for part in written.split(";")]
    constants = {}
    for part in parts:
        if match := re.fullmatch(rf"(\w+)={_NUMBER}", part):
            constants[match[1]] = float(match[2])
    kept = [p for p in parts if p and not re.fullmatch(rf"\w+={_NUMBER}", p)]
    return ";".join(kept), constants


def _column(given: str, columns: dict[str, np.ndarray], n: int) -> np.ndarray:
    """(N,) a number for all, or a parameter's name."""
    return columns[given] if given in columns else np.full(n, float(given))


def _unknown(force: str, found: str) -> UsageError:
    return UsageError(
        f"the batched force field knows HCT, OBC1, OBC2, GBn and GBn2 as OpenMM writes them "
        f"without cutoff and salt; in {force} it found {found}",
        remedy="take the OpenMM engine for it, which knows every force",
    )
