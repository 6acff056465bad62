"""Joined sets: every frame is what it was in its own set, whatever the padding."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.beads.cg_combine import combine
from mlff_cli.data.beads.cg_npz import CGBlock, CGSet
from mlff_cli.data.beads.cg_writer import write_cg
from tests.data.cg_sets import SOURCES, block, chain, seed_set
from tests.open_files import room_for

TABLE = ["ALA", "GLY", "PRO"]


def one(path: Path, n: int, n_frames: int = 3, *, table: Any = TABLE, **how: Any) -> Path:
    metadata = {"mapping": "ca", "species": "residue", **how.pop("metadata", {})}
    molecule = chain(n, name=path.stem, seed=n)
    blocks = [block(0, n, n_frames, seed=n, **how)]
    write_cg(path, [molecule], table, SOURCES, metadata, blocks)
    return path


def frames_of(path: Path) -> list[tuple[CGBlock, list[str]]]:
    """Every frame by itself, with the names of its beads' species."""
    with CGSet(path) as cg:
        table = cg.species_table
        return [
            (
                dataclasses.replace(b, R=b.R[[t]], F=None if b.F is None else b.F[[t]]),
                [table[s] for s in cg.layouts[b.molecule].species] if table else [],
            )
            for b in cg.blocks()
            for t in range(len(b.R))
        ]


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4, unique=True), forces=st.booleans())
def test_a_joined_set_is_the_sets(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], forces: bool
) -> None:
    folder = tmp_path_factory.mktemp("join")
    tables = [TABLE, ["PRO", "ALA", "X", "GLY"], TABLE[::-1], ["A", "B", "C"]]
    paths = [
        one(folder / f"{k}.npz", n, k + 1, table=tables[k], forces=forces)
        for k, n in enumerate(sizes)
    ]
    combine(paths, folder / "all.npz")
    separate = [frame for path in paths for frame in frames_of(path)]
    joined = frames_of(folder / "all.npz")
    assert len(joined) == len(separate)
    for (a, names_a), (b, names_b) in zip(joined, separate, strict=True):
        np.testing.assert_array_equal(a.R, b.R)
        assert (a.F is None) == (b.F is None) == (not forces)
        if a.F is not None:
            np.testing.assert_array_equal(a.F, b.F)
        assert names_a == names_b
    with CGSet(folder / "all.npz") as cg:
        for k, path in enumerate(paths):
            with CGSet(path) as alone:
                mine = cg.molecules[k]
                np.testing.assert_array_equal(mine.mapping, alone.molecules[0].mapping)
                np.testing.assert_array_equal(mine.bonds, alone.molecules[0].bonds)
                assert mine.name == path.stem
                rows = cg.per_frame("molecule") == k
                for name in ("frame", "temperature"):
                    np.testing.assert_array_equal(cg.per_frame(name)[rows], alone.per_frame(name))
        assert [s["molecule"] for s in cg.sources] == list(range(len(sizes)))
        np.testing.assert_array_equal(cg.per_frame("source"), cg.per_frame("molecule"))
        assert cg.n_beads == max(sizes)
        if len(sizes) > 1:
            assert [m["mapping"] for m in cg.metadata["molecules"]] == ["ca"] * len(sizes)


def test_joining_in_steps_is_joining_at_once(tmp_path: Path) -> None:
    a, b, c = (one(tmp_path / f"{n}.npz", n) for n in (3, 5, 2))
    combine([a, b], tmp_path / "ab.npz")
    combine([tmp_path / "ab.npz", c], tmp_path / "x.npz")
    combine([a, b, c], tmp_path / "y.npz")
    with np.load(tmp_path / "x.npz") as x, np.load(tmp_path / "y.npz") as y:
        assert sorted(x.files) == sorted(y.files)
        for name in set(x.files) - {"metadata"}:
            np.testing.assert_array_equal(x[name], y[name], err_msg=name)
        told = [json.loads(str(f["metadata"]))["molecules"] for f in (x, y)]
    assert told[0] == told[1]


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    a, b = one(tmp_path / "a.npz", 3), one(tmp_path / "b.npz", 4)
    for name in ("x", "other"):
        combine([a, b], tmp_path / f"{name}.npz")
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()


