"""Histograms: what they count, and what must not change them."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mlff_cli.coarse.priors.distributions import (
    TERM_KINDS,
    Distributions,
    Histogram,
    drawn,
    typed_rows,
)
from mlff_cli.physics.internal_coordinates import angles, dihedrals, distances
from mlff_cli.physics.terms import Terms
from tests.coarse.free_chains import draw, free_chains

N = 9
SPECIES = ["ALA", "GLY", "ALA", "SER", "ALA", "GLY", "GLY", "SER", "ALA"]


def chain_terms(n: int = N) -> Terms:
    """A linear chain with all its pairs."""
    i = np.arange(n)
    pairs = np.array([(a, b) for a in range(n) for b in range(a + 2, n)], dtype=int).reshape(-1, 2)
    return Terms(
        n,
        bonds=np.stack([i[:-1], i[1:]], 1),
        angles=np.stack([i[:-2], i[1:-1], i[2:]], 1),
        dihedrals=np.stack([i[:-3], i[1:-2], i[2:-1], i[3:]], 1),
        pairs=pairs,
        separation=pairs[:, 1] - pairs[:, 0],
    )


def counted(x: np.ndarray, chunk: int | None = None) -> Distributions:
    found = Distributions()
    for start in range(0, len(x), chunk or len(x)):
        found.add(x[start : start + (chunk or len(x))], typed_rows(chain_terms(), SPECIES))
    return found


def same(a: Distributions, b: Distributions) -> bool:
    return a.histograms.keys() == b.histograms.keys() and all(
        np.array_equal(h.counts, b.histograms[k].counts) and h.beyond == b.histograms[k].beyond
        for k, h in a.histograms.items()
    )


def test_chains_have_the_internal_coordinates_they_were_built_from() -> None:
    x = free_chains(40, N)
    rows = chain_terms()
    np.testing.assert_allclose(
        distances(x, rows.bonds), draw("bond", *_of("bond"), (40, N - 1), 0), atol=1e-10
    )
    np.testing.assert_allclose(
        angles(x, rows.angles), draw("angle", *_of("angle"), (40, N - 2), 1), atol=1e-10
    )
    np.testing.assert_allclose(
        dihedrals(x, rows.dihedrals), draw("dihedral", *_of("dihedral"), (40, N - 3), 2), atol=1e-9
    )


def _of(kind: str) -> list:
    from tests.coarse import free_chains as module

    return [getattr(module, f"{kind}_energy")]


@pytest.mark.parametrize(
    ("beads", "phi"),
    [
        ([[1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]], 0.0),
        ([[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]], np.pi / 2),
        ([[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, -1, 1]], -np.pi / 2),
        ([[1, 0, 0], [0, 0, 0], [0, 0, 1], [-1, 0, 1]], np.pi),
    ],
)
def test_sign_of_a_dihedral_is_that_of_iupac(beads: list[list[int]], phi: float) -> None:
    x = np.array([beads], dtype=float)
    assert abs(dihedrals(x, np.array([[0, 1, 2, 3]]))[0, 0]) == pytest.approx(abs(phi))
    # looking along the central bond, clockwise is positive (mdtraj has the same sign)
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(4):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    found = mdtraj.compute_dihedrals(
        mdtraj.Trajectory(x.astype(np.float32), topology), [[0, 1, 2, 3]], periodic=False
    )[0, 0]
    assert np.cos(found - dihedrals(x, np.array([[0, 1, 2, 3]]))[0, 0]) == pytest.approx(1.0)


def test_reading_a_term_backwards_changes_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(20, 4, 3))
    np.testing.assert_allclose(angles(x, np.array([[0, 1, 2]])), angles(x, np.array([[2, 1, 0]])))
    np.testing.assert_allclose(
        dihedrals(x, np.array([[0, 1, 2, 3]])), dihedrals(x, np.array([[3, 2, 1, 0]]))
    )


def test_measures_are_integrals_of_the_jacobian() -> None:
    assert TERM_KINDS["bond"].measure.sum() == pytest.approx(30.0**3 / 3)
    assert TERM_KINDS["angle"].measure.sum() == pytest.approx(2.0)
    assert TERM_KINDS["dihedral"].measure.sum() == pytest.approx(2 * np.pi)
    for kind in TERM_KINDS.values():
        jacobian = {"A": lambda q: q**2, "radian": np.sin}[kind.unit](kind.centres)
        if not kind.periodic:
            width = (kind.high - kind.low) / kind.n_bins
            np.testing.assert_allclose(kind.measure, jacobian * width, rtol=1e-4, atol=1e-7)


def test_order_and_size_of_chunks_change_no_count() -> None:
    x = free_chains(60, N)
    whole = counted(x)
    assert same(whole, counted(x, 7))
    assert same(whole, counted(x[np.random.default_rng(1).permutation(len(x))], 13))


def test_blocks_of_many_pairs_change_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    x = free_chains(30, N)
    whole = counted(x)
    monkeypatch.setattr("mlff_cli.coarse.priors.distributions._VALUES", 61)
    assert same(whole, counted(x))


def test_rotation_and_translation_move_values_by_rounding_only() -> None:
    x = free_chains(200, N)
    moved = x @ Rotation.random(random_state=3).as_matrix().T + [10.0, -20.0, 5.0]
    a, b = counted(x), counted(moved)
    for key, h in a.histograms.items():
        other = b.histograms[key]
        # a value may cross into the next bin, never further
        assert np.abs(np.cumsum(h.counts) - np.cumsum(other.counts)).max() <= 1
        assert h.n + h.beyond == other.n + other.beyond


def test_every_term_is_counted_once_under_its_type() -> None:
    x = free_chains(50, N)
    found = counted(x)
    terms = chain_terms()
    for kind, rows in [("bond", terms.bonds), ("angle", terms.angles),
                       ("dihedral", terms.dihedrals), ("repulsion", terms.pairs_between(6)),
                       ("excluded_volume", terms.pairs_between(2, 5))]:  # fmt: skip
        pooled = found.pooled(kind)
        assert pooled is not None
        assert pooled.n + pooled.beyond == 50 * len(rows)
    assert found.histograms[("bond", ("ALA", "GLY"))].n == 50 * 3
    assert found.histograms[("angle", ("GLY",))].n == 50 * 3
    assert found.histograms[("dihedral", ("ALA", "SER"))].n == 50 * 2
    assert ("bond", ("GLY", "ALA")) not in found.histograms


def test_quantile_is_that_of_the_values() -> None:
    values = draw("angle", lambda t: 3.0 * (t - 1.7) ** 2, 50_000)
    kind = TERM_KINDS["angle"]
    h = Histogram(kind, ("*",), np.histogram(values, kind.edges)[0])
    for q in (0.001, 0.01, 0.5, 0.99, 1.0):
        assert h.quantile(q) == pytest.approx(np.quantile(values, q), abs=3e-3)


def test_wider_bins_keep_every_count() -> None:
    values = draw("dihedral", lambda p: np.cos(p), 3000)
    kind = TERM_KINDS["dihedral"]
    h = Histogram(kind, ("*",), np.histogram(values, kind.edges)[0])
    for bins in (1, 7, 60, 1440, 5000):
        edges, counts = h.coarse(bins, -np.pi, np.pi)
        assert counts.sum() == 3000
        assert edges[0] == pytest.approx(-np.pi)
        assert edges[-1] == pytest.approx(np.pi)
        assert len(counts) == len(edges) - 1


def test_collinear_coincident_and_torn_chains_are_counted() -> None:
    x = np.zeros((3, 4, 3))
    x[0, :, 0] = [0, 4, 8, 12]  # collinear; x[1]: all in one place
    x[2, :, 0] = [0, 4, 8, 500]
    found = Distributions()
    found.add(x, typed_rows(chain_terms(4), ["A"] * 4), np.array([10, 11, 12]))
    assert found.longest == (492.0, 12, (2, 3))
    bond, angle = found.pooled("bond"), found.pooled("angle")
    assert bond is not None
    assert angle is not None
    assert (bond.n, bond.beyond) == (8, 1)
    assert angle.counts[-1] == 4  # pi belongs to the last bin
    assert angle.n == 6


@pytest.mark.parametrize(("n", "every"), [(0, 3), (1, 3), (10, 1), (100, 7), (5, 100)])
def test_one_frame_of_each_so_many_is_drawn(n: int, every: int) -> None:
    found = drawn(n, every, np.random.default_rng(0))
    for start in range(0, n, every):
        assert found[start : start + every].sum() == 1
    assert len(found) == n


def test_draws_have_no_period() -> None:
    """Frames of two replicas by turns are drawn alike often."""
    found = np.flatnonzero(drawn(20_000, 10, np.random.default_rng(0)))
    assert (found % 2).mean() == pytest.approx(0.5, abs=0.05)


def test_pairs_are_counted_in_some_frames_only() -> None:
    x, some = free_chains(40, N), np.arange(40) % 4 == 0
    part, whole, few = Distributions(), counted(x), counted(x[some])
    part.add(x, typed_rows(chain_terms(), SPECIES), pairs_of=some)
    for kind, same_as in [("bond", whole), ("angle", whole), ("dihedral", whole),
                          ("excluded_volume", few), ("repulsion", few)]:  # fmt: skip
        for ours, other in zip(part.of(kind), same_as.of(kind), strict=True):
            np.testing.assert_array_equal(ours.counts, other.counts)
    nothing = Distributions()
    nothing.add(x, typed_rows(chain_terms(), SPECIES), pairs_of=np.zeros(40, bool))
    assert not nothing.of("repulsion")
    assert nothing.of("bond")
