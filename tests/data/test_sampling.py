"""Laws of the draws: frequencies, coverage, order, purity."""

from __future__ import annotations

from collections import Counter

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


def sampler(weights: list[float] | None = None, seed: int = 1, **options: object) -> MixedSampler:
    chosen = SamplerOptions(**{"batch_size": 16, **options})  # type: ignore[arg-type]
    return MixedSampler(POOLS, N_ATOMS, weights or [1.0, 1.0, 1.0], chosen, seed)


def drawn(s: MixedSampler, epochs: int) -> Counter[tuple[int, int]]:
    steps = (s.batch(i) for i in range(epochs * s.epoch_length))
    return Counter((int(k), int(i)) for f, x in steps for k, i in zip(f, x, strict=True))


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


class Overtaken(MixedSampler):
    """Every now and then, after a look at the epoch it holds, another thread changes that."""

    chance = np.random.default_rng(0)

    @property
    def _epoch(self):  # noqa: ANN202
        held = self.__dict__.get("held")
        if held is not None and self.chance.random() < 0.5:
            other = 1 - held[0]
            self.__dict__["held"] = (other, self.epoch(other))
        return held

    @_epoch.setter
    def _epoch(self, value):
        self.__dict__["held"] = value


def test_a_thread_at_another_epoch_disturbs_nobody() -> None:
    options = SamplerOptions(batch_size=16, batches_per_epoch=3)
    quiet = sampler(batches_per_epoch=3)
    overtaken = Overtaken(POOLS, N_ATOMS, [1.0, 1.0, 1.0], options, 1)
    for step in (0, 1, 2) * 10:
        np.testing.assert_array_equal(overtaken.batch(step)[1], quiet.batch(step)[1])


def test_batches_of_atoms_hold_about_so_many() -> None:
    s = sampler(batch_mode="atoms", batch_size=300, batches_per_epoch=50)
    at = {(k, int(i)): int(n) for k in range(3) for i, n in zip(POOLS[k], N_ATOMS[k], strict=True)}
    atoms = [
        sum(at[int(k), int(i)] for k, i in zip(f, x, strict=True))
        for f, x in (s.batch(j) for j in range(50))
    ]
    assert np.mean(atoms) == pytest.approx(300, rel=0.05)
    assert max(atoms) < 1.05 * 300 + 30


def test_buckets_change_the_order_and_nothing_else() -> None:
    plain, bucketed = (sampler(batches_per_epoch=40, bucket=b) for b in (1, 10))
    assert drawn(plain, 3) == drawn(bucketed, 3)
    at = {(k, int(i)): int(n) for k in range(3) for i, n in zip(POOLS[k], N_ATOMS[k], strict=True)}

    def padding(s: MixedSampler) -> float:
        sizes = [[at[int(k), int(i)] for k, i in zip(*s.batch(j), strict=True)] for j in range(40)]
        return sum(max(x) * len(x) for x in sizes) / sum(sum(x) for x in sizes)

    assert padding(bucketed) < 1.15 < padding(plain)


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
    at = {(k, int(i)): int(n) for k in range(3) for i, n in zip(POOLS[k], N_ATOMS[k], strict=True)}
    for f, x in picks:
        sizes = [at[int(k), int(i)] for k, i in zip(f, x, strict=True)]
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
    with pytest.raises(ConfigError, match="cannot hold a molecule of 29"):
        sampler(batch_mode="atoms", batch_size=20)
    for length in (0, -2):
        with pytest.raises(ConfigError, match=f"-1 or null, found {length}"):
            sampler(batches_per_epoch=length)
    with pytest.raises(ConfigError, match="fidelity 0 has no training molecules"):
        MixedSampler([np.array([])], [np.array([])], None, SamplerOptions(4), 0)
