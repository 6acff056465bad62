"""What no model of the beads can learn: a floor under the force error, from the sets themselves.

    floor = sqrt( sum_k n_k s_k^2 / sum_k n_k )      n_k: validated components of molecule k

s_k^2 is the bound that `mlff project-forces` found for the molecule's map, or one from the nearest
of its validation frames (`coarse.forces.unlearnable`). It is an upper bound on the noise: a model
may come to lie a little below it.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.coarse.forces.unlearnable import unlearnable_variance
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.force_map_report import force_map_report

LOOKED_AT = 1000  # frames of a molecule
FEWEST = 100  # frames that a bound is taken from
MOST = 64  # molecules that are looked at; of more, the largest shares


def noise_floor(frames: BeadFrames, validation: np.ndarray) -> float | None:
    """Upper bound on the root mean square of a force component that no model can explain.

    Args:
        frames: of all files.
        validation: numbers of the frames whose error it is to stand beside.

    Returns:
        kcal/mol/angstrom; None where nothing is known of most frames.
    """
    known = weight = 0.0
    n_beads = frames.n_beads
    counts = np.bincount(frames.molecule[validation], minlength=len(frames.molecules))
    for k in np.argsort(-counts, kind="stable")[:MOST].tolist():
        bound = _reported(frames, k)
        if bound is None and counts[k] >= FEWEST:
            bound = _measured(frames, k, validation)
        if bound is not None:
            own = float(n_beads[validation][frames.molecule[validation] == k].sum())
            known, weight = known + own * bound, weight + own
    if weight < 0.5 * float(n_beads[validation].sum()):
        return None
    return float(np.sqrt(known / weight))


def _reported(frames: BeadFrames, k: int) -> float | None:
    """Bound s^2 that the set of molecule k tells."""
    molecule = frames.molecules[k]
    report = force_map_report(frames.set_of(molecule.file).metadata, molecule.number) or {}
    bound = (report.get("unlearnable") or {}).get("bound")
    return None if bound is None else float(bound)


def _measured(frames: BeadFrames, k: int, validation: np.ndarray) -> float:
    """Bound s^2 from validation frames of molecule k."""
    own = validation[frames.molecule[validation] == k]
    chosen = own[:: max(1, len(own) // LOOKED_AT)][:LOOKED_AT]
    padded = frames.padded(chosen)
    found = unlearnable_variance(
        padded.R, padded.F, rows=frames.row[chosen], source=frames.file[chosen]
    )
    return found.bound
