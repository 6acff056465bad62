"""The gate log of a transport training, `gate.jsonl`: what the energy gate did, line by line.

One JSON object per line; `kind` is `batch` or `epoch`. Counts, not shares, so that records add up.
JSON has no NaN: what is not finite is null. A key that a line does not hold is missing, which is
not the same as null: `Record.missing` names it, and whoever judges the log must not take it for
zero.

The two directions are `fwd` (source -> target) and `inv` (target -> source).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

from mlff_cli.core.errors import DataError

DIRECTIONS: tuple[Literal["fwd", "inv"], ...] = ("fwd", "inv")
REMEDY = "`gate.jsonl` holds one JSON object per line; take the file that `mlff train` wrote"


@dataclass(frozen=True, kw_only=True)
class Direction:
    """What the gate saw in one direction.

    Attributes:
        samples: energies that were evaluated.
        regularized: E_cut < U <= E_max.
        clamped: U > E_max or not finite.
        nonfinite: of the clamped, those that are not finite.
        q05: quantiles of the raw energies that are finite, kJ/mol; None where there are none.
        q50: the median, kJ/mol.
        q95: kJ/mol.
        q99: kJ/mol.
        energy: mean energy term of the loss as it is minimised (beta U behind the gate), kT.
        gated_minus_true: loss behind the gate minus loss of the raw energies, finite samples, nats.
        logdet: mean ln|det J|, nats.
    """

    samples: int | None = None
    regularized: int | None = None
    clamped: int | None = None
    nonfinite: int | None = None
    q05: float | None = None
    q50: float | None = None
    q95: float | None = None
    q99: float | None = None
    energy: float | None = None
    gated_minus_true: float | None = None
    logdet: float | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """A line of the log.

    Attributes:
        epoch: which, from 1.
        step: of the optimizer, or attempts at one: skipped batches count.
        mode: of the gate: "safe", "seed", or "off".
        E_cut: kJ/mol.
        E_max: in force, kJ/mol.
        batches: of this record, skipped ones among them.
        skipped: batches without a step of the optimizer.
        loss: nats; None when all batches were skipped.
        excess_nats: KL_fwd + KL_rev from raw energies, where it was measured.
        lr: learning rate.
        warmup: the learning rate still warms up; or for how many epochs it does.
        grad_norm: before clipping.
        fwd: source -> target.
        inv: target -> source.
        missing: keys that the line does not hold, those of directions as `fwd.q50`.
    """

    kind: ClassVar[str] = ""

    epoch: int
    step: int | None = None
    mode: str | None = None
    E_cut: float | None = None
    E_max: float | None = None
    batches: int | None = None
    skipped: int | None = None
    loss: float | None = None
    excess_nats: float | None = None
    lr: float | None = None
    warmup: bool | int | float | None = None
    grad_norm: float | None = None
    fwd: Direction = Direction()
    inv: Direction = Direction()
    missing: frozenset[str] = frozenset()

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON: what is not finite is None, missing keys are left out."""
        told = {"kind": self.kind, **_plain(self, RECORD_NAMES, self.missing, "")}
        for name in DIRECTIONS:
            if name not in self.missing:
                prefix = f"{name}."
                told[name] = _plain(getattr(self, name), DIRECTION_NAMES, self.missing, prefix)
        return told

    def line(self) -> str:
        """The line of the file, with its end."""
        return _encoded(self.plain()) + "\n"

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str | None = None) -> Self:
        """A record from the plain values of a line; keys that are not of the schema are ignored.

        Raises:
            DataError: a value is not of its type, or counts contradict each other.
        """
        missing: set[str] = set()
        parts: dict[str, Any] = {}
        for name in DIRECTIONS:
            inner = values.get(name)
            if inner is not None and not isinstance(inner, Mapping):
                raise _wrong(name, inner, "an object", where)
            if inner is None:
                missing.add(name)
            found = _values(Direction, inner or {}, f"{name}.", missing, where)
            parts[name] = Direction(**found)
            _count(parts[name], name, where)
        own = _values(cls, values, "", missing, where)
        if "epoch" not in own:
            raise DataError("a record names its epoch", where=where, remedy=REMEDY)
        record = cls(**own, **parts, missing=frozenset(missing))
        if record.batches is not None and (record.skipped or 0) > record.batches:
            raise DataError(
                f"{record.skipped} of {record.batches} batches were skipped: more than there are",
                where=where,
                remedy=REMEDY,
            )
        return record


