"""A lazy sequence is indexed as a list of its values is, and makes those that are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.data.lazy_sequence import LazySequence


class Made(LazySequence[str]):
    """Letters; remembers which were made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __len__(self) -> int:
        return 5

    def _make(self, k: int) -> str:
        self.made.append(k)
        return "abcde"[k]


@pytest.mark.parametrize(
    "k", [0, 4, -1, -5, np.int64(2), slice(None), slice(-2, None), slice(None, None, -2)]
)
def test_indices_are_those_of_a_list(k: int | slice) -> None:
    assert Made()[k] == list("abcde")[k]
    assert list(Made()) == list(reversed(Made()))[::-1] == list("abcde")


@pytest.mark.parametrize("k", [5, -6])
def test_there_is_nothing_beyond(k: int) -> None:
    with pytest.raises(IndexError):
        Made()[k]


def test_only_what_is_asked_for_is_made() -> None:
    made = Made()
    assert (made[3], made[1:3], len(made)) == ("d", ["b", "c"], 5)
    assert made.made == [3, 1, 2]
