"""Rules on counts: regularized samples and skipped batches.

regularized share = (regularized + clamped) / samples, both directions
skip rate         = skipped / batches
"""

from __future__ import annotations

import numpy as np

from mlff_cli.report.gate_run import EPOCH_100, EPOCH_500, LATE, GateRun, longest
from mlff_cli.report.gate_statistics import skip_trend
from mlff_cli.report.gate_verdicts import Finding, Verdict, percent

USUAL_REGULARIZED = {"early": 0.10, "middle": 0.03, "late": 0.005}
MOST_REGULARIZED = 0.20
USUAL_SKIPS = {"before E_max falls": 0.05, "while E_max falls": 0.10, "after": 0.05}
MOST_SKIPS = 0.10
SIGNIFICANT = 0.01


def judge_regularized(run: GateRun) -> Finding:
    """Warning: above 20 % in the last two thirds, or at their end."""
    samples = run.both(lambda d: d.samples)
    gated = run.both(lambda d: d.regularized) + run.both(lambda d: d.clamped)
    known = np.isfinite(samples + gated)
    share = run.share
    parts = {
        "early": share <= EPOCH_100,
        "middle": (share > EPOCH_100) & (share <= LATE),
        "late": share > LATE,
    }
    shares = {name: _ratio(gated, samples, mask & known) for name, mask in parts.items()}
    last = np.flatnonzero(known & run.after(EPOCH_500))
    two_thirds = _ratio(gated, samples, known & run.after(EPOCH_500))
    end = _ratio(gated, samples, last[-run.window(200) :])
    told = {name: value for name, value in shares.items() if value is not None}
    figure = ", ".join(f"{name} {percent(value)}" for name, value in told.items())
    high = [f"{n} < {percent(USUAL_REGULARIZED[n])}" for n, v in told.items() if _unusual(n, v)]
    verdict: Verdict = "healthy"
    if any(v is not None and v > MOST_REGULARIZED for v in (two_thirds, end)):
        verdict = "warning"
        figure += f"; above {percent(MOST_REGULARIZED)} in the last two thirds"
    elif high:
        figure += f"; usual: {', '.join(high)}"
    return Finding(
        verdict if told else "not judged",
        figure if told else "no samples were counted",
        {**shares, "last_two_thirds": two_thirds, "end": end},
        _shares(gated, samples),
    )


def judge_skips(run: GateRun) -> Finding:
    """Failed: 100 % over 20 epochs. Warning: above 10 % after epoch 100; rising (p < 0.01)."""
    batches, skipped = run.values(lambda r: r.batches), run.values(lambda r: r.skipped)
    known = np.isfinite(batches + skipped) & (batches > 0)
    if not known.any():
        return Finding("not judged", "no batches were counted")
    before = ~run.falling & ~run.strict
    masks = {"before E_max falls": before, "while E_max falls": run.falling, "after": run.strict}
    rates = {name: _ratio(skipped, batches, mask & known) for name, mask in masks.items()}
    told = {name: value for name, value in rates.items() if value is not None}
    if len(told) == 1:
        told = {"all epochs": _ratio(skipped, batches, known) or 0.0}
    figure = ", ".join(f"{name} {percent(value)}" for name, value in told.items())
    later = np.flatnonzero(known & run.after(EPOCH_100))
    rate = _ratio(skipped, batches, later)
    end = _ratio(skipped, batches, later[-run.window(100) :])
    reasons: list[str] = []
    if any(v is not None and v > MOST_SKIPS for v in (rate, end)):
        # both, because a run that comes to grief at its end has a low mean
        reasons.append(f"{percent(rate or 0.0)} after epoch {_epoch(run, later)}")
        if (end or 0.0) > (rate or 0.0):
            reasons.append(f"{percent(end or 0.0)} at the end")
    trend = _trend(run, known, batches, skipped)
    if trend is not None and trend[0] > 0.0 and trend[1] < SIGNIFICANT:
        reasons.append(f"rising over time (p = {trend[1]:.1g})")
    verdict: Verdict = "warning" if reasons else "healthy"
    n, start = longest(run.stopped)
    if n >= run.window(20):
        verdict = "failed"
        first, last = run.records[start].epoch, run.records[start + n - 1].epoch
        reasons.insert(0, f"every batch of epochs {first} to {last} was skipped")
    if not reasons:
        high = [
            f"{k} < {percent(USUAL_SKIPS.get(k, 0.05))}" for k, v in told.items() if _many(k, v)
        ]
        reasons = [f"usual: {', '.join(high)}"] if high else []
    numbers = {
        **{name.replace(" ", "_"): value for name, value in rates.items()},
        "after_epoch_100": rate,
        "end": end,
        "trend_p": None if trend is None else trend[1],
        "longest_stop": n,
    }
    return Finding(verdict, "; ".join([figure, *reasons]), numbers, _shares(skipped, batches))


def _unusual(part: str, share: float) -> bool:
    usual = USUAL_REGULARIZED[part]
    return share >= usual if part == "late" else share > usual


def _many(part: str, rate: float) -> bool:
    return rate >= USUAL_SKIPS.get(part, 0.05)


def _trend(
    run: GateRun, known: np.ndarray, batches: np.ndarray, skipped: np.ndarray
) -> tuple[float, float] | None:
    """The trend at the final E_max: a falling E_max alone makes skips more frequent."""
    block = run.window(20)
    strict = known & run.strict
    mask = strict if strict.sum() >= 2 * block else known & run.after(EPOCH_100)
    if mask.sum() < 2 * block:
        return None
    return skip_trend(run.epochs[mask], batches[mask], skipped[mask], block)


def _epoch(run: GateRun, rows: np.ndarray) -> int:
    return run.records[int(rows[0])].epoch - 1


def _ratio(part: np.ndarray, whole: np.ndarray, rows: np.ndarray) -> float | None:
    """Sum over sum of the chosen rows; None where there is nothing."""
    total = whole[rows].sum()
    return float(part[rows].sum() / total) if total > 0 else None


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return shares
