"""Findings of a check before the work begins: what was looked at, what was seen, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlff_cli.core.errors import MLFFError
from mlff_cli.core.reporting import Table

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        finding: what was seen.
        verdict: whether it is good, doubtful, or ends the work.
        remedy: what to do about it, where it is not good.
        error: what the work itself would end with, where it failed.
    """

    name: str
    finding: str
    verdict: Verdict = "ok"
    remedy: str | None = None
    error: MLFFError | None = None

    @classmethod
    def failed(cls, name: str, error: MLFFError) -> Check:
        """The finding of an error."""
        place = f"{error.where}: " if error.where else ""
        return cls(name, place + error.message, "failed", error.remedy, error)

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        told = {"check": self.name, "finding": self.finding, "verdict": self.verdict}
        code = {"exit_code": self.error.exit_code} if self.error else {}
        return {**told, **({"remedy": self.remedy} if self.remedy else {}), **code}


def check_table(title: str, checks: Sequence[Check]) -> Table:
    """Checks as a table; remedies stand below it."""
    rows = [[c.name, c.finding, c.verdict] for c in checks]
    notes = [f"{c.name}: {c.remedy}" for c in checks if c.remedy and c.verdict != "ok"]
    return Table(title, ["check", "finding", "verdict"], rows, notes)


def first_error(checks: Sequence[Check]) -> MLFFError | None:
    """What the work would end with."""
    return next((c.error for c in checks if c.error is not None), None)
