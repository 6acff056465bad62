"""The journal of a transport training: what the gate saw of every batch, and which it skips.

A batch is skipped where either direction has more than the gate's share above E_max, or where its
gradient is not finite. Skipped batches are recorded as such, without a loss.

    excess = <beta_t U(f(x)) - ln|det| - beta_s U(x)> + the same of the inverse, of all samples

The loss in a record is a_f L_fwd + a_i L_inv behind the gate, without L_sym. A batch's record has
the excess of its own frames, which the flow may have learned by heart; an epoch's has that of the
validation, where one was made.

Every process keeps the same notes, of the whole batch; the main one writes `gate.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlff_cli.data.gate_log import BatchRecord, Direction, EpochRecord, GateLogWriter, Record
from mlff_cli.flows.gating import Gate
from mlff_cli.flows.objective import Transported, loss_terms
from mlff_cli.training import gate_words as words
from mlff_cli.training.distributed import World
from mlff_cli.training.gate_words import Totals
from mlff_cli.training.transport import E_MAX
from mlff_cli.training.window import gather

GATE_LOG = "gate.jsonl"
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95, "q99": 0.99}
# rows of a batch's notes, three of each direction: raw energies, log-dets, energies of the frames
_U, _LOG_DET = (0, 3), (1, 4)
_ROWS = 6


@dataclass(frozen=True)
class Thresholds:
    """What the journal says of the gate.

    Attributes:
        gate: in force; None: off.
        watched: whose thresholds are counted by, also where it is off.
    """

    gate: Gate | None
    watched: Gate

    @property
    def mode(self) -> str:
        """As `gate.jsonl` calls it."""
        return self.gate.mode if self.gate else "off"


@dataclass
class _Epoch:
    """What an epoch has seen so far."""

    notes: list[Tensor] = field(default_factory=list)  # of every batch, (6, B)
    made: list[bool] = field(default_factory=list)


class GateJournal:
    """The journal; see `task.Journal`.

    Args:
        kelvin: of source and target.
        betas: of source and target, mol/kJ.
        thresholds: of the gate.
        share: largest part of a batch that one process computes, in samples.
        strengths: of the two directions in the loss.
        lines: told at the beginning, after temperatures and before the gate.
    """

    def __init__(
        self,
        kelvin: tuple[float, float],
        betas: tuple[float, float],
        thresholds: Thresholds,
        share: int,
        strengths: tuple[float, float] = (1.0, 1.0),
        lines: Sequence[str] = (),
    ) -> None:
        self._kelvin, self._betas = kelvin, betas
        self._told = thresholds
        self._share = share
        self._strengths = np.asarray(strengths)
        self._here = np.array(betas)[:, None]  # (2, 1): of the frames of a direction
        self._there = self._here[::-1]
        self._lines = tuple(lines)
        self._log: GateLogWriter | None = None
        self._parts: list[Tensor] = []
        self._E_max = thresholds.watched.E_max
        self._told_E_max: Tensor | None = None  # of the batch; on its device
        self._epoch = _Epoch()
        self._measured: float | None = None  # excess of this epoch's validation
        self._last: EpochRecord | None = None
        self.totals = Totals()

    # -- a step -----------------------------------------------------------------------------------

    def open(self, folder: Path, resume_after: int | None) -> None:
        """Begin `gate.jsonl`, or keep its records up to a step (see `task.Journal`)."""
        self._log = GateLogWriter(folder / GATE_LOG, resume_after=resume_after)

    def see(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Note a part of a batch (see `task.Journal`)."""
        rows = [
            row.detach()
            for d, frames in (("fwd", "source_energy"), ("inv", "target_energy"))
            for row in (predicted[f"{d}_U"], predicted[f"{d}_logdet"], batch[frames])
        ]
        self._parts.append(torch.cat(rows).double().reshape(_ROWS, -1))
        self._told_E_max = batch[E_MAX][0]

    def judge(self, healthy: Callable[[], bool], world: World) -> bool:
        """Whether the step is made (see `task.Journal`)."""
        if self._told_E_max is not None:
            self._E_max = float(self._told_E_max)
        notes = self._gathered(world)
        made = True
        if gate := self._told.gate:
            over = [_over(notes[row].numpy(), self._E_max) for row in _U]
            made = healthy() and not any(gate.skips(n, notes.shape[1]) for n in over)
        self._epoch.notes.append(notes)
        self._epoch.made.append(made)
        return made

    def _gathered(self, world: World) -> Tensor:
        """Notes (6, B) of the whole batch, on the CPU."""
        parts, self._parts = self._parts, []
        own = torch.cat(parts, 1) if parts else torch.zeros(_ROWS, 0, dtype=torch.float64)
        if world.size == 1:
            return own.cpu()
        framed = own.new_zeros(_ROWS + 2, self._share)  # and E_max, and 1 where there is a sample
        framed[:_ROWS, : own.shape[1]] = own
        framed[_ROWS, : own.shape[1]] = self._E_max
        framed[_ROWS + 1, : own.shape[1]] = 1.0
        each = gather(framed, world).permute(1, 0, 2).flatten(1)
        there = each[_ROWS + 1] == 1.0
        if bool(there.any()):  # a process without any part was not told
            self._E_max = float(each[_ROWS][there][0])
        return each[:_ROWS, there]

    def close(
        self, step: int, *, epoch: int, at_end: bool, lr: float, warmup: bool, grad_norm: float
    ) -> None:
        """Write the records of a step (see `task.Journal`)."""
        seen = self._epoch
        common: dict[str, Any] = {"epoch": epoch, "step": step, "lr": lr, "warmup": warmup}
        batch = BatchRecord(**self._values(seen.notes[-1:], seen.made[-1:], grad_norm), **common)
        self._count(batch)
        records: list[Record] = [batch]
        if at_end:
            one = len(seen.notes) == 1
            values = self._values(seen.notes, seen.made, grad_norm) if not one else None
            fields = {**(values or _fields(batch)), "excess_nats": self._measured}
            self._last = EpochRecord(**fields, **common)
            records.append(self._last)
            self._epoch, self._measured = _Epoch(), None
        if self._log:
            self._log.write(*records)

    def _values(
        self, notes: Sequence[Tensor], made: Sequence[bool], grad_norm: float
    ) -> dict[str, Any]:
        """Fields of a record of one or more batches."""
        every = torch.cat(list(notes), 1) if len(notes) > 1 else notes[0]
        terms = [self._terms(every, k) for k in (0, 1)]
        energy, volume = (np.stack(part) for part in zip(*terms, strict=True))  # (2, n) each
        ends = np.cumsum([n.shape[1] for n in notes])
        parts = np.split(self._strengths @ (energy - volume), ends[:-1])
        losses = [float(part.mean()) for part, m in zip(parts, made, strict=True) if m]
        U, log_det, frames = every.numpy().reshape(2, _ROWS // 2, -1).swapaxes(0, 1)
        with np.errstate(invalid="ignore"):  # what is infinite of an energy
            work = self._there * U - log_det  # (2, n)
            excess = _means((work - self._here * frames).sum(0))[0]
            fwd, inv = self._directions(U, log_det, energy, energy - volume - work)
        return {
            "mode": self._told.mode,
            "E_cut": self._told.watched.E_cut,
            "E_max": self._E_max,
            "batches": len(notes),
            "skipped": len(notes) - len(losses),
            "loss": sum(losses) / len(losses) if losses else None,
            "excess_nats": excess,
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
            "fwd": fwd,
            "inv": inv,
        }

    def _terms(self, notes: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Energy and volume (n,) of every sample in the loss of direction k."""
        found = Transported(notes[_U[k]], notes[_LOG_DET[k]])
        energy, volume = loss_terms(found, self._betas[1 - k], self._told.gate, self._E_max)
        return energy.numpy(), volume.numpy()

    def _directions(
        self, U: np.ndarray, log_det: np.ndarray, energy: np.ndarray, gated: np.ndarray
    ) -> list[Direction]:
        """What the gate saw in both directions.

        Args:
            U: (2, n) of one or more batches.
            log_det: (2, n).
            energy: (2, n) energy terms of the loss.
            gated: (2, n) loss behind the gate minus the true one.
        """
        finite, placed = np.isfinite(U), np.isfinite(log_det)
        above = np.count_nonzero(finite & (self._told.watched.E_cut < U), axis=1)
        beyond = np.count_nonzero(finite & (self._E_max < U), axis=1)
        known = np.count_nonzero(finite, axis=1)
        ordered = np.sort(np.where(finite, U, np.inf), axis=1)
        means = zip(
            _means(energy), _means(gated, finite & placed), _means(log_det, placed), strict=True
        )
        return [
            Direction(
                samples=U.shape[1],
                regularized=int(above[k] - beyond[k]),
                clamped=int(beyond[k]) + U.shape[1] - int(known[k]),
                nonfinite=U.shape[1] - int(known[k]),
                **_quantiles(ordered[k, : known[k]]),
                energy=of_energy,
                gated_minus_true=of_gate,
                logdet=of_log_det,
            )
            for k, (of_energy, of_gate, of_log_det) in enumerate(means)
        ]

    def _count(self, record: BatchRecord) -> None:
        totals = self.totals
        totals.batches += 1
        totals.skipped += record.skipped or 0
        for direction in (record.fwd, record.inv):
            for name in ("samples", "regularized", "clamped", "nonfinite"):
                setattr(totals, name, getattr(totals, name) + getattr(direction, name))

    # -- words ------------------------------------------------------------------------------------

    def banner(self) -> list[str]:
        """Temperatures, engine and gate (see `task.Journal`)."""
        return words.banner(self._kelvin, self._betas, self._lines, self._told.gate)

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Note the excess of a validation (see `task.Journal`)."""
        excess = metrics.get("excess_nats", math.nan)
        self._measured = excess if math.isfinite(excess) else None

    def bar(self, lr: float) -> dict[str, str]:
        """What stands beside the bar (see `task.Journal`)."""
        return words.bar(self._last, self.totals, lr)

    def block(self, lr: float, improvement: float | None) -> list[str]:
        """The last epoch (see `task.Journal`)."""
        return words.block(self._last, lr, improvement)

    def summary(self) -> list[tuple[str, str]]:
        """Skipped batches and regularized samples (see `task.Journal`)."""
        return words.summary(self.totals)

    def doubts(self) -> list[str]:
        """Many skipped batches (see `task.Journal`)."""
        return words.doubts(self.totals)

    def remedy(self) -> str:
        """For a step without a gate (see `task.Journal`)."""
        return words.REMEDY

    # -- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """To continue from (see `task.Journal`)."""
        last = self._last
        return {
            "totals": dict(vars(self.totals)),
            "measured": self._measured,
            "last": None if last is None else last.plain(),
            "notes": [n.clone() for n in self._epoch.notes],
            "made": list(self._epoch.made),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.totals = Totals(**state["totals"])
        self._measured = state["measured"]
        self._last = None if state["last"] is None else EpochRecord.read(state["last"])
        self._epoch = _Epoch(list(state["notes"]), list(state["made"]))


def _over(U: np.ndarray, E_max: float) -> int:
    """How many energies lie above E_max or are not finite."""
    return len(U) - int(np.count_nonzero(np.isfinite(U) & (E_max >= U)))


def _quantiles(ordered: np.ndarray) -> dict[str, float]:
    """`QUANTILES` of ascending values (n,), between neighbours in proportion; none of nothing."""
    if not len(ordered):
        return {}
    at = np.asarray(tuple(QUANTILES.values())) * (len(ordered) - 1)
    found = np.interp(at, np.arange(len(ordered)), ordered).tolist()
    return dict(zip(QUANTILES, found, strict=True))


def _means(values: np.ndarray, there: np.ndarray | None = None) -> list[float | None]:
    """Means of rows, of those entries that are there; None without any, or where not finite."""
    if there is not None:
        values = np.where(there, values, 0.0)
    counts = np.full(values.shape[:-1], values.shape[-1]) if there is None else there.sum(-1)
    found = values.sum(-1) / np.maximum(counts, 1)
    return [
        float(mean) if n and math.isfinite(mean) else None
        for mean, n in zip(np.atleast_1d(found), np.atleast_1d(counts), strict=True)
    ]


def _fields(record: BatchRecord) -> dict[str, Any]:
    """Fields of a batch's record that its epoch shares."""
    names = ("mode", "E_cut", "E_max", "batches", "skipped", "loss", "excess_nats", "grad_norm")
    return {name: getattr(record, name) for name in (*names, "fwd", "inv")}
