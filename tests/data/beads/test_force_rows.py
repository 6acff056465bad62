"""Frames in the order of their trajectories, in pieces that never mix and never grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.data.beads import force_rows
from mlff_cli.data.beads.force_rows import Rows, pieces, read_frames
from mlff_cli.data.trajectories.opening import open_trajectory


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=60),
    st.integers(1, 50_000),
    st.integers(0, 20),
)
def test_pieces_cover_every_frame_once_and_never_mix(
    frames: list[tuple[int, int]], n_atoms: int, n_groups: int
) -> None:
    source, label = np.array(frames, int).reshape(-1, 2).T
    found = list(pieces(source, label, n_atoms, n_groups))
    joined = np.concatenate(found) if found else np.empty(0)
    np.testing.assert_array_equal(joined, np.arange(len(frames)))
    for piece in found:
        if len(piece):
            assert len(set(source[piece])) == len(set(label[piece])) == 1
            small = 24 * n_atoms * len(piece) <= force_rows.TASK_BYTES
            assert small or len(piece) <= max(1, 2 * n_groups)


def test_a_gram_matrix_is_smaller_than_what_it_is_made_of() -> None:
    """Of a long trajectory of a large system, every piece but the last."""
    n_atoms, n_groups = 8000, 4000
    everything = np.zeros(20_000, int)
    *full, _ = (len(p) for p in pieces(everything, everything, n_atoms, n_groups))
    assert full
    assert min(full) * 3 * n_atoms > 3 * n_groups**2
    *full, _ = (len(p) for p in pieces(everything, everything, n_atoms))
    assert max(full) * 24 * n_atoms <= force_rows.TASK_BYTES


def test_order_is_by_trajectory_then_frame() -> None:
    rows = Rows(np.arange(4), np.array([1, 0, 1, 0]), np.array([5, 7, 2, 1]), np.zeros(4))
    ordered = rows.select(rows.order)
    assert list(zip(ordered.source.tolist(), ordered.frame.tolist(), strict=True)) == [
        (0, 1),
        (0, 7),
        (1, 2),
        (1, 5),
    ]


@pytest.mark.parametrize("frames", [[3, 1, 2], [0, 0, 5], [4], [7, 0, 7, 0], list(range(8))])
@pytest.mark.parametrize("atoms", [[0, 1, 2, 3], [1, 3], [2]])
def test_frames_of_any_order_and_atoms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: list[int], atoms: list[int]
) -> None:
    monkeypatch.setattr("mlff_cli.data.trajectories.opening.CHUNK_BYTES", 24 * 4 * 3)
    x, f = np.random.default_rng(0).normal(size=(2, 8, 4, 3))
    np.savez(tmp_path / "t.npz", R=x, F=f)
    with open_trajectory(tmp_path / "t.npz") as trajectory:
        found = list(
            read_frames(trajectory, np.array(frames), np.array(atoms), positions=True, forces=True)
        )
    for name, whole in (("positions", x), ("forces", f)):
        read = np.concatenate([getattr(block, name) for block in found])
        np.testing.assert_array_equal(read, whole[frames][:, atoms])
    assert np.concatenate([block.rows for block in found]).tolist() == frames
