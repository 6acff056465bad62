"""All fidelities of a training: files opened and checked, molecules split, batches planned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import INPUTS
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.identity import molecule_keys
from mlff_cli.data.sae import read_sae
from mlff_cli.data.sampling import MixedSampler, Pick, SamplerOptions, every_molecule_once
from mlff_cli.data.settings import DataSection
from mlff_cli.data.sharding import share
from mlff_cli.data.sources import TRAIN, VALIDATION, expand, refuse_repeated, same_content
from mlff_cli.data.split_file import load_split, save_split
from mlff_cli.data.splits import Split, digest, split_by_fraction, split_from_files

_HASHED_TOGETHER = 2  # files; more would only compete for the disk


@dataclass(frozen=True)
class Fidelities:
    """The data of a training.

    Attributes:
        train: data sets to train on, by fidelity.
        validation: data sets to validate on; the same where a share is split off.
        split: which molecules of them.
        sae: self-atomic energies {fidelity: {Z: eV}}.
        sampler: draws training batches.
        validation_picks: validation batches.
        digests: every file that was read, with its SHA-256.
        remarks: what a user should hear about files of the same content, and batches that repeat
            molecules.
    """

    train: list[FidelityDataset]
    validation: list[FidelityDataset]
    split: Split
    sae: dict[int, dict[int, float]]
    sampler: MixedSampler
    validation_picks: list[Pick]
    digests: dict[Path, str]
    remarks: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """Every file that was read."""
        return list(self.digests)

    @property
    def notes(self) -> list[str]:
        """What a user should hear about the files."""
        different = {id(d): d for d in (*self.train, *self.validation)}
        trained, measured = (
            {n for d in sets for n, count in d.label_counts.items() if count}
            for sets in (self.train, self.validation)
        )
        unseen = [n for n in self.train[0].label_counts if n in trained - measured]
        blind = [
            f"no validation molecule has the labels {', '.join(unseen)}: the best model is chosen "
            "without them"
        ]
        files = [note for d in different.values() for note in d.notes]
        return [*files, *(blind if unseen else []), *self.remarks]

    def training_share(self, step: int, rank: int = 0, size: int = 1) -> Pick:
        """What one of `size` processes computes of the batch of a step; may be empty."""
        fidelity, index = self.sampler.batch(step)
        n_atoms = np.empty(len(index), dtype="int64")
        for d in self.train:
            n_atoms[fidelity == d.fidelity] = d.n_atoms[index[fidelity == d.fidelity]]
        return share((fidelity, index), n_atoms, rank, size)

    def having(self, labels: Iterable[str]) -> dict[str, set[int]]:
        """The fidelities that have each label, in training or in validation."""
        sets = (*self.train, *self.validation)
        return {n: {d.fidelity for d in sets if d.label_counts[n]} for n in labels}

    def validated(self, labels: Iterable[str]) -> dict[str, set[int]]:
        """The fidelities whose validation sets have each label."""
        sets = [d for d in self.validation if len(self.split.validation[d.fidelity])]
        return {n: {d.fidelity for d in sets if d.label_counts[n]} for n in labels}

    def save_split(self, path: Path) -> None:
        """Keep the split, for `data.split_file` of other runs (see `split_file`)."""
        own = {d.fidelity: len(d) for d in self.validation}
        sizes = [(len(d), own.get(d.fidelity, 0)) for d in self.train]
        save_split(path, self.split, sizes, sources_of(self.train, self.validation, self.digests))

    def describe(self) -> list[dict[str, Any]]:
        """Entries of the model file."""
        return [
            {
                "index": d.fidelity,
                "dataset": ", ".join(path.name for path in d.paths),
                "level_of_theory": d.level_of_theory,
                "species": d.species,
                "labels": {k: n for k, n in d.label_counts.items() if n},
            }
            for d in self.train
        ]

    def rows(self) -> list[tuple[str, str]]:
        """The data in words, one row per fidelity."""
        table = []
        split = self.split
        for d, t, v in zip(self.train, split.train, split.validation, strict=True):
            labels = ", ".join(f"{k} {n}" for k, n in d.label_counts.items() if n)
            where = "in memory" if d.in_memory else "on disk"
            if len(d.paths) > 1:
                where = f"{len(d.paths)} files {where}"
            theory = d.level_of_theory or "unknown level of theory"
            text = f"{theory}: {len(t)} train, {len(v)} validation ({labels}; {where})"
            table.append((f"fidelity {d.fidelity}", text))
        return [*table, ("split by", split.by)]


def open_fidelities(
    data: DataSection,
    seed: int,
    tell: Callable[[str], None] = lambda message: None,
    *,
    split_seed: int | None = None,
    local_processes: int = 1,
) -> Fidelities:
    """Open, check and split the files of a configuration.

    Args:
        data: `data` of the configuration.
        seed: of sampling, and of the split where nothing else is given.
        tell: hears what is being read.
        split_seed: of the split, where `data.split_seed` is null.
        local_processes: of a distributed run on this machine, which share its memory.

    Raises:
        ConfigError: files or options contradict each other.
        DataError: a file holds something it must not.
    """
    if set(data.x) != set(INPUTS):
        raise ConfigError(
            f"data.x: the model reads {', '.join(INPUTS)}, found {', '.join(data.x) or 'nothing'}",
            remedy="leave data.x out; a file without charge or mult is read as 0 and 1",
        )
    kwargs = data.samplers.val.kwargs
    if kwargs.batches_per_epoch not in (None, -1):
        raise ConfigError(
            "validation covers every molecule once, found "
            f"data.samplers.val.kwargs.batches_per_epoch={kwargs.batches_per_epoch}",
            remedy="set it to -1",
        )
    train_files, validation_files = fidelity_paths(data)
    sae_files = {k: Path(data.sae.energy.files[k]) for k in train_files}
    sae = {k: read_sae(path) for k, path in sae_files.items()}
    by_key = {f"{TRAIN}.{k}": paths for k, paths in train_files.items()}
    by_key |= {f"{VALIDATION}.{k}": paths for k, paths in validation_files.items()}
    files = [*(p for paths in by_key.values() for p in paths), *sae_files.values()]
    left = (data.in_memory_mb << 20) // local_processes

    def open_files(k: int, paths: list[Path]) -> FidelityDataset:
        nonlocal left
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        tell(f"reading fidelity {k}: {paths[0]}{others}")
        limit = 1 << 62 if data.ddp_load_full_dataset else left
        dataset = FidelityDataset(paths, k, sae[k], data.y, in_memory_bytes=limit)
        if dataset.in_memory:
            left -= dataset.n_bytes
        return dataset

    pool = ThreadPoolExecutor(_HASHED_TOGETHER)  # what one reads the other finds in memory
    try:
        # of anything but a file a hash may never end; its reader tells what is wrong with it
        hashed = {path: pool.submit(sha256, path) for path in files if path.is_file()}
        train = [open_files(k, paths) for k, paths in train_files.items()]
        held_out = [open_files(k, paths) for k, paths in validation_files.items()]
        digests = {path: future.result() for path, future in hashed.items()}
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    chosen = data.split_seed if data.split_seed is not None else split_seed
    split = _split(data, train, held_out, digests, seed if chosen is None else chosen)
    validation = held_out or train
    sizes = {d.fidelity: d.n_atoms for d in validation}
    picks = every_molecule_once(
        split.validation,
        [sizes[k][i] if len(i) else i for k, i in enumerate(split.validation)],
        kwargs.batch_size,
        kwargs.batch_mode,
    )
    sampler = training_sampler(data, train, split, seed)
    remarks = [*same_content(by_key, digests), *_oversized(data, train, split)]
    return Fidelities(train, validation, split, sae, sampler, picks, digests, remarks)


def _oversized(data: DataSection, train: list[FidelityDataset], split: Split) -> list[str]:
    """What to say of a batch that is larger than the whole training set."""
    kwargs = data.samplers.train.kwargs
    chosen = [d.n_atoms[pool] for d, pool in zip(train, split.train, strict=True)]
    counted = kwargs.batch_mode == "atoms"
    total = sum(int(n.sum()) if counted else len(n) for n in chosen)
    if kwargs.batch_size <= total:
        return []
    return [
        f"a batch of {kwargs.batch_size} {kwargs.batch_mode} is more than all {total} to train on: "
        "molecules come several times in it"
    ]


def sources_of(
    train: list[FidelityDataset], validation: list[FidelityDataset], digests: Mapping[Path, str]
) -> dict[str, list[tuple[str, str]]]:
    """The files that a split is made of, for `split_file`."""
    roles = {f"train {d.fidelity}": d for d in train}
    if validation is not train:
        roles |= {f"validation {d.fidelity}": d for d in validation}
    return {role: [(p.name, digests[p]) for p in d.paths] for role, d in roles.items()}


def _split(
    data: DataSection,
    train: list[FidelityDataset],
    held_out: list[FidelityDataset],
    digests: Mapping[Path, str],
    seed: int,
) -> Split:
    """The split that the configuration asks for."""
    if data.split_file is not None:
        return load_split(
            Path(data.split_file),
            sources_of(train, held_out or train, digests),
            lambda: [digest(own) for own in molecule_keys([*train, *held_out])[0][: len(train)]],
        )
    if held_out:
        return split_from_files(train, held_out)
    return split_by_fraction(train, data.val_fraction, seed)


def fidelity_paths(data: DataSection) -> tuple[dict[int, list[Path]], dict[int, list[Path]]]:
    """The training files of every fidelity, in order, and the validation files.

    Raises:
        ConfigError: no files, gaps in the numbering, the same file twice, a pattern that nothing
            matches, a missing SAE file, or weights and validation files of fidelities that do not
            exist.
    """
    given = data.fidelity_datasets
    if sorted(given) != list(range(len(given))) or not given:
        raise ConfigError(
            f"data.fidelity_datasets numbers the files 0, 1, ..., found {sorted(given) or 'none'}",
            remedy="add data.fidelity_datasets.0=DATA.h5 to the command line",
        )
    named: dict[str, Mapping[int, object]] = {
        "data.fidelity_weights": data.fidelity_weights,
        "data.sae.energy.files": data.sae.energy.files,
        VALIDATION: data.val_fidelity_datasets or {},
    }
    for key, mapping in named.items():
        for k in mapping:
            if k not in given:
                raise ConfigError(f"{key}.{k}: there is no fidelity {k}, only 0 to {max(given)}")
    train = {k: expand(f"{TRAIN}.{k}", given[k]) for k in sorted(given)}
    held_out = data.val_fidelity_datasets or {}
    validation = {k: expand(f"{VALIDATION}.{k}", held_out[k]) for k in sorted(held_out)}
    refuse_repeated(
        {f"{TRAIN}.{k}": paths for k, paths in train.items()}
        | {f"{VALIDATION}.{k}": paths for k, paths in validation.items()}
    )
    for k, paths in train.items():
        if k not in data.sae.energy.files:
            raise ConfigError(
                f"data.sae.energy.files.{k} is missing",
                remedy=f"mlff calc-sae {paths[0]} sae_fid{k}.yaml, then add "
                f"data.sae.energy.files.{k}=sae_fid{k}.yaml",
            )
    return train, validation


def training_sampler(
    data: DataSection, train: list[FidelityDataset], split: Split, seed: int
) -> MixedSampler:
    """The sampler of the training set.

    Raises:
        ConfigError: options that contradict each other.
    """
    kwargs = data.samplers.train.kwargs
    weights = [data.fidelity_weights.get(d.fidelity, 1.0) for d in train]
    uniform = kwargs.sampling_strategy == "uniform"
    if uniform and len(set(weights)) > 1:
        raise ConfigError(
            f"sampling_strategy=uniform contradicts unequal data.fidelity_weights {weights}",
            remedy="set data.samplers.train.kwargs.sampling_strategy=weighted",
        )
    pools = split.train if data.separate_val else [np.arange(len(d)) for d in train]
    options = SamplerOptions(
        kwargs.batch_size,
        kwargs.batch_mode,
        kwargs.batches_per_epoch,
        kwargs.shuffle,
        kwargs.bucket,
        kwargs.block,
        kwargs.mixed_blocks,
    )
    sizes = [d.n_atoms[pool] for d, pool in zip(train, pools, strict=True)]
    return MixedSampler(pools, sizes, None if uniform else weights, options, seed)
