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
QUANTILES = (0.05, 0.5, 0.95, 0.99)
# rows of a batch's notes: raw energies and log-dets of both directions, energies of the frames
_U, _LOG_DET, _FRAME = (0, 3), (1, 4), (2, 5)
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
        self._strengths = strengths
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
            over = [_over(notes[row], self._E_max) for row in _U]
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
        every = torch.cat(list(notes), 1)
        terms = [self._terms(every, k) for k in (0, 1)]
        each = sum(
            strength * (energy - volume)
            for strength, (energy, volume) in zip(self._strengths, terms, strict=True)
        )
        sizes = [n.shape[1] for n in notes]
        losses = [
            float(part.mean())
            for part, m in zip(np.split(np.asarray(each), np.cumsum(sizes)[:-1]), made, strict=True)
            if m
        ]
        directions = [self._direction(every.numpy(), k, *terms[k]) for k in (0, 1)]
        excess = [self._excess(every.numpy(), k) for k in (0, 1)]
        return {
            "mode": self._told.mode,
            "E_cut": self._told.watched.E_cut,
            "E_max": self._E_max,
            "batches": len(notes),
            "skipped": len(notes) - len(losses),
            "loss": sum(losses) / len(losses) if losses else None,
            "excess_nats": None if None in excess else sum(e for e in excess if e is not None),
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
            "fwd": directions[0],
            "inv": directions[1],
        }

    def _terms(self, notes: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Energy and volume (B,) of every sample in the loss of direction k."""
        found = Transported(notes[_U[k]], notes[_LOG_DET[k]])
        energy, volume = loss_terms(found, self._betas[1 - k], self._told.gate, self._E_max)
        return energy.numpy(), volume.numpy()

    def _excess(self, notes: np.ndarray, k: int) -> float | None:
        """Mean reduced work of direction k; None where a sample was lost."""
        beta, there = self._betas[k], self._betas[1 - k]
        return _mean(there * notes[_U[k]] - notes[_LOG_DET[k]] - beta * notes[_FRAME[k]])

    def _direction(
        self, notes: np.ndarray, k: int, energy: np.ndarray, volume: np.ndarray
    ) -> Direction:
        """What the gate saw in direction k, of samples of one or more batches."""
        U, log_det = notes[_U[k]], notes[_LOG_DET[k]]
        finite, placed = np.isfinite(U), np.isfinite(log_det)
        known = U[finite]
        above = int(np.count_nonzero(known > self._told.watched.E_cut))
        beyond = int(np.count_nonzero(known > self._E_max))
        nonfinite = len(U) - len(known)
        q05, q50, q95, q99 = _quantiles(known)
        whole = finite & placed
        true = self._betas[1 - k] * U[whole] - log_det[whole]
        return Direction(
            samples=len(U),
            regularized=above - beyond,
            clamped=beyond + nonfinite,
            nonfinite=nonfinite,
            q05=q05,
            q50=q50,
            q95=q95,
            q99=q99,
            energy=_mean(energy),
            gated_minus_true=_mean((energy - volume)[whole] - true),
            logdet=_mean(log_det[placed]),
        )

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


def _over(U: Tensor, E_max: float) -> int:
    """How many energies lie above E_max or are not finite."""
    return int((~torch.isfinite(U) | U.gt(E_max)).sum())


def _quantiles(values: np.ndarray) -> list[float | None]:
    """`QUANTILES` of values (n,), between neighbours in proportion; None of nothing."""
    if not len(values):
        return [None] * len(QUANTILES)
    at = np.asarray(QUANTILES) * (len(values) - 1)
    found: list[float | None] = np.interp(at, np.arange(len(values)), np.sort(values)).tolist()
    return found


def _mean(values: np.ndarray) -> float | None:
    """Mean of values; None where there are none, or it is not finite."""
    found = float(values.mean()) if len(values) else math.nan
    return found if math.isfinite(found) else None


def _fields(record: BatchRecord) -> dict[str, Any]:
    """Fields of a batch's record that its epoch shares."""
    names = ("mode", "E_cut", "E_max", "batches", "skipped", "loss", "excess_nats", "grad_norm")
    return {name: getattr(record, name) for name in (*names, "fwd", "inv")}
