"""What a stage says while it runs and when it is done, without knowing who listens.

Stages never print. They tell a `Reporter`, which the command line implements with a terminal and
tests implement with lists, and they return a `Summary`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from mlff_cli.core.errors import MLFFError


@dataclass
class Table:
    """A small table for the terminal; cells are plain values, already rounded as text if wished."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    notes: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """A stage's result.

    Attributes:
        data: plain values for `--json`.
        tables: what a person reads.
        lines: sentences a person reads, outputs first.
        told: another process of the same run tells it to the user.
        failure: what the command ends with when its result has been shown.
    """

    data: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    told: bool = False
    failure: MLFFError | None = None


class Progress(Protocol):
    """A running bar; use it as a context manager."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *error: object) -> None: ...

    def skip(self, n: int) -> None:
        """Count `n` steps that were done in an earlier session; they tell nothing of the pace."""

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Move on by `n` and show `fields`, the weightiest first; others stay as they were."""


class Reporter(Protocol):
    """Where a stage's messages go."""

    def info(self, message: str) -> None:
        """A line the user should see."""

    def detail(self, message: str) -> None:
        """A line for the curious (`-v`)."""

    def warning(self, message: str) -> None:
        """A line the user must not miss."""

    def progress(self, total: int | None, description: str, unit: str = "") -> Progress:
        """Start a bar of `total` steps (None: unknown)."""


class NullProgress:
    """A bar nobody sees."""

    def __enter__(self) -> NullProgress:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def skip(self, n: int) -> None:
        """Do nothing."""

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Do nothing."""


class NullReporter:
    """A reporter that keeps silent; `warnings` holds what a user would have had to see."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def info(self, message: str) -> None:
        """Do nothing."""

    def detail(self, message: str) -> None:
        """Do nothing."""

    def warning(self, message: str) -> None:
        """Keep the warning."""
        self.warnings.append(message)

    def progress(self, total: int | None, description: str, unit: str = "") -> NullProgress:
        """A silent bar."""
        return NullProgress()


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss.

    >>> duration(59.6), duration(3723)
    ('1:00', '1:02:03')
    """
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
