"""Laws of a compiled coarse-grained model: it is its model, reproducible, and needs only torch."""

import dataclasses
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import CheckFailedError, DataError, UsageError
from mlff_cli.deploy.artifact import meta_path, read_metadata
from mlff_cli.deploy.beads import verify as bead_verify
from mlff_cli.deploy.beads.artifact import (
    bead_potential_of,
    load_bead_potential,
    write_bead_artifact,
)
from mlff_cli.potentials.bead_model import BeadModel
from tests.deploy.beads.cases import members, model_file, topology
from tests.potentials.prior_cases import chain

N = 6
X = chain(N, seed=2, frames=3)
MOLECULE = topology(N, name="hexamer")
UNITS = {"units": {"energy": "kcal/mol", "length": "angstrom"}}


@pytest.fixture(scope="module")
def ensemble():
    return members(2)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, ensemble):
    """An ensemble of two, float32."""
    path = tmp_path_factory.mktemp("beads") / "hexamer.jpt"
    write_bead_artifact(ensemble, MOLECULE, path, UNITS)
    return path


@pytest.fixture(scope="module")
def prior_only(tmp_path_factory, ensemble):
    path = tmp_path_factory.mktemp("prior") / "prior.jpt"
    write_bead_artifact([BeadModel(None, ensemble[0].prior)], MOLECULE, path, UNITS)
    return path


def test_it_needs_nothing_of_mlff_or_nequip(artifact):
    """Loaded in another process, as its users will."""
    code = (
        "import sys, torch, warnings; warnings.simplefilter('ignore');"
        "m = torch.jit.load(sys.argv[1]); torch.save(m(torch.load(sys.argv[2])), sys.argv[3]);"
        "print([n for n in sys.modules if n.startswith(('mlff', 'nequip', 'allegro', 'e3nn'))])"
    )
    inputs, out = artifact.with_name("in.pt"), artifact.with_name("out.pt")
    torch.save(X, inputs)
    command = [sys.executable, "-c", code, str(artifact), str(inputs), str(out)]
    done = subprocess.run(command, check=True, cwd=artifact.parent, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    seen, wanted = torch.load(out), load_bead_potential(artifact).compute(X)
    assert sorted(seen) == ["energy", "energy_std", "forces", "forces_std"]
    for name, value in wanted.items():
        torch.testing.assert_close(seen[name], value, rtol=1e-5, atol=1e-3)  # float32


def test_the_artifact_is_the_model_file(artifact, ensemble):
    """Two ways to the same potential: compiled, and straight from the files."""
    files = [model_file(model, [MOLECULE]) for model in ensemble]
    straight, compiled = bead_potential_of(files, MOLECULE), load_bead_potential(artifact)
    for seen, wanted in zip(compiled(X), straight(X), strict=True):
        torch.testing.assert_close(seen, wanted, rtol=1e-5, atol=1e-3)  # float32
    assert compiled.n_beads == straight.n_beads == N
    assert np.array_equal(compiled.topology.start, MOLECULE.start)


def test_modes_add_up(artifact):
    potential = load_bead_potential(artifact)
    found = {}
    for potential.mode in ("full", "prior", "ml"):
        found[potential.mode] = potential(X)
    for full, prior, ml in zip(*found.values(), strict=True):
        torch.testing.assert_close(full, prior + ml)


def test_it_says_what_it_is(artifact):
    inside = read_metadata(artifact)
    assert inside["family"] == "coarse-grained"
    assert inside["members"] == 2
    assert inside["molecule"] == MOLECULE.plain()
    assert inside["verification"]["passed"]
    beside = yaml.safe_load(meta_path(artifact).read_text())
    assert beside["molecule"]["types"] == list(MOLECULE.types)
    assert "terms" not in beside["molecule"]
    assert beside["artifact"]["sha256"] == sha256(artifact)


def test_same_models_same_bytes(prior_only, ensemble, tmp_path):
    again = tmp_path / "another_name.jpt"
    write_bead_artifact([BeadModel(None, ensemble[0].prior)], MOLECULE, again, UNITS)
    assert again.read_bytes() == prior_only.read_bytes()


def test_every_part_is_verified(artifact, prior_only):
    names = [c["name"] for c in read_metadata(artifact)["verification"]["checks"]]
    for part in ("prior: forces of", "ml: forces and finite", "ml: forces of rotated", "full: ene"):
        assert any(name.startswith(part) for name in names), part
    names = [c["name"] for c in read_metadata(prior_only)["verification"]["checks"]]
    assert {name.split(":")[0] for name in names} == {"prior"}


@pytest.mark.parametrize("law", ["_against_eager", "_against_differences", "_against_rotation"])
def test_what_breaks_a_law_is_not_kept(ensemble, tmp_path, monkeypatch, law):
    """Forces off by a thousandth, energies by a thousandth, or space with a direction."""
    bare = BeadModel(None, ensemble[0].prior)
    check = getattr(bead_verify, law)
    broken = {
        "_against_eager": lambda x, o: {**o, "energy": o["energy"] * 1.001},
        "_against_differences": lambda x, o: {**o, "forces": o["forces"] * 1.001},
        "_against_rotation": lambda x, o: {**o, "energy": o["energy"] + x[:, 0, 0]},
    }[law]

    def damaged(artifact, *rest):
        return check(lambda x, mode: broken(x, artifact(x, mode)), *rest)

    monkeypatch.setattr(bead_verify, law, damaged)
    path = tmp_path / "broken.jpt"
    with pytest.raises(CheckFailedError, match="does not reproduce its model"):
        write_bead_artifact([bare], MOLECULE, path, UNITS)
    assert list(tmp_path.iterdir()) == []


def test_a_molecule_without_a_frame(ensemble, tmp_path):
    path = tmp_path / "m.jpt"
    bare = dataclasses.replace(MOLECULE, start=None)
    write_bead_artifact([BeadModel(None, ensemble[0].prior)], bare, path, UNITS)
    assert load_bead_potential(path).topology.start is None


def test_what_does_not_belong_is_refused(prior_only, tmp_path):
    with pytest.raises(UsageError, match="'ml' needs a learnt part"):
        load_bead_potential(prior_only, mode="ml")
    with pytest.raises(UsageError, match="one of full, prior, ml, found 'fast'"):
        load_bead_potential(prior_only, mode="fast")
    damaged = tmp_path / "m.jpt"
    with zipfile.ZipFile(prior_only) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:-1] + b"x" if "/code/" in name else content)
    with pytest.raises(DataError, match="not those that were verified"):
        load_bead_potential(damaged)


def test_files_that_do_not_fit_are_refused(ensemble):
    file = model_file(ensemble[0], [MOLECULE])
    lacking = dict(list(file.weights.items())[1:])
    with pytest.raises(DataError, match="the weights do not fit the model"):
        bead_potential_of(dataclasses.replace(file, weights=lacking), MOLECULE)
    with pytest.raises(UsageError, match="family 'multifidelity'"):
        bead_potential_of(dataclasses.replace(file, family="multifidelity"), MOLECULE)
