"""Hold-out and folds: every frame in one part, whole blocks, the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.coarse.forces.force_split import HELD_OUT, N_FOLDS, split_frames
from mlff_cli.core.errors import UsageError


@given(st.integers(20, 500), st.floats(0.01, 0.9), st.booleans(), st.integers(0, 9))
def test_the_share_is_held_out_and_something_is_left_for_every_fold(
    n: int, holdout: float, folds: bool, seed: int
) -> None:
    split = split_frames(np.arange(n), holdout, seed, folds=folds)
    assert split.n_training + split.n_held_out == n
    # to within half a block each way, and the frames by which blocks differ
    most = 1 - N_FOLDS / split.n_blocks if folds else 1
    expected = min(holdout, most)
    assert abs(split.n_held_out / n - expected) <= 1.0 / split.n_blocks + split.n_blocks / n
    found = set(split.part.tolist())
    assert found == {HELD_OUT, *range(split.n_folds)}
    assert split.n_folds == (N_FOLDS if folds else 1)


@given(st.integers(1, 300), st.booleans(), st.integers(0, 5))
def test_parts_are_blocks_in_the_order_of_time(n: int, shuffled: bool, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(n) if shuffled else np.arange(n)
    split = split_frames(order, 0.2 if n > 1 else 0.0, seed)
    changes = np.count_nonzero(np.diff(split.part[order]))
    assert changes <= 2 * max(1, round(0.2 * split.n_blocks))


def test_frame_order_in_the_set_changes_no_part() -> None:
    order = np.random.default_rng(0).permutation(100)
    plain = split_frames(np.arange(100), 0.3, 7, folds=True).part
    assert (split_frames(order, 0.3, 7, folds=True).part[order] == plain).all()


def test_the_seed_draws_other_blocks_and_the_same_seed_the_same() -> None:
    parts = [split_frames(np.arange(200), 0.2, seed).part for seed in (1, 1, 2)]
    assert (parts[0] == parts[1]).all()
    assert (parts[0] != parts[2]).any()


def test_no_holdout_fits_on_everything() -> None:
    assert split_frames(np.arange(3), 0.0, 0).n_held_out == 0


@pytest.mark.parametrize("holdout", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range(holdout: float) -> None:
    with pytest.raises(UsageError, match="holdout must be"):
        split_frames(np.arange(10), holdout, 0)


def test_too_few_frames() -> None:
    with pytest.raises(UsageError, match="1 frame is too few"):
        split_frames(np.arange(1), 0.2, 0)


@pytest.mark.parametrize("n", [1, 4, 5])
def test_what_is_proposed_for_too_few_frames_works(n: int) -> None:
    with pytest.raises(UsageError, match="5 folds") as caught:
        split_frames(np.arange(n), 0.2, 0, folds=True)
    assert str(caught.value.remedy).startswith("use more frames")
    proposed = "--holdout 0" in str(caught.value.remedy)
    assert proposed == (n == 5)
    if proposed:
        assert split_frames(np.arange(n), 0.0, 0, folds=True).n_folds == 5
