"""Sequences whose values are made when asked for, as all of them would not fit in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T", covariant=True)


class LazySequence(Sequence[T]):
    """Gives `_make` values by number, also from the end, and slices as lists.

    >>> class Squares(LazySequence[int]):
    ...     def __len__(self) -> int:
    ...         return 4
    ...     def _make(self, k: int) -> int:
    ...         return k * k
    >>> Squares()[-1], Squares()[1:], list(Squares())
    (9, [1, 4, 9], [0, 1, 4, 9])
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _make(self, k: int) -> T:
        """Value k, 0 to the length less one."""

    @overload
    def __getitem__(self, k: int) -> T: ...

    @overload
    def __getitem__(self, k: slice) -> list[T]: ...

    def __getitem__(self, k: int | slice) -> T | list[T]:
        """See `Sequence`.

        Raises:
            IndexError: there is no such value.
        """
        places = range(len(self))[k]
        return self._make(places) if isinstance(places, int) else [self._make(i) for i in places]
