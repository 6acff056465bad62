"""Bonds, angles and torsions of many conformations, energy and gradient in one pass.

bond     U = 1/2 k (r - r0)^2
angle    U = 1/2 k (theta - theta0)^2,    theta = atan2(|u x v|, u.v)
         dtheta/du = u x n / (|u|^2 |n|),  dtheta/dv = n x v / (|v|^2 |n|),  n = u x v
torsion  U = sum_n k_n (1 + cos(n phi - phase_n)) = c_0 + sum_n c_n cos(n phi) + s_n sin(n phi)
         dphi/dF = -|G|/A^2 A,  dphi/dH = |G|/B^2 B,  dphi/dG = (F.G/A^2 A - H.G/B^2 B) / |G|

with F = x_i - x_j, G = x_j - x_k, H = x_l - x_k, A = F x G, B = H x G (Blondel and Karplus,
J. Comput. Chem. 17, 1132, 1996). cos(n phi) and sin(n phi) are powers of (cos phi, sin phi), so a
torsion needs no transcendental function, and all terms of four atoms are one.

A term sees difference vectors d (e, 3, B) of its edges and returns U (B,) and dU/dd (e, 3, B); the
batch is the last axis, so that every operation runs along memory. Where a direction does not exist
(coincident or collinear atoms) the gradient is zero. nm, kJ/mol, radian.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

NEAREST = 1e-6  # nm: shorter vectors have no direction
STRAIGHT = 1e-12  # nm^2: |u x v| below which three atoms are collinear; 1e-24 is a float32


class Bonds(nn.Module):
    """Harmonic bonds.

    Args:
        atoms: (b, 2).
        k: (b,) kJ/mol/nm^2.
        r0: (b,) nm.

    Attributes:
        edges: (b, 2) atoms whose difference the term needs.
    """

    def __init__(self, atoms: np.ndarray, k: np.ndarray, r0: np.ndarray) -> None:
        super().__init__()
        self.edges = atoms
        self.k, self.r0 = (nn.Buffer(_column(values)) for values in (k, r0))

    def forward(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """U (B,) and dU/dd (b, 3, B) of d (b, 3, B)."""
        r = _length(d)  # [b, B]
        stretch = r - self.r0
        tension = self.k * stretch
        return 0.5 * (tension * stretch).sum(0), (tension / r)[:, None] * d


class Angles(nn.Module):
    """Harmonic angles.

    Args:
        atoms: (a, 3), the vertex in the middle.
        k: (a,) kJ/mol/rad^2.
        theta0: (a,) radian.

    Attributes:
        edges: (2a, 2) atoms whose differences the term needs: u of all angles, then v.
    """

    def __init__(self, atoms: np.ndarray, k: np.ndarray, theta0: np.ndarray) -> None:
        super().__init__()
        self.edges = np.concatenate([atoms[:, [0, 1]], atoms[:, [2, 1]]])
        self.k, self.theta0 = (nn.Buffer(_column(values)) for values in (k, theta0))

    def forward(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """U (B,) and dU/dd (2a, 3, B) of d (2a, 3, B)."""
        u, v = d.chunk(2)  # [a, 3, B]
        n = _cross(u, v)
        sine = n.square().sum(1).clamp(min=STRAIGHT * STRAIGHT).sqrt()  # |u| |v| sin theta [a, B]
        bend = torch.atan2(sine, (u * v).sum(1)) - self.theta0
        torque = self.k * bend
        pull = torque / sine
        du = _cross(u, n) * (pull / _square(u))[:, None]
        dv = _cross(n, v) * (pull / _square(v))[:, None]
        return 0.5 * (torque * bend).sum(0), torch.cat([du, dv])


class Torsions(nn.Module):
    """Periodic torsions.

    Args:
        atoms: (t, 4); equal rows are one torsion.
        periodicity: (t,) n, at least 1.
        phase: (t,) radian.
        k: (t,) kJ/mol.

    Attributes:
        edges: (3q, 2) atoms whose differences the term needs: F of all torsions, then G, then H.
    """

    def __init__(
        self, atoms: np.ndarray, periodicity: np.ndarray, phase: np.ndarray, k: np.ndarray
    ) -> None:
        super().__init__()
        four, which = np.unique(atoms, axis=0, return_inverse=True)
        self.edges = np.concatenate([four[:, [0, 1]], four[:, [1, 2]], four[:, [3, 2]]])
        orders = int(periodicity.max(initial=0))
        cosine, sine = np.zeros((2, orders, len(four)))  # c_n, s_n [n, q]
        np.add.at(cosine, (periodicity - 1, which.reshape(-1)), k * np.cos(phase))
        np.add.at(sine, (periodicity - 1, which.reshape(-1)), k * np.sin(phase))
        self.constant = nn.Buffer(torch.as_tensor(k.sum()))
        self.cosine, self.sine = (nn.Buffer(torch.as_tensor(c)[..., None]) for c in (cosine, sine))

    def forward(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """U (B,) and dU/dd (3q, 3, B) of d (3q, 3, B)."""
        f, g, h = d.chunk(3)  # [q, 3, B]
        a, b = _cross(f, g), _cross(h, g)
        length = _length(g)  # [q, B]
        aa = a.square().sum(1).clamp(min=STRAIGHT * STRAIGHT)
        bb = b.square().sum(1).clamp(min=STRAIGHT * STRAIGHT)
        scale = aa.rsqrt() * bb.rsqrt()  # a product of both would leave float32's range
        cos = (a * b).sum(1) * scale
        sin = (_cross(b, a) * g).sum(1) * scale / length
        energy = torch.zeros_like(cos)
        slope = torch.zeros_like(cos)  # dU/dphi
        c, s = torch.ones_like(cos), torch.zeros_like(cos)
        for n, (c_n, s_n) in enumerate(zip(self.cosine, self.sine, strict=True), start=1):
            c, s = c * cos - s * sin, s * cos + c * sin  # cos(n phi), sin(n phi)
            energy = energy + c_n * c + s_n * s
            slope = slope + n * (s_n * c - c_n * s)
        a, b = a / aa[:, None], b / bb[:, None]
        df, dh = -(slope * length)[:, None] * a, (slope * length)[:, None] * b
        turn = (slope / length)[:, None]
        dg = turn * ((f * g).sum(1)[:, None] * a - (h * g).sum(1)[:, None] * b)
        return self.constant + energy.sum(0), torch.cat([df, dg, dh])


def _column(values: np.ndarray) -> Tensor:
    """Parameters beside a batch: (n, 1)."""
    return torch.as_tensor(values, dtype=torch.float64)[:, None]


def _square(v: Tensor) -> Tensor:
    """|v|^2 (e, B) of (e, 3, B), never zero."""
    return v.square().sum(1).clamp(min=NEAREST * NEAREST)


def _length(v: Tensor) -> Tensor:
    return _square(v).sqrt()


def _cross(u: Tensor, v: Tensor) -> Tensor:
    """U x v of (e, 3, B); on three slices, which is faster than `torch.linalg.cross` here."""
    (a, b, c), (p, q, r) = u.unbind(1), v.unbind(1)
    return torch.stack([b * r - c * q, c * p - a * r, a * q - b * p], 1)
