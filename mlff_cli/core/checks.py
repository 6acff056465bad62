"""Findings of a check before the work begins: what was looked at, what was seen, what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
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


def checks_of_files(
    choose: Callable[[], Sequence[Path]], look: Callable[[Path], str], error: MLFFError
) -> list[Check]:
    """A finding for every file of a training that cannot be prepared.

    Args:
        choose: names the files.
        look: opens one and says what it holds.
        error: why it cannot be prepared; told where no file is at fault.
    """
    try:
        paths = choose()
    except MLFFError as wrong:
        return [Check.failed("data", wrong)]
    found = []
    for path in paths:
        try:
            found.append(Check(str(path), look(path)))
        except MLFFError as wrong:
            found.append(Check.failed(str(path), wrong))
    if not any(c.error for c in found):
        found.append(Check.failed("training", error))
    return found
