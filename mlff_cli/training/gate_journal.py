"""The journal of a transport training: what the gate saw of every batch, and which it skips.

A batch is skipped where either direction has more than the gate's share above E_max, or where its
gradient is not finite. Skipped batches are recorded as such, without a loss.

    excess = <beta_t U(f(x)) - ln|det| - beta_s U(x)> + the same of the inverse, of all samples
    improvement = 1 - excess of the epoch / excess of the first

Every process keeps the same notes, of the whole batch; the main one writes `gate.jsonl`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlff_cli.data.gate_log import BatchRecord, Direction, EpochRecord, GateLogWriter
from mlff_cli.flows.gating import Gate
from mlff_cli.flows.objective import Transported, loss_terms
from mlff_cli.training.distributed import World
from mlff_cli.training.transport import E_MAX, works
from mlff_cli.training.window import gather
from mlff_cli.training.wording import counted, number, percent

GATE_LOG = "gate.jsonl"
QUANTILES = (0.05, 0.5, 0.95, 0.99)
# rows of a batch's notes: raw energies, log-dets and reduced works of both directions
_U, _LOG_DET, _WORK = (0, 3), (1, 4), (2, 5)
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
class Totals:
    """Counts of the run for its summary."""

    batches: int = 0
    skipped: int = 0
    samples: int = 0
    regularized: int = 0
    clamped: int = 0
    nonfinite: int = 0


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
        self._first: float | None = None  # excess of the first epoch that has one
        self._last: EpochRecord | None = None
        self.totals = Totals()

    # -- a step -----------------------------------------------------------------------------------

    def open(self, folder: Path, resume_after: int | None) -> None:
        """Begin `gate.jsonl`, or keep its records up to a step (see `task.Journal`)."""
        self._log = GateLogWriter(folder / GATE_LOG, resume_after=resume_after)

    def see(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Note a part of a batch (see `task.Journal`)."""
        with torch.no_grad():
            done = works(predicted, batch, self._betas)
            rows = [
                row.detach().double()
                for d, work in zip(("fwd", "inv"), done, strict=True)
                for row in (predicted[f"{d}_U"], predicted[f"{d}_logdet"], work)
            ]
            self._parts.append(torch.stack(rows))
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
        framed = own.new_zeros(_ROWS + 1, self._share)  # the last row says what is there
        framed[:_ROWS, : own.shape[1]] = own
        framed[_ROWS, : own.shape[1]] = self._E_max
        each = gather(framed, world).permute(1, 0, 2).flatten(1)
        there = each[_ROWS] != 0
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
        if self._log:
            self._log.write(batch)
        if at_end:
            one = len(seen.notes) == 1
            values = self._values(seen.notes, seen.made, grad_norm) if not one else None
            record = EpochRecord(**(values or _fields(batch)), **common)
            if self._log:
                self._log.write(record)
            self._last = record
            if self._first is None and record.excess_nats is not None:
                self._first = record.excess_nats
            self._epoch = _Epoch()

    def _values(
        self, notes: Sequence[Tensor], made: Sequence[bool], grad_norm: float
    ) -> dict[str, Any]:
        """Fields of a record of one or more batches."""
        every = torch.cat(list(notes), 1)
        used = [n for n, m in zip(notes, made, strict=True) if m]
        losses = [self._loss(n) for n in used]
        directions = [self._direction(every, k) for k in (0, 1)]
        excess = every[_WORK[0]].mean() + every[_WORK[1]].mean()
        return {
            "mode": self._told.mode,
            "E_cut": self._told.watched.E_cut,
            "E_max": self._E_max,
            "batches": len(notes),
            "skipped": len(notes) - len(used),
            "loss": sum(losses) / len(losses) if losses else None,
            "excess_nats": _known(excess),
            "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
            "fwd": directions[0],
            "inv": directions[1],
        }

    def _terms(self, notes: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Energy and volume of every sample in the loss of direction k."""
        found = Transported(notes[_U[k]], notes[_LOG_DET[k]])
        return loss_terms(found, self._betas[1 - k], self._told.gate, self._E_max)

    def _loss(self, notes: Tensor) -> float:
        parts = []
        for k, strength in enumerate(self._strengths):
            energy, volume = self._terms(notes, k)
            parts.append(strength * float((energy - volume).mean()))
        return sum(parts)

    def _direction(self, notes: Tensor, k: int) -> Direction:
        """What the gate saw in direction k, of samples of one or more batches."""
        U, log_det = notes[_U[k]], notes[_LOG_DET[k]]
        finite = torch.isfinite(U)
        between = finite & U.gt(self._told.watched.E_cut) & U.le(self._E_max)
        quantiles: list[float | None] = [None] * len(QUANTILES)
        if bool(finite.any()):
            at = torch.tensor(QUANTILES, dtype=torch.float64)
            quantiles = list(torch.quantile(_some(U[finite]), at).tolist())
        energy, volume = self._terms(notes, k)
        whole = finite & torch.isfinite(log_det)
        true = self._betas[1 - k] * U - log_det
        behind = (energy - volume - true)[whole]
        return Direction(
            samples=len(U),
            regularized=int(between.sum()),
            clamped=_over(U, self._E_max),
            nonfinite=int((~finite).sum()),
            q05=quantiles[0],
            q50=quantiles[1],
            q95=quantiles[2],
            q99=quantiles[3],
            energy=_known(energy.mean()),
            gated_minus_true=_known(behind.mean()),
            logdet=_known(log_det[torch.isfinite(log_det)].mean()),
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
        source, target = self._kelvin
        gate = self._told.gate
        gating = "OFF"
        if gate:
            course = f"E_max={gate.E_max:g} kJ/mol"
            if gate.warmup_epochs:
                course = (
                    f"E_max={gate.initial_E_max:g} to epoch {gate.min_learning_epochs}, "
                    f"{gate.E_max:g} kJ/mol from epoch {gate.warmup_epochs} on"
                )
            gating = f"ON, mode {gate.mode} (E_cut={gate.E_cut:g}, {course})"
        return [
            f"transport {source:g} K -> {target:g} K",
            f"  beta_source = {self._betas[0]:.10f} mol/kJ",
            f"  beta_target = {self._betas[1]:.10f} mol/kJ",
            *(f"  {line}" for line in self._lines),
            f"  energy gating: {gating}",
        ]

    def bar(self, lr: float) -> dict[str, str]:
        """What stands beside the bar (see `task.Journal`)."""
        last = self._last
        fields = {}
        if last is not None:
            fields = {
                "Loss": _word(last.loss),
                "Fwd_E": _word(last.fwd.energy),
                "Inv_E": _word(last.inv.energy),
            }
        return {**fields, "LR": number(lr, 3), "skipped": f"{self.totals.skipped}"}

    def block(self, lr: float) -> list[str]:
        """The last epoch (see `task.Journal`)."""
        last = self._last
        if last is None:
            return []
        skipped = last.skipped or 0
        what = f"  Total Loss: {_word(last.loss)}"
        if skipped:
            what += f" ({skipped} of {counted(last.batches or 0, 'batch')} skipped)".replace(
                "batchs", "batches"
            )
        lines = [what]
        for name, d in (("Forward  -", last.fwd), ("Inverse  -", last.inv)):
            lines.append(f"  {name} Energy: {_word(d.energy)}, LogDet: {_word(d.logdet)}")
        lines.append(f"  LR: {lr:.2e}")
        if last.excess_nats is not None:
            line = f"  Excess: {_word(last.excess_nats)} nats"
            first = self._first
            if first and first > 0 and last.epoch > 1:
                line += f", improvement from start: {percent(1 - last.excess_nats / first)}"
            lines.append(line)
        return lines

    def summary(self) -> list[tuple[str, str]]:
        """Skipped batches and regularized samples (see `task.Journal`)."""
        t = self.totals
        return [
            ("skipped batches", _share(t.skipped, t.batches)),
            ("regularized samples", _share(t.regularized + t.clamped, t.samples)),
            ("  of them above E_max", _share(t.clamped, t.samples)),
            ("  of them not finite", _share(t.nonfinite, t.samples)),
        ]

    # -- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """To continue from (see `task.Journal`)."""
        last = self._last
        return {
            "totals": dict(vars(self.totals)),
            "first": self._first,
            "last": None if last is None else last.plain(),
            "notes": [n.clone() for n in self._epoch.notes],
            "made": list(self._epoch.made),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.totals = Totals(**state["totals"])
        self._first = state["first"]
        self._last = None if state["last"] is None else EpochRecord.read(state["last"])
        self._epoch = _Epoch(list(state["notes"]), list(state["made"]))


def _over(U: Tensor, E_max: float) -> int:
    """How many energies lie above E_max or are not finite."""
    return int((~torch.isfinite(U) | U.gt(E_max)).sum())


def _some(values: Tensor, most: int = 1 << 20) -> Tensor:
    """Values (n,), of very many evenly chosen ones: torch sorts no more than 16 million."""
    return values[:: -(-len(values) // most)]


def _known(value: Tensor) -> float | None:
    found = float(value)
    return found if math.isfinite(found) else None


def _fields(record: BatchRecord) -> dict[str, Any]:
    """Fields of a batch's record that its epoch shares."""
    names = ("mode", "E_cut", "E_max", "batches", "skipped", "loss", "excess_nats", "grad_norm")
    return {name: getattr(record, name) for name in (*names, "fwd", "inv")}


def _word(value: float | None) -> str:
    return "-" if value is None else number(value)


def _share(n: int, of: int) -> str:
    return f"{n}/{of} ({100 * n / of:.1f} %)" if of else "0"
