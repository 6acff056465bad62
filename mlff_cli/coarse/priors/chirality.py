"""The hand of dihedrals: chains of D-amino acids turn as the mirror images of chains of L.

    x -> -x:   r and theta stay, phi -> -phi,   U_D(phi) = U_L(-phi)

A type tells its hand where a central bead is called after a D-amino acid (`D-ALA`). Types of four
classes do not, nor do backbone beads (`CA`) of which both hands have the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mlff_cli.coarse.priors.distributions import Histogram
from mlff_cli.core.residues import D_AMINO_ACIDS
from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.data.beads.prior_forms import Cosine, Form, PeriodicSpline

Hand = Literal["L", "D", "mixed"]
_D = frozenset(f"D-{name}" for name in D_AMINO_ACIDS.values())
_NONE = frozenset(("GLY", "N", "CA", "C", "O"))


def hand(types: Sequence[str]) -> Hand:
    """Of a dihedral by the types of its central beads; what tells no hand counts as L.

    >>> hand(["D-ALA", "GLY"]), hand(["D-ALA", "SER-C"]), hand(["polar", "GLY"])
    ('D', 'mixed', 'L')
    """
    known = [_parent(t) for t in types]
    if not any(t in _D for t in known):
        return "L"
    return "D" if all(t in _D or t in _NONE for t in known) else "mixed"


def mirrored(histogram: Histogram) -> Histogram:
    """Of the mirror images of a dihedral's samples."""
    return dataclasses.replace(histogram, counts=histogram.counts[::-1])


def mirror_form(form: Form) -> Form:
    """U(-phi) of a dihedral's U(phi)."""
    if isinstance(form, Cosine):
        return dataclasses.replace(form, gamma=tuple(-g for g in form.gamma))
    assert isinstance(form, PeriodicSpline)
    return dataclasses.replace(form, values=(form.values[0], *form.values[:0:-1]))


def flat_form(form: Form) -> Form:
    """No preference at all, in the form of a dihedral's U."""
    if isinstance(form, Cosine):
        return Cosine((0.0,), (0.0,))
    assert isinstance(form, PeriodicSpline)
    return PeriodicSpline((0.0,) * len(form.values))


def n_untold(molecule: BeadMolecule, dihedrals: np.ndarray, types: Sequence[str]) -> int:
    """Dihedrals around beads of D-amino acids whose types do not say so."""
    residues = list(zip(molecule.chain.tolist(), molecule.residue.tolist(), strict=True))
    told = np.array([_parent(t) in _D for t in types])
    named = np.isin(molecule.residue_name, list(D_AMINO_ACIDS))
    of_d = {residues[i] for i in np.flatnonzero(named | told)}
    missing = np.array([r in of_d for r in residues]) & ~told
    j, k = dihedrals[:, 1], dihedrals[:, 2]
    return int(((missing[j] | missing[k]) & ~(told[j] | told[k])).sum())


def _parent(name: str) -> str:
    """A type without what termini add to it."""
    return name.removesuffix("-C").removesuffix("-N")
