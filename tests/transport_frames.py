"""Frames of alanine dipeptide for tests of transport: displaced at random, energies recorded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlff_cli.data.trajectories.h5md_writer import write_h5md
from mlff_cli.data.trajectories.peptide import build_peptide
from mlff_cli.physics.forcefield import ForceField
from mlff_cli.physics.openmm_structures import chain_molecule, topology_pdb
from mlff_cli.physics.openmm_system import Simulated, build_system

FORCEFIELD = ("amber14-all.xml", "implicit/obc2.xml")
SIGMA = 0.004  # nm at 300 K


@functools.cache
def alanine_dipeptide() -> Simulated:
    """ACE-ALA-NME with its force field, at the minimum of its energy."""
    import openmm
    from openmm import unit

    p = build_peptide("ACE-ALA-NME")
    molecule = chain_molecule(p.residues, p.names, p.numbers, p.residue, p.bonds, p.positions)
    made = build_system(molecule, FORCEFIELD)
    context = openmm.Context(
        made.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(made.positions * unit.nanometer)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0)
    x = context.getState(positions=True).getPositions(asNumpy=True)
    return Simulated(
        made.topology, np.asarray(x.value_in_unit(unit.nanometer)), made.system, "implicit", 0, 0
    )


def write_frames(
    path: Path, kelvin: Sequence[float] = (300.0, 450.0), n: int = 80, **attrs: Any
) -> Path:
    """A trajectory as `mlff sample` writes it, of frames that no dynamics made.

    Args:
        path: the file.
        kelvin: temperatures; displacements grow as their roots.
        n: frames of each.
        attrs: root attributes in place of the usual.
    """
    made = alanine_dipeptide()
    rng = np.random.default_rng(7)
    x0 = made.positions
    step = np.repeat(np.arange(n), len(kelvin))
    T = np.tile(np.asarray(kelvin, float), n)
    noise = rng.standard_normal((len(T), *x0.shape)) * SIGMA
    x = x0 + noise * np.sqrt(T / 300.0)[:, None, None]
    energy, gradient = ForceField.from_system(made.system).energy_and_gradient(torch.from_numpy(x))
    frames = {
        "position": x,
        "force": -gradient.numpy(),
        "temperature": T,
        "potential_energy": energy.numpy(),
        "step": step,
        "time": step * 0.5,
    }
    usual = {
        "topology_pdb": topology_pdb(made),
        "forcefield": list(FORCEFIELD),
        "constraints": "none",
    }
    write_h5md(
        path,
        list(frames),
        len(T),
        made.numbers,
        [frames],
        bonds=made.bonds,
        attrs=usual | attrs,
        dtype="float64",
        force=True,
    )
    return path
