"""The bound on what no model learns holds for frames that the map was not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlff_cli.coarse.forces.force_fit import Recipe, fit_force_map
from mlff_cli.coarse.forces.force_split import HELD_OUT, split_frames
from mlff_cli.coarse.forces.frame_sample import FrameSample
from mlff_cli.coarse.forces.gram import Gram
from mlff_cli.data.beads.cg_npz import CGBlock

N_ATOMS, N_BEADS, NOISE = 300, 10, 20.0


def bound(
    kind: str, n_frames: int, positions: np.ndarray, forces: np.ndarray, rows: np.ndarray
) -> Any:
    """As it is taken from a stream of blocks."""
    sample = FrameSample(0, rows, kind)
    for some in np.array_split(np.arange(n_frames), 7):
        block = CGBlock(
            0,
            R=positions[some],
            F=forces[some],
            source=np.zeros(len(some), np.int32),
            frame=some,
            temperature=np.full(len(some), 300.0),
            rows=some,
        )
        sample.add(block)
    assert sample.complete
    return sample.bound()


@pytest.mark.parametrize("n_frames", [200, 400, 2000])
def test_fitted_noise_is_not_taken_for_what_can_be_learnt(n_frames: int) -> None:
    """Forces are nothing but noise: all of W f is beyond every model, NOISE^2 |W|^2 / n of it."""
    rng = np.random.default_rng(n_frames)
    f = rng.normal(0.0, NOISE, (n_frames, N_ATOMS, 3))
    R = np.arange(N_BEADS)[:, None] * [3.8, 0.0, 0.0] + rng.normal(size=(n_frames, N_BEADS, 3))
    mapping = np.zeros((N_BEADS, N_ATOMS))
    mapping[np.arange(N_BEADS), 30 * np.arange(N_BEADS)] = 1.0
    groups = np.arange(N_ATOMS)
    split = split_frames(np.arange(n_frames), 0.2, 0)
    gram = Gram(N_ATOMS).add(f[split.part != HELD_OUT], groups)
    w = fit_force_map(mapping, groups, [gram], None, Recipe()).chosen
    F, truth = w.apply(f), NOISE**2 * float((w.matrix**2).sum()) / N_BEADS
    held_out = np.flatnonzero(split.part == HELD_OUT)
    found = bound("held-out frames", n_frames, R, F, held_out)
    everything = bound("all frames", n_frames, R, F, np.arange(n_frames))
    assert (found["frames"], found["of"]) == (n_frames // 5, "held-out frames")
    assert abs(found["bound"] - truth) < 4.0 * found["error"]
    assert found["error"] < 0.15 * truth
    if n_frames < 1000:  # what the frames that were fitted on would have it
        assert everything["bound"] < truth - 10.0 * everything["error"]


def test_no_frames_make_no_bound() -> None:
    sample = FrameSample(0, np.empty(0, np.int64), "held-out frames")
    assert sample.complete
    told = sample.bound()
    assert told["bound"] is None
    assert "no frames were held out" in told["why"]
