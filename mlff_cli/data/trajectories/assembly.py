"""Molecules of one complex brought to the images in which they are nearest to one another.

    c_m: mean position of molecule m;   c_m <- c_m + round((c_k - c_m) H^-1) H

for m = 1, 2, ...: k is the molecule among those before it whose image is nearest. Molecules must be
whole (`data.trajectories.whole`). H (3, 3) holds the edge vectors in rows.
"""

from __future__ import annotations

import numpy as np


def assembled(positions: np.ndarray, box: np.ndarray | None, molecule: np.ndarray) -> np.ndarray:
    """Positions with the molecules next to one another; the first stays where it is.

    Args:
        positions: (T, N, 3) in angstrom, molecules whole.
        box: (T, 3, 3) edge vectors in rows, angstrom; None or all 0: not periodic.
        molecule: (N,) molecule of each atom.

    Returns:
        (T, N, 3) of the same type; the array itself where nothing can move.
    """
    numbers, molecule = np.unique(molecule, return_inverse=True)
    if box is None or len(numbers) < 2:
        return positions
    periodic = np.abs(np.linalg.det(np.asarray(box, "float64"))) > 0
    if not periodic.any():
        return positions
    x, h = positions[periodic], np.asarray(box, "float64")[periodic]
    inverse = np.linalg.inv(h)
    centre = np.stack(
        [x[:, molecule == m].mean(axis=1, dtype="float64") for m in range(len(numbers))], axis=1
    )
    shift = np.zeros_like(centre)  # [t, m, x]
    for m in range(1, len(numbers)):
        away = centre[:, :m] - centre[:, m : m + 1]  # [t, k, x]
        images = np.rint(away @ inverse) @ h
        k = np.square(away - images).sum(-1).argmin(1)
        shift[:, m] = np.take_along_axis(images, k[:, None, None], axis=1)[:, 0]
        centre[:, m] += shift[:, m]
    whole = positions.copy()
    whole[periodic] = (x + shift[:, molecule]).astype(positions.dtype)
    return whole
