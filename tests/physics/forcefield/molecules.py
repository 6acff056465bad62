"""Molecules to compare with OpenMM, and OpenMM's own answer."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import openmm

from mlff_cli.physics.openmm_system import Simulated
from mlff_cli.sampling.plan import Options, make_plan
from mlff_cli.sampling.preparation import build

OBC2 = ("amber14-all.xml", "implicit/obc2.xml")
GBN2 = ("amber14-all.xml", "implicit/gbn2.xml")
FIELDS = {
    "obc2": OBC2,
    "gbn2": GBN2,
    "vacuum": ("amber14-all.xml",),
    "gbsaobc": ("amber99sbildn.xml", "amber99_obc.xml"),  # OpenMM's built-in force
    "obc1": ("amber14-all.xml", "implicit/obc1.xml"),
    "hct": ("amber14-all.xml", "implicit/hct.xml"),
    "gbn": ("amber14-all.xml", "implicit/gbn.xml"),
}


@functools.cache  # reading a force field takes a second; nobody changes what is made
def molecule(
    peptide: str = "ACE-ALA-NME", forcefield: tuple[str, ...] = OBC2, constraints: str = "none"
) -> Simulated:
    """A peptide as `mlff sample` builds it."""
    options = Options(peptide=peptide, forcefield=forcefield, constraints=constraints)  # type: ignore[arg-type]
    return build(make_plan(None, Path("unwritten.h5"), options))


def relaxed(made: Simulated, steps: int = 50) -> np.ndarray:
    """(N, 3) nm near a minimum."""
    context = reference(made.system)
    context.setPositions(made.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, steps)
    return np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)


def shaken(positions: np.ndarray, widths: tuple[float, ...], seed: int = 0) -> np.ndarray:
    """(B, N, 3) copies with normal noise of each of the widths, nm."""
    noise = np.random.default_rng(seed).normal(size=(len(widths), *positions.shape))
    return positions + noise * np.array(widths)[:, None, None]


def reference(system: openmm.System) -> openmm.Context:
    """OpenMM in double precision."""
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(system, openmm.VerletIntegrator(0.001), platform)


def openmm_energies(system: openmm.System, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """U (B,) and forces (B, N, 3) of x (B, N, 3)."""
    context = reference(system)
    energies, forces = [], []
    for positions in x:
        context.setPositions(positions)
        state = context.getState(energy=True, forces=True)
        energies.append(state.getPotentialEnergy()._value)
        forces.append(np.array(state.getForces(asNumpy=True)._value))
    return np.array(energies), np.array(forces)
