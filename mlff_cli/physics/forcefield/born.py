"""Generalized Born solvation with a surface term, energy and gradient in one pass.

    I_i   = sum_j H(r_ij; o_i, w_j) + sum_j N_ij(r_ij)
    H     = 1/2 [1/L - 1/U + 1/4 (r - w^2/r)(1/U^2 - 1/L^2) + ln(L/U)/(2r)]  where r + w > o, else 0
            U = r + w,  L = max(o, |r - w|)
    N_ij  = n m_ij / (1 + 100 t^2 + 0.3e6 t^6),  t = r - d_ij,  where r < rho_i + rho_j + 0.68 nm
    1/B_i = 1/o_i - tanh(alpha psi - beta psi^2 + gamma psi^3)/rho_i,  psi = o_i I_i
    U     = -tau/2 sum_i q_i^2/B_i + sum_i a (rho_i + 0.14)^2 (rho_i/B_i)^6
            - tau sum_{i<j} q_i q_j/f,  f^2 = s + B_i B_j exp(-s/(4 B_i B_j)),  s = r^2

rho is the radius, o = rho - offset, w a scaled o, tau = k_e (1/eps_in - 1/eps_out), a = 4 pi times
the surface tension. HCT (Hawkins et al., Chem. Phys. Lett. 246, 122, 1995) has 1/B = 1/o - I; OBC
is Onufriev et al., Proteins 55, 383, 2004; the neck N is Mongan et al., J. Chem. Theory Comput. 3,
156, 2007, and Nguyen et al., ibid. 9, 2020, 2013 (GBn2).

An atom that is inside another one (r < w - o): OpenMM's GBSAOBCForce adds 1/o - 1/L to H then,
the CustomGBForce that its `implicit/*.xml` make does not. dH/dL and dH/dU vanish at L = |r - w| and
U = r + w except there, so that dH/dr = its explicit part + 1/L^2 inside without the addition.
nm, kJ/mol, e.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mlff_cli.physics.forcefield.sums import SumPerAtom

PROBE = 0.14  # nm
NECK_REACH = 0.68  # nm


@dataclass(frozen=True)
class Neck:
    """The neck integral's parameters.

    Attributes:
        scale: n.
        m: (N, N) nm^-1, row i of the atom whose integral it is.
        d: (N, N) nm.
    """

    scale: float
    m: np.ndarray
    d: np.ndarray


@dataclass(frozen=True)
class BornParameters:
    """A generalized Born model.

    Attributes:
        charges: (N,) e.
        offset_radii: (N,) o, nm.
        scaled_radii: (N,) w, nm.
        radii: (N,) rho, nm.
        polynomial: (3, N) alpha, beta, gamma; None: HCT.
        tau: kJ/mol nm/e^2.
        surface: a, kJ/mol/nm^2; 0: no surface term.
        whole_inside: whether H has its addition inside another atom.
        neck: None: none.
    """

    charges: np.ndarray
    offset_radii: np.ndarray
    scaled_radii: np.ndarray
    radii: np.ndarray
    polynomial: np.ndarray | None
    tau: float
    surface: float
    whole_inside: bool
    neck: Neck | None = None


class GeneralizedBorn(nn.Module):
    """The solvation of a molecule.

    Args:
        parameters: of the model.
        pairs: (P, 2) all pairs i < j.
    """

    def __init__(self, parameters: BornParameters, pairs: np.ndarray) -> None:
        super().__init__()
        p, (i, j) = parameters, pairs.T
        into, of = np.concatenate([i, j]), np.concatenate([j, i])  # [2P]: I of `into` feels `of`
        charges, rho = p.charges, p.radii
        self._whole_inside, self._hct, self._neck = p.whole_inside, p.polynomial is None, p.neck
        self.i, self.j, self.into = (nn.Buffer(torch.as_tensor(v)) for v in (i, j, into))
        self.per_atom = SumPerAtom(len(charges), into)
        self.o, self.w = _column(p.offset_radii[into]), _column(p.scaled_radii[of])
        self.atom_o, self.rho = _column(p.offset_radii), _column(rho)
        curve = np.zeros((3, len(rho))) if p.polynomial is None else p.polynomial
        self.curve = nn.Buffer(torch.as_tensor(curve)[..., None])
        self.self_energy = _column(-0.5 * p.tau * charges**2)
        self.surface = _column(p.surface * (rho + PROBE) ** 2 * rho**6)
        self.pair_charge = _column(-p.tau * charges[i] * charges[j])
        if p.neck is not None:
            self.neck_m = _column(p.neck.scale * p.neck.m[into, of])
            self.neck_d = _column(p.neck.d[into, of])
            self.neck_reach = _column(rho[into] + rho[of] + NECK_REACH)

    def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """U (B,) and dU/ds (P, B) of s (P, B)."""
        r = s.sqrt()
        integral, slope = self._integral(torch.cat([r, r]))  # H, dH/dr [2P, B]
        radius, steepness = self._born_radius(self.per_atom(integral))  # B, dB/dI [N, B]

        radius_i, radius_j = radius[self.i], radius[self.j]  # [P, B]
        product = radius_i * radius_j
        reduced = 0.25 * s / product
        fall = torch.exp(-reduced)
        inverse = torch.rsqrt(s + product * fall)  # 1/f
        pair = self.pair_charge * inverse
        pull = -0.5 * pair * inverse * inverse  # dU/d(f^2)
        by_product = pull * fall * (1 + reduced)  # dU/d(B_i B_j)

        power = radius.square().pow(-3)
        own, surface = self.self_energy / radius, self.surface * power
        by_radius = -(own + 6 * surface) / radius  # dU/dB [N, B]
        both = torch.cat([by_product * radius_j, by_product * radius_i])
        by_integral = (by_radius + self.per_atom(both)) * steepness
        through = (by_integral[self.into] * slope).unflatten(0, (2, -1)).sum(0)  # dU/dr through B
        by_s = pull * (1 - 0.25 * fall) + 0.5 * through / r
        return pair.sum(0) + (own + surface).sum(0), by_s

    def _integral(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """H + N and its derivative, of r [2P, B]."""
        o, w = self.o, self.w
        near = (r - w).abs()
        low = torch.maximum(o, near)  # L
        inverse_r, inverse_low, inverse_high = 1 / r, 1 / low, 1 / (r + w)
        log = 0.5 * torch.log(low * inverse_high) * inverse_r
        squares = 0.25 * (inverse_high.square() - inverse_low.square())
        shrunk = w * w * inverse_r
        value = inverse_low - inverse_high + (r - shrunk) * squares + log
        slope = (1 + shrunk * inverse_r) * squares - log * inverse_r
        inside = w - r > o
        if self._whole_inside:
            value = value + torch.where(inside, 2 * (1 / o - inverse_low), 0.0)
        else:
            slope = slope + torch.where(inside, 2 * inverse_low.square(), 0.0)
        half = 0.5 * (r + w > o).to(r.dtype)
        value, slope = half * value, half * slope
        if self._neck is None:
            return value, slope
        t = r - self.neck_d
        t2 = t * t
        bottom = 1 / (1 + t2 * (100 + 0.3e6 * t2 * t2))
        neck = torch.where(r < self.neck_reach, self.neck_m * bottom, 0.0)
        return value + neck, slope - neck * bottom * t * (200 + 1.8e6 * t2 * t2)

    def _born_radius(self, integral: Tensor) -> tuple[Tensor, Tensor]:
        """B and dB/dI, of I [N, B]."""
        if self._hct:
            radius = 1 / (1 / self.atom_o - integral)
            return radius, radius.square()
        alpha, beta, gamma = self.curve
        psi = self.atom_o * integral
        bent = torch.tanh(psi * (alpha - psi * (beta - psi * gamma)))
        radius = 1 / (1 / self.atom_o - bent / self.rho)
        rise = (alpha - psi * (2 * beta - 3 * psi * gamma)) * (1 - bent.square())
        return radius, radius.square() * rise * self.atom_o / self.rho


def _column(values: np.ndarray) -> nn.Buffer:
    """Parameters beside a batch: (n, 1)."""
    return nn.Buffer(torch.as_tensor(values, dtype=torch.float64)[:, None])
