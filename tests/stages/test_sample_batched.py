"""`mlff sample --engine torch`: the same file as OpenMM's, and the same ensembles."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlff_cli.core.errors import InterruptedRunError, NumericalError, UsageError
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.physics.openmm_system import build_system
from mlff_cli.stages.sample import Options, run
from tests.physics.forcefield.molecules import molecule, openmm_energies
from tests.stages.test_sample import Ear, arrays

BATCH = Options(
    peptide="ACE-ALA-NME",
    temperatures=(330.0, 300.0),
    time=0.06,
    equilibration=0.01,
    interval=0.01,
    exchange_interval=0.02,
    engine="torch",
    replicas=3,
    device="cpu",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.h5"
    run(None, path, BATCH)
    return path


def test_frames_are_ordered_by_step_temperature_and_copy(whole: Path) -> None:
    with H5MDTrajectory(whole) as file:
        assert (file.n_frames, file.n_atoms, file.has_forces) == (36, 22, True)
        frames = file.read(np.arange(36))
        np.testing.assert_array_equal(frames.temperature, np.tile(np.repeat([300, 330], 3), 6))
        assert file.facts["platform"] == "torch cpu float32"
        assert file.facts["replicas_per_temperature"] == 3
        assert file.facts["constraints"] == "none"
    found = arrays(whole)
    steps = found["particles/all/position/step"]
    np.testing.assert_array_equal(steps, np.repeat(np.arange(10, 61, 10), 6))
    replicas = found["observables/replica/value"].reshape(6, 2, 3)
    np.testing.assert_array_equal(np.sort(replicas.reshape(6, 6)), np.tile(np.arange(6), (6, 1)))
    np.testing.assert_array_equal(replicas // 2, np.broadcast_to(np.arange(3), (6, 2, 3)))
    np.testing.assert_array_equal(found["parameters/exchange/attempted"], [6])
    x = found["particles/all/position/value"]
    masses = [p._value for p in map(molecule().system.getParticleMass, range(22))]
    assert np.abs(np.average(x, axis=1, weights=masses)).max() < 0.02


def test_energies_and_forces_are_those_of_openmm(whole: Path) -> None:
    found = arrays(whole)
    made = molecule()
    again = build_system(made, BATCH.forcefield)
    x = found["particles/all/position/value"].astype("float64")
    energy, forces = openmm_energies(again.system, x)
    np.testing.assert_allclose(found["observables/potential_energy/value"], energy, atol=2e-2)
    scale = np.abs(forces).max()
    np.testing.assert_allclose(found["particles/all/force/value"], forces, atol=1e-4 * scale)


def test_the_summary_says_what_the_file_holds(tmp_path: Path) -> None:
    ear = Ear()
    found = run(None, tmp_path / "a.h5", BATCH, ear)
    u = arrays(tmp_path / "a.h5")["observables/potential_energy/value"].reshape(6, 2, 3) / 4.184
    np.testing.assert_allclose(found.data["mean_energy_kcal_mol"], u.mean(axis=(0, 2)))
    np.testing.assert_allclose(found.data["std_energy_kcal_mol"], u.std(axis=(0, 2)))
    assert found.data["frames"] == 36
    assert found.data["replicas"] == 6
    assert found.data["repeats_bit_for_bit"]
    assert len(found.data["exchange"]["trips"]) == 6
    assert "for all 6" in found.lines[0]


def test_a_stopped_run_continues_exactly(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "a.h5"
    for at in (2, 4):  # the frame after the signal is still reached
        with pytest.raises(InterruptedRunError, match=f"SIGTERM, {at + 1} of 6 frames"):
            run(None, path, BATCH, Ear(at, lambda: signal.raise_signal(signal.SIGTERM)))
        assert not path.exists()
    with pytest.raises(UsageError, match="replicas was 3, is 4"):
        run(None, path, dataclasses.replace(BATCH, replicas=4))
    run(None, path, BATCH)
    assert path.read_bytes() == whole.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_precision_and_seed_make_other_files(tmp_path: Path, whole: Path) -> None:
    short = {"time": 0.02, "equilibration": 0.0}
    for name, change in {"a": {}, "b": {"seed": 1}, "c": {"dtype": "float64"}}.items():
        run(None, tmp_path / f"{name}.h5", dataclasses.replace(BATCH, **short, **change))
    a, b, c = (arrays(tmp_path / f"{n}.h5")["particles/all/position/value"] for n in "abc")
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_allclose(a, c, atol=1e-4)  # the same noise
    assert (a != c).any()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"constraints": "hbonds"}, "keeps no bond rigid, found --constraints hbonds"),
        ({"platform": "Reference"}, "are OpenMM's, found Reference"),
        ({"threads": 2}, "are OpenMM's, found --threads 2"),
        ({"replicas": 40000}, "1 to 65536, found 40000 times 2"),
        ({"forcefield": ("amber14-all.xml", "amber14/tip3pfb.xml")}, "no periodic box"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_what_it_cannot_do_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=told):
            run(None, tmp_path / "a.h5", dataclasses.replace(BATCH, dry_run=dry_run, **change))
        assert not list(tmp_path.iterdir())


def test_an_explosion_leaves_nothing(tmp_path: Path) -> None:
    options = dataclasses.replace(BATCH, timestep=10.0, time=0.4, equilibration=0.0, interval=0.2)
    with pytest.raises(NumericalError, match=r"replica \d") as error:
        run(None, tmp_path / "a.h5", dataclasses.replace(options, exchange_interval=0.2))
    assert "frame 0, steps 0 to 20" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_the_size(tmp_path: Path) -> None:
    found = run(None, tmp_path / "a.h5", dataclasses.replace(BATCH, dry_run=True))
    assert found.data["replicas"] == 6
    assert found.data["frames"] == 36
    assert not list(tmp_path.iterdir())


def _dihedrals(path: Path) -> np.ndarray:
    """(T, 2) cos of phi and psi of alanine."""
    import mdtraj

    with H5MDTrajectory(path) as file:
        x = file.read(np.arange(file.n_frames)).positions
        assert x is not None
        trajectory = mdtraj.Trajectory(x / 10, file.topology)
    phi, psi = mdtraj.compute_phi(trajectory)[1], mdtraj.compute_psi(trajectory)[1]
    return np.asarray(np.cos(np.concatenate([phi, psi], axis=1)))


@pytest.mark.slow
def test_ensembles_are_those_of_openmm(tmp_path: Path) -> None:
    """Energies and dihedrals at 800 K, where 2 ps forget them; KS tests and means."""
    hot = dataclasses.replace(
        BATCH, temperatures=(800.0,), replicas=48, time=6.0, equilibration=6.0, interval=2.0
    )
    run(None, tmp_path / "torch.h5", hot)
    one = dataclasses.replace(
        hot, engine="openmm", replicas=1, device="auto", time=200.0, equilibration=6.0
    )
    run(None, tmp_path / "openmm.h5", one)
    u, v = (
        arrays(tmp_path / f"{name}.h5")["observables/potential_energy/value"]
        for name in ("torch", "openmm")
    )
    assert (len(u), len(v)) == (144, 100)
    assert stats.ks_2samp(u, v).pvalue > 1e-3
    error = np.hypot(u.std() / np.sqrt(len(u)), v.std() / np.sqrt(len(v)))
    assert abs(u.mean() - v.mean()) < 4 * error
    assert abs(u.std() / v.std() - 1) < 0.35
    a, b = _dihedrals(tmp_path / "torch.h5"), _dihedrals(tmp_path / "openmm.h5")
    for column in range(2):
        assert stats.ks_2samp(a[:, column], b[:, column]).pvalue > 1e-3
