"""Laws of the draws: frequencies, coverage, order, purity."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.errors import ConfigError
from mlff_cli.data.sampling import (
    MixedSampler,
    SamplerOptions,
    even_edges,
    every_molecule_once,
)

RNG = np.random.default_rng(0)
N_ATOMS = [RNG.integers(3, 30, n) for n in (30, 300, 170)]
POOLS = [RNG.permutation(500)[: len(n)] for n in N_ATOMS]

SIZES = {(k, int(i)): int(n) for k in range(3) for i, n in zip(POOLS[k], N_ATOMS[k], strict=True)}


def sampler(weights: list[float] | None = None, seed: int = 1, **options: object) -> MixedSampler:
    chosen = SamplerOptions(**{"batch_size": 16, **options})  # type: ignore[arg-type]
    return MixedSampler(POOLS, N_ATOMS, weights or [1.0, 1.0, 1.0], chosen, seed)


def drawn(s: MixedSampler, epochs: int) -> Counter[tuple[int, int]]:
    steps = (s.batch(i) for i in range(epochs * s.epoch_length))
    return Counter((int(k), int(i)) for f, x in steps for k, i in zip(f, x, strict=True))


def at(fidelity: np.ndarray, index: np.ndarray) -> list[int]:
    """Atoms of molecules."""
    return [SIZES[int(k), int(i)] for k, i in zip(fidelity, index, strict=True)]


def test_weights_are_frequencies() -> None:
    weights = [0.2, 1.0, 3.0]
    counts = Counter()
    for (k, _), n in drawn(sampler(weights, batches_per_epoch=40), 5).items():
        counts[k] += n
    total = sum(counts.values())
    assert total == 5 * 40 * 16
    for k, w in enumerate(weights):
        assert abs(counts[k] - total * w / 4.2) <= 5


@pytest.mark.parametrize("mode", ["molecules", "atoms"])
def test_observed_frequencies_are_the_weights_within_three_standard_errors(mode: str) -> None:
    weights, size = np.array([0.2, 1.0, 3.0]), 16 if mode == "molecules" else 260
    s = sampler(list(weights), batches_per_epoch=25, batch_mode=mode, batch_size=size)
    p = weights / weights.sum()
    per_epoch = []
    for epoch in range(40):
        steps = range(epoch * s.epoch_length, (epoch + 1) * s.epoch_length)
        drawn_from = np.concatenate([s.batch(i)[0] for i in steps])
        per_epoch.append(np.bincount(drawn_from, minlength=3))
    for counts in (*per_epoch, np.sum(per_epoch, axis=0)):  # each epoch, and the long run
        n = counts.sum()
        standard_error = np.sqrt(p * (1 - p) / n)
        assert (np.abs(counts / n - p) <= 3 * standard_error).all()


def test_single_batches_scatter_as_independent_draws_would() -> None:
    weights = np.array([0.2, 1.0, 3.0])
    s = sampler(list(weights), batches_per_epoch=500)
    counts = np.array([np.bincount(s.batch(i)[0], minlength=3) for i in range(2000)])
    p = weights / weights.sum()
    np.testing.assert_allclose(counts.var(axis=0), 16 * p * (1 - p), rtol=0.15)


@pytest.mark.parametrize("mode", ["molecules", "atoms"])
def test_once_covers_everything_once_per_epoch(mode: str) -> None:
    size = 16 if mode == "molecules" else 200
    s = sampler(batches_per_epoch=-1, batch_mode=mode, batch_size=size)
    counts = drawn(s, 2)
    assert set(counts.values()) == {2}
    assert len(counts) == 500
    assert drawn(s, 1) == Counter(dict.fromkeys(counts, 1))


def test_molecules_of_a_fidelity_are_seen_equally_often() -> None:
    counts = drawn(sampler([1.0, 1.0, 1.0], batches_per_epoch=7), 9)
    for k in range(3):
        seen = [n for (f, _), n in counts.items() if f == k]
        seen += [0] * (len(POOLS[k]) - len(seen))
        assert max(seen) - min(seen) <= 1


def test_batches_mix_fidelities_and_sizes() -> None:
    s = sampler(batches_per_epoch=20)
    assert all(len(set(f.tolist())) == 3 for f, _ in (s.batch(i) for i in range(20)))


def test_a_batch_depends_on_seed_and_step_only() -> None:
    a, b, other = sampler(), sampler(), sampler(seed=2)
    order = [37, 2, 70, 2, 0]
    for step in order:
        for x, y in zip(a.batch(step), b.batch(step), strict=True):
            np.testing.assert_array_equal(x, y)
        b.batch(99)
    assert any(not np.array_equal(a.batch(i)[1], other.batch(i)[1]) for i in range(3))


def test_threads_at_different_epochs_disturb_nobody() -> None:
    quiet = sampler(batches_per_epoch=3)
    steps = np.random.default_rng(0).integers(0, 15, 400).tolist()  # five epochs by turns
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(sampler(batches_per_epoch=3).batch, steps))
    for step, pick in zip(steps, found, strict=True):
        np.testing.assert_array_equal(pick[1], quiet.batch(step)[1])


def test_batches_of_atoms_hold_about_so_many() -> None:
    s = sampler(batch_mode="atoms", batch_size=300, batches_per_epoch=50)
    atoms = [sum(at(*s.batch(j))) for j in range(50)]
    assert np.mean(atoms) == pytest.approx(300, rel=0.05)
    assert max(atoms) < 1.05 * 300 + 30


def test_buckets_change_the_order_and_nothing_else() -> None:
    plain, bucketed = (sampler(batches_per_epoch=40, bucket=b) for b in (1, 10))
    assert drawn(plain, 3) == drawn(bucketed, 3)

    def padding(s: MixedSampler) -> float:
        sizes = [at(*s.batch(j)) for j in range(40)]
        return sum(max(x) * len(x) for x in sizes) / sum(sum(x) for x in sizes)

    assert padding(bucketed) < 1.15 < padding(plain)


def test_buckets_of_atoms_change_the_order_and_nothing_else() -> None:
    options = {"batch_mode": "atoms", "batch_size": 300, "batches_per_epoch": -1}
    plain, bucketed = sampler(**options), sampler(bucket=5, **options)
    assert drawn(plain, 2) == drawn(bucketed, 2)
    sizes = [sum(at(*bucketed.batch(j))) for j in range(bucketed.epoch_length)]
    assert max(sizes) < 300 + 30


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_blocks_lose_no_molecule(block: int) -> None:
    s = sampler(batches_per_epoch=-1, block=block, mixed_blocks=3)
    assert drawn(s, 2) == Counter({m: 2 for m in drawn(sampler(batches_per_epoch=-1), 1)})


def test_blocks_are_met_within_a_stretch_and_mixed_in_it() -> None:
    n, block, mixed = 4000, 50, 8
    options = SamplerOptions(40, batches_per_epoch=-1, block=block, mixed_blocks=mixed)
    s = MixedSampler([np.arange(n)], [np.full(n, 5)], None, options, 3)
    stretch = block * mixed
    order = np.concatenate([s.batch(i)[1] for i in range(n // 40)])
    blocks = order.reshape(-1, stretch) // block
    assert all(len(np.unique(b)) == mixed for b in blocks)
    assert len({tuple(np.unique(b)) for b in blocks}) == n // stretch
    assert np.mean(np.diff(order) == 1) < 0.05
    again = np.concatenate([s.batch(n // 40 + i)[1] for i in range(n // 40)])
    assert set(np.unique(again[:stretch] // block)) != set(np.unique(order[:stretch] // block))


def test_an_epoch_of_millions_is_not_written_down() -> None:
    n = 3_000_000
    pools = [np.arange(n, dtype="int32"), np.arange(1000, dtype="int32")]
    n_atoms = [np.full(n, 20, dtype="int32"), np.full(1000, 20, dtype="int32")]
    s = MixedSampler(pools, n_atoms, None, SamplerOptions(100, batches_per_epoch=-1), 0)
    tracemalloc.start()
    try:
        first = s.batch(0)
        last = s.batch(s.epoch_length - 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(first[0]) == 100
    assert len(last[0]) == (n + 1000) % 100 or 100
    assert peak < 4 * n  # an order alone would be 8 bytes per molecule


def test_without_shuffling_the_order_is_the_file_s() -> None:
    s = sampler(batches_per_epoch=-1, shuffle=False)
    assert np.concatenate([s.batch(i)[1] for i in range(s.epoch_length)]).tolist() == [
        *POOLS[0], *POOLS[1], *POOLS[2]
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["molecules", "atoms"])
def test_validation_covers_every_molecule_exactly_once(mode: str) -> None:
    picks = every_molecule_once(POOLS, N_ATOMS, 64, mode)  # type: ignore[arg-type]
    seen = Counter((int(k), int(i)) for f, x in picks for k, i in zip(f, x, strict=True))
    assert seen == Counter((k, int(i)) for k in range(3) for i in POOLS[k])
    for f, x in picks:
        sizes = at(f, x)
        assert (sum(sizes) if mode == "atoms" else len(sizes)) <= 64


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.data())
def test_even_edges_cut_into_non_empty_runs(sizes: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(sizes)))
    edges = even_edges(np.array(sizes), parts)
    assert edges[0] == 0
    assert edges[-1] == len(sizes)
    assert len(edges) == parts + 1
    assert (np.diff(edges) > 0).all()


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match="unequal"):
        sampler([1.0, 2.0, 1.0], batches_per_epoch=-1)
    with pytest.raises(ConfigError, match="all zero"):
        sampler([0.0, 0.0, 0.0])
    with pytest.raises(ConfigError, match="of a finite sum"):
        sampler([1e308, 1e308, 1.0])
    with pytest.raises(ConfigError, match="cannot hold a molecule of 29"):
        sampler(batch_mode="atoms", batch_size=20)
    for length in (0, -2):
        with pytest.raises(ConfigError, match=f"-1 or null, found {length}"):
            sampler(batches_per_epoch=length)
    with pytest.raises(ConfigError, match="fidelity 0 has no training molecules"):
        MixedSampler([np.array([])], [np.array([])], None, SamplerOptions(4), 0)
