"""Rule on the loss: it falls, it stays finite, and it is there.

A loss that is absent although batches made steps was not finite: JSON has no NaN.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.report.gate_run import EPOCH_100, EPOCH_500, GateRun, longest
from mlff_cli.report.gate_statistics import rise_of
from mlff_cli.report.gate_verdicts import Finding, Verdict, plain_number

STUCK = 1000.0
LARGEST_START = 1e15
LEAST_RISE, LEAST_SHARE = 0.1, 0.01  # nats, and of the loss: less is not worth a warning


def judge_loss(run: GateRun) -> Finding:
    """Failed: 0 or absent for > 20 epochs, NaN. Warning: rising, stuck, begins above 1e15."""
    loss = run.values(lambda r: r.loss)
    literal = np.array([r.loss is not None and not np.isfinite(r.loss) for r in run.records])
    absent = np.array([r.loss is None and "loss" not in r.missing for r in run.records])
    batches, skipped = run.values(lambda r: r.batches), run.values(lambda r: r.skipped)
    broken = literal | (absent & (batches > 0) & (skipped < batches))
    failures = []
    if broken.any():
        first = run.records[int(np.argmax(broken))].epoch
        failures.append(f"not finite in {_epochs(int(broken.sum()))}, first in epoch {first}")
    n, start = longest(absent & ~broken | (loss == 0.0))
    if n > run.window(20):
        first, last = run.records[start].epoch, run.records[start + n - 1].epoch
        failures.append(f"0 or absent in epochs {first} to {last}")
    known = np.isfinite(loss)
    course = np.where(known & (loss != 0.0), loss, np.nan)
    there = np.flatnonzero(known)
    first_loss = float(loss[there[0]]) if len(there) else None
    last_loss = float(loss[there[-1]]) if len(there) else None
    numbers: dict[str, float | int | None] = {
        "first": plain_number(first_loss),
        "last": plain_number(last_loss),
        "not_finite": int(broken.sum()),
        "longest_absence": n,
    }
    figure = "no loss" if first_loss is None else f"{first_loss:.4g} to {last_loss:.4g}"
    if failures:
        return Finding("failed", "; ".join([figure, *failures]), numbers, course)
    warnings = []
    if first_loss is not None and first_loss > LARGEST_START:
        warnings.append(f"begins above {LARGEST_START:.0e}")
    later = loss[known & run.after(EPOCH_100)]
    rise = rise_of(later, min(run.window(100), len(later) // 2))
    if rise is not None and len(later) >= run.window(20):
        numbers["rise"] = rise.height
        if rise.above(LEAST_RISE + LEAST_SHARE * abs(rise.lowest)):
            warnings.append(f"rose from {rise.lowest:.4g} to {rise.last:.4g}")
    end = loss[known & run.after(EPOCH_500)]
    if len(end) >= run.window(20) and np.median(end[-run.window(20) :]) > STUCK:
        warnings.append(f"still above {STUCK:g}")
    verdict: Verdict = "warning" if warnings else "healthy"
    if not warnings and len(there) < run.window(20):
        verdict, figure = "not judged", f"{figure}; {_epochs(len(there))} with a loss, too few"
    return Finding(verdict, "; ".join([figure, *warnings]), numbers, course)


def _epochs(n: int) -> str:
    return f"{n} epoch{'s' * (n != 1)}"
