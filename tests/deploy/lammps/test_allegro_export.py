"""Allegro for LAMMPS: what nequip exported is the model, and says what pair_allegro reads."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import yaml

from mlff_cli.core.errors import MissingDependencyError
from mlff_cli.deploy.lammps import allegro_export
from mlff_cli.deploy.lammps.folder import META, write_lammps_folder
from mlff_cli.deploy.lammps.input_script import MODEL, SCRIPT
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from tests.deploy.lammps.test_native_prior import N, topology
from tests.potentials.prior_cases import PARAMETRIC, SPECIES, chain

pytest.importorskip("allegro", reason="nequip-allegro is not installed")

from mlff_cli.potentials.allegro import Allegro, AllegroSpec


def allegro() -> Allegro:
    spec = AllegroSpec.of(
        "small",
        SPECIES,
        num_scalar_features=8,
        num_tensor_features=4,
        mlp_width=8,
        energy_scale=3.0,
    )
    return Allegro(spec)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs g++")
def test_a_folder_holds_the_model_that_was_exported(tmp_path) -> None:
    """Other frames, other numbers of beads, and ghosts: atoms that only others look at."""
    model = BeadModel(allegro(), Prior(PARAMETRIC))
    state = torch.get_default_dtype(), torch.get_rng_state()
    checks = write_lammps_folder(model, topology(), tmp_path / "out", {})
    assert torch.get_default_dtype() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    assert checks["allegro"]["forces"] < 1e-4
    path = tmp_path / "out" / MODEL
    assert MODEL in yaml.safe_load((tmp_path / "out" / META).read_text())["files"]
    known = allegro_export.read_export(path)
    assert float(known["r_max"]) == 12.0
    assert known["num_types"] == "3"
    assert known["type_names"].split() == list(SPECIES)
    assert known["allow_tf32"] == "0"
    script = (tmp_path / "out" / SCRIPT).read_text()
    assert "pair_style allegro" in script
    for n, seed in ((N, 11), (23, 12)):
        x = chain(n, seed=seed).requires_grad_()
        types = torch.arange(n) % 3
        edges = edges_of(x, torch.zeros(n, dtype=torch.int64), 12.0)
        edges = edges[:, edges[0] < n - 2]  # the last two are ghosts
        energy = model.allegro(x, types, edges)
        (gradient,) = torch.autograd.grad(energy.sum(), x)
        data = {"pos": x.detach(), "edge_index": edges, "atom_types": types}
        found = allegro_export.run_export(path, data)
        scale = float(gradient.abs().max())
        assert float((found["forces"] + gradient).abs().max()) < 1e-4 * scale
        there = found["atomic_energy"].squeeze(-1)
        np.testing.assert_allclose(there, energy.detach(), rtol=1e-4, atol=1e-4)


def test_without_a_compiler_nothing_is_written(tmp_path) -> None:
    from torch._inductor import config

    absent = config.patch({"cpp.cxx": ("no-such-compiler",)})  # pytest's own leaves it deleted
    model = BeadModel(allegro(), Prior(PARAMETRIC))
    with absent, pytest.raises(MissingDependencyError, match="C\\+\\+ compiler"):
        write_lammps_folder(model, topology(), tmp_path / "out", {})
    assert list(tmp_path.iterdir()) == []
