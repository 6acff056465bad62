"""Handedness of residues and isomers of peptide bonds, frame by frame.

    chi = (N - CA) x (C - CA) . (CB - CA)        L: chi > 0, D: chi < 0
    cis:  |omega| < pi/2                         omega = CA, C, N, CA; caps have another carbon

A map between ensembles must change neither: no motion below 1000 K does. The sign of chi is that of
a mirror image, which has the same bonds, angles and energy.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.physics.ensembles.backbone import Sites
from mlff_cli.physics.internal_coordinates import dihedrals

ARMS = ("N", "C", "CB")


def stereocentres(sites: Sites) -> np.ndarray:
    """(c, 4) sites CA, N, C, CB of every residue that has a hand; int64."""
    of = sites.residue_of
    at = {(int(r), name): k for k, (r, name) in enumerate(zip(of, sites.names, strict=True))}
    rows = [
        [at[r, name] for name in ("CA", *ARMS)]
        for r in range(of.max(initial=-1) + 1)
        if all((r, name) in at for name in ("CA", *ARMS))
    ]
    return np.array(rows, np.int64).reshape(-1, 4)


def left_handed(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(T, c) whether residues are L, of coordinates (T, N, 3)."""
    n, c, cb = (x[:, centres[:, k]] - x[:, centres[:, 0]] for k in (1, 2, 3))  # [t, c, 3]
    chi = np.einsum("tci,tci->tc", np.cross(n, c), cb)
    return np.asarray(chi > 0)


def peptide_bonds(sites: Sites) -> np.ndarray:
    """(p, 4) a carbon, C, N, a carbon about every bond C - N between two residues; int64.

    The carbons are CA where there are any: proline's N has two, those of caps have other names.
    """
    of = sites.residue_of
    near: dict[int, list[int]] = {k: [] for k in range(len(of))}
    for i, j in sites.bonds.tolist():
        near[i].append(j)
        near[j].append(i)

    def carbon(of_atom: int, beside: int) -> int | None:
        found = [k for k in near[of_atom] if k != beside and sites.names[k].startswith("C")]
        return min(found, key=lambda k: (sites.names[k] != "CA", k), default=None)

    rows = []
    for pair in sites.bonds.tolist():
        for c, n in (pair, pair[::-1]):
            if (sites.names[c], sites.names[n]) == ("C", "N") and of[c] != of[n]:
                ends = carbon(c, n), carbon(n, c)
                if None not in ends:
                    rows.append([ends[0], c, n, ends[1]])
    return np.array(sorted(rows, key=lambda r: r[1]), np.int64).reshape(-1, 4)


def cis_bonds(x: np.ndarray, sites: Sites) -> np.ndarray:
    """(T, p) whether peptide bonds are cis, of coordinates (T, N, 3)."""
    omega = dihedrals(np.asarray(x, np.float64), peptide_bonds(sites))
    return np.asarray(np.abs(omega) < np.pi / 2)
