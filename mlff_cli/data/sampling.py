"""Which molecules make which batch: a pure function of the seed and the step.

Weighted: of all molecules drawn, the share w_k / sum(w) comes from fidelity k, exactly up to one
molecule per epoch. Every fidelity is a stream of shuffled passes over its molecules, and epoch e
takes up where epoch e - 1 stopped, so that all molecules of a fidelity are seen equally often.
Once: every molecule of every fidelity exactly once per epoch.

Nothing but (seed, epoch) enters, so that a resumed run needs no sampler state but its step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlff_cli.core.errors import ConfigError

Mode = Literal["atoms", "molecules"]
Pick = tuple[np.ndarray, np.ndarray]  # fidelities (b,) and indices (b,) of one batch
_ORDER, _STREAM = 1, 2  # what a random stream is for


@dataclass(frozen=True)
class SamplerOptions:
    """How batches are drawn.

    Attributes:
        batch_size: molecules or atoms per batch.
        batch_mode: what `batch_size` counts; atoms are met on average, and exceeded by less than
            one molecule.
        batches_per_epoch: None: as many as one pass over all data takes; -1: everything once.
        shuffle: draw in random order.
        bucket: molecules are sorted by size within this many batches, which saves padding; 1: off.
    """

    batch_size: int
    batch_mode: Mode = "molecules"
    batches_per_epoch: int | None = None
    shuffle: bool = True
    bucket: int = 1


class MixedSampler:
    """Batches that mix fidelities and sizes.

    Args:
        pools: per fidelity the indices of its molecules in its data set.
        n_atoms: per fidelity the atoms of the pool's molecules, in the pool's order.
        weights: per fidelity how often it is drawn; None draws every molecule equally often.
        options: see `SamplerOptions`.
        seed: of all draws.

    Attributes:
        epoch_length: batches per epoch.

    Raises:
        ConfigError: unequal weights together with `batches_per_epoch=-1`, a fidelity without
            molecules, weights that are negative or all zero, a batch smaller than a molecule, a
            number of batches that is none.
    """

    def __init__(
        self,
        pools: Sequence[np.ndarray],
        n_atoms: Sequence[np.ndarray],
        weights: Sequence[float] | None,
        options: SamplerOptions,
        seed: int,
    ) -> None:
        self._pools = [np.asarray(p) for p in pools]
        self._n_atoms = [np.asarray(n) for n in n_atoms]
        self._options = options
        self._seed = seed
        self._once = options.batches_per_epoch == -1
        sizes = np.array([len(p) for p in self._pools], dtype="float64")
        share = sizes if weights is None else np.asarray(weights, dtype="float64")
        self._check(sizes, share, weights)
        self._share = share / share.sum()
        counted = options.batch_mode == "atoms"
        unit = [n if counted else np.ones_like(n) for n in self._n_atoms]
        total = sum(int(u.sum()) for u in unit)
        one_pass = -(-total // options.batch_size)
        self.epoch_length = (
            one_pass if options.batches_per_epoch in (None, -1) else int(options.batches_per_epoch)
        )
        mean = sum(p * u.mean() for p, u in zip(self._share, unit, strict=True) if p > 0)
        self._draws = max(
            self.epoch_length, round(self.epoch_length * options.batch_size / float(mean))
        )
        self._epoch: tuple[int, list[Pick]] | None = None

    def _check(self, sizes: np.ndarray, share: np.ndarray, weights: Sequence[float] | None) -> None:
        length = self._options.batches_per_epoch
        if length is not None and length < 1 and not self._once:
            raise ConfigError(
                f"batches_per_epoch must be a positive number, -1 or null, found {length}",
                remedy="null: one pass over all data; -1: every molecule once",
            )
        if not sizes.all():
            raise ConfigError(
                f"fidelity {int(np.argmin(sizes))} has no training molecules",
                remedy="give it more data, or a smaller data.val_fraction",
            )
        if not np.isfinite(share).all() or (share < 0).any() or not share.any():
            raise ConfigError(
                f"fidelity weights must be non-negative and not all zero, found {share.tolist()}"
            )
        if self._once and weights is not None and len(set(share.tolist())) > 1:
            raise ConfigError(
                "batches_per_epoch=-1 takes every molecule once, which contradicts unequal "
                f"fidelity weights {share.tolist()}",
                remedy="drop data.fidelity_weights, or give a number of batches per epoch",
            )
        largest = max(int(n.max()) for n in self._n_atoms)
        if self._options.batch_mode == "atoms" and self._options.batch_size < largest:
            raise ConfigError(
                f"a batch of {self._options.batch_size} atoms cannot hold a molecule of {largest}",
                remedy="raise data.samplers.train.kwargs.batch_size",
            )

    def batch(self, step: int) -> Pick:
        """The molecules of batch `step`, counted from 0 over all epochs."""
        epoch, k = divmod(step, self.epoch_length)
        held = self._epoch  # read once: another thread may be at another epoch already
        if held is None or held[0] != epoch:
            held = self._epoch = (epoch, self.epoch(epoch))
        return held[1][k]

    def epoch(self, epoch: int) -> list[Pick]:
        """All batches of an epoch."""
        rng = np.random.default_rng([self._seed, _ORDER, epoch])
        counts = [len(p) for p in self._pools] if self._once else self._quota(epoch)
        fidelity = np.repeat(np.arange(len(counts)), counts)
        position = np.concatenate([self._stream(k, epoch, c) for k, c in enumerate(counts)])
        if self._options.shuffle:
            order = rng.permutation(len(fidelity))
            fidelity, position = fidelity[order], position[order]
        n_atoms = np.empty(len(fidelity), dtype="int64")
        index = np.empty(len(fidelity), dtype="int64")
        for k, pool in enumerate(self._pools):
            here = fidelity == k
            n_atoms[here] = self._n_atoms[k][position[here]]
            index[here] = pool[position[here]]
        if self._options.bucket > 1:
            order = self._sort_in_buckets(n_atoms)
            fidelity, index, n_atoms = fidelity[order], index[order], n_atoms[order]
        edges = self._edges(n_atoms)
        picks = [(fidelity[a:b], index[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        if self._options.bucket > 1 and self._options.shuffle:
            picks = [picks[i] for i in rng.permutation(len(picks))]
        return picks

    def _drawn_before(self, epoch: int) -> np.ndarray:
        """Molecules drawn per fidelity in all epochs before `epoch`; they sum to all draws."""
        exact = epoch * self._draws * self._share
        drawn: np.ndarray = np.floor(exact + 0.5).astype("int64")
        largest = int(np.argmax(self._share))  # takes what the others' rounding left
        drawn[largest] += epoch * self._draws - drawn.sum()
        return drawn

    def _quota(self, epoch: int) -> list[int]:
        """Molecules per fidelity in an epoch; shares are exact in the long run."""
        counts = self._drawn_before(epoch + 1) - self._drawn_before(epoch)
        return [max(0, int(c)) for c in counts]

    def _stream(self, k: int, epoch: int, count: int) -> np.ndarray:
        """The `count` pool positions (count,) that epoch `epoch` takes from fidelity k."""
        n = len(self._pools[k])
        start = epoch * n if self._once else int(self._drawn_before(epoch)[k])
        first, last = start // n, -(-(start + count) // n)
        rounds = [self._round(k, r) for r in range(first, max(last, first + 1))]
        offset = start - first * n
        return np.concatenate(rounds)[offset : offset + count]

    def _round(self, k: int, r: int) -> np.ndarray:
        """Pass r over the molecules of fidelity k."""
        n = len(self._pools[k])
        if not self._options.shuffle:
            return np.arange(n)
        return np.random.default_rng([self._seed, _STREAM, k, r]).permutation(n)

    def _sort_in_buckets(self, n_atoms: np.ndarray) -> np.ndarray:
        """Order (T,) that sorts by size within every bucket of consecutive draws."""
        length = -(-len(n_atoms) * self._options.bucket // self.epoch_length)
        return np.lexsort((n_atoms, np.arange(len(n_atoms)) // length))

    def _edges(self, n_atoms: np.ndarray) -> np.ndarray:
        """Where the batches begin and end in the epoch's sequence (epoch_length + 1,)."""
        if self._options.batch_mode == "molecules":
            edges = np.arange(self.epoch_length + 1) * self._options.batch_size
            return np.minimum(edges, len(n_atoms))
        return even_edges(n_atoms, self.epoch_length)


