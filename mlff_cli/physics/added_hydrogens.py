"""Hydrogens that were added: on the right side of their atom, and which of two is which.

OpenMM places hydrogens at random and minimises. Now and then one of CH is left among the three
other neighbours, and whatever minimises next turns the whole residue into its mirror image: such a
hydrogen is put opposite to them.

Dynamics never exchanges two hydrogens of a methyl or methylene group, and where the first of them
went is chance. Two runs would be of two molecules for whatever tells atoms apart by their number,
as a flow in Cartesian coordinates does. So they are ordered:

    CH2, CH3, NH3+    clockwise, with what else the atom holds before them, seen from the neighbour
                      that is nearer to the main chain (IUPAC-IUB, Biochemistry 9, 3471, 1970: so
                      HA2 of glycine is pro-R)
    planar NH2        the first on the side of that neighbour's lowest other neighbour
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any

import numpy as np
from openmm import app

LONGEST = 0.3  # nm of a bond


def corrected(topology: app.Topology, x: np.ndarray, added: Collection[int]) -> np.ndarray:
    """Positions (N, 3) with added hydrogens where they belong.

    Args:
        topology: bonds and names.
        x: (N, 3) nm; left as it is. Atoms whose bonds a box has cut are left alone.
        added: hydrogens that may change places.
    """
    x, free = np.array(x, dtype=np.float64), frozenset(added)
    near: dict[int, list[int]] = {atom.index: [] for atom in topology.atoms()}
    for a, b in topology.bonds():
        near[a.index].append(b.index)
        near[b.index].append(a.index)
    light = {a.index for a in topology.atoms() if a.element and a.element.atomic_number == 1}
    depth, parents = _depths(topology, near)
    for centre, around in near.items():
        if not around or np.abs(x[around] - x[centre]).max() > LONGEST:
            continue
        hydrogens = sorted(light.intersection(around))
        heavy = sorted((k for k in around if k not in light), key=lambda k: (depth[k], k))
        if len(heavy) == 3 and len(hydrogens) == 1 and hydrogens[0] in free:
            x[hydrogens[0]] = _opposite(x, centre, heavy, hydrogens[0])
        if len(hydrogens) < 2 or not heavy or not free.issuperset(hydrogens[-2:]):
            continue
        parent = parents.get(centre, heavy[0])
        rest = sorted(k for k in heavy if k != parent)
        if len(around) == 4:
            ordered = _clockwise(x, parent, [*rest, *hydrogens])
        elif len(around) == 3 and (others := sorted(set(near[parent]) - {centre})):
            ordered = _nearer(x, hydrogens, others[0])
        else:
            continue
        if not ordered:
            x[hydrogens[-2:]] = x[hydrogens[-2:][::-1]]
    return x


def _depths(
    topology: app.Topology, near: dict[int, list[int]]
) -> tuple[dict[int, int], dict[int, int]]:
    """Bonds between each atom and CA of its residue, not by way of N, and N of every CA."""
    depth = dict.fromkeys(near, len(near))
    nitrogen = {}
    for residue in topology.residues():
        names: dict[str, Any] = {atom.name: atom.index for atom in residue.atoms()}
        if not {"N", "CA"} <= names.keys():
            continue
        start = names["CA"]
        nitrogen[start] = names["N"]
        inside = {atom.index for atom in residue.atoms()} - {names["N"]}
        depth[start] = 0
        line = deque([start])
        while line:
            k = line.popleft()
            for j in inside.intersection(near[k]):
                if depth[j] > depth[k] + 1:
                    depth[j] = depth[k] + 1
                    line.append(j)
    return depth, nitrogen


def _opposite(x: np.ndarray, centre: int, heavy: list[int], hydrogen: int) -> np.ndarray:
    """Where a hydrogen goes: where it is, or opposite to three others if it is on their side."""
    arms = x[heavy] - x[centre]
    side: np.ndarray = (arms / np.linalg.norm(arms, axis=1, keepdims=True)).sum(0)
    own: np.ndarray = x[hydrogen] - x[centre]
    where: np.ndarray = x[hydrogen]
    if own @ side > 0:
        where = x[centre] - side * np.linalg.norm(own) / np.linalg.norm(side)
    return where


def _clockwise(x: np.ndarray, parent: int, others: list[int]) -> bool:
    """Whether three neighbours of an atom follow one another clockwise, seen from the fourth."""
    arms = x[others] - x[parent]
    return bool(np.linalg.det(arms) > 0)


def _nearer(x: np.ndarray, two: list[int], other: int) -> bool:
    """Whether the first of two atoms is nearer to a third than the second."""
    first, second = np.linalg.norm(x[two] - x[other], axis=1)
    return bool(first < second)
