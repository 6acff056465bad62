"""Which atoms count as rigid: what the user says, the topology, the trajectory and its own record.

A simulation that kept distances fixed reports forces without those that kept them. Weights that are
equal within a rigid group cancel what is missing. A group too many costs a force map some variance;
one too few makes it wrong. So where sources contradict each other, `auto` takes the groups of both,
and says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlff_cli.coarse.forces.constraints import Constraints, constraint_groups, topology_constraints

RECORDED = ("none", "hbonds")  # what trajectories say of themselves, as `mlff sample` writes it


@dataclass(frozen=True)
class RigidGroups:
    """Rigid groups of a molecule and where they come from.

    Attributes:
        groups: (N,) group of every atom; one of its own where it is free.
        from_topology: constrained pairs by the topology; None where it was not asked.
        from_trajectory: constrained pairs by the motion; None where it was not looked at.
        relied_on: a sentence for the report.
        notes: contradictions that a user must see.
        kinds: what the motion of every kind of pair showed, plain values.
    """

    groups: np.ndarray
    from_topology: int | None
    from_trajectory: int | None
    relied_on: str
    notes: tuple[str, ...] = ()
    kinds: tuple[dict[str, Any], ...] = ()

    def plain(self) -> dict[str, Any]:
        """Plain values for the report."""
        size = np.bincount(self.groups)
        return {
            "groups": int((size > 1).sum()),
            "atoms": int(size[size > 1].sum()),
            "largest": int(size.max()),
            "weights": len(size),
            "from_topology": self.from_topology,
            "from_trajectory": self.from_trajectory,
            "relied_on": self.relied_on,
            "kinds": list(self.kinds),
        }


def listed_groups(n_atoms: int, pairs: np.ndarray, file: str) -> RigidGroups:
    """Groups of a file's pairs (m, 2)."""
    return RigidGroups(constraint_groups(n_atoms, pairs), None, None, f"the file {file}")


def no_groups(n_atoms: int) -> RigidGroups:
    """Every atom for itself."""
    return RigidGroups(np.arange(n_atoms), None, None, "--constraints none: every atom is free")


def topology_groups(elements: np.ndarray, bonds: np.ndarray) -> RigidGroups:
    """Bonds to hydrogen and rigid water (`coarse.forces.constraints`)."""
    found = topology_constraints(elements, bonds)
    groups = constraint_groups(len(elements), found.pairs)
    return RigidGroups(groups, len(found.pairs), None, found.relied_on)


def auto_groups(
    elements: np.ndarray, bonds: np.ndarray, detected: Constraints, recorded: Collection[str]
) -> RigidGroups:
    """What the motion shows, with what the trajectories record of themselves.

    Args:
        elements: (N,) atomic numbers.
        bonds: (m, 2) bonded atoms.
        detected: from the positions.
        recorded: every "constraints" that the trajectories state; empty where none does.
    """
    usual = topology_constraints(elements, bonds).pairs
    told = sorted(set(recorded))
    pairs, notes = detected.pairs, []
    moved = detected.threshold is not None  # else the positions were too coarse to tell
    relied_on = detected.relied_on
    unknown = [t for t in told if t not in RECORDED]
    if unknown:
        notes.append(
            f"the trajectory records constraints {', '.join(map(repr, unknown))}, which mlff does "
            "not know: the motion alone decides"
        )
    if told == ["none"] and not moved:
        pairs = pairs[:0]
        relied_on = f"the trajectory's record: no constraints (its motion: {detected.relied_on})"
    elif told == ["none"] and len(pairs):
        notes.append(
            f"the trajectory records no constraints, yet {len(pairs)} distances do not vary: these "
            "are taken as rigid; --constraints none overrules it"
        )
    elif told == ["none"]:
        relied_on += "; so the trajectory records"
    elif "hbonds" in told:
        missing = _without(usual, pairs, len(elements))
        pairs = np.concatenate([pairs, missing])
        if moved and len(missing):
            notes.append(
                f"the trajectory records constrained bonds to hydrogen, yet {len(missing)} of "
                f"these {len(usual)} distances vary: all are taken as rigid; --constraints none "
                "overrules it"
            )
        relied_on = f"the trajectory's record (hbonds) and its motion: {relied_on}"
    return RigidGroups(
        constraint_groups(len(elements), pairs),
        len(usual),
        len(detected.pairs) if moved else None,
        relied_on,
        tuple(notes),
        tuple(vars(kind) for kind in detected.kinds),
    )


def against_record(
    found: RigidGroups, elements: np.ndarray, bonds: np.ndarray, recorded: Collection[str]
) -> RigidGroups:
    """The same groups, with a note where trajectories record constraints that these leave out.

    Args:
        found: chosen by the user.
        elements: (N,) atomic numbers.
        bonds: (m, 2) bonded atoms.
        recorded: every "constraints" that the trajectories state.
    """
    if "hbonds" not in recorded:
        return found
    usual = topology_constraints(elements, bonds).pairs
    missing = usual[found.groups[usual[:, 0]] != found.groups[usual[:, 1]]]
    if not len(missing):
        return found
    note = (
        f"the trajectory records constrained bonds to hydrogen, of which {len(missing)} (as atoms "
        f"{missing[0, 0]} and {missing[0, 1]}) are in no rigid group: bead forces lack what these "
        "constraints exert; use --constraints auto"
    )
    return dataclasses.replace(found, notes=(*found.notes, note))


def _without(pairs: np.ndarray, others: np.ndarray, n_atoms: int) -> np.ndarray:
    """Pairs (ascending) that are not among the others."""
    keys, known = (p[:, 0] * n_atoms + p[:, 1] for p in (pairs, others))
    return pairs[~np.isin(keys, known)]
