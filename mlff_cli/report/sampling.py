"""What a person reads of a simulation: energies at every temperature, and how exchange went."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlff_cli.core.reporting import Table
from mlff_cli.physics.mapped_exchange import MappedExchange
from mlff_cli.physics.replica_exchange import Ladder

LOW_ACCEPTANCE = 0.05  # of swaps, below which replicas hardly meet
WATERY = (0.95, 1.15)  # g/cm3 of water at 300 K, and of water with as much protein as goes in
COLD = 0.1  # share of the temperature that the kinetic one may be away from it


def energy_table(
    temperatures: np.ndarray, energies: np.ndarray, heat: np.ndarray, n_atoms: int
) -> Table:
    """Means over the frames.

    Args:
        temperatures: (K,) in K.
        energies: (T, K) potential energies, kcal/mol, of every temperature's T frames.
        heat: (K,) mean kinetic temperatures, K.
        n_atoms: of every frame.
    """
    columns = zip(temperatures, energies.mean(axis=0), energies.std(axis=0), heat, strict=True)
    rows: list[list[Any]] = [
        [f"{t:g}", f"{mean:.2f}", f"{spread:.2f}", f"{hot:.1f}"] for t, mean, spread, hot in columns
    ]
    n, k = len(energies), len(temperatures)
    each = f", {n} at each temperature" if k > 1 else ""
    title = f"{n * k} frames of {n_atoms} atoms{each}"
    return Table(title, ["T (K)", "mean energy (kcal/mol)", "its spread", "kinetic T (K)"], rows)


def exchange_table(ladder: Ladder, mapped: MappedExchange | None = None, model: str = "") -> Table:
    """Swaps between neighbouring temperatures.

    Args:
        ladder: how exchange went.
        mapped: swaps of one pair through a flow.
        model: its file.
    """
    pairs = _pairs(ladder)
    if mapped is not None:
        pairs[mapped.pair] += " (flow)"
    rows = [
        [pair, tried, done, "-" if np.isnan(share) else f"{share:.3f}"]
        for pair, tried, done, share in zip(
            pairs,
            ladder.attempted.tolist(),
            ladder.accepted.tolist(),
            ladder.acceptance,
            strict=True,
        )
    ]
    notes = [f"{ladder.trips.sum()} passages from one end of the temperatures to the other"]
    if mapped is not None:
        refused = f"; {mapped.mirrored} swaps refused that change a hand" * (mapped.mirrored > 0)
        notes.append(f"(flow): through {model}{refused}")
    return Table("Exchange", ["T (K)", "tried", "done", "acceptance"], rows, notes)


def far_from_equilibrium(
    temperatures: np.ndarray, heat: np.ndarray, n_atoms: int, n_frames: int
) -> str | None:
    """A warning of kinetic temperatures far from those asked for, or None.

    Args:
        temperatures: (K,) in K.
        heat: (K,) mean kinetic temperatures, K.
        n_atoms: of every frame.
        n_frames: of every temperature; few frames of few atoms scatter.
    """
    scatter = 4 * math.sqrt(2 / (3 * n_atoms * max(1, n_frames)))
    far = [
        f"{hot:.0f} K at {t:g} K"
        for t, hot in zip(temperatures, heat, strict=True)
        if abs(hot / t - 1) > COLD + scatter
    ]
    if not far:
        return None
    return (
        f"the mean kinetic temperature is {', '.join(far)}: the frames are not of that ensemble; "
        "take a longer --equilibration, or more --time where there are few frames"
    )


def odd_density(density: float | None) -> str | None:
    """A warning of a box that is not as full as water at 300 K and 1 bar, or None.

    Args:
        density: in g/cm3; None without a box.
    """
    if density is None or WATERY[0] <= density <= WATERY[1]:
        return None
    return (
        f"the density is {density:.3f} g/cm3, and the volume stays as it is: water at 300 K and "
        "1 bar has 1.0; take a larger --padding (the surface of the box is what is loosely "
        "filled), or give the file of a box that was equilibrated at constant pressure"
    )


def poor_exchange(ladder: Ladder) -> str | None:
    """A warning of neighbours that hardly swap, or None."""
    poor = [p for p, a in zip(_pairs(ladder), ladder.acceptance, strict=True) if a < LOW_ACCEPTANCE]
    if not poor:
        return None
    return (
        f"fewer than {100 * LOW_ACCEPTANCE:g} % of the swaps were done between "
        f"{', '.join(poor)} K: add temperatures in between"
    )


def mirror_images(mapped: MappedExchange) -> str | None:
    """A warning of a flow that makes mirror images, or None."""
    proposals = mapped.evaluations // 2
    if not mapped.mirrored:
        return None
    return (
        f"{mapped.mirrored} of {proposals} proposals of the flow change the hand of an atom with "
        "four neighbours, and were refused: the ensembles keep their hands, at the cost of swaps; "
        "an ic-spline flow keeps hands by itself"
    )


def plain_mapped(mapped: MappedExchange, model: str) -> dict[str, Any]:
    """Plain values for `--json` of swaps through a flow."""
    k = mapped.pair
    return {
        "model": model,
        "pair": np.asarray(mapped.temperatures)[k : k + 2].tolist(),
        "proposals": mapped.evaluations // 2,
        "mirrored": mapped.mirrored,
    }


def plain_exchange(ladder: Ladder) -> dict[str, Any]:
    """Plain values for `--json`; null where no swap was tried."""
    return {
        "attempted": ladder.attempted.tolist(),
        "accepted": ladder.accepted.tolist(),
        "acceptance": [None if np.isnan(a) else float(a) for a in ladder.acceptance],
        "trips": ladder.trips.tolist(),
    }


def _pairs(ladder: Ladder) -> list[str]:
    ends = zip(ladder.temperatures[:-1], ladder.temperatures[1:], strict=True)
    return [f"{low:g} - {high:g}" for low, high in ends]
