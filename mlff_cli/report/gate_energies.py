"""Rules on raw energies: each direction, and one against the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import minimum_filter1d

from mlff_cli.data.gate_log import Direction
from mlff_cli.report.gate_run import LATE, GateRun, Name
from mlff_cli.report.gate_statistics import moving_sum, rise_of
from mlff_cli.report.gate_verdicts import SMALLEST, Finding, Verdict, kilojoules, plain_number

WORDS: dict[Name, str] = {"fwd": "forward", "inv": "inverse"}
QUANTILES: dict[str, Callable[[Direction], float | None]] = {
    "median": lambda d: d.q50,
    "q95": lambda d: d.q95,
}
EXPLOSION = 1e3
SMOOTHED = 5  # records whose median is looked at: one bad batch is no explosion
RECOVERED = 2.0  # times the energy before an explosion
LEAST_RISE, LEAST_SHARE = 10.0, 0.05  # kJ/mol, and of the energy: less is not worth a warning
DOUBLED = 2.0
SYMMETRIC = 0.10


def judge_energies(run: GateRun) -> Finding:
    """Failed: explosion by > 1e3 within 100 epochs. Warning: rising over the last third."""
    failures: list[str] = []
    warnings: list[str] = []
    courses: list[np.ndarray] = []
    numbers: dict[str, float | int | None] = {}
    enough = True
    for direction, word in WORDS.items():
        for name, value in QUANTILES.items():
            y = run.of(direction, value)
            known = np.flatnonzero(np.isfinite(y))
            courses += [y] if name == "median" else []
            enough = enough and len(known) >= run.window(20)
            found = _explosion(y[known], run.window(100))
            if found is not None:
                at, before, after, back = found
                told = f"{word} {name} from {kilojoules(before)} to {kilojoules(after)}"
                epoch = run.records[known[at]].epoch
                numbers[f"{direction}_{name}_explosion"] = after / max(before, SMALLEST)
                (warnings if back else failures).append(
                    f"{told} by epoch {epoch}" + (", recovered" if back else "")
                )
            last = y[known][run.share[known] > LATE]
            rise = rise_of(last, min(run.window(100), len(last) // 2))
            if rise is not None and len(last) >= run.window(20):
                numbers[f"{direction}_{name}_rise"] = rise.height
                if rise.above(LEAST_RISE + LEAST_SHARE * abs(rise.lowest)):
                    warnings.append(
                        f"{word} {name} rises in the last third, "
                        f"{kilojoules(rise.lowest)} to {kilojoules(rise.last)}"
                    )
    figure = ", ".join(_from_to(run, d, numbers) for d in WORDS)
    verdict: Verdict = "failed" if failures else "warning" if warnings else "healthy"
    reasons = failures + warnings
    if verdict == "healthy" and not enough:
        verdict, reasons = "not judged", ["too few epochs with energies"]
    return Finding(verdict, "; ".join([figure, *reasons]), numbers, _mean(courses))


def judge_balance(run: GateRun) -> Finding:
    """Failed: one direction not finite. Warning: one rises by > 2x while the other falls."""
    failures: list[str] = []
    warnings: list[str] = []
    numbers: dict[str, float | int | None] = {}
    for direction, word in WORDS.items():
        share = _not_finite(run, direction)
        numbers[f"{direction}_nonfinite"] = plain_number(share)
        if share > 0.5:
            failures.append(f"{word} energies are not finite")
    medians = {d: run.of(d, lambda v: v.q50) for d in WORDS}
    known = np.isfinite(medians["fwd"] + medians["inv"])
    n = int(known.sum())
    w = min(run.window(100), n // 2)
    gap = np.abs(medians["fwd"] - medians["inv"])
    figure = "no energies of both directions"
    if n:
        k = max(1, min(w, n))
        first, last = (float(np.median(gap[known][part])) for part in (slice(k), slice(-k, None)))
        numbers |= {"first_gap": first, "last_gap": last}
        figure = f"gap of medians {kilojoules(first)} to {kilojoules(last)}"
    pairs: tuple[tuple[Name, Name], ...] = (("fwd", "inv"), ("inv", "fwd"))
    for direction, other in pairs:
        rise = rise_of(medians[direction][known], w)
        if rise is None:
            continue
        against = medians[other][known]
        fall = float(np.median(against[rise.at : rise.at + rise.w]) - np.median(against[-w:]))
        # the zero of energy is arbitrary: heating from below it is no multiple of anything
        factor = rise.last / max(rise.lowest, SMALLEST)
        numbers[f"{direction}_rise_factor"] = factor
        if factor > DOUBLED and fall > 0.0:
            warnings.append(
                f"{WORDS[direction]} rises {factor:.3g} times to "
                f"{kilojoules(rise.last)} while the other falls by {kilojoules(fall)}"
            )
    asymmetry = _asymmetry(run)
    if asymmetry is not None:
        numbers["logdet_asymmetry"] = asymmetry
        usual = "" if asymmetry <= SYMMETRIC else f" (usual: to {100 * SYMMETRIC:g} %)"
        figure += f", log-dets differ by {100 * asymmetry:.2g} %{usual}"
    verdict: Verdict = "failed" if failures else "warning" if warnings else "healthy"
    if verdict == "healthy" and n < run.window(20):
        verdict = "not judged"
        figure += "; too few epochs"
    return Finding(verdict, "; ".join([figure, *failures, *warnings]), numbers, gap)


def _explosion(y: np.ndarray, w: int) -> tuple[int, float, float, bool] | None:
    """The largest rise within w records above EXPLOSION: where, from, to, and if it went back."""
    if len(y) < SMOOTHED:
        return None
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(y, SMOOTHED), axis=1)
    base = np.maximum(smooth, SMALLEST)
    # the lowest of the w records before each: a window whose end is here
    lowest = minimum_filter1d(base, size=w, origin=(w - 1) // 2, mode="nearest")
    at = int(np.argmax(smooth / lowest))
    if smooth[at] / lowest[at] <= EXPLOSION:
        return None
    start = max(0, at - w + 1)
    before = float(smooth[start + int(np.argmin(base[start : at + 1]))])
    end = float(np.median(y[-min(w, len(y)) :]))
    back = end <= RECOVERED * max(before, SMALLEST)
    return at + SMOOTHED - 1, before, float(smooth[at]), back


def _not_finite(run: GateRun, direction: Name) -> float:
    """Largest share of energies that are not finite in a window of 20 epochs.

    An epoch with samples and without a finite quantile counts whole.
    """
    samples = run.of(direction, lambda d: d.samples)
    bad = run.of(direction, lambda d: d.nonfinite)
    none = ~np.isfinite(run.of(direction, lambda d: d.q50)) & (samples > 0)
    bad = np.where(none, samples, bad)
    known = np.isfinite(samples + bad)
    samples, bad = samples[known], bad[known]
    if not samples.sum():
        return 0.0
    w = min(run.window(20), len(samples))
    total = moving_sum(samples, w)
    return float(np.max(moving_sum(bad, w) / np.maximum(total, 1.0)))


def _asymmetry(run: GateRun) -> float | None:
    """|L_fwd + L_inv| / max(|L_fwd|, |L_inv|) at the end; None where both are 0 or absent."""
    fwd, inv = (run.of(d, lambda v: v.logdet) for d in WORDS)
    known = np.isfinite(fwd + inv)
    if not known.any():
        return None
    last = [float(np.median(v[known][-run.window(20) :])) for v in (fwd, inv)]
    largest = max(abs(v) for v in last)
    return abs(sum(last)) / largest if largest > 1e-6 else None


def _from_to(run: GateRun, direction: Name, numbers: dict[str, float | int | None]) -> str:
    y = run.of(direction, lambda d: d.q50)
    y = y[np.isfinite(y)]
    if not len(y):
        return f"{WORDS[direction]} no median"
    first, last = float(y[0]), float(y[-1])
    numbers |= {f"{direction}_first": first, f"{direction}_last": last}
    return f"{WORDS[direction]} median {kilojoules(first)} to {kilojoules(last)}"


def _mean(courses: list[np.ndarray]) -> np.ndarray:
    mean: np.ndarray = np.mean(courses, axis=0)
    return mean
