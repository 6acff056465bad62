"""`gate.jsonl`: the log of the energy gate, written beside a training and read by its judges."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import storage_error, write_text
from mlff_cli.core.errors import DataError
from mlff_cli.data.gate_records import (
    COUNTS,
    DIRECTION_NAMES,
    DIRECTIONS,
    KINDS,
    RECORD_NAMES,
    REMEDY,
    BatchRecord,
    Direction,
    EpochRecord,
    Record,
)

__all__ = [
    "DIRECTIONS",
    "BatchRecord",
    "Direction",
    "EpochRecord",
    "GateLogWriter",
    "Record",
    "epochs_of",
    "read_gate_log",
]


class GateLogWriter:
    """Appends records, those of a step at once.

    Args:
        path: the file.
        resume_after: keep records up to this step (a resumed run); None starts anew.

    Raises:
        StorageError: the disk is full or the folder not writable.
        DataError: a line before the last of an existing log cannot be read.
    """

    def __init__(self, path: Path | str, *, resume_after: int | None = None) -> None:
        self.path = Path(path)
        kept: list[Record] = []
        if resume_after is not None and self.path.exists():
            found = read_gate_log(self.path, torn=True)
            kept = [r for r in found if (r.step or 0) <= resume_after]
        write_text(self.path, "".join(r.line() for r in kept), force=True)

    def write(self, *records: Record) -> None:
        """Append records in one go."""
        text = "".join(record.line() for record in records)
        try:
            with self.path.open("ab", buffering=0) as stream:
                stream.write(text.encode())
        except OSError as error:
            raise storage_error(error, self.path) from error


def read_gate_log(path: Path | str, *, torn: bool = False) -> list[Record]:
    """Records of a log, in its order.

    NaN and Infinity, which other writers put into JSON, are read as what they say.

    Args:
        path: the file.
        torn: drop a last line that a killed run left unfinished, and take an empty file.

    Raises:
        StorageError: the file cannot be read.
        DataError: the file is empty or a line is not a record; the message names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # with a byte order mark or without
    except OSError as error:
        raise storage_error(error, path) from error
    except UnicodeDecodeError as error:
        raise DataError("not a text file", where=str(path), remedy=REMEDY) from error
    records = list(_records(path, text, torn))
    if not records and not torn:
        raise DataError(
            "the gate log is empty: it holds no record",
            where=f"{path}, line 1",
            remedy="train for an epoch at least; without energy gating there is no gate log",
        )
    return records


def epochs_of(records: Iterable[Record]) -> list[EpochRecord]:
    """Epoch records in the order of epochs; where an epoch has none, its batches make one.

    Of several records of one epoch the last counts: it is what a resumed run wrote.
    """
    epochs: dict[int, EpochRecord] = {}
    batches: dict[int, dict[Any, Record]] = {}
    for record in records:
        if isinstance(record, EpochRecord):
            epochs[record.epoch] = record
        else:
            of_epoch = batches.setdefault(record.epoch, {})
            of_epoch[len(of_epoch) if record.step is None else record.step] = record
    for epoch, members in batches.items():
        if epoch not in epochs:
            epochs[epoch] = _sum(list(members.values()))
    return [epochs[e] for e in sorted(epochs)]


def _records(path: Path, text: str, torn: bool) -> Iterator[Record]:
    lines = text.split("\n")
    last = max((i for i, line in enumerate(lines) if line.strip()), default=-1)
    for i, line in enumerate(lines):
        where = f"{path}, line {i + 1}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:  # Recursion: thousands of open brackets
            ended = i == last and not text.endswith("\n")
            if ended and torn:
                return
            what = "the line is cut off" if ended else f"the line is not JSON ({error})"
            remedy = "resume the run, or remove the last line" if ended else REMEDY
            raise DataError(what, where=where, remedy=remedy) from error
        kind = values.get("kind") if isinstance(values, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            found = f"kind {kind!r}" if isinstance(values, dict) else line.strip()[:40]
            raise DataError(
                f"a record is of kind {' or '.join(KINDS)}, found {found}",
                where=where,
                remedy=REMEDY,
            )
        yield KINDS[kind].read(values, where)


def _sum(members: Sequence[Record]) -> EpochRecord:
    """An epoch from its batches: counts add up, numbers are means over batches not skipped.

    Quantiles cannot be added; their means stand for them.
    """
    used = [r for r in members if not (r.batches and r.skipped == r.batches)] or list(members)
    last = members[-1]
    values: dict[str, Any] = {}
    for name in RECORD_NAMES:
        if name in ("batches", "skipped"):
            values[name] = _total([getattr(r, name) for r in members])
        elif name in ("loss", "excess_nats", "grad_norm"):
            values[name] = _mean([getattr(r, name) for r in used])
        else:
            values[name] = getattr(last, name)
    for name in DIRECTIONS:
        every = [getattr(r, name) for r in members]
        some = [getattr(r, name) for r in used]
        summed: dict[str, Any] = {
            key: _total([getattr(d, key) for d in every])
            if key in COUNTS
            else _mean([getattr(d, key) for d in some])
            for key in DIRECTION_NAMES
        }
        values[name] = Direction(**summed)
    missing = frozenset.intersection(*(r.missing for r in members))
    return EpochRecord(**values, missing=missing)


def _total(values: Sequence[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
