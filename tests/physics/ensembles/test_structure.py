"""RMSD, radius of gyration, contacts and slow modes: invariances, and other people's numbers."""

from __future__ import annotations

import mdtraj
import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.spatial.transform import Rotation

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.contacts import BETA, LAMBDA, NativeContacts
from mlff_cli.physics.ensembles.slow_modes import slow_modes
from mlff_cli.physics.ensembles.superposition import radius_of_gyration, rmsd


def structure(n: int = 12, frames: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=(frames, n, 3)).cumsum(axis=1) * 2.0)


def test_a_rotated_and_moved_structure_is_the_same_and_its_mirror_image_is_not() -> None:
    x = structure()
    q = Rotation.random(5, random_state=0).as_matrix()
    moved = np.einsum("tij,tnj->tni", q, x) + 30.0
    for k in range(5):
        assert rmsd(moved[k : k + 1], x[k])[0] < 1e-6
        assert rmsd(moved[k : k + 1] * [1, 1, -1], x[k])[0] > 0.5
    assert np.allclose(rmsd(moved, x[0]), rmsd(x, x[0]), atol=1e-7)
    assert np.allclose(radius_of_gyration(moved), radius_of_gyration(x))


def test_rmsd_and_radius_of_gyration_are_those_of_mdtraj() -> None:
    x = structure(frames=8)
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(12):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    trajectory = mdtraj.Trajectory(x / 10, topology)
    assert np.allclose(rmsd(x, x[3]), 10 * mdtraj.rmsd(trajectory, trajectory, 3), atol=2e-3)
    assert np.allclose(radius_of_gyration(x), 10 * mdtraj.compute_rg(trajectory), atol=1e-4)


def test_a_mass_of_three_is_three_masses_of_one() -> None:
    x, masses = structure(), np.random.default_rng(1).integers(1, 5, 12)
    repeated = np.repeat(x, masses, axis=1)
    assert np.allclose(radius_of_gyration(x, masses), radius_of_gyration(repeated))


def test_points_in_a_plane_on_a_line_and_at_one_place() -> None:
    flat = structure() * [1, 1, 0]
    assert rmsd(flat, flat[0])[0] < 1e-6
    line = np.arange(4.0)[None, :, None] * [1.0, 0, 0]
    assert rmsd(line @ Rotation.random(random_state=1).as_matrix(), line[0])[0] < 1e-6
    assert rmsd(np.zeros((1, 3, 3)), np.zeros((3, 3)))[0] == 0.0


def test_native_contacts_are_a_soft_count() -> None:
    x = structure(n=20, frames=1, seed=3) / 2.0
    candidates = np.stack(np.triu_indices(20, 4), 1)
    native = NativeContacts.of(x[0], candidates, cutoff=6.0)
    r = np.linalg.norm(x[0][candidates[:, 0]] - x[0][candidates[:, 1]], axis=1)
    assert len(native.pairs) == (r < 6.0).sum() > 5
    wanted = np.mean(1 / (1 + np.exp(BETA * native.r0 * (1 - LAMBDA))))
    assert native.fraction(x)[0] == pytest.approx(wanted)
    swollen = native.fraction(x * np.linspace(1, 40, 60)[:, None, None])
    assert (np.diff(swollen) <= 0).all()
    assert swollen[-1] < 1e-12
    assert np.isnan(NativeContacts.of(x[0], candidates, cutoff=0.0).fraction(x)).all()


def modes_of_two(n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Independent processes with correlations 0.98^t and 0.7^t, and a third without any."""
    rng = np.random.default_rng(0)
    rates = np.array([0.98, 0.7, 0.0])
    kicks = rng.normal(size=(n, 3)) * np.sqrt(1 - rates**2)
    x = np.stack([lfilter([1.0], [1.0, -a], kicks[:, k]) for k, a in enumerate(rates)], 1)
    return x, rates


def test_slow_modes_are_found_behind_any_linear_mixture() -> None:
    x, rates = modes_of_two()
    mixed = x @ np.random.default_rng(1).normal(size=(3, 3)) + 5.0
    found = slow_modes([mixed[:15_000], mixed[15_000:]], lag=3)
    assert np.allclose(found.eigenvalues, rates[:2] ** 3, atol=0.02)
    y = found.project(mixed)
    assert np.allclose(y.mean(axis=0), 0, atol=0.01)
    assert np.allclose(y.var(axis=0), 1, atol=0.01)
    assert abs(np.corrcoef(y[:, 0], x[:, 0])[0, 1]) > 0.99
    assert found.timescales[0] == pytest.approx(-1 / np.log(0.98), rel=0.25)
    assert (found.modes[np.abs(found.modes).argmax(axis=0), [0, 1]] > 0).all()


def test_features_that_say_the_same_are_no_trouble() -> None:
    x, _ = modes_of_two(5000)
    twice = np.concatenate([x, x[:, :1], np.ones((len(x), 1))], axis=1)
    a, b = slow_modes([x], 2), slow_modes([twice], 2)
    assert np.allclose(a.eigenvalues, b.eigenvalues, atol=1e-6)
    assert np.allclose(np.abs(a.project(x)), np.abs(b.project(twice)), atol=1e-5)


@pytest.mark.slow
def test_slow_modes_are_those_of_deeptime() -> None:
    deeptime = pytest.importorskip("deeptime.decomposition")  # some seconds to import
    x, _ = modes_of_two(4000)
    ours = slow_modes([x[:1500], x[1500:]], 5)
    theirs = deeptime.TICA(lagtime=5, dim=2, scaling=None)
    model = theirs.fit_from_timeseries([x[:1500], x[1500:]]).fetch_model()
    assert np.allclose(ours.eigenvalues, model.singular_values[:2], atol=1e-6)
    assert np.allclose(np.abs(ours.project(x)), np.abs(model.transform(x)), atol=1e-5)


def test_series_must_be_longer_than_the_lag_and_features_vary() -> None:
    with pytest.raises(DataError, match="longer than it, found a lag of 9 frames"):
        slow_modes([np.ones((9, 2)), np.ones((3, 2))], 9)
    with pytest.raises(DataError, match="that vary"):
        slow_modes([np.ones((9, 2))], 2)
