"""What a rule of the gate says: a verdict, the figure it stands on, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Verdict = Literal["healthy", "warning", "failed", "not judged"]
SEVERITY: tuple[Verdict, ...] = ("not judged", "healthy", "warning", "failed")
SMALLEST = 100.0  # kJ/mol; energies have no natural zero, ratios are taken to at least this


@dataclass(frozen=True)
class Finding:
    """What a rule saw.

    Attributes:
        verdict: of the rule.
        figure: what it stands on, in words and numbers.
        numbers: the same for programs.
        course: the number that the rule watches, over the run (n,).
    """

    verdict: Verdict
    figure: str
    numbers: dict[str, float | int | None] = field(default_factory=dict)
    course: np.ndarray = field(default_factory=lambda: np.empty(0))


def worst(verdicts: list[Verdict]) -> Verdict:
    """The gravest of several.

    >>> worst(["healthy", "not judged"]), worst(["warning", "failed", "healthy"])
    ('healthy', 'failed')
    """
    return max(verdicts, key=SEVERITY.index, default="not judged")


def percent(share: float) -> str:
    """A share in words.

    >>> percent(0.0), percent(0.00042), percent(0.126)
    ('0 %', '0.042 %', '12.6 %')
    """
    return f"{100 * share:.3g} %" if share < 0.9995 else f"{100 * share:.4g} %"


def kilojoules(energy: float) -> str:
    """An energy in words.

    >>> kilojoules(-12.34), kilojoules(7.5e8)
    ('-12.3 kJ/mol', '7.5e+08 kJ/mol')
    """
    return f"{energy:.3g} kJ/mol" if abs(energy) < 1e4 else f"{energy:.2g} kJ/mol"


def plain_number(value: Any) -> float | int | None:
    """A number for JSON: what is not finite is None."""
    if value is None or not np.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(value)
