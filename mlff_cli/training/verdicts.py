"""What an error means: by the size of what is predicted, and by the noise that nobody can predict.

    relative = RMSE / RMS of the reference          floor: RMSE that no model can fall below
    RMSE^2 = learnable^2 + floor^2                  noise is independent of the positions

A coarse-grained force is the mean force plus noise of what was averaged over, often the larger part
of it. An error at the floor is no failure, however large it is by the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mlff_cli.training.wording import number, percent

RELATIVE = "_relative"  # end of the metrics' names: RMSE by RMS of the reference
GOOD, FAIR, POOR = 0.20, 0.30, 0.50


def verdict(relative: float) -> str:
    """A relative error in a word.

    >>> verdict(0.2), verdict(0.25), verdict(0.4), verdict(0.5)
    ('good', 'fair', 'between fair and poor', 'poor')
    """
    if relative <= GOOD:
        return "good"
    if relative <= FAIR:
        return "fair"
    return "between fair and poor" if relative < POOR else "poor"


def floors(metrics: Mapping[str, float], noise_floor: Mapping[str, float]) -> dict[str, float]:
    """Floors of those metrics that have one: of the errors themselves, and of them by reference.

    Args:
        metrics: by name, as `F_rmse` and `F_relative`.
        noise_floor: of errors that end in `_rmse`, in their units.

    >>> floors({"F_rmse": 5.0, "F_relative": 0.5, "E_rmse": 1.0}, {"F_rmse": 4.0})
    {'F_rmse': 4.0, 'F_relative': 0.4}
    """
    found = {name: floor for name, floor in noise_floor.items() if name in metrics}
    for name, floor in tuple(found.items()):
        relative = name.removesuffix("_rmse") + RELATIVE
        if relative in metrics and metrics[name] > 0.0:
            found[relative] = metrics[relative] * floor / metrics[name]
    return found


def in_words(name: str, value: float, floor: float | None = None) -> str:
    """A metric with what it is compared with: its floor, else a relative error's verdict.

    >>> in_words("F_rmse", 5.614), in_words("F_rmse", 5.614, 4.9)
    ('5.61', '5.61 (floor 4.90)')
    >>> in_words("F_relative", 0.62), in_words("F_relative", 0.62, 0.541)
    ('62.0 % (poor)', '62.0 % (floor 54.1 %)')
    """
    if not name.endswith(RELATIVE):
        return number(value, 3) + (f" (floor {number(floor, 3)})" if floor is not None else "")
    meaning = verdict(value) if floor is None else f"floor {percent(floor)}"
    return f"{percent(value)} ({meaning})"


def conclusions(
    metrics: Mapping[str, float], units: Mapping[str, str], noise_floor: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Rows (name, value) about the errors that a run ends with; none where nothing is relative.

    Args:
        metrics: by name.
        units: unit by name.
        noise_floor: see `floors`.
    """
    rows = []
    for name, value in metrics.items():
        if name.endswith(RELATIVE) and "/" not in name:
            error = name.removesuffix(RELATIVE)
            scale = f"<= {GOOD:.0%} good, <= {FAIR:.0%} fair, >= {POOR:.0%} poor".replace("%", " %")
            rows.append((f"{error} error by the reference", _judged(value, scale)))
            rows += _beside_floor(f"{error}_rmse", value, metrics, units, noise_floor)
    return rows


def _judged(relative: float, scale: str) -> str:
    return f"{percent(relative)}: {verdict(relative)} ({scale})"


def _beside_floor(
    name: str,
    relative: float,
    metrics: Mapping[str, float],
    units: Mapping[str, str],
    noise_floor: Mapping[str, float],
) -> list[tuple[str, str]]:
    """What is left of an error when its noise is taken away."""
    floor, error = noise_floor.get(name), metrics.get(name)
    if floor is None or error is None:
        return []
    unit = units.get(name, "")
    rows = [(f"noise floor of {name}", f"{number(floor, 3)} {unit}".strip())]
    if error <= floor:
        return [*rows, ("above the floor", "nothing that could be told from noise")]
    rest = math.sqrt(error * error - floor * floor)
    share = relative * rest / error
    text = f"{number(rest, 3)} {unit}, {percent(share)} of the reference: {verdict(share)}"
    return [*rows, ("above the floor", text)]
