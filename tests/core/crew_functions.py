"""What the tests of crews let workers do; a module of its own, so that workers find it."""

from __future__ import annotations

from collections.abc import Callable


def power(exponent: int) -> Callable[[int], int]:
    return lambda x: x**exponent
