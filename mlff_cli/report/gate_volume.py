"""Rules on ln|det J|: it moves, and it does not run away from clamped energies."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from mlff_cli.report.gate_run import GateRun
from mlff_cli.report.gate_statistics import moving_sum, steepest
from mlff_cli.report.gate_verdicts import Finding, Verdict, percent, plain_number

STILL = 1e-3  # nats
CLAMPED, MOSTLY_CLAMPED = 0.20, 0.50
GROWTH = 0.1  # nats per epoch


def judge_logdet(run: GateRun) -> Finding:
    """Spread < 1e-3 while batches are not skipped: over 50 epochs a warning, over 200 failed."""
    fwd, inv = run.of("fwd", lambda d: d.logdet), run.of("inv", lambda d: d.logdet)
    free = np.isfinite(fwd + inv) & ~run.stopped & ~run.warming
    spreads: dict[int, float | None] = {}
    numbers: dict[str, float | int | None] = {}
    for epochs in (50, 200):
        spreads[epochs] = _smallest_spread((fwd, inv), free, run.window(epochs))
        numbers[f"smallest_spread_{epochs}"] = spreads[epochs]
        numbers[f"window_{epochs}"] = run.window(epochs)
    course = 0.5 * (fwd - inv)
    if spreads[50] is None:
        return Finding("not judged", "too few epochs after warm-up", numbers, course)
    verdict: Verdict = "healthy"
    seen = 50
    for epochs, grade in ((50, "warning"), (200, "failed")):
        spread = spreads[epochs]
        if spread is not None and spread < STILL:
            verdict, seen = grade, epochs  # type: ignore[assignment]
    ends = [float(v[np.isfinite(v)][-1]) for v in (fwd, inv)]
    figure = f"ends at {ends[0]:+.3f} and {ends[1]:+.3f} nats, "
    figure += f"smallest spread over {run.window(seen)} epochs {spreads[seen]:.2g}"
    return Finding(verdict, figure, numbers, course)


def judge_saturation(run: GateRun) -> Finding:
    """Warning: > 20 % clamped while the summed log-det grows; failed: > 50 % clamped."""
    samples, clamped = run.both(lambda d: d.samples), run.both(lambda d: d.clamped)
    logdet = run.both(lambda d: d.logdet)
    course = np.divide(clamped, samples, out=np.full(len(samples), np.nan), where=samples > 0)
    counted = np.isfinite(course)
    w = run.window(50)
    if counted.sum() < w:
        return Finding("not judged", f"fewer than {w} epochs with counts", {}, course)
    shares = moving_sum(clamped[counted], w) / moving_sum(samples[counted], w)
    most = float(shares.max())
    both = counted & np.isfinite(logdet)
    worst, growth = None, None
    if both.sum() >= w:
        # by epoch, where the log holds only some of them
        every = (run.epochs[-1] - run.epochs[0]) / max(1, len(run.records) - 1)
        slopes = steepest(logdet[both], w) / max(every, 1.0)
        together = moving_sum(clamped[both], w) / moving_sum(samples[both], w)
        growing = slopes > GROWTH
        growth = float(slopes.max())
        worst = float(together[growing].max()) if growing.any() else None
    figure = f"at most {percent(most)} clamped"
    verdict: Verdict = "healthy"
    if worst is not None and worst > CLAMPED:
        verdict = "warning"
        figure += f"; {percent(worst)} while the summed log-det grows by > {GROWTH:g} nats an epoch"
    if most > MOSTLY_CLAMPED:
        verdict = "failed"
    if both.sum() < w and verdict == "healthy":
        verdict, figure = "not judged", f"{figure}; too few log-dets"
    numbers = {
        "clamped": most,
        "clamped_while_growing": worst,
        "fastest_growth": plain_number(growth),
    }
    return Finding(verdict, figure, numbers, course)


def _smallest_spread(courses: tuple[np.ndarray, ...], free: np.ndarray, w: int) -> float | None:
    """Least over all windows of w records of the larger of the courses' spreads.

    Records that are not free are left out: what a skipped batch gave moved nothing.
    """
    if free.sum() < w:
        return None
    spreads = []
    for y in (c[free] for c in courses):
        high = maximum_filter1d(y, w)
        low = minimum_filter1d(y, w)
        inside = slice(w // 2, len(y) - (w - 1) // 2)  # windows that lie in the course as a whole
        spreads.append((high - low)[inside])
    return float(np.min(np.maximum.reduce(spreads)))
