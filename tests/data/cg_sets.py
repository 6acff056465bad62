"""Coarse-grained sets of known content, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.data.beads.cg_npz import BeadMolecule, CGBlock

SOURCES = [{"path": "a.h5", "sha256": "0" * 64, "format": "h5md", "n_frames": 100, "molecule": 0}]


def chain(n: int, *, name: str = "chain", seed: int = 0, n_species: int = 3) -> BeadMolecule:
    """A chain of n beads, each the mean of two atoms, with consecutive bonds."""
    rng = np.random.default_rng(seed)
    mapping = np.kron(np.eye(n), [[0.5, 0.5]])
    return BeadMolecule(
        name=name,
        species=rng.integers(0, n_species, n).astype(np.int32),
        residue=np.arange(1, n + 1, dtype=np.int32),
        residue_name=np.array([f"R{k}" for k in range(n)]),
        bead_name=np.array(["CA"] * n),
        chain=np.zeros(n, np.int32),
        bonds=np.stack([np.arange(n - 1), np.arange(1, n)], 1).astype(np.int32),
        mapping=mapping,
        elements=np.full(2 * n, 6, np.int32),
        atom_bonds=np.stack([np.arange(2 * n - 1), np.arange(1, 2 * n)], 1).astype(np.int32),
    )


def block(
    k: int, n: int, n_frames: int, *, forces: bool = True, seed: int = 0, start: int = 0
) -> CGBlock:
    """Random frames of molecule k."""
    rng = np.random.default_rng([seed, start])
    R, F = rng.normal(size=(2, n_frames, n, 3)).astype(np.float32)
    return CGBlock(
        k,
        R=R,
        F=F if forces else None,
        source=np.zeros(n_frames, np.int32),
        frame=np.arange(start, start + n_frames),
        temperature=np.full(n_frames, 300.0 + k, np.float32),
    )


def seed_set(path: Path, sizes: Sequence[int], *, parked: Any = 95.0, seed: int = 0) -> list[Any]:
    """A set as the seed lays it down: one frame per size, real beads in columns anywhere."""
    rng = np.random.default_rng(seed)
    T, n = len(sizes), max(sizes) + 1
    R = np.full((T, n, 3), parked, np.float32)
    F = np.zeros((T, n, 3), np.float32)
    species, mask = np.zeros((T, n), np.int32), np.zeros((T, n), np.float32)
    real = []
    for t, size in enumerate(sizes):
        columns = np.sort(np.random.default_rng(size).permutation(n)[:size])
        R[t, columns], F[t, columns] = rng.normal(size=(2, size, 3))
        species[t, columns], mask[t, columns] = np.arange(size), 1.0
        real.append((columns, R[t, columns], F[t, columns]))
    np.savez(path, R=R, F=F, species=species, mask=mask, Z=np.ones(n, np.int32))
    return real
