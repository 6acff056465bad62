"""Peptides built atom by atom, for tests: topologies of mdtraj and coordinates in angstrom.

Backbones of ideal bond lengths and angles (Engh and Huber, 1991, rounded), phi = -120, psi = 130,
omega = 180 degrees; side chains end at CB, cysteine's at SG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
from mdtraj.core.element import get_by_symbol

PHI, PSI, OMEGA = -120.0, 130.0, 180.0


def placed(a: np.ndarray, b: np.ndarray, c: np.ndarray, r: float, angle: float, torsion: float):
    """The atom d with |cd| = r, angle bcd and torsion abcd (degrees)."""
    t, p = np.radians(angle), np.radians(torsion)
    bc = (c - b) / np.linalg.norm(c - b)
    n = np.cross(b - a, bc)
    n /= np.linalg.norm(n)
    m = np.cross(n, bc)
    return c + r * (-np.cos(t) * bc + np.sin(t) * np.cos(p) * m + np.sin(t) * np.sin(p) * n)


@dataclass
class Peptide:
    """A topology and one frame.

    Attributes:
        topology: with bonds.
        positions: (N, 3) angstrom.
    """

    topology: mdtraj.Topology
    positions: np.ndarray

    def write(self, path: Path) -> Path:
        """As PDB."""
        mdtraj.Trajectory(self.positions[None] / 10, self.topology).save_pdb(str(path))
        return path

    def reordered(self, seed: int) -> tuple[Peptide, np.ndarray]:
        """The same with atoms shuffled within residues, and (N,) the old index of every atom."""
        rng = np.random.default_rng(seed)
        order = np.concatenate(
            [rng.permutation([a.index for a in r.atoms]) for r in self.topology.residues]
        )
        topology, made = mdtraj.Topology(), {}
        for chain in self.topology.chains:
            c = topology.add_chain()
            for residue in chain.residues:
                r = topology.add_residue(residue.name, c, resSeq=residue.resSeq)
                old = [i for i in order if self.topology.atom(i).residue is residue]
                for atom in map(self.topology.atom, old):
                    made[atom.index] = topology.add_atom(atom.name, atom.element, r)
        for a, b in self.topology.bonds:
            topology.add_bond(made[a.index], made[b.index])
        return Peptide(topology, self.positions[order]), order


def peptide(
    *chains: Sequence[str],
    first: int = 1,
    water: int = 0,
    bridges: Sequence[tuple[int, int]] = (),
    cut: Sequence[int] = (),
) -> Peptide:
    """Chains of residues, 30 angstrom apart.

    Args:
        chains: names of residues; ACE and NME at the ends; a name with a leading `~` is built
            mirrored.
        first: number of the first residue.
        water: molecules of water at the end.
        bridges: residues by index whose SG are bonded.
        cut: residues by index with 10 angstrom (and 5 numbers) before them, their bond kept.
    """
    topology, xyz = mdtraj.Topology(), []
    for c, names in enumerate(chains):
        chain, number, shift = topology.add_chain(), first, np.array([0.0, 30.0 * c, 0.0])
        last: dict[str, np.ndarray] = {}
        before = None
        for name in names:
            mirrored, name = name.startswith("~"), name.removeprefix("~")
            if topology.n_residues in cut:
                number += 5
                shift = shift + [10.0, 0.0, 0.0]
            residue = topology.add_residue(name, chain, resSeq=number)
            number += 1
            at = _cap(name, last) if name in ("ACE", "NME") else _amino(name, last, mirrored)
            atoms = {}
            for k, x in at.items():
                atoms[k] = topology.add_atom(k, get_by_symbol(k[0]), residue)
                xyz.append(x + shift)
            for pair in ("N CA", "CA C", "C O", "CA CB", "N H", "CB SG", "CH3 C", "N C", "C OXT"):
                a, b = pair.split()
                if a in atoms and b in atoms and not (pair == "N C" and "CA" in atoms):
                    topology.add_bond(atoms[a], atoms[b])
            if before is not None and "N" in atoms:
                topology.add_bond(before, atoms["N"])
            before, last = atoms.get("C"), at
    for a, b in bridges:
        sulfurs = [next(x for x in topology.residue(r).atoms if x.name == "SG") for r in (a, b)]
        topology.add_bond(*sulfurs)
    if water:
        chain = topology.add_chain()
        for k in range(water):
            residue = topology.add_residue("HOH", chain, resSeq=k + 1)
            o, h, i = (
                topology.add_atom(n, get_by_symbol(n[0]), residue) for n in ("O", "H1", "H2")
            )
            topology.add_bond(o, h)
            topology.add_bond(o, i)
            xyz += [[x, 4.0 * k, -20.0] for x in (0.0, 0.96, -0.96)]
    return Peptide(topology, np.array(xyz, float))


def _cap(name: str, last: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if name == "ACE":
        ch3, c = np.array([0.0, 0.0, 0.0]), np.array([1.52, 0.0, 0.0])
        o = c + 1.23 * np.array([np.cos(np.radians(60)), np.sin(np.radians(60)), 0.0])
        return {"CH3": ch3, "C": c, "O": o}
    n = placed(last["N"], last["CA"], last["C"], 1.33, 117.0, PSI)
    return {"N": n, "C": placed(last["CA"], last["C"], n, 1.46, 122.0, OMEGA)}  # as OpenMM calls it


def _amino(name: str, last: dict[str, np.ndarray], mirrored: bool) -> dict[str, np.ndarray]:
    if not last:
        n, ca = np.array([0.0, 0.0, 0.0]), np.array([1.46, 0.0, 0.0])
        c = placed(np.array([0.0, 1.0, 0.5]), n, ca, 1.52, 111.0, 60.0)
    else:
        start = last.get("CA", last.get("CH3"))
        ahead = last["N"] if "N" in last else last["O"]
        n = placed(ahead, start, last["C"], 1.33, 117.0, PSI if "N" in last else 180.0)
        ca = placed(start, last["C"], n, 1.46, 122.0, OMEGA)
        c = placed(last["C"], n, ca, 1.52, 111.0, PHI)
    at = {"N": n, "CA": ca, "C": c, "O": placed(n, ca, c, 1.23, 120.0, PSI + 180.0)}
    at["H"] = n + 1.01 * (lambda v: v / np.linalg.norm(v))(n - ca + (n - c))
    if not name.endswith("GLY"):
        at["CB"] = placed(c, n, ca, 1.53, 110.0, 122.0 if mirrored else -122.0)
    if "SG" in name or name in ("CYS", "CYX"):
        at["SG"] = placed(n, ca, at["CB"], 1.81, 114.0, 60.0)
    return at
