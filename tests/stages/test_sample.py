"""`mlff sample`: stored forces belong to stored energies, and interruption leaves no trace."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openmm
import pytest

from mlff_cli.core.errors import DataError, InterruptedRunError, NumericalError, UsageError
from mlff_cli.core.reporting import NullProgress, NullReporter
from mlff_cli.core.runtime import STOP_SIGNALS
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.data.trajectories.peptide import build_peptide
from mlff_cli.physics.openmm_structures import chain_molecule, topology_pdb
from mlff_cli.physics.openmm_system import build_system
from mlff_cli.sampling.simulation import EQUILIBRATING
from mlff_cli.stages.sample import Options, run
from tests.tiny_disk import run_on_tiny_disk

SHORT = Options(
    peptide="ACE-ALA-NME", time=0.4, equilibration=0.04, interval=0.04, exchange_interval=0.08
)
LADDER = dataclasses.replace(SHORT, temperatures=(300.0, 400.0, 520.0))


class Ear(NullReporter):
    """Hears what is said, and does something at a frame."""

    def __init__(self, at: int = -1, act: Any = None) -> None:
        super().__init__()
        self.said: list[str] = []
        self.fields: list[dict[str, Any]] = []
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
                ear.fields.append(fields)
                if description.startswith(EQUILIBRATING):  # counts steps
                    return
                before, self.done = self.done, self.done + n
                if before < ear.at <= self.done:
                    ear.act()

        return Bar()


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array by its path; an array that several names lead to under each of them."""
    found = {}

    def collect(group: h5py.Group, prefix: str) -> None:
        for name, item in group.items():
            if isinstance(item, h5py.Dataset):
                found[prefix + name] = item[()]
            else:
                collect(item, f"{prefix}{name}/")

    with h5py.File(path) as file:
        collect(file, "")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.h5"
    run(None, path, LADDER)
    return path


@pytest.mark.parametrize("constraints", ["none", "hbonds"])
def test_forces_are_the_gradient_of_the_stored_energies(tmp_path: Path, constraints: Any) -> None:
    """On the double-precision platform: U(x) as stored, and dU along any direction d is -F.d."""
    options = dataclasses.replace(
        SHORT, constraints=constraints, platform="Reference", time=0.12, interval=0.04
    )
    run(None, tmp_path / "a.h5", options)
    peptide = build_peptide("ACE-ALA-NME")
    molecule = chain_molecule(
        peptide.residues,
        peptide.names,
        peptide.numbers,
        peptide.residue,
        peptide.bonds,
        peptide.positions,
    )
    made = build_system(molecule, options.forcefield, constraints=constraints)
    assert made.system.getNumConstraints() == (12 if constraints == "hbonds" else 0)
    context = openmm.Context(
        made.system,
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )

    def energy(positions: np.ndarray) -> float:
        context.setPositions(positions)
        return float(context.getState(energy=True).getPotentialEnergy()._value)

    found, rng, h = arrays(tmp_path / "a.h5"), np.random.default_rng(0), 1e-5
    for x, f, u in zip(
        found["particles/all/position/value"].astype("float64"),
        found["particles/all/force/value"],
        found["observables/potential_energy/value"],
        strict=True,
    ):
        assert energy(x) == pytest.approx(u, abs=2e-3)  # positions are stored in float32
        for _ in range(3):
            d = rng.normal(size=x.shape)
            slope = (energy(x + h * d) - energy(x - h * d)) / (2 * h)
            assert slope == pytest.approx(-(f * d).sum(), abs=0.5, rel=1e-4)


def test_constraint_forces_are_not_in_the_forces(tmp_path: Path) -> None:
    """The lengths are constant, the reported forces along these bonds are not zero."""
    run(None, tmp_path / "a.h5", dataclasses.replace(SHORT, constraints="hbonds"))
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        frames = file.read(np.arange(file.n_frames), forces=True)
        assert file.facts["constraints"] == "hbonds"
        assert "constraint forces are not included" in file.facts["forces"]
        assert file.bonds is not None
        assert file.numbers is not None
        hydrogen = (file.numbers[file.bonds] == 1).any(axis=1)
        i, j = file.bonds[hydrogen].T
    x, f = frames.positions, frames.forces
    assert x is not None
    assert f is not None
    lengths = np.linalg.norm(x[:, i] - x[:, j], axis=2)
    assert lengths.std(axis=0).max() < 1e-4
    along = ((f[:, i] - f[:, j]) * (x[:, i] - x[:, j])).sum(axis=2)
    assert np.abs(along).mean() > 1.0