def test_more_sets_than_can_be_open(tmp_path: Path) -> None:
    paths = [one(tmp_path / f"{k}.npz", 3 + k % 4, start=5 * k) for k in range(60)]
    with room_for(20):  # eight are kept open
        found = combine(paths, tmp_path / "all.npz")
    assert (found.data["frames"], found.data["molecules"]) == (180, 4)
    with CGSet(tmp_path / "all.npz") as cg:
        np.testing.assert_array_equal(cg.per_frame("source"), np.repeat(np.arange(60), 3))
        np.testing.assert_array_equal(cg.per_frame("frame")[::3], 5 * np.arange(60))


def test_a_molecule_of_two_sets_is_kept_once(tmp_path: Path) -> None:
    a, b = one(tmp_path / "a.npz", 4), one(tmp_path / "b.npz", 4, start=7)
    found = combine([a, b], tmp_path / "x.npz")
    assert (found.data["molecules"], found.data["frames"]) == (1, 6)
    with CGSet(tmp_path / "x.npz") as cg:
        assert len(cg.molecules) == 1
        np.testing.assert_array_equal(cg.per_frame("source"), [0, 0, 0, 1, 1, 1])
        assert [s["molecule"] for s in cg.sources] == [0, 0]


def test_names_tell_molecules_apart(tmp_path: Path) -> None:
    paths = []
    for n in (3, 4, 5):
        (tmp_path / str(n)).mkdir()
        paths.append(one(tmp_path / str(n) / "protein.npz", n))
    combine(paths, tmp_path / "x.npz")
    with CGSet(tmp_path / "x.npz") as cg:
        assert [m.name for m in cg.molecules] == ["protein", "protein_2", "protein_3"]
        assert [m.n_beads for m in cg.molecules] == [3, 4, 5]


@pytest.mark.parametrize("parked", [0.0, 95.0, np.nan])
def test_seeds_sets_are_joined_without_their_padding(tmp_path: Path, parked: float) -> None:
    real = seed_set(tmp_path / "a.npz", [3, 5, 3], parked=parked)
    real += seed_set(tmp_path / "b.npz", [6, 2], parked=parked, seed=1)
    reporter = NullReporter()
    combine([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "x.npz", reporter)
    assert any("same number" in text for text in reporter.warnings)
    assert any("one chain" in text for text in reporter.warnings)
    with CGSet(tmp_path / "x.npz") as cg:
        assert cg.n_beads == 6
        np.testing.assert_array_equal(cg.per_frame("molecule"), [0, 1, 0, 2, 3])
        for (_, R, F), found in zip(real, frames_of(tmp_path / "x.npz"), strict=True):
            np.testing.assert_array_equal(found[0].R[0], R)
            np.testing.assert_array_equal(found[0].F[0], F)
            assert found[1] == [f"type{k}" for k in range(len(R))]


def test_what_does_not_belong_together(tmp_path: Path) -> None:
    a, out = one(tmp_path / "a.npz", 3), tmp_path / "x.npz"
    bare = one(tmp_path / "bare.npz", 4, forces=False)
    with pytest.raises(DataError, match="all sets must have forces.*bare"):
        combine([a, bare], out)
    seed_set(tmp_path / "seed.npz", [3, 5])
    with pytest.raises(DataError, match="all sets must have a species table.*seed"):
        combine([a, tmp_path / "seed.npz"], out)
    classes = one(tmp_path / "c.npz", 5, metadata={"species": "class"})
    with pytest.raises(DataError, match="one species belong together, found class, residue"):
        combine([a, classes], out)
    (tmp_path / "copy.npz").write_bytes(a.read_bytes())
    with pytest.raises(UsageError, match="same content in .*a.npz, .*copy.npz"):
        combine([a, tmp_path / "copy.npz"], out)
    with pytest.raises(UsageError, match="same content"):
        combine([a, a], out)
    with pytest.raises(UsageError, match="nothing to join"):
        combine([], out)
    with pytest.raises(UsageError, match="written as NPZ"):
        combine([a], tmp_path / "x.h5")
    with pytest.raises(UsageError, match="replace an input"):
        combine([a], a, force=True)
    assert not out.exists()
    reporter = NullReporter()
    com = one(tmp_path / "com.npz", 5, metadata={"mapping": "com"})
    combine([a, com], out, reporter)
    assert any("one mapping" in text for text in reporter.warnings)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    a, b = one(tmp_path / "a.npz", 3), one(tmp_path / "b.npz", 4)
    summary = combine([a, b], tmp_path / "x.npz", dry_run=True)
    assert "would join 6 frames of 2 molecules" in summary.lines[0]
    assert not (tmp_path / "x.npz").exists()
