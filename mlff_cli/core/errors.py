"""The errors users meet, and the exit code each one becomes.

MLFFError                    1  a bug, unless a subclass says otherwise
|- UsageError                2  the command line contradicts itself or the files
|  `- ConfigError            2  a configuration key or value is wrong
|- DataError                 3  an input file holds something it must not
|  `- StorageError           3  a file could not be read or written (disk full, permissions)
|- MissingDependencyError    4  an optional package or a device is absent
|- NumericalError            5  NaN, divergence, no convergence
|- CheckFailedError          6  a check ran and failed
`- InterruptedRunError      75  stopped on request; run the same command again to resume

A message says the rule and the value seen; `remedy` says what to do; `where` names the file, and
the molecule or line inside it.
"""

from __future__ import annotations


class MLFFError(Exception):
    """An error with a message for the user.

    Args:
        message: the rule that was broken and the value that was seen.
        remedy: what the user can do about it.
        where: the file, and the molecule, group or line inside it.

    Attributes:
        told: another process of the same run tells it to the user.
    """

    exit_code = 1
    told = False

    def __init__(
        self, message: str, *, remedy: str | None = None, where: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"\n  remedy: {self.remedy}" if self.remedy else ""
        return f"{place}{self.message}{remedy}"


class UsageError(MLFFError):
    """The command line contradicts itself or the files it names."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value is wrong."""


class DataError(MLFFError):
    """An input file holds something it must not."""

    exit_code = 3


class StorageError(DataError):
    """A file could not be read or written: disk full, permissions, a folder that vanished."""


class MissingDependencyError(MLFFError):
    """An optional package or a device is absent."""

    exit_code = 4


class NumericalError(MLFFError):
    """NaN, divergence, or an iteration that does not converge."""

    exit_code = 5


class CheckFailedError(MLFFError):
    """A check ran to its end and failed."""

    exit_code = 6


class InterruptedRunError(MLFFError):
    """Stopped on request with its progress saved: the same command resumes it."""

    exit_code = 75
