"""Frames of several sets as ragged batches: nothing lost, nothing twice, whatever divides them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.data.beads.bead_batches import real_beads
from mlff_cli.data.beads.bead_feed import BeadFeed
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.bead_split import FORMAT, split_frames
from mlff_cli.data.beads.cg_beads import CGBlock
from mlff_cli.data.beads.cg_writer import write_cg
from tests.data.cg_sets import SOURCES, block, chain, seed_set

NAMES = ["ALA", "GLY", "TRP"]


def at_300(k: int, n: int, frames: int, seed: int) -> CGBlock:
    made = block(k, n, frames, seed=seed)
    made.temperature[:] = 300.0
    return made


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files: molecules a (5 beads) and b (8 beads), and b again with c (3 beads)."""
    folder = tmp_path_factory.mktemp("sets")
    first, second = folder / "1.npz", folder / "2.npz"
    a, b, c = chain(5, name="a"), chain(8, name="b", seed=1), chain(3, name="c", seed=2)
    write_cg(first, [a, b], NAMES, SOURCES, {}, every_block()[:2])
    renamed = ["TRP", "ALA", "GLY"]  # the same names by other numbers

    def other(molecule):
        return type(molecule)(
            **{**vars(molecule), "species": np.array([1, 2, 0], np.int32)[molecule.species]}
        )

    write_cg(second, [other(c), other(b)], renamed, SOURCES, {}, every_block()[2:])
    return [first, second]


def every_block() -> list[CGBlock]:
    return [at_300(0, 5, 40, 0), at_300(1, 8, 30, 1), at_300(0, 3, 20, 2), at_300(1, 8, 25, 3)]


def test_molecules_of_several_files_are_one_by_what_they_are(two: list[Path]) -> None:
    with BeadFrames(two) as frames:
        assert [m.name for m in frames.molecules] == ["a", "b", "c"]
        assert np.bincount(frames.molecule).tolist() == [40, 55, 20]
        assert frames.temperature == 300.0
        for m, n in zip(frames.molecules, (5, 8, 3), strict=True):
            own = chain(n, name=m.name, seed="abc".index(m.name))
            assert [frames.type_names[t] for t in m.types] == [NAMES[s] for s in own.species]


@pytest.mark.parametrize("in_memory", [1 << 40, 0])
def test_padded_frames_are_those_of_the_files(two: list[Path], in_memory: int) -> None:
    with BeadFrames(two, in_memory_bytes=in_memory) as frames:
        assert frames.in_memory == bool(in_memory)
        index = np.array([71, 3, 114, 45, 4])
        got = frames.padded(index)
        blocks = [
            at_300(0, 5, 40, 0),
            at_300(1, 8, 30, 1),
            at_300(0, 3, 20, 2),
            at_300(1, 8, 25, 3),
        ]
        every = [(x, f) for b in blocks for x, f in zip(b.R, b.F, strict=True)]
        for b, i in enumerate(index):
            x, f = every[i]
            np.testing.assert_array_equal(got.R[b, : len(x)], x)
            np.testing.assert_array_equal(got.F[b, : len(x)], f)
            assert not got.R[b, len(x) :].any()
            own = frames.molecules[got.molecule[b]].types
            np.testing.assert_array_equal(got.types[b, : len(x)], own)
        assert [len(x) for x, _ in (every[i] for i in index)] == got.n_beads.tolist()


def test_a_seed_s_beads_are_found_in_any_column(tmp_path: Path) -> None:
    real = seed_set(tmp_path / "s.npz", [3, 5, 3, 4])
    for limit in (1 << 40, 0):
        with BeadFrames([tmp_path / "s.npz"], in_memory_bytes=limit) as frames:
            got = frames.padded(np.arange(4))
        for b, (_, x, f) in enumerate(real):
            np.testing.assert_array_equal(got.R[b, : len(x)], x)
            np.testing.assert_array_equal(got.F[b, : len(x)], f)


def feed(frames: BeadFrames, **options: object) -> BeadFeed:
    split = split_frames(frames, 0.2, seed=1)
    chosen = {"batch_size": 16, "seed": 5, "dtype": torch.float32, **options}
    return BeadFeed(frames, split, frames.energy, **chosen)  # type: ignore[arg-type]


def test_an_epoch_holds_every_training_frame_and_validation_the_others(two: list[Path]) -> None:
    with BeadFrames(two) as frames:
        one = feed(frames)
        seen = Counter[int]()
        for step in range(one.epoch_length):
            for part in one.training_parts(step):
                seen.update(part.tensors["index"].tolist())
        held = [
            i
            for b in range(one.n_validation)
            for i in one.validation_batch(b).tensors["index"].tolist()
        ]
        assert not set(held) & set(seen)
        assert sorted([*held, *seen]) == list(range(len(frames)))
        assert max(seen.values()) == 2  # the last batch is filled up from the next pass
        assert seen.total() == one.epoch_length * 16
        again = feed(frames)
        for step in (0, one.epoch_length + 1):
            for a, b in zip(one.training_parts(step), again.training_parts(step), strict=True):
                assert torch.equal(a.tensors["coord"], b.tensors["coord"])


