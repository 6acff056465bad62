"""`mlff evaluate` of coarse-grained models: known forces, and simulations of known ensembles."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.bead_split import split_frames
from mlff_cli.data.beads.bead_split_file import held_out_rows
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.deploy.beads.artifact import write_bead_artifact
from mlff_cli.deploy.beads.molecules import molecules_of
from mlff_cli.physics.internal_coordinates import dihedrals
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from mlff_cli.stages import info, report
from mlff_cli.stages.evaluate import Options, run
from tests.coarse.backbones import backbone_frames, backbone_molecule
from tests.deploy.beads.evaluation_cases import (
    SPRINGS,
    backbone_set,
    ca_chain,
    cg_set,
    forces,
    model_file,
    simulation,
)
from tests.potentials.prior_cases import PARAMETRIC, SPECIES, chain
from tests.tiny import tiny_model_file

PLAIN = Options(figures=False, device="cpu")
TYPES = {"short": ("ALA", "GLY", "TRP", "ALA", "ALA"), "long": ("GLY", "TRP", "GLY") * 3}
NOISE = 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior as model, a set whose forces are the prior's and noise, and an ensemble's set."""
    path = tmp_path_factory.mktemp("evaluate")
    model_file(BeadModel(None, Prior(PARAMETRIC))).save(path / "prior.pt")
    model_file(BeadModel(None, Prior(SPRINGS))).save(path / "springs.pt")
    frames = []
    for k, (name, types) in enumerate(TYPES.items()):
        x = chain(len(types), k, frames=30).numpy().astype(np.float32).astype(float)
        F = forces(PARAMETRIC, types, x)
        F = F + np.random.default_rng(k).normal(0.0, NOISE, F.shape)
        frames.append((ca_chain(name, types), x, F))
    bound = {"molecules": [{"unlearnable": {"bound": b}} for b in (4.0, 16.0)]}
    cg_set(path / "CG.npz", frames, SPECIES, metadata={"force_map": bound})
    backbone_set(path / "reference.npz", backbone_frames(3000, 2))
    simulation(path / "same.h5", backbone_frames(2000, 2, seed=5), replicas=4)
    return path


def test_errors_are_those_that_were_put_in(folder: Path, tmp_path: Path) -> None:
    data = run(folder / "prior.pt", [folder / "CG.npz"], tmp_path / "e.json", PLAIN).data
    (result,) = data["results"]
    assert result["frames"] == 60
    full, zero = result["errors"]["full"], result["errors"]["zero"]
    assert full["n"] == 3 * 30 * (5 + 9)
    assert full["rmse"] == pytest.approx(NOISE, rel=0.05)
    assert full["relative"] == pytest.approx(full["rmse"] / zero["rmse"])
    assert full["verdict"] == "good"
    assert full["cosine"] > 0.95
    assert set(result["by_type"]) == set(SPECIES)
    assert [m["name"] for m in result["molecules"]] == list(TYPES)
    beads = result["molecules"][0]["beads"]
    assert [b["residue"] for b in beads] == ["ALA1", "GLY2", "TRP3", "ALA4", "ALA5"]
    assert all(b["rmse"]["full"] == pytest.approx(NOISE, rel=0.4) for b in beads)
    assert result["noise_bound"] == pytest.approx(np.sqrt((5 * 4 + 9 * 16) / 14))


def test_one_molecule_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    options = replace(PLAIN, molecule="long")
    data = run(folder / "prior.pt", [folder / "CG.npz"], tmp_path / "e.json", options).data
    assert [m["name"] for m in data["results"][0]["molecules"]] == ["long"]
    assert data["results"][0]["errors"]["full"]["n"] == 3 * 30 * 9
    with pytest.raises(UsageError, match="no molecule is called 'longer'"):
        run(folder / "prior.pt", [folder / "CG.npz"], tmp_path / "x.json",
            replace(PLAIN, molecule="longer"))  # fmt: skip


def test_the_same_ensemble_is_at_the_floor_and_another_is_not(folder: Path, tmp_path: Path) -> None:
    options = replace(PLAIN, simulation=(folder / "same.h5",), bins=18)
    arguments = (folder / "springs.pt", [folder / "reference.npz"])
    data = run(*arguments, tmp_path / "same.json", options).data
    found = data["ensembles"]
    assert found["frames"] == {"reference": 3000, "simulation": 2000}
    assert found["series"] == {"reference": 1, "simulation": 4}
    assert found["temperature"] == 300.0
    by_name = {tuple(p["variables"]): p for p in (*found["planes"], *found["profiles"])}
    assert {("psi ALA1",), ("phi ALA2",), ("RMSD",), ("Rg",), ("TIC 1",)} <= set(by_name)
    assert ("RMSD", "Rg") in by_name
    for one in by_name.values():
        assert one["ratio"] < 2.5
        assert one["frames"] > 500
    frames = backbone_frames(3000, 2, seed=6)
    psi = dihedrals(frames, np.array([[0, 1, 2, 5]]))[:, 0]
    simulation(tmp_path / "other.h5", frames[psi > 0])  # one of two basins
    options = replace(options, simulation=(tmp_path / "other.h5",))
    other = run(*arguments, tmp_path / "other.json", options).data["ensembles"]
    ratio = {tuple(p["variables"]): p["ratio"] for p in other["profiles"]}
    assert ratio["psi ALA1",] > 10


