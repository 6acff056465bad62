"""Conformations behind a flow, beside those that it should make: backbones, hands, energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mdtraj
import numpy as np

from mlff_cli.core.units import KJ_PER_KCAL
from mlff_cli.deploy.flows.works import Ensemble
from mlff_cli.physics.ensembles.backbone import (
    Dihedral,
    Sites,
    backbone_dihedrals,
    ramachandran_pairs,
)
from mlff_cli.physics.ensembles.collective_variables import Variable
from mlff_cli.physics.ensembles.landscapes import Landscape, Values, landscape
from mlff_cli.physics.ensembles.stereo import cis_bonds, left_handed, stereocentres
from mlff_cli.physics.internal_coordinates import dihedrals
from mlff_cli.physics.replica_exchange import K_B


def sites_of(topology: mdtraj.Topology, bonds: np.ndarray) -> Sites:
    """The atoms of a molecule by their names.

    Args:
        topology: names and residues.
        bonds: (b, 2), which PDB files do not tell.
    """
    atoms = list(topology.atoms)
    return Sites(
        tuple(a.name for a in atoms),
        tuple(a.residue.name for a in atoms),
        np.array([a.residue.resSeq for a in atoms]),
        np.array([a.residue.chain.index for a in atoms]),
        bonds,
    )


class Backbone:
    """Ramachandran angles of a peptide.

    Args:
        sites: its atoms.

    Attributes:
        pairs: phi and psi of every residue that has both.
    """

    def __init__(self, sites: Sites) -> None:
        found = backbone_dihedrals(sites)
        named = [(found[i], found[j]) for i, j in ramachandran_pairs(found)]
        self.pairs: list[tuple[Dihedral, Dihedral]] = [p for p in named if p[0].kind == "phi"]

    def angles(self, x: np.ndarray, pair: int) -> np.ndarray:
        """Phi and psi (T, 2) in radian of positions (T, N, 3)."""
        rows = np.array([d.sites for d in self.pairs[pair]], np.int64)
        return dihedrals(np.asarray(x, np.float64), rows)

    def compare(
        self,
        reference: Ensemble,
        x: np.ndarray,
        lengths: Sequence[int],
        pair: int,
        *,
        bins: int,
        seed: int,
    ) -> Landscape:
        """The plane of phi and psi of frames beside that of an ensemble.

        Args:
            reference: what is right.
            x: (T, N, 3) positions, series after series.
            lengths: of the series.
            pair: which residue.
            bins: of each angle.
            seed: of the frames that divergences are drawn from.
        """
        variables = [Variable(d.name, "dihedral", "degree") for d in self.pairs[pair]]
        sides = [
            Values.of(self.angles(p, pair), n, variables)
            for p, n in ((reference.positions, reference.lengths), (x, lengths))
        ]
        kt = K_B * reference.kelvin / KJ_PER_KCAL
        return landscape([0, 1], variables, *sides, bins=bins, kt=kt, seed=seed)


@dataclass(frozen=True)
class Flips:
    """What a map must not change.

    Attributes:
        centres: residues with a hand.
        hands: frames with one of another hand than before.
        bonds: peptide bonds.
        isomers: frames with one that turned between cis and trans.
        frames: in all.
    """

    centres: int
    hands: int
    bonds: int
    isomers: int
    frames: int


def flips(sites: Sites, before: np.ndarray, after: np.ndarray) -> Flips:
    """Compare positions (T, N, 3) before a map with those behind it."""
    centres = stereocentres(sites)
    hands = left_handed(before, centres) != left_handed(after, centres)
    isomers = cis_bonds(before, sites) != cis_bonds(after, sites)
    return Flips(
        len(centres),
        int(hands.any(axis=1).sum()),
        isomers.shape[1],
        int(isomers.any(axis=1).sum()),
        len(before),
    )
