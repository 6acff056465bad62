"""Which molecules make which batch: a pure function of the seed and the step.

Weighted: of all molecules drawn, the share w_k / sum(w) comes from fidelity k, exactly up to one
molecule per epoch. Every fidelity is a stream of shuffled passes over its molecules, and epoch e
takes up where epoch e - 1 stopped, so that all molecules of a fidelity are seen equally often.
Once: every molecule of every fidelity exactly once per epoch.

    item t of epoch e:   fidelity f_t,   index pool_f[order_f(start_f(e) + #{s < t: f_s = f_t})]

Nothing but (seed, epoch) enters, so that a resumed run needs no sampler state but its step. Of an
epoch only f (a byte per item) and the batches' edges are kept; orders are functions (`mixing`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlff_cli.core.errors import ConfigError
from mlff_cli.data.mixing import key, permuted

Mode = Literal["atoms", "molecules"]
Pick = tuple[np.ndarray, np.ndarray]  # fidelities (b,) and indices (b,) of one batch
_ORDER, _STREAM, _BATCHES, _BLOCKS, _WINDOW = range(5)  # what a permutation is for
_STRIDE = 1 << 14  # items between two counts of the fidelities before them
_LOOK = 1 << 20  # items looked at together when an epoch is planned


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
        block: molecules that lie together in the file are drawn within the same stretch of a pass,
            in runs of this many; 1: any order.
        mixed_blocks: how many such runs make a stretch.
    """

    batch_size: int
    batch_mode: Mode = "molecules"
    batches_per_epoch: int | None = None
    shuffle: bool = True
    bucket: int = 1
    block: int = 1
    mixed_blocks: int = 64


