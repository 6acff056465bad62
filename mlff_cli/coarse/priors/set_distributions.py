"""Distributions of the frames of coarse-grained sets; of many pairs, those of some frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlff_cli.coarse.priors.distributions import PAIRS, Distributions, drawn, typed_rows
from mlff_cli.coarse.priors.set_terms import MoleculeTerms
from mlff_cli.data.beads.cg_npz import CGSet


@dataclass
class Counted:
    """Distributions of one set, or of several.

    Attributes:
        distributions: of all terms.
        n_paired: frames of which pairs were counted.
        n_untold: dihedrals of D-amino acids whose types do not tell their hand.
    """

    distributions: Distributions = field(default_factory=Distributions)
    n_paired: int = 0
    n_untold: int = 0


def count_frames(
    counted: Counted,
    cg: CGSet,
    rows: np.ndarray,
    known: Sequence[MoleculeTerms],
    seed: int,
    tick: Callable[[int], object] = lambda n: None,
) -> None:
    """Count the terms of frames, molecule by molecule, so that the terms of one are held at a time.

    Args:
        counted: what they are added to.
        cg: the set.
        rows: of the frames.
        known: terms and types of its molecules.
        seed: of the frames whose pairs are counted, where there are too many for all.
        tick: hears how many frames were counted since it was called last.
    """
    of = cg.per_frame("molecule")[rows]
    rows, of = rows[order := np.argsort(of, kind="stable")], of[order]
    sizes = np.array([len(layout.columns) for layout in cg.layouts])
    numbers, frames = np.unique(of, return_counts=True)
    n_pairs = int((frames * sizes[numbers] * (sizes[numbers] - 1) // 2).sum())
    every = max(1, -(-n_pairs // PAIRS))
    rng = np.random.default_rng(seed)
    paired = np.zeros(cg.n_frames, dtype=bool)
    paired[rows] = np.concatenate([drawn(n, every, rng) for n in frames.tolist()])
    counted.n_paired += int(paired.sum())
    current = -1
    for block in cg.blocks(rows, forces=False):
        if block.molecule != current:
            one, current = known[block.molecule], block.molecule
            typed = typed_rows(one.terms, one.types, one.disulfides)
            counted.n_untold += one.n_untold
        counted.distributions.add(block.R, typed, block.rows, paired[block.rows])
        tick(len(block.R))
