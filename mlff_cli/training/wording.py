"""Numbers as people read them."""

from __future__ import annotations

import math

LARGEST_DIGITS = 8  # decimals of a percentage that approaches 100


def number(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, zeros at its end included: 0.01230, 12.30, 1e+12.

    >>> number(0.0123), number(1234.5), number(3.0, 3), number(2.5e13, 3)
    ('0.01230', '1234', '3.00', '2.50e+13')
    """
    return f"{value:#.{digits}g}".removesuffix(".").replace(".e", "e")


def counted(n: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "epoch"), counted(20, "epoch")
    ('1 epoch', '20 epochs')
    """
    return f"{n} {noun}{'s' * (n != 1)}"


def ordinal(n: int) -> str:
    """A counting number in its place.

    >>> [ordinal(n) for n in (2, 3, 10, 11, 21, 112)]
    ['2nd', '3rd', '10th', '11th', '21st', '112th']
    """
    tail = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{tail}"


def percent(share: float) -> str:
    """A share in percent, with the more decimals the closer it comes to 1.

    >>> percent(0.372), percent(0.9998), percent(0.99999996), percent(-0.05), percent(1.0)
    ('37.2 %', '99.98 %', '99.999996 %', '-5.0 %', '100.0 %')
    """
    rest = abs(1.0 - share)
    digits = 1 if rest in (0.0, 1.0) else max(1, math.ceil(-math.log10(rest)) - 2)
    return f"{100 * share:.{min(digits, LARGEST_DIGITS)}f} %"