@dataclass(frozen=True)
class _Plan:
    """What is kept of an epoch.

    Attributes:
        fidelity: (T,) uint8, of every item.
        before: (T / stride, K) items of each fidelity before every stride.
        start: (K,) where each fidelity's stream stands at the beginning.
        edges: (batches + 1,) items where the batches begin and end.
    """

    fidelity: np.ndarray
    before: np.ndarray
    start: np.ndarray
    edges: np.ndarray


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
        self._n_atoms = [np.asarray(n, dtype="int32") for n in n_atoms]
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
        self._plans: dict[int, _Plan] = {}
        self._lock = threading.Lock()  # batches are made by several threads

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
        with np.errstate(over="ignore"):
            finite = np.isfinite(share.sum())
        if not finite or (share < 0).any() or not share.any():
            raise ConfigError(
                "fidelity weights must be non-negative, not all zero and of a finite sum, found "
                f"{share.tolist()}",
                remedy="only their ratios count: give small numbers, as 1 and 3",
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
        epoch, place = divmod(step, self.epoch_length)
        plan = self._plan(epoch)
        if self._options.bucket > 1 and self._options.shuffle:
            place = int(
                permuted(np.array([place]), self.epoch_length, self._key(_BATCHES, epoch))[0]
            )
        first, last = int(plan.edges[place]), int(plan.edges[place + 1])
        if self._options.bucket == 1:
            fidelity, position = self._items(plan, epoch, first, last)
        else:
            length = self._bucket_length(len(plan.fidelity))
            start = first // length * length
            stop = min(-(-last // length) * length, len(plan.fidelity))
            fidelity, position = self._items(plan, epoch, start, stop)
            order = self._sort_in_buckets(self._sizes(fidelity, position), length)
            order = order[first - start : last - start]
            fidelity, position = fidelity[order], position[order]
        index = np.empty(len(fidelity), dtype="int64")
        for k, pool in enumerate(self._pools):
            here = fidelity == k
            index[here] = pool[position[here]]
        return fidelity.astype("int64"), index

    def _key(self, *words: int | np.ndarray) -> np.ndarray:
        return key(self._seed, *words)

    def _plan(self, epoch: int) -> _Plan:
        """The plan of an epoch; two are kept, as threads look into the next one."""
        with self._lock:
            if epoch not in self._plans:
                for old in sorted(self._plans, key=lambda e: abs(e - epoch))[1:]:
                    del self._plans[old]
                self._plans[epoch] = self._make_plan(epoch)
            return self._plans[epoch]

    def _make_plan(self, epoch: int) -> _Plan:
        sizes = np.array([len(p) for p in self._pools])
        counts = sizes if self._once else self._quota(epoch)
        start = epoch * sizes if self._once else self._drawn_before(epoch)
        narrow = "uint8" if len(sizes) <= 256 else "int32"
        fidelity = np.repeat(np.arange(len(sizes), dtype=narrow), counts)
        if self._options.shuffle:
            np.random.default_rng([self._seed, _ORDER, epoch]).shuffle(fidelity)
        total = len(fidelity)
        before = np.zeros((-(-total // _STRIDE), len(sizes)), dtype="int64")
        for i in range(1, len(before)):
            part = fidelity[(i - 1) * _STRIDE : i * _STRIDE]
            before[i] = before[i - 1] + np.bincount(part, minlength=len(sizes))
        if self._options.batch_mode == "molecules":
            edges = np.arange(self.epoch_length + 1) * self._options.batch_size
            return _Plan(fidelity, before, start, np.minimum(edges, total))
        plan = _Plan(fidelity, before, start, np.empty(0, dtype="int64"))
        n_atoms = np.empty(total, dtype="int32")
        length = self._bucket_length(total)
        look = -(-_LOOK // length) * length
        for i in range(0, total, look):
            sizes = self._sizes(*self._items(plan, epoch, i, min(i + look, total)))
            if self._options.bucket > 1:
                sizes = sizes[self._sort_in_buckets(sizes, length)]
            n_atoms[i : i + look] = sizes
        return _Plan(fidelity, before, start, even_edges(n_atoms, self.epoch_length))

    def _items(self, plan: _Plan, epoch: int, first: int, last: int) -> Pick:
        """Fidelities and positions in their pools of the items first .. last - 1 of an epoch."""
        base = first // _STRIDE * _STRIDE
        near = plan.fidelity[base:last]
        position = np.empty(last - first, dtype="int64")
        for k in range(len(self._pools)):
            mine = near == k
            at = np.flatnonzero(mine[first - base :])
            seen = plan.before[base // _STRIDE, k] + np.count_nonzero(mine[: first - base])
            stream = plan.start[k] + seen + np.arange(len(at))
            position[at] = self._positions(k, stream)
        return near[first - base :], position

    def _sizes(self, fidelity: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Atoms (m,) of items."""
        n_atoms = np.empty(len(fidelity), dtype="int32")
        for k, known in enumerate(self._n_atoms):
            here = fidelity == k
            n_atoms[here] = known[position[here]]
        return n_atoms

    def _drawn_before(self, epoch: int) -> np.ndarray:
        """Molecules drawn per fidelity in all epochs before `epoch`; they sum to all draws."""
        exact = epoch * self._draws * self._share
        drawn: np.ndarray = np.floor(exact + 0.5).astype("int64")
        largest = int(np.argmax(self._share))  # takes what the others' rounding left
        drawn[largest] += epoch * self._draws - drawn.sum()
        return drawn

    def _quota(self, epoch: int) -> np.ndarray:
        """Molecules per fidelity in an epoch; shares are exact in the long run."""
        counts: np.ndarray = self._drawn_before(epoch + 1) - self._drawn_before(epoch)
        np.maximum(counts, 0, out=counts)
        return counts

    def _positions(self, k: int, stream: np.ndarray) -> np.ndarray:
        """Positions in the pool of fidelity k of some places (m,) in its stream of passes."""
        n, block = len(self._pools[k]), self._options.block
        passes, place = stream // n, stream % n
        if not self._options.shuffle:
            return place
        if block == 1:
            return permuted(place, n, self._key(_STREAM, k, passes))
        window = block * self._options.mixed_blocks
        start = place // window * window
        inside = np.minimum(window, n - start)
        for size in np.unique(inside).tolist():  # the last window is smaller
            here = inside == size
            keys = self._key(_WINDOW, k, passes[here], start[here])
            place[here] = start[here] + permuted(place[here] - start[here], size, keys)
        whole = place < n // block * block  # the rest is no whole block and stays at the end
        keys = self._key(_BLOCKS, k, passes[whole])
        place[whole] = (
            permuted(place[whole] // block, n // block, keys) * block + place[whole] % block
        )
        return place

    def _bucket_length(self, total: int) -> int:
        """Items that are sorted together."""
        return -(-total * self._options.bucket // self.epoch_length)

    def _sort_in_buckets(self, n_atoms: np.ndarray, length: int) -> np.ndarray:
        """Order (T,) that sorts by size within every bucket of consecutive items."""
        return np.lexsort((n_atoms, np.arange(len(n_atoms)) // length))


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
    total = np.cumsum(unit)
    edges = [0]
    while edges[-1] < len(order):
        held = int(total[edges[-1] - 1]) if edges[-1] else 0
        fits = int(np.searchsorted(total, held + batch_size, side="right"))
        edges.append(max(fits, edges[-1] + 1))
    runs = zip(edges[:-1], edges[1:], strict=True)
    return [(fidelity[order[a:b]], index[order[a:b]]) for a, b in runs]