def even_edges(sizes: np.ndarray, n_parts: int) -> np.ndarray:
    """Cut a sequence into `n_parts` non-empty runs of nearly equal total size.

    Returns:
        Edges (n_parts + 1,), strictly increasing, from 0 to the number of items.
    """
    total = np.cumsum(sizes)
    targets = total[-1] * np.arange(1, n_parts) / n_parts
    k = np.arange(1, n_parts)
    inner = np.searchsorted(total, targets, side="left") + 1
    inner = np.maximum.accumulate(np.maximum(inner, k) - k) + k  # at least one item each
    inner = np.minimum(inner, len(sizes) - n_parts + k)
    return np.concatenate([[0], inner, [len(sizes)]]).astype("int64")


def every_molecule_once(
    pools: Sequence[np.ndarray],
    n_atoms: Sequence[np.ndarray],
    batch_size: int,
    batch_mode: Mode,
) -> list[Pick]:
    """Batches for validation: every molecule exactly once, equal sizes together.

    Args:
        pools: per fidelity the indices of its molecules; may be empty.
        n_atoms: per fidelity the atoms of the pool's molecules.
        batch_size: molecules or atoms per batch at most (one molecule at least).
        batch_mode: what `batch_size` counts.
    """
    fidelity = np.repeat(np.arange(len(pools)), [len(p) for p in pools])
    index = np.concatenate([np.asarray(p, dtype="int64") for p in pools])
    sizes = np.concatenate([np.asarray(n, dtype="int64") for n in n_atoms])
    order = np.lexsort((index, fidelity, sizes))
    unit = sizes[order] if batch_mode == "atoms" else np.ones(len(order), dtype="int64")
    edges = [0]
    held = 0
    for i, u in enumerate(unit):
        if held and held + u > batch_size:
            edges.append(i)
            held = 0
        held += int(u)
    edges.append(len(order))
    runs = zip(edges[:-1], edges[1:], strict=True)
    return [(fidelity[order[a:b]], index[order[a:b]]) for a, b in runs]
