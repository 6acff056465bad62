"""A molecule whose forces are known, its trajectories, and the set mapped from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import sha256
from mlff_cli.data.beads.cg_npz import BeadMolecule, CGBlock
from mlff_cli.data.beads.cg_writer import write_cg

N_RESIDUES = 4
N_ATOMS = 4 * N_RESIDUES  # C, H, H, N of each
TEMPERATURE = 300.0


def molecule(name: str = "chain", n: int = N_RESIDUES) -> BeadMolecule:
    """A chain of n residues C(H)(H)-N; beads at C."""
    N = 4 * n
    mapping = np.zeros((n, N))
    mapping[np.arange(n), 4 * np.arange(n)] = 1.0
    bonds = [(4 * k, 4 * k + j) for k in range(n) for j in (1, 2, 3)]
    bonds += [(4 * k + 3, 4 * k + 4) for k in range(n - 1)]
    return BeadMolecule(
        name=name,
        species=np.arange(n, dtype=np.int32) % 3,
        residue=np.arange(1, n + 1, dtype=np.int32),
        residue_name=np.array(["GLY"] * n),
        bead_name=np.array(["CA"] * n),
        chain=np.zeros(n, np.int32),
        bonds=np.stack([np.arange(n - 1), np.arange(1, n)], 1).astype(np.int32),
        mapping=mapping,
        elements=np.tile([6, 1, 1, 7], n).astype(np.int32),
        atom_bonds=np.array(bonds, np.int32),
    )


def dynamics(
    n_frames: int, seed: int = 0, *, n: int = N_RESIDUES, rigid: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, N, 3) and forces; bonds to hydrogen keep their length where `rigid`."""
    rng = np.random.default_rng(seed)
    N = 4 * n
    x = np.zeros((n_frames, N, 3))
    x[:, 0::4] = np.arange(n)[:, None] * [3.8, 0.0, 0.0] + rng.normal(0.0, 0.3, (n_frames, n, 3))
    x[:, 3::4] = x[:, 0::4] + [1.4, 0.3, 0.0] + rng.normal(0.0, 0.1, (n_frames, n, 3))
    for j in (1, 2):
        away = rng.normal(size=(n_frames, n, 3))
        away *= 1.09 / np.linalg.norm(away, axis=-1, keepdims=True)
        if not rigid:
            away *= 1.0 + rng.normal(0.0, 0.03, (n_frames, n, 1))
        x[:, j::4] = x[:, 0::4] + away
    f = -5.0 * (x - x.mean(axis=0)) + rng.normal(0.0, 10.0, (n_frames, N, 3))
    stretch = rng.normal(0.0, 40.0, (n_frames, n, 3))  # within residues: W can cancel it
    f[:, 0::4] += stretch
    f[:, 3::4] -= stretch
    return x, f


def trajectory(
    path: Path, x: np.ndarray, f: np.ndarray | None, *, dtype: str = "float32", **more: Any
) -> Path:
    """An NPZ trajectory."""
    forces = {} if f is None else {"F": f.astype(dtype)}
    n = x.shape[1] // 4
    z = np.tile([6, 1, 1, 7], n)
    np.savez(path, R=x.astype(dtype), Z=z, **forces, **more)
    return path


def source(path: Path, n_frames: int, k: int = 0) -> dict[str, Any]:
    """A row of a set's `sources`."""
    told = {"path": str(path), "sha256": sha256(path), "format": "npz"}
    return {**told, "n_frames": n_frames, "molecule": k}


def block(
    beads: BeadMolecule, x: np.ndarray, frames: np.ndarray, *, k: int = 0, at: int = 0
) -> CGBlock:
    """Frames of a trajectory on beads."""
    T = len(frames)
    assert beads.mapping is not None
    return CGBlock(
        k,
        R=np.einsum("ij,tjc->tic", beads.mapping, x[frames]).astype(np.float32),
        source=np.full(T, at, np.int32),
        frame=frames.astype(np.int64),
        temperature=np.full(T, TEMPERATURE, np.float32),
    )


def mapped(
    path: Path,
    molecules: Sequence[BeadMolecule],
    sources: Sequence[dict[str, Any]],
    blocks: Sequence[CGBlock],
) -> Path:
    """A set without forces."""
    write_cg(path, molecules, ["A", "B", "C"], sources, {"mapping": "ca"}, blocks)
    return path


def case(
    folder: Path, lengths: Sequence[int] = (240,), *, rigid: bool = True, dtype: str = "float32"
) -> tuple[list[Path], Path]:
    """Trajectories of one molecule, and the set of all their frames."""
    beads = molecule()
    paths, sources, blocks = [], [], []
    for i, n in enumerate(lengths):
        x, f = dynamics(n, seed=i, rigid=rigid)
        paths.append(trajectory(folder / f"t{i}.npz", x, f, dtype=dtype))
        sources.append(source(paths[-1], n))
        blocks.append(block(beads, x, np.arange(n), at=i))
    return paths, mapped(folder / "mapped.npz", [beads], sources, blocks)
