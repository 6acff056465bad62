"""Delta learning: forces without those of the prior, so that a model learns what is left.

F_delta = F - F_prior(R)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import CGBlock
from mlff_cli.data.beads.prior_file import PriorFile
from mlff_cli.physics.terms import Terms
from mlff_cli.potentials.prior import BoundTerms, Prior

TERMS_AT_ONCE = 1 << 18  # terms times frames that gradients are held of, some 200 MB


def subtract_prior(
    blocks: Iterable[CGBlock], prior: PriorFile, molecules: Sequence[tuple[Terms, Sequence[str]]]
) -> Iterator[CGBlock]:
    """Frames of a set with the prior's forces subtracted, as a stream.

    Args:
        blocks: frames with forces.
        prior: what is subtracted.
        molecules: terms and names of the beads' types of every molecule of the set.

    Raises:
        DataError: frames without forces, or a term that the prior has no entry for.
    """
    module = Prior(prior)
    bound = [module.bind(terms, types) for terms, types in molecules]
    for block in blocks:
        if block.F is None:
            raise DataError(
                "prior forces are subtracted from forces, found none in the set",
                remedy="run `mlff project-forces` first",
            )
        _, F = prior_forces(module, bound[block.molecule], block.R)
        yield dataclasses.replace(block, F=(block.F - F).astype(block.F.dtype))


def prior_forces(prior: Prior, bound: BoundTerms, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy and forces of frames of one molecule, some frames at a time.

    Args:
        prior: the prior.
        bound: terms of the molecule.
        R: (T, n, 3) in angstrom.

    Returns:
        energy (T,) in kcal/mol and forces (T, n, 3) in kcal/mol/angstrom, float64.
    """
    energy, forces = np.zeros(len(R)), np.zeros(R.shape)
    step = max(1, TERMS_AT_ONCE // max(1, bound.n_terms))
    for start in range(0, len(R), step):
        rows = slice(start, start + step)
        e, f = prior.energy_and_forces(torch.tensor(R[rows], dtype=torch.float64), bound)
        energy[rows], forces[rows] = e.numpy(), f.numpy()
    return energy, forces