def test_what_is_written(whole: Path) -> None:
    import MDAnalysis

    with H5MDTrajectory(whole) as file:
        assert (file.n_frames, file.n_atoms, file.has_forces) == (30, 22, True)
        frames = file.read(np.arange(30))
        np.testing.assert_array_equal(frames.temperature, np.tile([300.0, 400.0, 520.0], 10))
        assert file.facts["forcefield"] == ["amber14-all.xml", "implicit/obc2.xml"]
        assert file.facts["centre_of_mass_motion"] == "not removed"
        assert file.topology is not None
        assert [r.name for r in file.topology.residues] == ["ACE", "ALA", "NME"]
        assert file.topology.n_bonds == 21
        numbers = [a.element.atomic_number for a in file.topology.atoms]
        np.testing.assert_array_equal(file.numbers, numbers)
    found = arrays(whole)
    steps = found["particles/all/position/step"]
    np.testing.assert_array_equal(steps, np.repeat(np.arange(40, 401, 40), 3))
    np.testing.assert_allclose(found["particles/all/position/time"], steps * 1e-3)
    replicas = found["observables/replica/value"].reshape(-1, 3)
    assert (np.sort(replicas, axis=1) == np.arange(3)).all()
    np.testing.assert_array_equal(found["parameters/exchange/attempted"], [3, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a bare topology does not say
        universe = MDAnalysis.Universe.empty(22)
        universe.load_new(str(whole), format="H5MD")
        assert universe.trajectory.n_frames == 30
        assert universe.trajectory.ts.has_forces


def test_the_summary_says_what_the_file_holds(tmp_path: Path) -> None:
    ear = Ear()
    found = run(None, tmp_path / "a.h5", LADDER, ear)
    u = arrays(tmp_path / "a.h5")["observables/potential_energy/value"].reshape(-1, 3) / 4.184
    np.testing.assert_allclose(found.data["mean_energy_kcal_mol"], u.mean(axis=0))
    assert found.data["exchange"]["attempted"] == [3, 2]
    assert found.data["ns_per_day"] > 0
    assert {"ns/day", "swaps"} <= set(ear.fields[-1])
    titles = [t.title for t in found.tables]
    assert titles == ["30 frames of 22 atoms, 10 at each temperature", "Exchange"]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, whole: Path) -> None:
    run(None, tmp_path / "a.h5", LADDER)
    assert (tmp_path / "a.h5").read_bytes() == whole.read_bytes()
    run(None, tmp_path / "b.h5", dataclasses.replace(LADDER, seed=1))
    assert (tmp_path / "b.h5").read_bytes() != whole.read_bytes()


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda s: s.name)
def test_a_stopped_run_continues_exactly(
    tmp_path: Path, whole: Path, number: signal.Signals
) -> None:
    path = tmp_path / "a.h5"
    for at in (2, 4):  # the frame after the signal is still reached
        told = f"{number.name}, {at + 1} of 10 frames"
        with pytest.raises(InterruptedRunError, match=told) as e:
            run(None, path, LADDER, Ear(at, lambda: signal.raise_signal(number)))
        assert e.value.exit_code == 75
        assert not path.exists()
    ear = Ear()
    run(None, path, LADDER, ear)
    assert any("continuing: 5 of 10 frames" in said for said in ear.said)
    assert path.read_bytes() == whole.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_is_stopped_while_it_equilibrates_says_how_far_it_is(tmp_path: Path) -> None:
    class Early(Ear):
        """Stops at the first news of the equilibration."""

        def progress(self, total: int | None, description: str, unit: str = "") -> NullProgress:
            bar = super().progress(total, description, unit)
            if description.startswith(EQUILIBRATING):
                bar.advance = lambda n=1, **fields: signal.raise_signal(signal.SIGTERM)
            return bar

    path, told = tmp_path / "a.h5", r"0\.0\d+ of 0\.1 ps of the equilibration are"
    options = dataclasses.replace(SHORT, equilibration=0.1)
    with pytest.raises(InterruptedRunError, match=f"SIGTERM, {told} kept"):
        run(None, path, options, Early())
    ear = Ear()
    run(None, path, options, ear)
    assert any(re.match(f"continuing: {told} there", said) for said in ear.said)
    run(None, tmp_path / "b.h5", options)
    assert path.read_bytes() == (tmp_path / "b.h5").read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from mlff_cli.sampling import simulation
from mlff_cli.stages import sample
from tests.stages.test_sample import LADDER, Ear