def test_processes_and_parts_divide_a_batch_and_lose_nothing(two: list[Path]) -> None:
    with BeadFrames(two) as frames:
        whole = {int(i) for p in feed(frames).training_parts(3) for i in p.tensors["index"]}
        shares = [feed(frames, rank=r, size=3, parts=6).training_parts(3) for r in range(3)]
        assert [len(s) for s in shares] == [2, 2, 2]
        parts = [int(i) for s in shares for p in s for i in p.tensors["index"]]
        assert sorted(parts) == sorted(whole)


def test_padding_is_told_from_beads(two: list[Path]) -> None:
    with BeadFrames(two) as frames:
        (batch,) = feed(frames).training_parts(0)
        real = real_beads(batch.tensors["n_atoms"], batch.tensors["coord"].shape[1])
        assert torch.equal(real.sum(1), batch.tensors["n_atoms"])
        assert not batch.tensors["coord"][~real].any()


@pytest.mark.parametrize(("n_frames", "longest"), [(20, 2), (50, 5), (100, 5), (190, 6), (600, 6)])
def test_small_samples_are_split_into_fewer_stretches_not_into_frames(
    tmp_path: Path, n_frames: int, longest: int
) -> None:
    made = at_300(0, 3, n_frames, 0)
    write_cg(tmp_path / "s.npz", [chain(3, name="a")], NAMES, SOURCES, {}, [made])
    with BeadFrames([tmp_path / "s.npz"]) as frames:
        split = split_frames(frames, 0.1, seed=3)
        held = np.isin(np.arange(n_frames), split.validation)
        alone = held[1:-1] & ~held[:-2] & ~held[2:]
        assert split.shortest == longest
        assert not alone.any()
        assert 0.05 < held.mean() < 0.2
        assert split_frames(frames, 0.1, seed=3, stretch=1).shortest == 1


def test_neighbouring_frames_stay_on_one_side(two: list[Path], tmp_path: Path) -> None:
    with BeadFrames(two) as frames:
        split = split_frames(frames, 0.25, seed=0, stretch=5)
        side = np.zeros(len(frames), bool)
        side[split.validation] = True
        for k in range(3):
            own = side[frames.molecule == k]
            stretches = [own[i : i + 5] for i in range(0, len(own), 5)]
            assert all(len(set(s.tolist())) == 1 for s in stretches)
            assert 0.15 < own.mean() < 0.35
        split.save(tmp_path / "split.npz", frames)
        with np.load(tmp_path / "split.npz") as kept:
            assert str(kept["format"]) == FORMAT
            np.testing.assert_array_equal(kept["validation"], side)
        with pytest.raises(ConfigError, match="between 0 and 1"):
            split_frames(frames, 1.0, seed=0)


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bare.npz"
    write_cg(bare, [chain(4)], NAMES, SOURCES, {}, [block(0, 4, 3, forces=False)])
    with pytest.raises(DataError, match="the set has none"):
        BeadFrames([bare])
    delta = tmp_path / "delta.npz"
    write_cg(delta, [chain(4)], NAMES, SOURCES, {"subtracted_prior": {}}, [block(0, 4, 3)])
    with pytest.raises(DataError, match="taken off twice"):
        BeadFrames([delta])
    mixed = tmp_path / "mixed.npz"
    known = [chain(4), chain(5, name="b")]
    write_cg(mixed, known, NAMES, SOURCES, {}, [block(0, 4, 3), block(1, 5, 3)])
    with pytest.raises(ConfigError) as caught:
        BeadFrames([mixed])
    assert "data.temperature=300" in str(caught.value.remedy)
    with BeadFrames([mixed], temperature=301.0) as frames:
        assert [m.name for m in frames.molecules] == ["b"]
    broken = tmp_path / "broken.npz"
    write_cg(broken, [chain(4)], NAMES, SOURCES, {}, [block(0, 4, 3)])
    with np.load(broken) as whole:
        arrays = dict(whole)
    arrays["F"][1, 2] = np.nan
    np.savez(broken, **arrays)
    with pytest.raises(DataError, match="frame 1, bead 2"):
        BeadFrames([broken], in_memory_bytes=0)


def test_energies_of_a_set_become_labels(tmp_path: Path) -> None:
    seed_set(tmp_path / "s.npz", [3, 3, 3, 3])
    with np.load(tmp_path / "s.npz") as old:
        np.savez(tmp_path / "u.npz", **old, U=np.array([1.0, np.nan, 3.0, 4.0]))
    with BeadFrames([tmp_path / "u.npz"]) as frames:
        batches = [
            feed(frames, batch_size=3).validation_batch(0),
            *feed(frames, batch_size=3).training_parts(0),
        ]
        for batch in batches:
            index = batch.tensors["index"]
            assert batch.tensors["energy_mask"].tolist() == (index != 1).tolist()
            known = batch.tensors["energy"][batch.tensors["energy_mask"]]
            assert known.tolist() == [float([1, 0, 3, 4][i]) for i in index if i != 1]
