"""Terms of a batched force field from an OpenMM System.

| OpenMM                    | here                                                             |
|---------------------------|------------------------------------------------------------------|
| HarmonicBondForce         | `bonded.Bonds`                                                   |
| HarmonicAngleForce        | `bonded.Angles`                                                  |
| PeriodicTorsionForce      | `bonded.Torsions`                                                |
| NonbondedForce, NoCutoff  | `pairs.NonbondedPairs`, exceptions included                      |
| GBSAOBCForce, CustomGBForce | `born.GeneralizedBorn`, see `born_reading`                     |
| CMMotionRemover           | nothing: it has no energy                                        |

Anything else is an error that names it: an energy that lacks a term would be another molecule's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm

from mlff_cli.core.errors import UsageError
from mlff_cli.physics.forcefield.bonded import Angles, Bonds, Torsions
from mlff_cli.physics.forcefield.born import GeneralizedBorn
from mlff_cli.physics.forcefield.born_reading import read_custom_gb, read_gbsa_obc
from mlff_cli.physics.forcefield.pairs import NonbondedPairs

BondedTerm = Bonds | Angles | Torsions
PairTerm = NonbondedPairs | GeneralizedBorn
REMEDY = "take the OpenMM engine for it, which knows every force"


def masses_of(system: openmm.System) -> np.ndarray:
    """(N,) amu.

    Raises:
        UsageError: a site has no mass or is virtual, or the system is periodic.
    """
    if system.usesPeriodicBoundaryConditions():
        raise UsageError(
            "the batched force field has no periodic box, found one",
            remedy="take implicit solvent or vacuum, or the OpenMM engine",
        )
    n = system.getNumParticles()
    masses = np.array([system.getParticleMass(i)._value for i in range(n)])
    for i in range(n):
        if system.isVirtualSite(i) or masses[i] <= 0:
            what = "a virtual site" if system.isVirtualSite(i) else "no mass"
            raise UsageError(
                f"the batched force field needs particles with a mass, found {what} "
                f"at particle {i}",
                remedy=REMEDY,
            )
    return masses


def read_bonded(system: openmm.System) -> list[BondedTerm]:
    """All bonded terms.

    Raises:
        UsageError: a force is not known here.
    """
    found = []
    for force in system.getForces():
        kind = type(force).__name__
        if kind not in _READERS:
            raise UsageError(
                f"the batched force field knows {', '.join(_READERS)}, found {kind}", remedy=REMEDY
            )
        if (read := _READERS[kind]) is not None and (term := read(force)) is not None:
            found.append(term)
    return found


def read_pairs(system: openmm.System, pairs: np.ndarray) -> list[PairTerm]:
    """All terms over pairs (P, 2).

    Raises:
        UsageError: a force has a setting that is not known here.
    """
    found: list[PairTerm] = []
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            found.append(_nonbonded(force, pairs))
        elif isinstance(force, openmm.GBSAOBCForce):
            found.append(GeneralizedBorn(read_gbsa_obc(force), pairs))
        elif isinstance(force, openmm.CustomGBForce):
            found.append(GeneralizedBorn(read_custom_gb(force), pairs))
    return found


def _rows(n: int, get: Callable[[int], Any], atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Atoms (n, atoms) and parameters (n, p) of a bonded force."""
    rows = [[getattr(v, "_value", v) for v in get(i)] for i in range(n)]
    table = np.array(rows, dtype=np.float64)
    return table[:, :atoms].astype(np.int64), table[:, atoms:]


def _bonds(force: openmm.HarmonicBondForce) -> Bonds | None:
    if not (n := force.getNumBonds()):
        return None
    atoms, values = _rows(n, force.getBondParameters, 2)
    return Bonds(atoms, values[:, 1], values[:, 0])


def _angles(force: openmm.HarmonicAngleForce) -> Angles | None:
    if not (n := force.getNumAngles()):
        return None
    atoms, values = _rows(n, force.getAngleParameters, 3)
    return Angles(atoms, values[:, 1], values[:, 0])


def _torsions(force: openmm.PeriodicTorsionForce) -> Torsions | None:
    if not (n := force.getNumTorsions()):
        return None
    atoms, values = _rows(n, force.getTorsionParameters, 4)
    return Torsions(atoms, values[:, 0].astype(np.int64), values[:, 1], values[:, 2])


def _nonbonded(force: openmm.NonbondedForce, pairs: np.ndarray) -> NonbondedPairs:
    if force.getNonbondedMethod() != openmm.NonbondedForce.NoCutoff:
        raise UsageError(
            "the batched force field computes all pairs (NonbondedForce.NoCutoff), found method "
            f"{force.getNonbondedMethod()}",
            remedy=REMEDY,
        )
    offsets = force.getNumParticleParameterOffsets() + force.getNumExceptionParameterOffsets()
    if offsets:
        raise UsageError(
            f"NonbondedForce must have no parameter offsets, found {offsets}", remedy=REMEDY
        )
    n = force.getNumParticles()
    q, sigma, epsilon = np.array(
        [[v._value for v in force.getParticleParameters(i)] for i in range(n)]
    ).T
    i, j = pairs.T
    charges = q[i] * q[j]
    widths, depths = (sigma[i] + sigma[j]) / 2, np.sqrt(epsilon[i] * epsilon[j])
    row = np.zeros((n, n), dtype=np.int64)
    row[i, j] = row[j, i] = np.arange(len(pairs))
    for k in range(force.getNumExceptions()):
        a, b, *values = force.getExceptionParameters(k)
        charges[row[a, b]], widths[row[a, b]], depths[row[a, b]] = (v._value for v in values)
    return NonbondedPairs(charges, widths, depths)


_READERS: dict[str, Callable[[Any], BondedTerm | None] | None] = {
    "HarmonicBondForce": _bonds,
    "HarmonicAngleForce": _angles,
    "PeriodicTorsionForce": _torsions,
    "NonbondedForce": None,
    "GBSAOBCForce": None,
    "CustomGBForce": None,
    "CMMotionRemover": None,
}