kept, at = int(sys.argv[2]), int(sys.argv[3])
simulation.SAVE_SECONDS = 0.0 if kept else 1e9

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Kill(Ear):
    def progress(self, *args):
        bar = super().progress(*args)
        inner = bar.advance
        def advance(n=1, **fields):
            inner(n, **fields)
            if bar.done >= kept:
                simulation.SAVE_SECONDS = 1e9
        bar.advance = advance
        return bar

sample.run(None, Path(sys.argv[1]), LADDER, Kill(at, die))
"""


@pytest.mark.parametrize(("kept", "at"), [(0, 4), (3, 8)])
def test_a_killed_run_rewrites_what_was_not_kept(
    tmp_path: Path, whole: Path, kept: int, at: int
) -> None:
    path = tmp_path / "a.h5"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(kept), str(at)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    written = arrays(Path(f"{path}.partial") / "trajectory.h5")["observables/temperature/value"]
    assert (written > 0).sum() == 3 * at  # more than was kept
    ear = Ear()
    run(None, path, LADDER, ear)
    assert any(f"continuing: {kept} of 10" in said for said in ear.said) == bool(kept)
    assert path.read_bytes() == whole.read_bytes()


def test_an_interrupted_run_is_not_mixed_with_another(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(InterruptedRunError):
        run(None, path, LADDER, Ear(2, lambda: signal.raise_signal(signal.SIGTERM)))
    other = dataclasses.replace(LADDER, friction=2.0, seed=7)
    with pytest.raises(UsageError, match=r"friction was 1.0, is 2.0; seed was 0, is 7"):
        run(None, path, other)
    ear = Ear()
    run(None, path, dataclasses.replace(other, force=True), ear)
    assert any("starting anew" in said for said in ear.said)
    assert path.read_bytes() != whole.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_box_of_water_continues_exactly(tmp_path: Path) -> None:
    """Neighbour lists and PME depend on history: settling must make them forget it."""
    options = Options(
        peptide="ACE-GLY-NME",
        forcefield=("amber14-all.xml", "amber14/tip3pfb.xml"),
        constraints="hbonds",
        time=0.2,
        equilibration=0.02,
        interval=0.02,
    )
    ear = Ear()
    found = run(None, tmp_path / "whole.h5", options, ear)
    assert "at constant volume" in found.lines[-1]
    assert any("waters and ions" in said for said in ear.said)
    for at in (2, 6):
        stop = Ear(at, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(InterruptedRunError):
            run(None, tmp_path / "a.h5", options, stop)
    run(None, tmp_path / "a.h5", options)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        frames = file.read(np.arange(file.n_frames))
        assert file.facts["solvent"] == "explicit"
        assert file.facts["density_g_cm3"] == pytest.approx(found.data["density_g_cm3"])
        assert frames.box is not None
        assert frames.positions is not None
        assert file.bonds is not None
        i, j = file.bonds.T  # molecules are whole
        lengths = np.linalg.norm(frames.positions[:, i] - frames.positions[:, j], axis=2)
        assert lengths.max() < 2.0


def pdb(
    path: Path,
    *,
    sequence: str = "YGG",
    hydrogens: bool = False,
    mirror: bool = False,
    rename: tuple[str, str] | None = None,
) -> Path:
    """A peptide as a file."""
    peptide = build_peptide(sequence)
    molecule = chain_molecule(
        peptide.residues,
        peptide.names,
        peptide.numbers,
        peptide.residue,
        peptide.bonds,
        peptide.positions * (-1 if mirror else 1),
    )
    if hydrogens:
        molecule = build_system(molecule, ("amber14-all.xml",))
    text = topology_pdb(molecule)
    path.write_text(text.replace(*rename) if rename else text)
    return path


def test_missing_hydrogens_are_added_and_present_ones_stay(tmp_path: Path) -> None:
    plan = dataclasses.replace(SHORT, peptide=None, dry_run=True)
    without = run(pdb(tmp_path / "a.pdb"), tmp_path / "a.h5", plan).data
    complete = run(pdb(tmp_path / "b.pdb", hydrogens=True), tmp_path / "a.h5", plan).data
    assert without["hydrogens_added"] == 17
    assert complete["hydrogens_added"] == 0
    assert without["atoms"] == complete["atoms"] == 38
    acid = dataclasses.replace(plan, peptide="ACE-ASP-HIS-NME", ph=2.0)
    base = dataclasses.replace(acid, ph=7.0)
    assert (
        run(None, tmp_path / "a.h5", acid).data["atoms"]
        == run(None, tmp_path / "a.h5", base).data["atoms"] + 2
    )
    assert not (tmp_path / "a.h5").exists()
    assert not (tmp_path / "a.h5.partial").exists()


def test_a_file_gives_what_the_sequence_gives(tmp_path: Path) -> None:
    options = dataclasses.replace(SHORT, time=0.08)
    run(pdb(tmp_path / "a.pdb"), tmp_path / "a.h5", dataclasses.replace(options, peptide=None))
    run(None, tmp_path / "b.h5", dataclasses.replace(options, peptide="YGG"))
    first, second = arrays(tmp_path / "a.h5"), arrays(tmp_path / "b.h5")
    np.testing.assert_array_equal(first["particles/all/species"], second["particles/all/species"])
    np.testing.assert_array_equal(first["connectivity/bonds"], second["connectivity/bonds"])


@pytest.mark.parametrize("sequence", ["ACE-DAL-ALA-DTH-NME", "GYDPETGTWG"])
def test_hands_survive_and_nothing_clashes(tmp_path: Path, sequence: str) -> None:
    """After minimisation and dynamics D is D, L is L, and no two atoms overlap."""
    options = dataclasses.replace(SHORT, peptide=sequence, time=0.04, equilibration=0.0)
    run(None, tmp_path / "a.h5", options)
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        x = file.read(np.array([file.n_frames - 1])).positions
        topology = file.topology
    assert x is not None
    assert topology is not None
    hands = {}
    for residue in topology.residues:
        atoms = {a.name: x[0, a.index] for a in residue.atoms}
        if {"N", "CA", "C", "CB"} <= set(atoms):
            n, c, cb = (atoms[name] - atoms["CA"] for name in ("N", "C", "CB"))
            hands[f"{residue.name}{residue.index}"] = float(np.cross(n, c) @ cb)
    assert len(hands) >= 3
    assert all((h > 0.5) != name.startswith(("DAL", "DTH")) for name, h in hands.items()), hands
    assert all(abs(h) > 1.0 for h in hands.values())
    distances = np.linalg.norm(x[0][:, None] - x[0][None], axis=2)
    assert distances[np.triu_indices(len(x[0]), 1)].min() > 0.85


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"temperatures": (0.0,)}, "above 0"),
        ({"temperatures": ()}, "found none"),
        ({"temperatures": (300.0, float("nan"))}, "above 0"),
        ({"temperatures": (300.0, 300.0)}, "given once"),
        ({"timestep": 0.0}, "--timestep must be positive"),
        ({"time": 0.41}, "--time must be a multiple of --interval"),
        ({"interval": 0.0405}, "--interval must be a multiple of --timestep"),
        ({"constraints": "all"}, "none or hbonds, found 'all'"),
        ({"engine": "abacus"}, "openmm or torch, found 'abacus'"),
        ({"replicas": 2}, "--replicas 2 needs --engine torch"),
        ({"replicas": 0}, "--replicas times temperatures must be 1 to"),
        ({"compile": True}, "--compile needs --engine torch"),
        ({"dtype": "float16"}, "--dtype must be float32 or float64"),
        ({"platform": "cpu"}, "found 'cpu'"),
        ({"forcefield": ("amber14-al.xml",)}, r"did you mean .*amber14-all\.xml"),
        ({"forcefield": ()}, "at least one file"),
        ({"peptide": None}, "found neither"),
        ({"peptide": "XYZ"}, "'X'"),
        ({"friction": 0.0}, "--friction"),
        ({"ph": 20.0}, "--ph"),
        ({"threads": 0}, "--threads"),
        ({"peptide": "ALA"}, "three one-letter codes as well"),
        ({"peptide": "G"}, r"No template(.|\n)*cap it: --peptide ACE-GLY-NME"),
        ({"peptide": "ACE-DAL-NME", "forcefield": ("amber19-all.xml",)}, "D residues DAL 2"),
        (
            {"padding": 0.3, "forcefield": ("amber14-all.xml", "amber14/tip3pfb.xml")},
            "box must be 2 nm wide",
        ),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run(None, tmp_path / "a.h5", dataclasses.replace(SHORT, **change))
    assert not list(tmp_path.iterdir())


def test_only_names_of_h5md_are_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="suffix '.npz'"):
        run(None, tmp_path / "a.npz", SHORT)


def test_a_long_timestep_is_warned_about_and_the_plan_is_told(tmp_path: Path) -> None:
    ear = Ear()
    long = dataclasses.replace(LADDER, timestep=4.0, dry_run=True)
    told = " ".join(run(None, tmp_path / "a.h5", long, ear).lines)
    assert any("timestep of 4 fs is long" in w for w in ear.warnings)
    assert "3 replicas at 300, 400, 520 K" in told
    assert "0.4 ps" in told
    ear = Ear()
    run(None, tmp_path / "a.h5", dataclasses.replace(SHORT, dry_run=True), ear)
    assert not ear.warnings


def test_an_existing_output_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        run(None, tmp_path / "a.h5", SHORT)
    assert (tmp_path / "a.h5").read_text() == "mine"


def test_a_residue_without_template_is_named(tmp_path: Path) -> None:
    options = dataclasses.replace(SHORT, peptide=None)
    path = pdb(tmp_path / "a.pdb", rename=("GLY A   2", "XXX A   2"))
    with pytest.raises(DataError, match=r"no template for the residues XXX 2 \(chain A\)"):
        run(path, tmp_path / "a.h5", options)
    cut = pdb(tmp_path / "c.pdb")
    lines = cut.read_text().splitlines(keepends=True)
    cut.write_text("".join(line for line in lines if " CE1 " not in line))
    with pytest.raises(DataError, match=r"residue 0 \(TYR\)"):
        run(cut, tmp_path / "a.h5", options)
    (tmp_path / "b.pdb").write_text("no atoms here\n")
    with pytest.raises(DataError, match=r"cannot read|no atoms"):
        run(tmp_path / "b.pdb", tmp_path / "a.h5", options)
    with pytest.raises(UsageError, match="found both"):
        run(path, tmp_path / "a.h5", SHORT)
    assert {p.name for p in tmp_path.iterdir()} == {"a.pdb", "b.pdb", "c.pdb"}


def test_an_explosion_ends_with_its_frame_and_leaves_nothing(tmp_path: Path) -> None:
    options = dataclasses.replace(SHORT, timestep=10.0, time=4.0)
    with pytest.raises(NumericalError) as error:
        run(None, tmp_path / "a.h5", options)
    assert error.value.exit_code == 5
    assert "steps" in str(error.value.where)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_before_the_simulation(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from mlff_cli.core.errors import StorageError
from mlff_cli.stages.sample import Options, run

try:
    run(None, Path(sys.argv[1]) / "a.h5", Options(peptide="ACE-ALA-NME", time=1000.0))
except StorageError as error:
    assert "No space left" in str(error), error
    assert not list(Path(sys.argv[1]).iterdir()), list(Path(sys.argv[1]).rglob("*"))
    raise SystemExit(7)
"""
    done = run_on_tiny_disk(tmp_path, code, size="300k")
    assert done.returncode == 7, done.stderr


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    from mlff_cli.core.artifacts import alone_in

    with (
        alone_in(tmp_path / "a.h5.partial", "mlff sample"),
        pytest.raises(UsageError, match="another mlff sample"),
    ):
        run(None, tmp_path / "a.h5", SHORT)


