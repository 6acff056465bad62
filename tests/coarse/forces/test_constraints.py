"""Constraints from topology and from frames whose rigid pairs are known, exact or rounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.coarse.forces.constraints import (
    constraint_groups,
    detect_constraints,
    topology_constraints,
)
from mlff_cli.core.errors import DataError

FLEXIBLE_STD = 0.023  # A: the stiffest bonds at 300 K, sqrt(kT / k) with k = 1100 kcal/mol/A^2


@dataclass
class Molecule:
    """CH2 units in a chain, then waters; `rigid` (k, 2) are constrained in `positions`."""

    elements: np.ndarray
    bonds: np.ndarray
    rigid: set[tuple[int, int]]
    positions: np.ndarray


def molecule(
    n_units: int = 20,
    n_waters: int = 10,
    n_frames: int = 100,
    *,
    hydrogens: bool = True,
    water: bool = True,
    heavy: bool = False,
    seed: int = 0,
) -> Molecule:
    """Frames with distances that are rigid or vary by `FLEXIBLE_STD`, directions that turn."""
    rng = np.random.default_rng(seed)

    def turned(n: int, rigid: bool, length: float) -> np.ndarray:  # (T, n, 3)
        base = rng.normal(size=(1, n, 3)) + 0.3 * rng.normal(size=(n_frames, n, 3))
        base /= np.linalg.norm(base, axis=-1, keepdims=True)
        return base * (length + (0 if rigid else FLEXIBLE_STD) * rng.normal(size=(n_frames, n, 1)))

    carbon = np.cumsum(turned(n_units, heavy, 1.53), axis=1) + 30.0
    h = np.stack([carbon + turned(n_units, hydrogens, 1.09) for _ in range(2)], axis=2)
    unit = np.concatenate([carbon[:, :, None], h], axis=2).reshape(n_frames, -1, 3)
    c = 3 * np.arange(n_units)
    bonds = [*zip(c, c + 1, strict=True), *zip(c, c + 2, strict=True)]
    rigid = set(bonds) if hydrogens else set()
    chain = list(zip(c[:-1], c[1:], strict=True))
    rigid |= set(chain) if heavy else set()
    o = 3 * (n_units + np.arange(n_waters))
    oxygen = 40.0 + 5.0 * rng.normal(size=(n_frames, n_waters, 3))
    axis = turned(n_waters, True, 1.0)
    side = np.cross(axis, turned(n_waters, True, 1.0))
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    wobble = [
        (0 if water else FLEXIBLE_STD) * rng.normal(size=(n_frames, n_waters, 1)) for _ in "ab"
    ]
    arms = [
        (0.9572 + w) * (0.612 * axis + 0.791 * x)
        for w, x in zip(wobble, (side, -side), strict=True)
    ]
    waters = np.stack([oxygen, oxygen + arms[0], oxygen + arms[1]], axis=2)
    bonds += [*chain, *zip(o, o + 1, strict=True), *zip(o, o + 2, strict=True)]
    for k in o if water else ():
        rigid |= {(k, k + 1), (k, k + 2), (k + 1, k + 2)}
    return Molecule(
        np.array([6, 1, 1] * n_units + [8, 1, 1] * n_waters),
        np.array(bonds),
        {(int(i), int(j)) for i, j in rigid},
        np.concatenate([unit, waters.reshape(n_frames, -1, 3)], axis=1),
    )


def found(m: Molecule, positions: np.ndarray | None = None, **options):
    result = detect_constraints(
        m.positions if positions is None else positions, m.elements, m.bonds, **options
    )
    return result, {(int(i), int(j)) for i, j in result.pairs}


def rounded(positions: np.ndarray, step: float = 0.01) -> np.ndarray:
    """As XTC stores them: whole numbers of steps, read in single precision and nm."""
    return (np.rint(positions / step).astype("float32") * np.float32(step / 10)) * np.float32(10)


CASES = [
    {"hydrogens": h, "water": w, "heavy": a}
    for h, w, a in [(1, 1, 0), (0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1)]
]


class TestDetection:
    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("n_frames", [5, 20, 100])
    def test_exact_coordinates(self, case, n_frames):
        m = molecule(n_frames=n_frames, **case)
        for positions in (m.positions, m.positions.astype("float32")):
            result, pairs = found(m, positions)
            assert pairs == m.rigid
            assert result.precision == 0.0
            assert "varies by less than 0.001 A" in result.relied_on

    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("n_frames", [5, 20, 100])
    def test_rounded_coordinates(self, case, n_frames):
        m = molecule(n_frames=n_frames, **case)
        result, pairs = found(m, rounded(m.positions))
        assert pairs == m.rigid
        assert result.precision == 0.01
        assert "coordinates rounded to 0.01 A: a rigid one then varies by 0.0041 A" in (
            result.relied_on
        )

    def test_a_rigid_distance_varies_with_rounding_as_stated(self):
        m = molecule(n_frames=400)
        kinds = {k.name: k for k in found(m, rounded(m.positions))[0].kinds}
        assert kinds["bonds to hydrogen"].std == pytest.approx(0.01 / np.sqrt(6), rel=0.03)

    @pytest.mark.parametrize("step", [0.1, 0.01, 0.001])
    def test_rounding_is_seen(self, step):
        m = molecule()
        shift = np.random.default_rng(1).normal(size=(100, 1, 3))  # centred after it was written
        for positions in (rounded(m.positions, step), rounded(m.positions, step) + shift):
            assert found(m, positions)[0].precision == step

    def test_the_reader_s_word_on_rounding_counts(self):
        m = molecule()
        noisy = rounded(m.positions) + 1e-3 * np.random.default_rng(2).normal(
            size=m.positions.shape
        )
        result, pairs = found(m, noisy, precision=0.01)
        assert result.precision == 0.01
        assert pairs == m.rigid

    @pytest.mark.parametrize("case", CASES[:2])
    def test_coarse_coordinates_leave_it_to_the_topology(self, case):
        m = molecule(**case)
        result, pairs = found(m, rounded(m.positions, 0.1))
        assert pairs == molecule().rigid
        assert "the topology: coordinates rounded to 0.1 A hide what is rigid" in result.relied_on
        assert result.threshold is None

    def test_one_frame_leaves_it_to_the_topology(self):
        m = molecule(hydrogens=False)
        result, pairs = found(m, m.positions[:1])
        assert pairs == molecule().rigid
        assert "one frame shows no motion" in result.relied_on

    def test_molecules_cut_by_the_faces_of_a_box(self):
        m = molecule()
        box = np.array([[25.0, 0.0, 0.0], [6.0, 22.0, 0.0], [-5.0, 4.0, 24.0]])
        boxes = box * (1 + 0.01 * np.random.default_rng(3).random((100, 1, 1)))
        inside = m.positions @ np.linalg.inv(boxes)
        cut = (inside - np.floor(inside)) @ boxes
        assert found(m, cut)[1] != m.rigid
        assert found(m, cut, box=boxes)[1] == m.rigid

    def test_order_of_atoms_and_listing_of_bonds(self):
        m = molecule()
        order = np.random.default_rng(4).permutation(len(m.elements))
        place = np.argsort(order)
        bonds = np.concatenate([place[m.bonds], place[m.bonds][:7, ::-1]])  # seven twice
        result = detect_constraints(m.positions[:, order], m.elements[order], bonds)
        expected = {tuple(sorted((int(place[i]), int(place[j])))) for i, j in m.rigid}
        assert {(int(i), int(j)) for i, j in result.pairs} == expected
        assert len(result.pairs) == len(expected)

    def test_kinds_are_counted(self):
        kinds = {k.name: (k.n, k.n_rigid) for k in found(molecule())[0].kinds}
        assert kinds == {
            "bonds to hydrogen": (40, 40),
            "bonds in water": (20, 20),
            "other bonds": (19, 0),
            "H-H distances in water": (10, 10),
            "other 1-3 distances": (20 + 4 * 19 + 18, 0),
        }

    def test_many_pairs_are_looked_at_in_blocks(self, monkeypatch):
        m = molecule()
        expected, _ = found(m)
        monkeypatch.setattr("mlff_cli.coarse.forces.constraints._BLOCK", 7)
        again, _ = found(m)
        assert np.array_equal(again.pairs, expected.pairs)

    def test_no_bonds_no_constraints(self):
        result = detect_constraints(np.zeros((3, 4, 3)), np.ones(4), np.zeros((0, 2), dtype=int))
        assert result.pairs.shape == (0, 2)
        assert constraint_groups(4, result.pairs).tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("shape", [(5, 89, 3), (0, 90, 3), (5, 90)])
    def test_frames_of_other_atoms(self, shape):
        with pytest.raises(DataError, match="frames of 90 atoms, found positions"):
            found(molecule(), np.zeros(shape))


class TestTopology:
    def test_bonds_to_hydrogen_and_water(self):
        m = molecule(2, 2)
        result = topology_constraints(m.elements, m.bonds)
        assert {(int(i), int(j)) for i, j in result.pairs} == m.rigid
        assert result.relied_on.startswith("the topology; bonds to hydrogen and the triangle")

    def test_an_alcohol_and_hydronium_are_not_water(self):
        elements = np.array([6, 8, 1, 8, 1, 1, 1])
        bonds = np.array([[0, 1], [1, 2], [3, 4], [3, 5], [3, 6]])
        kinds = {k.name: k.n for k in topology_constraints(elements, bonds).kinds}
        assert kinds == {"bonds to hydrogen": 4, "other bonds": 1, "other 1-3 distances": 4}


class TestGroups:
    @given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
    def test_groups_are_what_pairs_connect(self, pairs):
        groups = constraint_groups(12, np.array(pairs, dtype=int).reshape(-1, 2))
        group = list(range(12))
        for _ in range(12):  # spread the smaller label along every pair until nothing changes
            for i, j in pairs:
                group[i] = group[j] = min(group[i], group[j])
        order = {label: k for k, label in enumerate(dict.fromkeys(group))}
        assert groups.tolist() == [order[label] for label in group]
