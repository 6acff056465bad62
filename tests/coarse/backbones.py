"""Peptide backbones N, CA, C, O, CB in several conformations, built from internal coordinates.

Bond lengths and angles: R. A. Engh, R. Huber, Acta Cryst. A47, 392 (1991), rounded. Each residue is
extended or helical; chains in which beads of residues that are no neighbours touch are left out.
"""

import numpy as np

from mlff_cli.data.beads.cg_beads import BeadMolecule
from tests.coarse.free_chains import build

LENGTHS = (1.46, 1.525, 1.33)  # N-CA, CA-C, C-N; angstrom
ANGLES = (111.0, 117.0, 122.0)  # at CA, C, N; degrees
BASINS = ((-120.0, 130.0), (-65.0, -42.0))  # phi, psi
NAMES = ("N", "CA", "C", "O", "CB")
TOUCH = 2.7  # angstrom


def backbone_molecule(n: int) -> BeadMolecule:
    """N alanines of five beads."""
    first = 5 * np.arange(n)
    bonds = [(f + i, f + j) for f in first for i, j in ((0, 1), (1, 2), (2, 3), (1, 4))]
    bonds += [(f + 2, f + 5) for f in first[:-1]]
    return BeadMolecule(
        name="backbone",
        species=np.tile(np.arange(5, dtype=np.int32), n),
        residue=np.repeat(np.arange(1, n + 1, dtype=np.int32), 5),
        residue_name=np.array(["ALA"] * 5 * n),
        bead_name=np.array(NAMES * n),
        chain=np.zeros(5 * n, np.int32),
        bonds=np.array(sorted(bonds), np.int32),
    )


def backbone_frames(n_frames: int, n: int, seed: int = 0) -> np.ndarray:
    """Frames (n_frames, 5 n, 3) in angstrom, at about the spread of 300 K."""
    found: list[np.ndarray] = []
    while sum(map(len, found)) < n_frames:
        found.append(_whole(_draw(4 * n_frames, n, np.random.default_rng([seed, len(found)])), n))
    return np.concatenate(found)[:n_frames]


def _draw(n_frames: int, n: int, rng: np.random.Generator) -> np.ndarray:
    m = 3 * n  # atoms N, CA, C
    r = np.resize(LENGTHS, m - 1) + 0.03 * rng.normal(size=(n_frames, m - 1))
    theta = np.resize(ANGLES, m - 2) + 3.0 * rng.normal(size=(n_frames, m - 2))
    basin = np.array(BASINS)[rng.integers(0, 2, (n_frames, n))]
    basin = basin + 12.0 * rng.normal(size=basin.shape)
    omega = 180.0 + 6.0 * rng.normal(size=(n_frames, n))
    phi = np.stack([basin[..., 1], omega, np.roll(basin[..., 0], -1, 1)], 2)  # psi, omega, phi
    chain = build(r, np.radians(theta), np.radians(phi.reshape(n_frames, -1)[:, : m - 3]))
    return np.asarray(chain.reshape(n_frames, n, 3, 3))


def _whole(backbone: np.ndarray, n: int) -> np.ndarray:
    """With O and CB; chains that touch are left out."""
    N, CA, C = backbone.transpose(2, 0, 1, 3)
    after = np.concatenate([N[:, 1:], C[:, -1:] + (C - N)[:, -1:]], 1)
    O = C + 1.23 * _unit(_unit(C - CA) + _unit(C - after))  # noqa: E741 - oxygen
    b, c = CA - N, C - CA
    CB = CA - 0.5827 * np.cross(b, c) + 0.5680 * b - 0.5407 * c
    x = np.stack([N, CA, C, O, CB], 2).reshape(len(N), 5 * n, 3)
    i, j = np.triu_indices(5 * n, 1)
    far = j // 5 - i // 5 > 1
    d = np.linalg.norm(x[:, i[far]] - x[:, j[far]], axis=-1)
    return x[(d > TOUCH).all(1)]


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)
