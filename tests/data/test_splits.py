"""No molecule is on both sides of a split, under any name, order or geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.data import splits
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.grouped_writer import write_grouped
from mlff_cli.data.identity import BOND_FACTOR, _bonds, conformer_hash, graph_hash, molecule_keys
from mlff_cli.data.mixing import mix
from mlff_cli.data.splits import split_by_fraction, split_from_files
from tests.synthetic import write_dataset

MOLECULES = ("CH3CH2OH", "CH3OCH3", "CH3CHO", "C2H4", "HCOOH", "CH3CN", "CH4", "C3H8", "H2O")


def graph(name: str, rng: np.random.Generator | None = None, spread: float = 0.0) -> np.uint64:
    atoms = ase_molecule(name)
    order = np.arange(len(atoms)) if rng is None else rng.permutation(len(atoms))
    coord = atoms.positions[order]
    if rng is not None:
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        coord = coord @ turn + rng.normal(size=3) + rng.uniform(-spread, spread, coord.shape)
    numbers = atoms.numbers[order]
    return graph_hash(coord[None], numbers[None], np.zeros(1), np.ones(1))[0]


@given(st.sampled_from(MOLECULES), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_hash_sees_the_bond_graph_only(name: str, seed: int) -> None:
    assert graph(name, np.random.default_rng(seed), spread=0.05) == graph(name)


def test_the_hash_tells_isomers_charges_and_spins_apart() -> None:
    assert len({graph(name) for name in MOLECULES}) == len(MOLECULES)
    water = ase_molecule("H2O")
    states = [(0, 1), (1, 2), (-1, 2), (0, 3)]
    hashes = {
        int(graph_hash(water.positions[None], water.numbers[None], np.array([q]), np.array([m]))[0])
        for q, m in states
    }
    assert len(hashes) == len(states)


def conformers(names: tuple[str, ...], seed: int, named: bool) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    found = []
    for name in names:
        atoms = ase_molecule(name)
        for _ in range(6):
            order = rng.permutation(len(atoms))
            coord = atoms.positions[order] + rng.uniform(-0.04, 0.04, (len(atoms), 3))
            entry = {"coord": coord, "numbers": atoms.numbers[order], "charge": 0.0, "mult": 1.0}
            entry |= {"energy": 0.0} | ({"molecule": name} if named else {})
            found.append(entry)
    return found


def open_all(folder: Path, sets: list[list[dict[str, object]]]) -> list[FidelityDataset]:
    for k, entries in enumerate(sets):
        write_grouped(folder / f"{k}.h5", entries, {}, force=True)
    return [FidelityDataset(folder / f"{k}.h5", k, None, ("energy",)) for k in range(len(sets))]


def identities(data: FidelityDataset, index: np.ndarray) -> set[int]:
    fields = ("coord", "numbers", "charge", "mult")
    keys = data.hashes(fields, lambda arrays: graph_hash(*(arrays[name] for name in fields)))
    return set(keys[index].tolist())


@pytest.mark.parametrize("named", [(True, True), (False, False), (True, False)])
def test_no_molecule_is_on_both_sides_at_any_fidelity(
    tmp_path: Path, named: tuple[bool, bool]
) -> None:
    sets = [conformers(MOLECULES[:5], 0, named[0]), conformers(MOLECULES, 1, named[1])]
    data = open_all(tmp_path, sets)
    split = split_by_fraction(data, 0.3, seed=4)
    trained, validated = (
        set().union(*(identities(d, i) for d, i in zip(data, side, strict=True)))
        for side in (split.train, split.validation)
    )
    assert trained
    assert validated
    assert not trained & validated
    for d, t, v in zip(data, split.train, split.validation, strict=True):
        assert sorted([*t, *v]) == list(range(len(d)))
        assert len(t)
        assert len(v)


def test_an_empty_name_is_no_name(tmp_path: Path) -> None:
    entries = conformers(MOLECULES, 0, True)
    for entry in entries[:12]:
        entry["molecule"] = ""
    (keys,), by = molecule_keys(open_all(tmp_path, [entries]))
    assert "bond graph" in by
    assert len(np.unique(keys)) == len(MOLECULES)


def test_the_split_depends_on_the_seed_only(tmp_path: Path) -> None:
    data = open_all(tmp_path, [conformers(MOLECULES, 0, True)])
    first, again, other = (split_by_fraction(data, 0.3, seed=s).validation[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


def by_brute_force(name: str, spread: float, seed: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Positions of a distorted molecule, and its bonds, pair by pair."""
    atoms = ase_molecule(name)
    coord = atoms.positions + np.random.default_rng(seed).normal(0, spread, atoms.positions.shape)
    n = len(atoms)
    return coord, [
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if np.linalg.norm(coord[i] - coord[j])
        < BOND_FACTOR * (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]])
    ]


