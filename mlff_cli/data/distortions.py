"""Displaced copies of a geometry: what a potential must see beside minima.

    perturbed:  x' = x + a g                      a ~ U(0, 2 sigma)
    thermal:    x' = x + sqrt(k_B T') H^(-1/2) g  T' ~ U(0, 2 T),  H of a network of springs

with g ~ N(0, 1) per coordinate. One amplitude per copy, so that copies reach from almost relaxed to
strongly strained. A draw depends on the seed, the geometry and the copy's number only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib

import numpy as np

from mlff_cli.data.structures import Structure

BOLTZMANN = 8.617333262e-5  # eV/K, CODATA 2018
BOND_SPRING = 30.0  # eV/angstrom^2, a C-C or C-H bond (about 480 N/m)
ANGLE_SPRING = 3.0  # eV/angstrom^2 between the ends of an angle
FLOOR_SPRING = 3.0  # eV/angstrom^2, in every direction
BOND_TOLERANCE = 1.3  # bonded: closer than this times the sum of the covalent radii


def perturbed(structure: Structure, sigma: float, seed: int, index: int) -> Structure:
    """Displace every nucleus: x' = x + a g, g ~ N(0, 1) per coordinate, a ~ U(0, 2 sigma).

    One amplitude `a` per copy, so that copies reach from almost relaxed to strongly strained; the
    mean RMS displacement of an atom is sqrt(3) sigma.

    Args:
        structure: the geometry to displace.
        sigma: mean amplitude, angstrom.
        seed: seed of the whole run.
        index: number of the copy; the draw depends on seed, geometry and index only.
    """
    rng = _rng(structure, seed, index)
    amplitude = rng.uniform(0.0, 2.0 * sigma)
    moved = structure.coord + amplitude * rng.normal(size=structure.coord.shape)
    return dataclasses.replace(structure, coord=moved, labels={})


def thermal(structure: Structure, temperature: float, seed: int, index: int) -> Structure:
    """Displace a geometry as heat would, in a network of springs.

        x' = x + H^(-1/2) g sqrt(k_B T'),  g ~ N(0, 1),  T' ~ U(0, 2 T)
        H  = sum_(i<j) k_ij (u_ij u_ij^T) + k_0 1,   u_ij the unit vector of the pair

    k_ij is `BOND_SPRING` for bonded atoms, `ANGLE_SPRING` for atoms with a common neighbour; k_0
    keeps soft modes (torsions, out-of-plane) small. Bonds then vary as little as they do in nature,
    while angles and torsions vary more, unlike under displacements of equal size for all modes.

    Args:
        structure: the geometry, taken as the minimum.
        temperature: mean temperature T, K; one T' per copy.
        seed: seed of the whole run.
        index: number of the copy; the draw depends on seed, geometry and index only.
    """
    rng = _rng(structure, seed, index)
    k_t = BOLTZMANN * rng.uniform(0.0, 2.0 * temperature)  # eV
    stiffness, modes = np.linalg.eigh(_spring_hessian(structure))  # [3N], [3N, 3N]
    # back and forth through the modes, H^(-1/2) g: independent of the signs that eigh chose
    shift = modes @ (np.sqrt(k_t / stiffness) * (modes.T @ rng.normal(size=len(stiffness))))
    moved = structure.coord + shift.reshape(structure.coord.shape)
    return dataclasses.replace(structure, coord=moved, labels={})


def _spring_hessian(structure: Structure) -> np.ndarray:
    """H of `thermal`, (3N, 3N) eV/angstrom^2."""
    radii = importlib.import_module("ase.data").covalent_radii[structure.numbers]
    vectors = structure.coord[:, None] - structure.coord[None]  # [N, N, 3]
    distance = np.linalg.norm(vectors, axis=-1) + np.eye(len(radii))  # [N, N], 1 on the diagonal
    bonded = (distance < BOND_TOLERANCE * (radii[:, None] + radii[None])).astype(int)
    np.fill_diagonal(bonded, 0)
    angle = (bonded @ bonded > 0) & (bonded == 0)
    springs = BOND_SPRING * bonded + ANGLE_SPRING * angle
    np.fill_diagonal(springs, 0.0)
    unit = vectors / distance[..., None]
    blocks = -springs[..., None, None] * unit[..., :, None] * unit[..., None, :]  # [N, N, 3, 3]
    n = len(radii)
    blocks[np.arange(n), np.arange(n)] = -blocks.sum(axis=1)
    hessian: np.ndarray = blocks.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
    return hessian + FLOOR_SPRING * np.eye(3 * n)


def _rng(structure: Structure, seed: int, index: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {index} ".encode() + structure.coord.tobytes()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
