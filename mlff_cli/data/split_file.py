"""A split kept as a file, so that another run trains and validates on the same molecules.

NPZ, without pickled objects:

    format       mlff-split-1          by             what was kept together, in words
    sources      JSON {role: [[file, SHA-256], ...]}, role = "train 0", "validation 1", ...
    molecules    (K,) digests of the identities of each fidelity's molecules, in their order
    n_k          molecules of fidelity k's training files
    train_k      (n_k / 8,) bits: which of them are trained on
    validation_k bits: which are validated on, of the training files or, where a role says so, of
                 the validation files

A split belongs to files with the same bytes, or with the same molecules in the same order.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import atomic_path, storage_error
from mlff_cli.core.errors import ConfigError
from mlff_cli.data.splits import Split, indices

FORMAT = "mlff-split-1"
Sources = Mapping[str, Sequence[tuple[str, str]]]  # (file, SHA-256) by role
_SHOWN = 12  # digits of a digest in messages


def save_split(
    path: Path, split: Split, sizes: Sequence[tuple[int, int]], sources: Sources
) -> None:
    """Write a split, replacing what is there.

    Args:
        path: the file, `.npz`.
        split: what to keep.
        sizes: per fidelity the molecules of its training and of its validation files.
        sources: the files it was made of.

    Raises:
        StorageError: the disk is full or the folder is not writable.
    """
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "by": np.array(split.by),
        "sources": np.array(json.dumps(sources)),
        "molecules": np.array(split.molecules),
    }
    for k, (n_train, n_validation) in enumerate(sizes):
        arrays[f"n_{k}"] = np.array([n_train, n_validation])
        arrays[f"train_{k}"] = _bits(split.train[k], n_train)
        arrays[f"validation_{k}"] = _bits(split.validation[k], n_validation)
    with atomic_path(path, force=True) as temporary:
        np.savez(temporary, **arrays)


def load_split(path: Path, sources: Sources, molecules: Callable[[], list[str]]) -> Split:
    """Read a split that was made of the same files.

    Args:
        path: what `save_split` wrote.
        sources: the files of this run.
        molecules: computes the digests of this run's molecules; called where bytes differ.

    Raises:
        StorageError: the file is missing.
        ConfigError: it is no split, or one of other molecules; says what differs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise storage_error(error, path) from error
    except (ValueError, zipfile.BadZipFile, EOFError):
        arrays = {}
    if str(arrays.get("format", "")) != FORMAT:
        raise ConfigError(
            "data.split_file: not a split that mlff wrote",
            where=str(path),
            remedy="give the split.npz of a run folder",
        )
    known = {k: [tuple(f) for f in v] for k, v in json.loads(str(arrays["sources"])).items()}
    changed = _changes(known, sources)
    if set(known) != set(sources) or any(role.startswith("validation") for role in changed):
        _refuse(path, changed)
    if changed:
        found = molecules()
        stored = arrays["molecules"].tolist()
        other = [r for r in changed if found[int(r.split()[1])] != stored[int(r.split()[1])]]
        if other:
            _refuse(path, {role: changed[role] for role in other})
    count = range(len(arrays["molecules"]))
    sizes = [arrays[f"n_{k}"] for k in count]
    return Split(
        [_unpacked(arrays[f"train_{k}"], sizes[k][0]) for k in count],
        [_unpacked(arrays[f"validation_{k}"], sizes[k][1]) for k in count],
        str(arrays["by"]),
        arrays["molecules"].tolist(),
    )


def _changes(known: Sources, found: Sources) -> dict[str, str]:
    """Roles whose files differ, with the difference in words."""
    changes = {}
    for role in sorted({*known, *found}):
        before, after = known.get(role, ()), found.get(role, ())
        if [sha for _, sha in before] != [sha for _, sha in after]:
            changes[role] = f"{role}: {_words(before)} -> {_words(after)}"
    return changes


def _words(files: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({sha[:_SHOWN]})" for name, sha in files) or "no file"


def _refuse(path: Path, changes: Mapping[str, str]) -> None:
    raise ConfigError(
        "data.split_file: the split was made of other molecules: " + "; ".join(changes.values()),
        where=str(path),
        remedy="give the files that it was made of, or leave data.split_file out",
    )


def _bits(index: np.ndarray, n: int) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[index] = True
    return np.packbits(mask)


def _unpacked(bits: np.ndarray, n: int) -> np.ndarray:
    return indices(np.unpackbits(bits, count=int(n)).astype(bool))