@dataclass(frozen=True, kw_only=True)
class BatchRecord(Record):
    """One batch."""

    kind: ClassVar[str] = "batch"


@dataclass(frozen=True, kw_only=True)
class EpochRecord(Record):
    """One epoch: counts are sums over its batches, the loss is the mean over those not skipped."""

    kind: ClassVar[str] = "epoch"


# Asked for every line; a training writes thousands.
RECORD_NAMES = tuple(f.name for f in fields(Record) if f.name not in (*DIRECTIONS, "missing"))
DIRECTION_NAMES = tuple(f.name for f in fields(Direction))
_encoded = json.JSONEncoder(allow_nan=False).encode

KINDS: dict[str, type[Record]] = {cls.kind: cls for cls in (BatchRecord, EpochRecord)}


COUNTS = ("epoch", "step", "batches", "skipped", "samples", "regularized", "clamped", "nonfinite")


MOST = 2**53  # of a count: whole numbers that a float64 still tells apart
SHOWN = 40  # characters of a wrong value


def _is_number(value: Any) -> bool:
    """JSON's integers have no limit, those of a float64 have."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


def _is_count(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= MOST and float(value).is_integer()


# how a value is told from a wrong one, and what is kept of it; all others are numbers
RULES: dict[str, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    **dict.fromkeys(COUNTS, ("a count up to 2^53", _is_count, int)),
    "mode": ("a text", lambda v: isinstance(v, str), str),
    "warmup": (
        "true, false or a number of epochs",
        lambda v: isinstance(v, bool) or _is_number(v),
        lambda v: v,
    ),
}
NUMBER = ("a number that a float64 holds", _is_number, float)


def _values(
    cls: type[Direction | Record],
    values: Mapping[str, Any],
    prefix: str,
    missing: set[str],
    where: str | None,
) -> dict[str, Any]:
    """Values of a dataclass's plain fields, checked; names of those not there are kept."""
    found: dict[str, Any] = {}
    for name in DIRECTION_NAMES if cls is Direction else RECORD_NAMES:
        if name not in values:
            missing.add(prefix + name)
        elif values[name] is not None:
            rule, holds, kept = RULES.get(name, NUMBER)
            if not holds(values[name]):
                raise _wrong(prefix + name, values[name], rule, where)
            found[name] = kept(values[name])
    return found


def _wrong(name: str, value: Any, rule: str, where: str | None) -> DataError:
    told = repr(value)
    told = told if len(told) <= SHOWN else f"{told[:SHOWN]}... ({len(told)} characters)"
    return DataError(f"`{name}` is {rule}, found {told}", where=where, remedy=REMEDY)


def _count(direction: Direction, name: str, where: str | None) -> None:
    n = direction.samples
    if n is None:
        return
    gated = (direction.regularized or 0) + (direction.clamped or 0)
    for what, count in (("regularized + clamped", gated), ("nonfinite", direction.nonfinite or 0)):
        if count > n:
            raise DataError(
                f"{name}: {what} is {count}, more than its {n} samples", where=where, remedy=REMEDY
            )


def _plain(
    part: Record | Direction, names: Sequence[str], missing: frozenset[str], prefix: str
) -> dict[str, Any]:
    """Fields of a record or of a direction; what is not finite is None."""
    values = vars(part)
    found = {name: values[name] for name in names}
    for name in [name for name in names if prefix + name in missing] if missing else ():
        del found[name]
    for name, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            found[name] = None
    return found
