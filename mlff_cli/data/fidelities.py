"""All fidelities of a training: files opened and checked, molecules split, batches planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import INPUTS
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.sae import read_sae
from mlff_cli.data.sampling import MixedSampler, Pick, SamplerOptions, every_molecule_once
from mlff_cli.data.settings import DataSection
from mlff_cli.data.splits import Split, split_by_fraction, split_from_files


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
        files: every file that was read.
    """

    train: list[FidelityDataset]
    validation: list[FidelityDataset]
    split: Split
    sae: dict[int, dict[int, float]]
    sampler: MixedSampler
    validation_picks: list[Pick]
    files: list[Path]

    @property
    def notes(self) -> list[str]:
        """What a user should hear about the files."""
        different = {id(d): d for d in (*self.train, *self.validation)}
        return [note for d in different.values() for note in d.notes]

    def describe(self) -> list[dict[str, Any]]:
        """Entries of the model file."""
        return [
            {
                "index": d.fidelity,
                "dataset": d.path.name,
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
            theory = d.level_of_theory or "unknown level of theory"
            text = f"{theory}: {len(t)} train, {len(v)} validation ({labels}; {where})"
            table.append((f"fidelity {d.fidelity}", text))
        return [*table, ("split by", split.by)]


def open_fidelities(
    data: DataSection, seed: int, tell: Callable[[str], None] = lambda message: None
) -> Fidelities:
    """Open, check and split the files of a configuration.

    Args:
        data: `data` of the configuration.
        seed: of split and sampling.
        tell: hears what is being read.

    Raises:
        ConfigError: files or options contradict each other.
        DataError: a file holds something it must not.
    """
    if set(data.x) != set(INPUTS):
        raise ConfigError(
            f"data.x: the model reads {', '.join(INPUTS)}, found {', '.join(data.x) or 'nothing'}",
            remedy="leave data.x out; a file without charge or mult is read as 0 and 1",
        )
    paths = fidelity_paths(data)
    sae = {k: read_sae(data.sae.energy.files[k]) for k in paths}

    def open_file(k: int, path: Path) -> FidelityDataset:
        tell(f"reading fidelity {k}: {path}")
        return FidelityDataset(path, k, sae[k], data.y, in_memory_bytes=data.in_memory_mb << 20)

    train = [open_file(k, path) for k, path in paths.items()]
    files = data.val_fidelity_datasets or {}
    held_out = [open_file(k, Path(p)) for k, p in sorted(files.items())]
    split = (
        split_from_files(train, held_out)
        if held_out
        else split_by_fraction(train, data.val_fraction, seed)
    )
    validation = held_out or train
    sizes = {d.fidelity: d.n_atoms for d in validation}
    kwargs = data.samplers.val.kwargs
    if kwargs.batches_per_epoch not in (None, -1):
        raise ConfigError(
            "validation covers every molecule once, found "
            f"data.samplers.val.kwargs.batches_per_epoch={kwargs.batches_per_epoch}",
            remedy="set it to -1",
        )
    picks = every_molecule_once(
        split.validation,
        [sizes[k][i] if len(i) else i for k, i in enumerate(split.validation)],
        kwargs.batch_size,
        kwargs.batch_mode,
    )
    sampler = training_sampler(data, train, split, seed)
    read = [*paths.values(), *(Path(p) for p in files.values())]
    read += [Path(data.sae.energy.files[k]) for k in paths]
    return Fidelities(train, validation, split, sae, sampler, picks, read)


def _identity(path: Path) -> object:
    """What two names of one file have in common, be they relative, symbolic or hard links."""
    try:
        found = path.stat()
    except OSError:  # it is missing, which its reader will tell
        return path.absolute()
    return found.st_dev, found.st_ino


def fidelity_paths(data: DataSection) -> dict[int, Path]:
    """The training file of every fidelity, in order.

    Raises:
        ConfigError: no files, gaps in the numbering, the same file twice, a missing SAE file, or
            weights and validation files of fidelities that do not exist.
    """
    paths = {k: Path(data.fidelity_datasets[k]) for k in sorted(data.fidelity_datasets)}
    if list(paths) != list(range(len(paths))) or not paths:
        raise ConfigError(
            f"data.fidelity_datasets numbers the files 0, 1, ..., found {list(paths) or 'none'}",
            remedy="add data.fidelity_datasets.0=DATA.h5 to the command line",
        )
    owner: dict[object, str] = {}
    files = {f"data.fidelity_datasets.{k}": path for k, path in paths.items()}
    for k, name in (data.val_fidelity_datasets or {}).items():
        files[f"data.val_fidelity_datasets.{k}"] = Path(name)
    for key, path in files.items():
        same = owner.setdefault(_identity(path), key)
        if same != key:
            raise ConfigError(
                f"{same} and {key} are the same file {path}",
                remedy="give every fidelity its own labels; data.val_fraction splits a file",
            )
    named: dict[str, Mapping[int, object]] = {
        "data.fidelity_weights": data.fidelity_weights,
        "data.sae.energy.files": data.sae.energy.files,
        "data.val_fidelity_datasets": data.val_fidelity_datasets or {},
    }
    for key, mapping in named.items():
        for k in mapping:
            if k not in paths:
                raise ConfigError(f"{key}.{k}: there is no fidelity {k}, only 0 to {max(paths)}")
    for k, path in paths.items():
        if k not in data.sae.energy.files:
            raise ConfigError(
                f"data.sae.energy.files.{k} is missing",
                remedy=f"mlff calc-sae {path} sae_fid{k}.yaml, then add "
                f"data.sae.energy.files.{k}=sae_fid{k}.yaml",
            )
    return paths


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
    )
    sizes = [d.n_atoms[pool] for d, pool in zip(train, pools, strict=True)]
    return MixedSampler(pools, sizes, None if uniform else weights, options, seed)
