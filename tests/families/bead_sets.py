"""Coarse-grained sets whose forces are known: a prior's, what beads feel beside it, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlff_cli.data.beads.cg_beads import BeadMolecule, CGBlock
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.prior_file import PriorFile
from mlff_cli.potentials.prior import Prior
from tests.data.cg_sets import SOURCES
from tests.potentials.prior_cases import PARAMETRIC, SPECIES, chain, chain_terms, chain_types

DEPTH, REACH = 20.0, 3.0  # kcal/mol and angstrom of the attraction


def linear(n: int, name: str, seed: int) -> BeadMolecule:
    """A chain of one bead per residue, of 10 carbons each."""
    types = chain_types(n, seed)
    residues = np.arange(1, n + 1, dtype=np.int32)
    pairs = np.stack([np.arange(n - 1), np.arange(1, n)], 1).astype(np.int32)
    return BeadMolecule(
        name=name,
        species=np.array([SPECIES.index(t) for t in types], np.int32),
        residue=residues,
        residue_name=np.array(types),
        bead_name=np.array(["CA"] * n),
        chain=np.zeros(n, np.int32),
        bonds=pairs,
    )


def attraction(R: np.ndarray) -> np.ndarray:
    """Forces (T, n, 3) of U = -DEPTH sum_(j > i + 2) exp(-(r / 2 REACH)^2)."""
    x = torch.from_numpy(R.astype(np.float64)).requires_grad_()
    i, j = np.triu_indices(R.shape[1], 3)
    r2 = (x[:, i] - x[:, j]).square().sum(-1)
    energy = -DEPTH * torch.exp(-r2 / (2 * REACH) ** 2)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    return np.asarray(-gradient.numpy())


def frames_of(
    k: int,
    n: int,
    n_frames: int,
    *,
    prior: PriorFile | None,
    seed: int,
    noise: float,
    attract: bool,
) -> CGBlock:
    """Frames of molecule k, a chain of n beads whose types are those of `linear(n, _, k)`."""
    R = chain(n, seed=seed, frames=n_frames).numpy().astype(np.float32)
    F = np.random.default_rng(seed).normal(size=R.shape) * noise
    if attract:
        F += attraction(R)
    if prior is not None:
        module = Prior(prior)
        bound = module.bind(chain_terms(n), chain_types(n, k))
        x = torch.from_numpy(R.astype(np.float64))
        F += module.energy_and_forces(x, bound)[1].numpy()
    return CGBlock(
        k,
        R=R,
        F=F.astype(np.float32),
        source=np.zeros(n_frames, np.int32),
        frame=np.arange(n_frames),
        temperature=np.full(n_frames, 300.0, np.float32),
    )


def write_chains(
    path: Path,
    sizes: Sequence[int],
    n_frames: int = 40,
    *,
    prior: PriorFile | None = PARAMETRIC,
    seed: int = 0,
    noise: float = 0.0,
    attract: bool = True,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """A set of chains of some sizes, `n_frames` frames of each."""
    molecules = [linear(n, f"chain_{k}", k) for k, n in enumerate(sizes)]
    blocks = [
        frames_of(k, n, n_frames, prior=prior, seed=seed + 100 * k, noise=noise, attract=attract)
        for k, n in enumerate(sizes)
    ]
    told = {"mapping": "ca", **(metadata or {})}
    write_cg(path, molecules, list(SPECIES), SOURCES, told, blocks, force=True)
    return path
