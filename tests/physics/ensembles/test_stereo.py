"""Mirror images have the other hand, and a turned peptide bond is another isomer."""

from __future__ import annotations

import numpy as np

from mlff_cli.physics.ensembles.backbone import Sites
from mlff_cli.physics.ensembles.stereo import cis_bonds, left_handed, peptide_bonds, stereocentres
from tests.flows.dipeptide import BONDS, FRAME

RESIDUES = [0] * 6 + [1] * 10 + [2] * 6
# as `tests.flows.dipeptide` orders its atoms
NAMES = ["C", "O", "CH3", "H1", "H2", "H3", "N", "H", "CA", "HA", "C", "O", "CB", "HB1", "HB2",
         "HB3", "N", "H", "CH3", "H1", "H2", "H3"]  # fmt: skip
X = np.array(FRAME)[None]


def sites() -> Sites:
    return Sites(
        tuple(NAMES),
        tuple(("ACE", "ALA", "NME")[r] for r in RESIDUES),
        np.array(RESIDUES),
        np.zeros(22, int),
        BONDS,
    )


def turned(x: np.ndarray, moving: list[int], origin: int, axis: int, angle: float) -> np.ndarray:
    """Atoms turned about the bond from one atom to another."""
    k = x[0, axis] - x[0, origin]
    k /= np.linalg.norm(k)
    v = x[:, moving] - x[0, origin]
    found = x.copy()
    found[:, moving] = x[0, origin] + (
        v * np.cos(angle) + np.cross(k, v) * np.sin(angle)
        + k * (v @ k)[..., None] * (1 - np.cos(angle))
    )  # fmt: skip
    return found


def test_a_mirror_image_has_the_other_hand() -> None:
    centres = stereocentres(sites())
    assert centres.tolist() == [[8, 6, 10, 12]]
    assert left_handed(X, centres).tolist() == [[True]]
    assert left_handed(X * [1, 1, -1], centres).tolist() == [[False]]
    assert left_handed(-X + 3.0, centres).tolist() == [[False]]


def test_motion_keeps_the_hand() -> None:
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    q *= np.sign(np.linalg.det(q))
    assert left_handed(X @ q.T + 5.0, stereocentres(sites())).all()


def test_glycine_has_no_hand() -> None:
    without = Sites(("N", "CA", "C"), ("GLY",) * 3, np.zeros(3, int), np.zeros(3, int),
                    np.array([[0, 1], [1, 2]]))  # fmt: skip
    assert stereocentres(without).shape == (0, 4)
    assert left_handed(np.zeros((2, 3, 3)), stereocentres(without)).shape == (2, 0)


def test_a_turned_peptide_bond_is_cis() -> None:
    """Half a turn of NME's methyl and hydrogen about the bond C - N; a small turn stays trans."""
    moving = [17, 18, 19, 20, 21]
    assert peptide_bonds(sites()).tolist() == [[2, 0, 6, 8], [8, 10, 16, 18]]
    assert cis_bonds(X, sites()).tolist() == [[False, False]]
    assert cis_bonds(turned(X, moving, 10, 16, np.pi), sites()).tolist() == [[False, True]]
    assert cis_bonds(turned(X, moving, 10, 16, 0.4), sites()).tolist() == [[False, False]]
