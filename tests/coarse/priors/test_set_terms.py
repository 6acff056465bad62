"""Terms of sets: ours, and seeds' without bonds."""

from pathlib import Path

import numpy as np
import pytest

from mlff_cli.coarse.mapping.topology import terms
from mlff_cli.coarse.priors import set_terms
from mlff_cli.coarse.priors.set_terms import molecule_terms, molecules
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_combine import combine
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.species_names import species_names
from tests.data.cg_sets import SOURCES, block, chain, seed_set


def test_a_set_of_ours_names_its_types(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_cg(path, [chain(5), chain(3)], ["A", "B", "C"], SOURCES, {},
             [block(0, 5, 2), block(1, 3, 2)])  # fmt: skip
    with CGSet(path) as cg:
        five, three = molecule_terms(cg)
        assert five.types == [["A", "B", "C"][s] for s in chain(5).species]
        assert (len(five.terms.bonds), len(three.terms.angles)) == (4, 1)
        assert not five.disulfides.any()
        assert len(molecules(cg)) == 2


def test_beads_of_a_seed_are_chains_in_the_order_of_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "seed.npz"
    seed_set(path, [4, 6, 4])
    with CGSet(path) as cg:
        assert species_names(cg) == [f"type{i}" for i in range(6)]
        four, six = molecule_terms(cg)
        assert four.types == ["type0", "type1", "type2", "type3"]
        np.testing.assert_array_equal(six.terms.bonds, [[i, i + 1] for i in range(5)])


def test_a_seeds_molecules_are_the_same_to_every_command(tmp_path: Path) -> None:
    """As `mlff convert` writes them, so a prior is fitted to them."""
    seed_set(tmp_path / "seed.npz", [4, 6])
    combine([tmp_path / "seed.npz"], tmp_path / "joined.npz")
    with CGSet(tmp_path / "seed.npz") as seed, CGSet(tmp_path / "joined.npz") as joined:
        for own, written in zip(molecules(seed), molecules(joined), strict=True):
            for array in ("residue", "residue_name", "bead_name", "chain", "bonds"):
                np.testing.assert_array_equal(getattr(own, array), getattr(written, array))


def test_terms_are_made_when_asked_for_and_a_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(
        set_terms, "terms", lambda molecule: made.append(molecule.name) or terms(molecule)
    )
    n = set_terms.KEPT + 3
    path = tmp_path / "a.npz"
    write_cg(path, [chain(4, name=str(k)) for k in range(n)], ["A", "B", "C"], SOURCES, {},
             [block(k, 4, 1) for k in range(n)])  # fmt: skip
    with CGSet(path) as cg:
        known = molecule_terms(cg)
        assert (len(known), made) == (n, [])
        assert known[n - 1] is known[-1]
        assert made == [str(n - 1)]
        assert [one.name for one in known] == [str(k) for k in range(n)]
        assert made.count("0") == 1


def test_species_outside_the_table_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_cg(path, [chain(5)], ["A", "B", "C"], SOURCES, {}, [block(0, 5, 2)])
    with CGSet(path) as cg:
        cg.species_table = ["A"]
        with pytest.raises(DataError, match="'chain' must be 0 to 0, found"):
            molecule_terms(cg)


def test_species_below_zero_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seed.npz"
    np.savez(path, R=np.zeros((2, 3, 3), np.float32), species=np.array([[0, -1, 2]] * 2, np.int32))
    with CGSet(path) as cg, pytest.raises(DataError, match="count from 0, found -1"):
        molecule_terms(cg)
