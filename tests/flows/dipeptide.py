"""ACE-ALA-NME for tests of flows: a frame of dynamics at 300 K, made-up ensembles about it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mlff_cli.flows.internal_coordinates import InternalCoordinates
from mlff_cli.flows.molecule import FlowMolecule

NUMBERS = np.array([6, 8, 6, 1, 1, 1, 7, 1, 6, 1, 6, 8, 6, 1, 1, 1, 7, 1, 6, 1, 1, 1])
BONDS = np.array(
    [[0, 2], [0, 1], [2, 3], [2, 4], [2, 5], [0, 6], [10, 8], [10, 11], [8, 12], [8, 9], [8, 6]]
    + [[12, 13], [12, 14], [12, 15], [7, 6], [10, 16], [18, 19], [18, 20], [18, 21], [18, 16]]
    + [[17, 16]]
)
N, CA, C, CB, HA = 6, 8, 10, 12, 9  # of the alanine
METHYLS = {2: (3, 4, 5), 12: (13, 14, 15), 18: (19, 20, 21)}
FRAME = [  # nm
    [0.10249, -0.1446, 0.01261],
    [0.13737, -0.13788, -0.10699],
    [0.20565, -0.18217, 0.11882],
    [0.29774, -0.12969, 0.10386],
    [0.16235, -0.15909, 0.21864],
    [0.21263, -0.29316, 0.10653],
    [-0.01418, -0.11235, 0.05075],
    [-0.03671, -0.1327, 0.14869],
    [-0.11836, -0.03723, -0.02576],
    [-0.11784, -0.07505, -0.12685],
    [-0.07699, 0.11359, -0.04248],
    [-0.15163, 0.20034, 0.01292],
    [-0.25475, -0.07287, 0.04389],
    [-0.24944, -0.18355, 0.06525],
    [-0.25881, -0.02139, 0.13857],
    [-0.34434, -0.05072, -0.01918],
    [0.03523, 0.14325, -0.09729],
    [0.09073, 0.07035, -0.13315],
    [0.08597, 0.27545, -0.11241],
    [0.19611, 0.27746, -0.13176],
    [0.03107, 0.3193, -0.19713],
    [0.0657, 0.33272, -0.02753],
]


def dipeptide() -> FlowMolecule:
    """ACE-ALA-NME."""
    return FlowMolecule(NUMBERS, BONDS, "ACE-ALA-NME")


def frames(
    n: int, *, heat: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Frames (n, 22, 3) in nm: stiff coordinates normal about the frame, soft torsions anywhere.

    Args:
        n: how many.
        heat: T over 300 K; spreads grow as its root.
        seed: of the noise and of the orientations.
        dtype: of the frames.
    """
    molecule = dipeptide()
    coordinates = InternalCoordinates(molecule)
    u, hand, _ = coordinates(torch.tensor(FRAME, dtype=torch.float64)[None])
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([0.02] * 21 + [0.065] * 20 + [0.1] * 19, dtype=torch.float64)
    noise = torch.randn(n, 60, generator=generator, dtype=torch.float64)
    u = u + spread * math.sqrt(heat) * noise
    periods = torch.from_numpy(molecule.periods)[coordinates.free]
    turn = 2 * math.pi * torch.rand(n, len(periods), generator=generator, dtype=torch.float64)
    third = torch.randint(3, turn.shape, generator=generator) * (2 * math.pi / 3)
    turn = torch.where(periods == 0, turn, torch.where(periods == 3, third, 0.0))
    u[:, coordinates.n_linear :] += turn
    return moved(coordinates.positions(u, hand.expand(n, -1)), seed).to(dtype)


def moved(x: Tensor, seed: int) -> Tensor:
    """Every frame turned (no mirror) and shifted by its own amount."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(len(x), 3, 3, generator=generator, dtype=x.dtype))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    q = q * torch.linalg.det(q)[:, None, None]
    return x @ q.transpose(1, 2) + torch.randn(len(x), 1, 3, generator=generator, dtype=x.dtype)


def handedness(x: Tensor) -> Tensor:
    """Sign of the alanine's chi (B,): (N - CA) x (C - CA) . (CB - CA)."""
    n, c, cb = (x[:, i] - x[:, CA] for i in (N, C, CB))
    return (torch.linalg.cross(n, c) * cb).sum(-1).sign()


def distances(x: Tensor) -> Tensor:
    """Interatomic distances (B, N, N), which tell conformations apart but for mirror images."""
    return (x[:, :, None] - x[:, None]).norm(dim=-1)
