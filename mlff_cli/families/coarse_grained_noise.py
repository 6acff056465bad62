"""Noise in the forces of the sets, at most: what `mlff project-forces` found of their maps.

    bound = sqrt( sum_k n_k s_k^2 / sum_k n_k )      n_k: validated components of molecule k

s_k^2 is the upper bound that the report of molecule k's map has (`coarse.forces.unlearnable`). How
much of an error is noise it does not tell: frames are never alike, and their mean forces differ,
too.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.force_map_report import noise_bound


def noise_bounds(frames: BeadFrames, validation: np.ndarray) -> dict[str, float]:
    """Upper bounds on the root mean square of what is noise in a force component.

    Args:
        frames: of all files; a molecule in several has the noise of each file's map.
        validation: numbers of the frames whose errors they are to stand beside.

    Returns:
        kcal/mol/angstrom by metric: `F_rmse` where all maps' are known, and `NAME/F_rmse` of each
        molecule whose own are, where there are several.
    """
    molecule, file = frames.molecule[validation], frames.file[validation]
    pairs, first, counts = np.unique(
        np.stack([file, molecule]), axis=1, return_index=True, return_counts=True
    )
    known: dict[int, list[tuple[int, float | None]]] = {}
    for (f, k), i, count in zip(pairs.T.tolist(), validation[first], counts.tolist(), strict=True):
        bound = noise_bound(frames.set_of(f).metadata, frames.number_in_file(int(i)))
        known.setdefault(k, []).append((count * len(frames.molecules[k].types), bound))
    found = {"F_rmse": _root([one for own in known.values() for one in own])}
    if len(frames.molecules) > 1:
        found |= {f"{frames.molecules[k].name}/F_rmse": _root(own) for k, own in known.items()}
    return {name: bound for name, bound in found.items() if bound is not None}


def _root(weighted: list[tuple[int, float | None]]) -> float | None:
    """The root of the weighted mean; None where a bound is missing."""
    weights, bounds = zip(*weighted, strict=True)
    if None in bounds:
        return None
    return float(np.sqrt(np.average(bounds, weights=weights)))
