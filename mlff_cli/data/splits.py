"""Training and validation molecules, split by molecule over all fidelities at once.

A molecule that is in validation at one fidelity is in training at none, whatever its conformers.
Molecules are the same when their names are (if every molecule of every file has one), or else when
charge, multiplicity and bond graph are (`identity`).

A share is taken from every stratum: the molecules that occur in the same fidelities. So every
fidelity, which is a sum of strata, has its share of validation molecules. Within a stratum they are
ranked by a seeded hash of their identity, so that the choice hardly changes when data is added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.identity import molecule_keys
from mlff_cli.data.mixing import key, mix

_LOOK = 1 << 20  # molecules looked up together


@dataclass(frozen=True)
class Split:
    """Indices per fidelity.

    Attributes:
        train: molecules to train on.
        validation: molecules to validate on; may be empty at a fidelity.
        by: what was kept together, in words.
        molecules: digest of the identities of each fidelity's molecules, in their order.
    """

    train: list[np.ndarray]
    validation: list[np.ndarray]
    by: str
    molecules: list[str]


def split_by_fraction(datasets: Sequence[FidelityDataset], fraction: float, seed: int) -> Split:
    """Put a share of all molecules into validation.

    Every fidelity of more than one molecule gets at least its share, rounded down, and at least
    one.

    Args:
        datasets: one per fidelity.
        fraction: share of the different molecules, in (0, 1).
        seed: of the ranking.

    Raises:
        ConfigError: the fraction is out of range.
        DataError: a fidelity would have no training molecules left.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError(
            f"data.val_fraction must lie between 0 and 1, found {fraction}",
            remedy="set it, or give data.val_fidelity_datasets",
        )
    keys, by = molecule_keys(datasets)
    held_out = _choose([np.unique(own) for own in keys], fraction, seed)
    return _divide(datasets, keys, held_out, by)


def _choose(owned: Sequence[np.ndarray], fraction: float, seed: int) -> np.ndarray:
    """Molecules to validate on, sorted; `owned`: the different molecules of every fidelity."""
    every = np.unique(np.concatenate(owned)) if len(owned) > 1 else owned[0]
    stratum = np.zeros(len(every), dtype="uint64")  # which fidelities a molecule occurs in
    for k, own in enumerate(owned):
        stratum[np.searchsorted(every, own)] ^= key(k)
    rank = mix(every ^ key(seed))
    order = np.lexsort((rank, stratum))
    _, first, size = np.unique(stratum[order], return_index=True, return_counts=True)
    quota = np.diff(np.rint(np.cumsum([0, *size]) * fraction)).astype("int64")
    place = np.arange(len(every)) - np.repeat(first, size)
    chosen = np.zeros(len(every), dtype=bool)
    chosen[order] = place < np.repeat(quota, size)
    if not chosen.any():
        chosen[np.argmin(rank)] = True
    for own in owned:
        mine = np.searchsorted(every, own)
        wanted = max(int(fraction * len(own)), min(1, len(own) - 1))
        missing = wanted - np.count_nonzero(chosen[mine])
        if missing > 0:
            free = mine[~chosen[mine]]
            chosen[free[np.argsort(rank[free])[:missing]]] = True
    held_out: np.ndarray = every[chosen]
    return held_out


def split_from_files(
    datasets: Sequence[FidelityDataset], validation: Sequence[FidelityDataset]
) -> Split:
    """Train on what is in no validation file.

    Args:
        datasets: training files, one per fidelity.
        validation: validation files, of any fidelities; all their molecules are validated on.

    Raises:
        DataError: a fidelity would have no training molecules left.
    """
    keys, by = molecule_keys([*datasets, *validation])
    held_out = np.unique(np.concatenate(keys[len(datasets) :]))
    split = _divide(datasets, keys[: len(datasets)], held_out, by)
    files = {d.fidelity: np.arange(len(d), dtype="int32") for d in validation}
    nothing = np.empty(0, dtype="int32")
    return Split(
        split.train, [files.get(d.fidelity, nothing) for d in datasets], by, split.molecules
    )


def _divide(
    datasets: Sequence[FidelityDataset], keys: Sequence[np.ndarray], held_out: np.ndarray, by: str
) -> Split:
    out = [_among(own, held_out) for own in keys]
    for data, mask in zip(datasets, out, strict=True):
        if mask.all():
            raise DataError(
                f"all molecules of fidelity {data.fidelity} are in validation, none is left to "
                "train on",
                where=data.where,
                remedy="add molecules, or choose a smaller data.val_fraction or other "
                "validation files",
            )
    return Split(
        [indices(~m) for m in out], [indices(m) for m in out], by, [digest(own) for own in keys]
    )


def _among(own: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Which of some keys (n,) are in a sorted array."""
    mask = np.empty(len(own), dtype=bool)
    for start in range(0, len(own), _LOOK):
        part = slice(start, start + _LOOK)
        at = np.searchsorted(held_out, own[part])
        mask[part] = held_out[np.minimum(at, len(held_out) - 1)] == own[part]
    return mask


def indices(mask: np.ndarray) -> np.ndarray:
    """Where a mask is true, in four bytes each where they suffice."""
    found = np.flatnonzero(mask)
    return found.astype("int32") if len(mask) < 2**31 else found


def digest(keys: np.ndarray) -> str:
    """Digest of the identities of molecules in their order."""
    return hashlib.sha256(keys.astype("<u8", copy=False).data).hexdigest()
