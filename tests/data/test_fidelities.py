"""Files of a configuration: lists and patterns, memory, stored splits, copies."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import ConfigError, DataError, StorageError
from mlff_cli.data.batching import Collator
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.fidelities import Fidelities, open_fidelities
from mlff_cli.data.sae import write_sae
from mlff_cli.data.settings import DataSection
from tests.synthetic import self_energy, write_dataset

LABELS = ("energy", "forces")
ELEMENTS = (1, 6, 7, 8)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for k in range(2):
        write_sae(tmp_path / f"sae{k}.yaml", {z: float(self_energy(z)) for z in ELEMENTS})
    for i in range(3):
        path = tmp_path / f"part_{i}.h5"
        write_dataset(path, 30, seed=i, labels=LABELS, n_parents=8, sizes=range(3, 8))
    write_dataset(tmp_path / "b.h5", 40, seed=9, labels=LABELS, n_parents=8, sizes=range(3, 8))
    write_dataset(tmp_path / "val.h5", 15, seed=20, labels=LABELS, n_parents=5, parent_seed=1)
    return tmp_path


def section(first: Any, second: Any = "b.h5", **more: Any) -> DataSection:
    values = {
        "fidelity_datasets": {0: first, 1: second},
        "sae": {"energy": {"files": {0: "sae0.yaml", 1: "sae1.yaml"}}},
        "y": list(LABELS),
        "val_fraction": 0.25,
        "samplers": {"train": {"kwargs": {"batch_size": 8, "batch_mode": "molecules"}}},
    }
    return DataSection.model_validate({**values, **more})


def tensors(data: Fidelities, fidelity: int, index: list[int]) -> dict[str, torch.Tensor]:
    collator = Collator(data.train, LABELS, offset=200)
    return collator(np.full(len(index), fidelity), np.array(index)).tensors


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("memory", [0, 100])
def test_several_files_are_one_after_the_other(memory: int) -> None:
    names = ["part_1.h5", "part_0.h5", "part_2.h5"]
    data = open_fidelities(section(names, in_memory_mb=memory), 0)
    assert len(data.train[0]) == 90
    assert data.train[0].in_memory == (memory > 0)
    together = tensors(data, 0, list(range(90)))
    start = 0
    for name in names:
        one = FidelityDataset(name, 0, data.sae[0], LABELS)
        alone = Collator([one], LABELS, offset=200)(np.zeros(30, "int64"), np.arange(30)).tensors
        for field, values in alone.items():
            found = together[field][start : start + 30]
            if found.ndim > 1:
                found = found[:, : values.shape[1]]
            assert torch.equal(found, values), field
        start += 30
    assert data.describe()[0]["dataset"] == "part_1.h5, part_0.h5, part_2.h5"


@pytest.mark.usefixtures("world")
def test_a_pattern_is_sorted_and_every_file_is_recorded() -> None:
    data = open_fidelities(section("part_*.h5", ["b.h5"]), 0)
    assert [p.name for p in data.train[0].paths] == ["part_0.h5", "part_1.h5", "part_2.h5"]
    read = ["part_0.h5", "part_1.h5", "part_2.h5", "b.h5", "sae0.yaml", "sae1.yaml"]
    assert [str(p) for p in data.files] == read
    assert all(data.digests[p] == sha256(p) for p in data.files)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("first", "rule"),
    [
        ("nothing_*.h5", r"fidelity_datasets\.0: no file matches 'nothing_\*\.h5'"),
        (["part_0.h5", "part_*.h5"], r"fidelity_datasets\.0 names the file part_0\.h5 twice"),
        (["part_0.h5", "b.h5"], r"datasets\.0 and data\.fidelity_datasets\.1 are the same file"),
    ],
)
def test_wrong_lists_are_refused(first: Any, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        open_fidelities(section(first), 0)


def test_what_names_no_files_is_refused_in_one_message() -> None:
    for wrong in (5, [], ["a.h5", 7], {"a": 1}, None):
        with pytest.raises(ValueError, match="a file, a pattern or a list of them") as caught:
            section(wrong)
        assert str(caught.value).count("needed") == 1


@pytest.mark.usefixtures("world")
def test_errors_name_the_file_of_several(world: Path) -> None:
    with h5py.File(world / "part_1.h5", "r+") as file:
        name = sorted(file)[0]
        file[name]["energy"][2] = np.inf
    rule = rf"part_1\.h5, group {name}, molecule 2: 'energy' is infinite"
    with pytest.raises(DataError, match=rule):
        open_fidelities(section("part_*.h5"), 0)
    with h5py.File(world / "part_1.h5", "r+") as file:
        file[name]["energy"][2] = 0.0
    data = open_fidelities(section("part_*.h5"), 0)
    words = Collator(data.train, LABELS, offset=200).name_molecules(np.array([0]), np.array([32]))
    assert words == f"fidelity 0 part_1.h5 group {name} molecule 2"


@pytest.mark.usefixtures("world")
def test_files_that_differ_in_level_and_fields_are_told(world: Path) -> None:
    with h5py.File(world / "part_1.h5", "r+") as file:
        file.attrs["level_of_theory"] = "other"
        for group in file.values():
            del group["forces"]
    data = open_fidelities(section("part_*.h5"), 0)
    assert any("differ in their level of theory: synthetic, other" in n for n in data.notes)
    assert data.train[0].label_counts == {"energy": 90, "forces": 60}
    mask = tensors(data, 0, list(range(90)))["forces_mask"]
    assert mask.tolist() == [True] * 30 + [False] * 30 + [True] * 30


def test_a_copy_under_another_fidelity_is_told(world: Path) -> None:
    shutil.copy(world / "part_0.h5", world / "copy.h5")
    data = open_fidelities(section("part_0.h5", "copy.h5"), 0)
    (note,) = [n for n in data.notes if "same bytes" in n]
    assert "fidelity_datasets.1: copy.h5" in note
    assert "fidelity_datasets.0: part_0.h5" in note
    assert not [n for n in open_fidelities(section("part_0.h5"), 0).notes if "same bytes" in n]


def test_labels_that_no_validation_molecule_has_are_told(world: Path) -> None:
    """Else the best model is silently the best in something else."""
    write_dataset(world / "e.h5", 15, seed=20, labels=("energy",), n_parents=5, parent_seed=1)
    data = open_fidelities(section("part_0.h5", val_fidelity_datasets={0: "e.h5"}), 0)
    (note,) = [n for n in data.notes if "best model" in n]
    assert note.startswith("no validation molecule has the labels forces:")
    data = open_fidelities(section("part_0.h5", val_fidelity_datasets={0: "val.h5"}), 0)
    assert not [n for n in data.notes if "best model" in n]


@pytest.mark.usefixtures("world")
def test_memory_is_given_out_once() -> None:
    need = [d.n_bytes for d in open_fidelities(section("part_*.h5"), 0).train]
    data = section("part_*.h5")

    def kept(n_bytes: float, **more: Any) -> list[bool]:
        """With about so much for each of the processes that share a MiB."""
        settings = data.model_copy(update={"in_memory_mb": 1, **more})
        opened = open_fidelities(settings, 0, local_processes=int((1 << 20) / n_bytes))
        return [d.in_memory for d in opened.train]

    first, second = need
    assert first > second
    assert kept(1.1 * (first + second)) == [True, True]
    assert kept(first + 0.5 * second) == [True, False]
    assert kept(0.5 * (first + second)) == [False, True]
    assert kept(1, ddp_load_full_dataset=True) == [True, True]


@pytest.mark.usefixtures("world")
def test_every_validation_molecule_is_validated_once() -> None:
    for settings in (
        section("part_*.h5"),
        section("part_*.h5", val_fidelity_datasets={1: "val.h5"}),
    ):
        data = open_fidelities(settings, 0)
        seen = Counter(
            (int(k), int(i)) for f, x in data.validation_picks for k, i in zip(f, x, strict=True)
        )
        expected = [(k, int(i)) for k, v in enumerate(data.split.validation) for i in v]
        assert seen == Counter(expected)
        assert expected


@pytest.mark.usefixtures("world")
def test_a_subset_of_fidelities_may_have_validation_files() -> None:
    data = open_fidelities(section("part_*.h5", val_fidelity_datasets={1: ["val.h5"]}), 0)
    assert [len(v) for v in data.split.validation] == [0, 15]
    assert [d.fidelity for d in data.validation] == [1]
    collator = Collator(data.validation, LABELS, offset=200)
    assert sum(len(collator(*pick)) for pick in data.validation_picks) == 15


@pytest.mark.usefixtures("world")
def test_the_split_has_a_seed_of_its_own() -> None:
    settings = section("part_*.h5")

    def validated(seed: int, given: int | None = None, argument: int | None = None) -> list[int]:
        chosen = settings.model_copy(update={"split_seed": given})
        data = open_fidelities(chosen, seed, split_seed=argument)
        return np.concatenate(data.split.validation).tolist()

    assert validated(1) != validated(2)
    assert validated(1, given=7) == validated(2, given=7) == validated(7)
    assert validated(1, argument=7) == validated(7)
    assert validated(1, given=7, argument=3) == validated(7)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("held_out", [None, {1: "val.h5"}])
def test_a_stored_split_is_the_same_split(world: Path, held_out: Any) -> None:
    settings = section("part_*.h5", val_fidelity_datasets=held_out)
    first = open_fidelities(settings, 3)
    first.save_split(world / "run" / "split.npz")
    kept = settings.model_copy(update={"split_file": str(world / "run" / "split.npz")})
    again = open_fidelities(kept, 99)
    for side in ("train", "validation"):
        for a, b in zip(getattr(first.split, side), getattr(again.split, side), strict=True):
            np.testing.assert_array_equal(a, b)
    assert again.split.by == first.split.by
    before = (world / "run" / "split.npz").read_bytes()
    again.save_split(world / "run" / "split.npz")
    assert (world / "run" / "split.npz").read_bytes() == before


def test_a_stored_split_serves_the_same_molecules_in_other_bytes(world: Path) -> None:
    first = open_fidelities(section("part_*.h5"), 3)
    first.save_split(world / "split.npz")
    for dataset in first.train:
        dataset.close()
    with h5py.File(world / "part_1.h5", "r+") as file:
        file.attrs["level_of_theory"] = "relabelled"
    again = open_fidelities(section("part_*.h5", split_file="split.npz"), 0)
    np.testing.assert_array_equal(again.split.train[0], first.split.train[0])
    for dataset in again.train:
        dataset.close()
    with h5py.File(world / "part_1.h5", "r+") as file:
        group = file[sorted(file)[0]]
        group["molecule"][0] = "another"
    rule = r"other molecules: train 0: part_0.h5 \(\w{12}\), part_1.h5 .* -> part_0.h5"
    with pytest.raises(ConfigError, match=rule) as caught:
        open_fidelities(section("part_*.h5", split_file="split.npz"), 0)
    assert "train 1" not in str(caught.value)


def test_a_split_of_other_files_is_refused(world: Path) -> None:
    open_fidelities(section("part_*.h5"), 3).save_split(world / "split.npz")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"first": "part_0.h5"}, "train 0: part_0.h5 .*part_2.h5 .* -> part_0.h5"),
        (
            {"first": "part_*.h5", "val_fidelity_datasets": {0: "val.h5"}},
            r"validation 0: no file -> val\.h5",
        ),
    ]
    for given, rule in cases:
        with pytest.raises(ConfigError, match=rule):
            open_fidelities(section(**given, split_file="split.npz"), 0)
    (world / "no.npz").write_text("no split")
    with pytest.raises(ConfigError, match="not a split that mlff wrote"):
        open_fidelities(section("part_*.h5", split_file="no.npz"), 0)
    with pytest.raises(StorageError, match="missing.npz"):
        open_fidelities(section("part_*.h5", split_file="missing.npz"), 0)


@pytest.mark.usefixtures("world")
def test_shares_of_a_step_are_the_step() -> None:
    data = open_fidelities(section("part_*.h5"), 0)
    collator = Collator(data.train, LABELS, offset=200)
    for step in (0, data.sampler.epoch_length - 1):
        whole = Counter(zip(*(x.tolist() for x in data.sampler.batch(step)), strict=True))
        for size in (1, 3, 20):
            shares = [data.training_share(step, rank, size) for rank in range(size)]
            together = Counter(
                pair for s in shares for pair in zip(*(x.tolist() for x in s), strict=True)
            )
            assert together == whole
            parts = [collator.parts(*s, 2) for s in shares]
            assert sum(len(b) for p in parts for b in p) == sum(whole.values())
            assert all(bool(p) == bool(len(s[1])) for p, s in zip(parts, shares, strict=True))


@pytest.mark.usefixtures("world")
def test_a_batch_larger_than_the_training_set_is_remarked() -> None:
    huge = {"train": {"kwargs": {"batch_size": 1000, "batch_mode": "molecules"}}}
    (note,) = [
        n for n in open_fidelities(section("part_0.h5", samplers=huge), 0).notes if "batch" in n
    ]
    assert "1000 molecules is more than all" in note
    assert not [n for n in open_fidelities(section("part_0.h5"), 0).notes if "more than all" in n]