@pytest.mark.parametrize("name", MOLECULES)
def test_bonds_are_found_between_all_pairs(name: str) -> None:
    numbers = ase_molecule(name).numbers
    made = [by_brute_force(name, 0.3, seed) for seed in range(6)]
    low, high = _bonds(np.stack([c for c, _ in made]), np.tile(numbers, (6, 1)))
    found = [
        sorted((int(a) // 6, int(b) // 6) for a, b in zip(low, high, strict=True) if a % 6 == m)
        for m in range(6)
    ]
    assert found == [sorted(bonds) for _, bonds in made]
    assert (low % 6 == high % 6).all()


def test_conformers_are_told_apart_on_a_grid() -> None:
    rng = np.random.default_rng(0)
    coord, numbers = rng.uniform(-3, 3, (50, 6, 3)).round(2), np.full((50, 6), 6)
    hashes = conformer_hash(coord, numbers)
    assert len(np.unique(hashes)) == 50
    np.testing.assert_array_equal(conformer_hash(coord + 4e-4, numbers), hashes)
    moved = coord.copy()
    moved[:, 2, 1] += 0.01
    swapped = coord[:, [1, 0, 2, 3, 4, 5]]
    other = np.where(np.arange(6) == 3, 7, numbers)
    for changed in ((moved, numbers), (swapped, numbers), (coord, other), (-coord, numbers)):
        assert not np.isin(conformer_hash(*changed), hashes).any()


class Identified:
    """A data set of which nothing but the identities is known."""

    def __init__(self, molecules: list[int], fidelity: int) -> None:
        self.molecules, self.fidelity, self.where = molecules, fidelity, "nowhere"


def split_of(
    monkeypatch: pytest.MonkeyPatch, sets: list[list[int]], fraction: float, seed: int = 0
) -> list[set[int]]:
    """Molecules of every fidelity that are validated on."""
    keys = [mix(np.array(m, dtype="uint64")) for m in sets]
    monkeypatch.setattr(splits, "molecule_keys", lambda datasets: (keys, "number"))
    data = [Identified(m, k) for k, m in enumerate(sets)]
    split = split_by_fraction(data, fraction, seed)  # type: ignore[arg-type]
    for m, t, v in zip(sets, split.train, split.validation, strict=True):
        assert sorted([*t, *v]) == list(range(len(m)))
    return [{m[i] for i in v} for m, v in zip(sets, split.validation, strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_every_fidelity_has_its_share_of_validation(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    few, many, cheap = list(range(40)), list(range(20, 900)), list(range(5000))
    alone = list(range(10_000, 10_050))
    sets = [few, many, cheap, alone]
    validated = split_of(monkeypatch, sets, 0.1, seed)
    for molecules, held_out in zip(sets, validated, strict=True):
        share = 0.1 * len(molecules)
        assert int(share) <= len(held_out) <= share + 2
    together = set().union(*validated)  # on one side in all fidelities
    for molecules, held_out in zip(sets, validated, strict=True):
        assert together & set(molecules) == held_out


def test_the_choice_hardly_changes_when_data_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    first = split_of(monkeypatch, [list(range(100)), list(range(1000))], 0.1)
    same = split_of(monkeypatch, [list(range(99, -1, -1)) * 2, list(range(1000))], 0.1)
    assert same == first
    more = split_of(monkeypatch, [list(range(110)), list(range(1100))], 0.1)
    assert len(first[1] - more[1]) <= 10
    assert len(first[0] - more[0]) <= 3


def test_one_molecule_is_split_by_conformer_across_fidelities(tmp_path: Path) -> None:
    entries = conformers(("CH3CH2OH",), 0, False) * 3
    for i, entry in enumerate(entries):
        entries[i] = entry | {"coord": np.asarray(entry["coord"]) + 0.01 * (i // 6)}
    data = open_all(tmp_path, [entries, entries[::-1]])
    keys, by = molecule_keys(data)
    assert "conformer" in by
    split = split_by_fraction(data, 0.3, seed=0)
    sides = [
        {int(keys[k][i]) for k in range(2) for i in side[k]}
        for side in (split.train, split.validation)
    ]
    assert not sides[0] & sides[1]


def test_molecules_of_validation_files_are_not_trained_on(tmp_path: Path) -> None:
    data = open_all(tmp_path, [conformers(MOLECULES, 0, True), conformers(MOLECULES, 1, True)])
    path = tmp_path / "val.h5"
    write_grouped(path, conformers(MOLECULES[:2], 7, True), {}, force=True)
    held_out = FidelityDataset(path, 1, None, ("energy",))
    split = split_from_files(data, [held_out])
    assert [len(v) for v in split.validation] == [0, len(held_out)]
    forbidden = identities(held_out, split.validation[1])
    for d, t in zip(data, split.train, strict=True):
        assert len(t) == 6 * (len(MOLECULES) - 2)
        assert not identities(d, t) & forbidden


def test_impossible_splits_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", 20, n_parents=4)
    data = [FidelityDataset(tmp_path / "a.h5", 0, None, ("energy",))]
    for fraction in (0.0, 1.0, -0.1):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            split_by_fraction(data, fraction, 0)
    with pytest.raises(DataError, match="none is left to train on"):
        split_by_fraction(data, 0.99, 0)
