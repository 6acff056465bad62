"""Beads as PDB text, for viewers and for what reads trajectories.

PDB knows atoms: a bead gets the element of the atom that it is named after, carbon where its name
tells none. Bonds are CONECT records. What does not fit a column (five digits of a residue, a sixth
of a serial number) starts again at 0, as viewers expect.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_NUMBERS = {"C": 6, "N": 7, "O": 8, "S": 16}
_CHAINS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_SERIALS, _RESIDUES = 100_000, 10_000
LARGEST = 9999.0  # angstrom that fit the columns of a position


def bead_elements(bead_names: Sequence[str]) -> np.ndarray:
    """(n,) int32 atomic numbers of the atoms that beads are named after; carbon for the rest."""
    return np.array([_NUMBERS.get(name[:1].upper(), 6) for name in bead_names], dtype=np.int32)


def bead_pdb(
    bead_names: Sequence[str],
    residue_names: Sequence[str],
    residues: np.ndarray,
    chains: np.ndarray,
    positions: np.ndarray,
    bonds: np.ndarray,
    remarks: Sequence[str] = (),
) -> str:
    """A frame.

    Args:
        bead_names: (n,) as "CA".
        residue_names: (n,).
        residues: (n,) number of the bead's residue in its chain.
        chains: (n,) 0 for the first chain.
        positions: (n, 3) in angstrom; clipped to what fits.
        bonds: (b, 2).
        remarks: lines at the top.
    """
    symbols = {z: symbol for symbol, z in _NUMBERS.items()}
    lines = [f"REMARK   1 {text}"[:80] for text in remarks]
    x = np.clip(np.nan_to_num(positions), -LARGEST / 10, LARGEST)
    elements = bead_elements(bead_names)
    n = len(bead_names)
    for k in range(n):
        name = bead_names[k][:4]
        padded = name if len(name) == 4 else f" {name:<3}"
        chain = _CHAINS[int(chains[k]) % len(_CHAINS)]
        lines.append(
            f"ATOM  {(k + 1) % _SERIALS:5d} {padded} {residue_names[k][:3]:>3} {chain}"
            f"{int(residues[k]) % _RESIDUES:4d}    "
            f"{x[k, 0]:8.3f}{x[k, 1]:8.3f}{x[k, 2]:8.3f}{1.0:6.2f}{0.0:6.2f}          "
            f"{symbols[int(elements[k])]:>2}"
        )
        if k + 1 == n or chains[k + 1] != chains[k]:
            lines.append("TER")
    if n < _SERIALS:
        lines += [f"CONECT{i + 1:5d}{j + 1:5d}" for i, j in np.asarray(bonds).tolist()]
    return "\n".join([*lines, "END", ""])
