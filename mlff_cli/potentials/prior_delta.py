"""Delta learning: forces without those of the prior, so that a model learns what is left.

F_delta = F - F_prior(R)

Pairs beyond their cutoff are left out (`prior_pairs`): their forces are exactly zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import CGBlock
from mlff_cli.data.beads.prior_file import PriorFile
from mlff_cli.physics.terms import Terms
from mlff_cli.potentials.prior import BoundTerms, Prior
from mlff_cli.potentials.prior_pairs import NearTerms

TERMS_AT_ONCE = 1 << 18  # terms times frames that gradients are held of, some 200 MB
KEPT = 8  # molecules whose terms are held


def subtract_prior(
    blocks: Iterable[CGBlock],
    prior: PriorFile,
    molecule: Callable[[int], tuple[Terms, Sequence[str]]],
) -> Iterator[CGBlock]:
    """Frames of a set with the prior's forces subtracted, as a stream.

    Args:
        blocks: frames with forces.
        prior: what is subtracted.
        molecule: terms and names of the beads' types of a molecule of the set, by its number; it
            is asked when its frames come.

    Raises:
        DataError: frames without forces, or a type or term that the prior does not know.
    """
    module = Prior(prior)
    bound = lru_cache(KEPT)(lambda k: module.bind(*molecule(k)))
    for block in blocks:
        if block.F is None:
            raise DataError(
                "prior forces are subtracted from forces, found none in the set",
                remedy="run `mlff project-forces` first",
            )
        _, F = prior_forces(module, bound(block.molecule), block.R)
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
    near, start, step = NearTerms(prior, bound), 0, 1
    while start < len(R):
        x = np.asarray(R[start : start + step], dtype=np.float64)
        rows = slice(start, start + len(x))
        terms = near.of(x)
        e, f = prior.energy_and_forces(torch.from_numpy(x.reshape(-1, 3)), terms)
        energy[rows], forces[rows] = e.numpy(), f.numpy().reshape(x.shape)
        start += len(x)
        step = max(1, TERMS_AT_ONCE * len(x) // max(1, terms.n_terms))
    return energy, forces
