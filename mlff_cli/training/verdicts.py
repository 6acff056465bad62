"""What an error means: by the size of what is predicted, beside the noise that it may hold.

    relative = RMSE / RMS of the reference
    RMSE^2 = learnable^2 + noise^2        noise is independent of the positions
    noise <= bound    =>    learnable >= sqrt(RMSE^2 - bound^2)

A coarse-grained force is the mean force plus noise of what was averaged over, often the larger part
of it. Only an upper bound on the noise is known: an error above it is not noise alone, of one below
it nothing follows, since a model that learnt nothing may lie there, too. The verdict is of the
relative error, with or without a bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mlff_cli.core.verdicts import FAIR, GOOD, POOR, force_verdict
from mlff_cli.training.wording import number, percent

RELATIVE = "_relative"  # end of the metrics' names: RMSE by RMS of the reference


def bounds(metrics: Mapping[str, float], noise_bound: Mapping[str, float]) -> dict[str, float]:
    """Noise at most in those metrics where it is known: in the errors, and in them by reference.

    Args:
        metrics: by name, as `F_rmse` and `F_relative`.
        noise_bound: of errors that end in `_rmse`, in their units.

    >>> bounds({"F_rmse": 5.0, "F_relative": 0.5, "E_rmse": 1.0}, {"F_rmse": 4.0})
    {'F_rmse': 4.0, 'F_relative': 0.4}
    """
    found = {name: bound for name, bound in noise_bound.items() if name in metrics}
    for name, bound in tuple(found.items()):
        relative = name.removesuffix("_rmse") + RELATIVE
        if relative in metrics and metrics[name] > 0.0:
            found[relative] = metrics[relative] * bound / metrics[name]
    return found


def in_words(name: str, value: float, bound: float | None = None) -> str:
    """A metric with what it is compared with: a relative error's verdict, and the noise at most.

    >>> in_words("F_rmse", 5.614), in_words("F_rmse", 5.614, 4.9)
    ('5.61', '5.61 (noise at most 4.90)')
    >>> in_words("F_relative", 0.62), in_words("F_relative", 0.62, 0.541)
    ('62.0 % (poor)', '62.0 % (poor; noise at most 54.1 %)')
    """
    written = percent if name.endswith(RELATIVE) else _plain
    beside = [force_verdict(value)] if name.endswith(RELATIVE) else []
    if bound is not None:
        beside.append(f"noise at most {written(bound)}")
    return written(value) + (f" ({'; '.join(beside)})" if beside else "")


def conclusions(
    metrics: Mapping[str, float], units: Mapping[str, str], noise_bound: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Rows (name, value) about the errors that a run ends with; none where nothing is relative.

    Args:
        metrics: by name.
        units: unit by name.
        noise_bound: see `bounds`.
    """
    rows = []
    for name, value in metrics.items():
        if name.endswith(RELATIVE) and "/" not in name:
            error = name.removesuffix(RELATIVE)
            scale = f"<= {GOOD:.0%} good, <= {FAIR:.0%} fair, >= {POOR:.0%} poor".replace("%", " %")
            told = f"{percent(value)}: {force_verdict(value)} ({scale})"
            rows.append((f"{error} error by the reference", told))
            rows += _beside_noise(f"{error}_rmse", value, metrics, units, noise_bound)
    return rows


def _beside_noise(
    name: str,
    relative: float,
    metrics: Mapping[str, float],
    units: Mapping[str, str],
    noise_bound: Mapping[str, float],
) -> list[tuple[str, str]]:
    """What is surely left of an error when its noise is taken away."""
    bound, error = noise_bound.get(name), metrics.get(name)
    if bound is None or error is None:
        return []
    unit = units.get(name, "")
    rows = [(f"noise in {name}, at most", f"{_plain(bound)} {unit}".strip())]
    if error <= bound:
        told = "not known, the error is within the bound on the noise"
        return [*rows, ("how much is noise", told)]
    rest = math.sqrt(error * error - bound * bound)
    told = f"{_plain(rest)} {unit}, {percent(relative * rest / error)} of the reference"
    return [*rows, ("not noise, at least", told)]


def _plain(value: float) -> str:
    return number(value, 3)
