"""An append-only journal of finished work: what an interrupted run need not do again.

One JSON object per line, `{"key": ..., "value": ...}`. Floats are written with all their digits,
so that a resumed run gives the same bytes. A line is complete or it is ignored: whatever a kill -9
left torn at the end is dropped and its work done again.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.errors import UsageError

SYNC_SECONDS = 1.0  # at most this much work is lost when the machine itself goes down


class Journal:
    """The finished work of one output, in `<output>.partial/journal.jsonl`.

    Args:
        output: the file that is being made.

    Attributes:
        done: key -> value of everything finished before and now.

    Raises:
        StorageError: the folder cannot be written.
        UsageError: another process is making the same output.
    """

    def __init__(self, output: Path | str) -> None:
        self.folder = Path(f"{output}.partial")
        self.path = self.folder / "journal.jsonl"
        self.done: dict[str, Any] = {}
        self._synced = time.monotonic()

    def __enter__(self) -> Journal:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # unbuffered: what a full disk refuses must not wait in memory for close() to fail again
            self._stream = self.path.open("ab", buffering=0)
            self._lock()
            self._stream.truncate(self._load())
        except OSError as error:
            raise storage_error(error, self.path) from error
        return self

    def _load(self) -> int:
        """Fill `done` and return how many bytes of the file are intact."""
        intact = 0
        with self.path.open("rb") as lines:
            for line in lines:
                entry = _parse(line)
                if entry is None:
                    break
                self.done[entry["key"]] = entry["value"]
                intact += len(line)
        return intact

    def _lock(self) -> None:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise UsageError(
                "another process is making this output",
                where=str(self.folder),
                remedy="wait for it, or choose another name",
            ) from error

    def add(self, key: str, value: Any) -> None:
        """Keep one piece of finished work."""
        line = json.dumps({"key": key, "value": value}, allow_nan=False) + "\n"
        try:
            rest = line.encode()
            while rest:  # a nearly full disk takes a part, then refuses
                rest = rest[self._stream.write(rest) :]
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._stream.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise storage_error(error, self.path) from error
        self.done[key] = value

    def remove(self) -> None:
        """Delete the journal: the output is complete."""
        self._stream.close()
        self.path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def __exit__(self, *error: object) -> None:
        self._stream.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    """An entry, or None for a line that was torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"key", "value"} <= entry.keys() else None