def test_outputs(folder: Path, tmp_path: Path) -> None:
    """JSON without NaN, figures and arrays beside it, the same bytes again."""
    options = Options(device="cpu", simulation=(folder / "same.h5",), molecule="backbone", bins=12)
    R = backbone_frames(400, 2)
    cg_set(tmp_path / "CG.npz", [(backbone_molecule(2), R, np.ones_like(R))], SPRINGS.species)
    arguments = (folder / "springs.pt", [tmp_path / "CG.npz"], tmp_path / "e.json")
    summary = run(*arguments, options)
    content = json.loads((tmp_path / "e.json").read_text())
    assert content == summary.data
    names = ["e_forces.png", "e_landscapes.npz", "e_planes.png", "e_profiles.png"]
    assert summary.lines == [str(tmp_path / n) for n in ("e.json", *names)]
    before = {n: (tmp_path / n).read_bytes() for n in names}
    with np.load(tmp_path / "e_landscapes.npz") as arrays:
        index = json.loads(str(arrays["index"]))
        assert index[0]["variables"] == ["RMSD", "Rg"]
        assert arrays["reference_0"].sum() == 400
        assert arrays["simulation_0"].sum() == 2000
        assert arrays["edges_0_1"].shape == (13,)
    with pytest.raises(UsageError, match="exists already"):
        run(*arguments, options)
    run(*arguments, replace(options, force=True))
    assert before == {n: (tmp_path / n).read_bytes() for n in names}
    assert len(summary.tables) == 2
    page = report.run([tmp_path / "e.json"], tmp_path / "r.html").data
    assert page["sections"] == ["Evaluation: e"]
    html = (tmp_path / "r.html").read_text()
    assert html.count("data:image/png;base64,") == 3
    assert "Jensen-Shannon" in html
    told = info.run(tmp_path / "e.json")
    assert any("divergence along RMSD, Rg" in str(row) for t in told.tables for row in t.rows)


def test_a_dry_run_checks_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    options = replace(PLAIN, dry_run=True)
    summary = run(folder / "prior.pt", [folder / "CG.npz"], tmp_path / "e.json", options)
    assert "would compare forces" in summary.lines[0]
    with pytest.raises(DataError, match="does not know the type"):
        run(folder / "springs.pt", [folder / "CG.npz"], tmp_path / "e.json", options)
    assert not list(tmp_path.iterdir())


def test_frames_that_were_trained_on_are_told(folder: Path, tmp_path: Path) -> None:
    file = model_file(BeadModel(None, Prior(PARAMETRIC)))
    file.provenance = {"inputs": {"CG.npz": sha256(folder / "CG.npz")}}
    file.save(tmp_path / "m.pt")
    reporter = NullReporter()
    run(tmp_path / "m.pt", [folder / "CG.npz"], tmp_path / "e.json", PLAIN, reporter)
    assert any("frames that it has seen" in w for w in reporter.warnings)


