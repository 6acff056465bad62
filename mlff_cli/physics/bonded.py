"""Internal coordinates of beads and the functional forms of priors, with gradients everywhere.

distance    r     = |b - a|
angle       theta = atan2(|u x v|, u.v)                      u, v: unit vectors from b to a and c
dihedral    phi   = atan2(u1.(u2 x u3), (u1 x u2).(u2 x u3))  u1, u2, u3: unit bonds a-b, b-c, c-d

harmonic    U(r)     = 1/2 k (r - r0)^2
fourier     U(theta) = sum_n a_n cos(n theta) + b_n sin(n theta)
cosine      U(phi)   = sum_n k_n (1 + cos(n phi - gamma_n))
soft_sphere U(r)     = eps (sigma/max(r, core))^4 (1 + 4 max(0, 1 - r/core)) S((cutoff - r)/(cutoff - onset))
wall        U(q)     = 1/2 k (max(0, low - q)^2 + max(0, q - high)^2)
fade        S(sin theta/d)
S(x)        = x^3 (10 - 15 x + 6 x^2) for 0 < x < 1, 0 below and 1 above: two derivatives vanish

A soft sphere is the power law between core and onset, its tangent below core, zero beyond cutoff.

Where a direction does not exist the gradient is zero, not NaN: distances below 1e-6 angstrom count
as 0, sines below 1e-6 as collinear. An angle with a bead on its vertex is pi/2. A dihedral of which
three beads are collinear is 0; its force grows as 1/sin(theta) on the way there, which `fade` takes
to zero with the energy.
"""  # noqa: E501 -- one formula, one line

from __future__ import annotations

import torch
from torch import Tensor

NEAREST = 1e-6  # angstrom; also the sine of an angle
SAFE = ((0.0, 0.0, 0.0), (3.8, 0.0, 0.0), (3.8, 3.8, 0.0), (3.8, 3.8, 3.8))  # angstrom


def norm(v: Tensor, nearest: float = NEAREST) -> Tensor:
    """Length of vectors (..., 3); 0 with zero gradient where it is below `nearest`."""
    square = v.square().sum(-1)
    nonzero = square > nearest * nearest  # TorchScript sees defaults, not constants of a module
    return torch.where(nonzero, square, 1.0).sqrt() * nonzero


def unit(v: Tensor) -> Tensor:
    """Direction of vectors (..., 3); the zero vector where they have none."""
    r = norm(v)
    return v / torch.where(r > 0.0, r, 1.0)[..., None] * (r > 0.0)[..., None]


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Distances (...) of points (..., 3)."""
    return norm(b - a)


def angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Angles (...) at b in radian, 0 to pi."""
    u, v = unit(a - b), unit(c - b)  # [..., 3]
    sine, cosine = norm(torch.linalg.cross(u, v)), (u * v).sum(-1)
    apart = (sine > 0.0) | (cosine != 0.0)
    return torch.atan2(torch.where(apart, sine, 1.0), torch.where(apart, cosine, 0.0))


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dihedrals of four points (..., 3), signed as IUPAC does.

    Returns:
        phi (...) in radian, -pi to pi; the sines (...) of the angles at b and c, 0 where collinear.
    """
    u1, u2, u3 = unit(b - a), unit(c - b), unit(d - c)
    n1, n2 = torch.linalg.cross(u1, u2), torch.linalg.cross(u2, u3)
    sine_b, sine_c = norm(n1), norm(n2)
    defined = (sine_b > 0.0) & (sine_c > 0.0)
    y = torch.where(defined, (u1 * n2).sum(-1), 0.0)
    x = torch.where(defined, (n1 * n2).sum(-1), 1.0)
    return torch.atan2(y, x), sine_b, sine_c


def smoothstep(x: Tensor) -> Tensor:
    """S(x)."""
    x = x.clamp(0.0, 1.0)
    return x * x * x * (10.0 - x * (15.0 - 6.0 * x))


def fade(sine: Tensor, d: float) -> Tensor:
    """Factor of a dihedral's energy for one of its angles: 1 from d on, 0 where collinear.

    Args:
        sine: of the angle, any shape.
        d: where the fading begins; 0: only what is collinear is left out.
    """
    return smoothstep(sine / d) if d > 0.0 else (sine > 0.0).to(sine.dtype)


def harmonic(r: Tensor, k: Tensor, r0: Tensor) -> Tensor:
    """A spring: r and r0 in angstrom, k in kcal/mol/angstrom^2."""
    return 0.5 * k * (r - r0).square()


def fourier(theta: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A Fourier series (...): theta (...) in radian, a and b (..., N) in kcal/mol."""
    n_theta = theta[..., None] * _orders(a)  # [..., n]
    return (a * torch.cos(n_theta) + b * torch.sin(n_theta)).sum(-1)


def cosine(phi: Tensor, k: Tensor, gamma: Tensor) -> Tensor:
    """A periodic torsion (...): phi (...) and gamma (..., N) in radian, k (..., N) in kcal/mol."""
    return (k * (1.0 + torch.cos(phi[..., None] * _orders(k) - gamma))).sum(-1)


def soft_sphere(
    r: Tensor, epsilon: Tensor, sigma: Tensor, core: Tensor, onset: Tensor, cutoff: Tensor
) -> Tensor:
    """A repulsion of finite reach and height: epsilon in kcal/mol, lengths in angstrom."""
    power = (sigma / torch.clamp(r, min=core)).square().square()
    tangent = 1.0 + 4.0 * torch.relu(1.0 - r / core)
    return epsilon * power * tangent * smoothstep((cutoff - r) / (cutoff - onset))


def wall(q: Tensor, k: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Springs outside [low, high]; k in kcal/mol over the square of q's unit, ends may be inf."""
    return 0.5 * k * (torch.relu(low - q).square() + torch.relu(q - high).square())


def _orders(coefficients: Tensor) -> Tensor:
    """1, 2, ... N."""
    return torch.arange(
        1, coefficients.shape[-1] + 1, dtype=coefficients.dtype, device=coefficients.device
    )
