"""What people see of the gate: at the beginning, beside the bar, of an epoch, and at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlff_cli.core.reporting import Table
from mlff_cli.data.gate_log import EpochRecord
from mlff_cli.flows.gating import Gate
from mlff_cli.training.wording import number, percent

MERITS = {  # of a validation: what it is, and its unit
    "excess_nats": ("excess, 0 for a perfect flow", "nats"),
    "acceptance": ("accepted swaps", ""),
    "ess_fwd": ("effective samples, forward", ""),
    "ess_inv": ("effective samples, inverse", ""),
}

MANY = 0.1  # of the batches: as `mlff gate-report` judges
REMEDY = (
    "leave the energy gate on (use_energy_gating=true), which skips such batches, or lower "
    "training.lr"
)


@dataclass
class Totals:
    """Counts of the run for its summary."""

    batches: int = 0
    skipped: int = 0
    samples: int = 0
    regularized: int = 0
    clamped: int = 0
    nonfinite: int = 0


def banner(
    kelvin: tuple[float, float],
    betas: tuple[float, float],
    lines: Sequence[str],
    gate: Gate | None,
) -> list[str]:
    """Temperatures, further lines and the gate.

    Args:
        kelvin: of source and target.
        betas: of source and target, mol/kJ.
        lines: told in between.
        gate: None: off.
    """
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
        f"transport {kelvin[0]:g} K -> {kelvin[1]:g} K",
        f"  beta_source = {betas[0]:.10f} mol/kJ",
        f"  beta_target = {betas[1]:.10f} mol/kJ",
        *(f"  {line}" for line in lines),
        f"  energy gating: {gating}",
    ]


def bar(last: EpochRecord | None, totals: Totals, lr: float) -> dict[str, str]:
    """Fields beside the bar: the last epoch, where there is one, and what was skipped."""
    fields = {}
    if last is not None:
        fields = {
            "Loss": _word(last.loss),
            "Fwd_E": _word(last.fwd.energy),
            "Inv_E": _word(last.inv.energy),
        }
    return {**fields, "LR": number(lr, 3), "skipped": f"{totals.skipped}"}


def block(last: EpochRecord | None, lr: float, improvement: float | None) -> list[str]:
    """Lines about an epoch; none where there is none."""
    if last is None:
        return []
    what = f"  Total Loss: {_word(last.loss)}"
    if skipped := last.skipped or 0:
        batches = last.batches or 0
        what += f" ({skipped} of {batches} {'batch' if batches == 1 else 'batches'} skipped)"
    lines = [what]
    for name, d in (("Forward  -", last.fwd), ("Inverse  -", last.inv)):
        lines.append(f"  {name} Energy: {_word(d.energy)}, LogDet: {_word(d.logdet)}")
    lines.append(f"  LR: {lr:.2e}")
    if improvement is not None:
        lines.append(f"  Improvement from start: {percent(improvement)}")
    return lines


def summary(totals: Totals) -> list[tuple[str, str]]:
    """Rows (name, value) about skipped batches and regularized samples."""
    return [
        ("skipped batches", _share(totals.skipped, totals.batches)),
        ("regularized samples", _share(totals.regularized + totals.clamped, totals.samples)),
        ("  of them above E_max", _share(totals.clamped, totals.samples)),
        ("  of them not finite", _share(totals.nonfinite, totals.samples)),
    ]


def doubts(totals: Totals) -> list[str]:
    """What to warn of at the end."""
    if totals.skipped <= MANY * totals.batches:
        return []
    return [
        f"{_share(totals.skipped, totals.batches)} batches were skipped, of which nothing was "
        "learned: look at the run with `mlff gate-report`; lower training.lr or raise E_max"
    ]


def merit_table(title: str, metrics: Mapping[str, float]) -> Table:
    """Figures of merit of a validation, a row each."""
    rows = [
        [what, number(metrics[name]), unit]
        for name, (what, unit) in MERITS.items()
        if name in metrics
    ]
    return Table(title, ["", "value", "unit"], rows)


def _word(value: float | None) -> str:
    return "-" if value is None else number(value)


def _share(n: int, of: int) -> str:
    return f"{n}/{of} ({100 * n / of:.1f} %)" if of else "0"