def test_replicas_that_began_at_drawn_frames_are_told(folder: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.h5"
    shutil.copy(folder / "same.h5", drawn)
    with h5py.File(drawn, "r+") as file:
        file.attrs["start"] = "random"
    for path, discard, told in ((drawn, 0.0, 1), (drawn, 100.0, 0), (folder / "same.h5", 0.0, 0)):
        reporter = NullReporter()
        options = replace(PLAIN, simulation=(path,), discard=discard, force=True)
        run(
            folder / "springs.pt",
            [folder / "reference.npz"],
            tmp_path / "e.json",
            options,
            reporter,
        )
        assert sum("began at frames drawn" in w for w in reporter.warnings) == told


def test_frames_that_were_held_out_are_looked_at_alone(folder: Path, tmp_path: Path) -> None:
    with BeadFrames([folder / "CG.npz"]) as frames:
        split = split_frames(frames, 0.2, seed=3)
        split.save(tmp_path / "split.npz", frames)
    reporter = NullReporter()
    options = replace(PLAIN, split=tmp_path / "split.npz")
    arguments = (folder / "prior.pt", [folder / "CG.npz"])
    result = run(*arguments, tmp_path / "e.json", options, reporter).data["results"][0]
    assert result["frames"] == len(split.validation) == 12
    assert result["errors"]["full"]["rmse"] == pytest.approx(NOISE, rel=0.15)
    whole = run(*arguments, tmp_path / "w.json", PLAIN).data["results"][0]
    assert whole["errors"]["full"]["rmse"] != result["errors"]["full"]["rmse"]
    with pytest.raises(DataError, match="not of .*reference.npz"):
        held_out_rows(tmp_path / "split.npz", folder / "reference.npz")
    with pytest.raises(DataError, match="no split of frames"):
        run(*arguments, tmp_path / "x.json", replace(options, split=folder / "CG.npz"))
    with pytest.raises(StorageError, match="does not exist"):
        run(*arguments, tmp_path / "x.json", replace(options, split=tmp_path / "none.npz"))


def test_an_artifact_is_of_one_molecule_and_has_its_models_errors(
    folder: Path, tmp_path: Path
) -> None:
    with CGSet(folder / "CG.npz") as cg:
        topology = molecules_of(cg)[1]
    write_bead_artifact([BeadModel(None, Prior(PARAMETRIC))], topology, tmp_path / "m.jpt", {})
    options = replace(PLAIN, molecule="long")
    errors = [
        run(model, [folder / "CG.npz"], tmp_path / f"{k}.json", options).data["results"][0][
            "errors"
        ]
        for k, model in enumerate((tmp_path / "m.jpt", folder / "prior.pt"))
    ]
    assert errors[0]["full"]["rmse"] == pytest.approx(errors[1]["full"]["rmse"], rel=1e-6)
    with pytest.raises(DataError, match="of the molecule 'long' with 9 beads, found 'short'"):
        run(tmp_path / "m.jpt", [folder / "CG.npz"], tmp_path / "x.json", PLAIN)


def test_contradictions_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    arguments = (folder / "springs.pt", [folder / "reference.npz"], out)
    with pytest.raises(DataError, match="no forces to compare with"):
        run(*arguments, PLAIN)
    timeless = replace(PLAIN, simulation=(folder / "reference.npz",), discard=5.0)
    with pytest.raises(UsageError, match="a set tells no times"):
        run(*arguments, timeless)
    with pytest.raises(UsageError, match="belong to a simulation"):
        run(*arguments, replace(PLAIN, reference=folder / "same.h5"))
    with pytest.raises(UsageError, match="in kcal/mol, found --units eV"):
        run(*arguments, replace(PLAIN, units="eV"))
    for bins in (1, 10**6):  # a million cells a side are terabytes
        with pytest.raises(UsageError, match="--bins must be 2 to 720"):
            run(*arguments, replace(PLAIN, bins=bins, simulation=(folder / "same.h5",)))
    simulation(tmp_path / "hot.h5", backbone_frames(50, 2), kelvin=400.0)
    with pytest.raises(UsageError, match="no frame has the temperature 300 K, found 400 K"):
        run(*arguments, replace(PLAIN, simulation=(tmp_path / "hot.h5",)))
    simulation(tmp_path / "longer.h5", backbone_frames(50, 3))
    with pytest.raises(DataError, match="10 beads are needed, found 15 atoms"):
        run(*arguments, replace(PLAIN, simulation=(tmp_path / "longer.h5",)))
    tiny_model_file().save(tmp_path / "fidelity.pt")
    with pytest.raises(UsageError, match="belong to coarse-grained models"):
        run(tmp_path / "fidelity.pt", ["d.h5"], out, replace(PLAIN, molecule="x"))
    assert not out.exists()


@pytest.mark.slow
def test_parts_of_a_model_are_told_apart(tmp_path: Path) -> None:
    """Forces of the whole model: its own error is nothing, that of its parts is not."""
    pytest.importorskip("nequip")
    import torch

    from mlff_cli.deploy.beads.forces import forces_by_part
    from tests.potentials.bead_model_cases import tiny_model

    model = tiny_model(dtype=torch.float32)
    model_file(model).save(tmp_path / "m.pt")
    types = TYPES["short"]
    x = chain(5, 3, frames=20).numpy()
    cg_set(tmp_path / "a.npz", [(ca_chain("short", types), x, None)], SPECIES)
    with CGSet(tmp_path / "a.npz") as cg:
        found = forces_by_part(model, molecules_of(cg)[0], "cpu")(x)
    assert np.allclose(found["full"], found["prior"] + found["ml"])
    cg_set(tmp_path / "b.npz", [(ca_chain("short", types), x, found["full"])], SPECIES)
    result = run(tmp_path / "m.pt", [tmp_path / "b.npz"], tmp_path / "e.json", PLAIN).data
    errors = {mode: e["rmse"] for mode, e in result["results"][0]["errors"].items()}
    assert errors["full"] < 1e-3 * errors["zero"]
    assert min(errors["prior"], errors["ml"]) > 1e-2