def test_d_residues_of_a_file_need_a_force_field_for_both_hands(tmp_path: Path) -> None:
    """The file calls them by their L names: the coordinates tell."""
    path = pdb(tmp_path / "a.pdb", sequence="ACE-ALA-NME", mirror=True)
    plan = dataclasses.replace(SHORT, peptide=None, dry_run=True)
    with pytest.raises(UsageError, match=r"D residues ALA 2 \(chain A\)") as error:
        run(path, tmp_path / "a.h5", dataclasses.replace(plan, forcefield=("amber19-all.xml",)))
    assert str(path) in str(error.value)
    assert run(path, tmp_path / "a.h5", plan).data["atoms"] == 22


def test_a_loose_box_of_water_is_told_and_a_full_one_is_not(tmp_path: Path) -> None:
    explicit = dataclasses.replace(
        SHORT, forcefield=("amber14-all.xml", "amber14/tip3pfb.xml"), dry_run=True
    )
    for padding, loose in ((1.0, True), (1.5, False)):
        ear = Ear()
        found = run(None, tmp_path / "a.h5", dataclasses.replace(explicit, padding=padding), ear)
        density = found.data["density_g_cm3"]
        assert f"{density:.3f} g/cm3 at constant volume" in found.lines[0]
        assert 0.85 < density < 1.05
        assert any("--padding" in w for w in ear.warnings) == loose
    dry = run(None, tmp_path / "a.h5", dataclasses.replace(SHORT, dry_run=True))
    assert dry.data["density_g_cm3"] is None
