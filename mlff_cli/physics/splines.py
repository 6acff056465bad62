"""Cubic splines through evenly spaced knots, linear in the values at the knots.

    U(x) = A y_i + B y_(i+1) + ((A^3 - A) m_i + (B^3 - B) m_(i+1))/6,   B = (x - x_i)/h,  A = 1 - B
    m_i  = h^2 U''(x_i):   m_(i-1) + 4 m_i + m_(i+1) = 6 (y_(i-1) - 2 y_i + y_(i+1))

and at the ends m = 0 (natural), given slopes (clamped), or the knots beyond (periodic). The system
depends on the number of knots only: m = P y with a constant P, so that gradients by the values at
the knots cost one product. Outside its knots a spline that is not periodic continues as a straight
line; the natural one keeps two continuous derivatives there.

Source: W. H. Press et al., Numerical Recipes, section 3.3.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Ends = Literal["natural", "clamped", "periodic"]


def curvature_matrix(n_knots: int, ends: Ends) -> Tensor:
    """P of m = P y, float64.

    Args:
        n_knots: K, 3 or more.
        ends: what holds there.

    Returns:
        (K, K); for clamped ends (K, K + 2), where y is followed by h times the slope at either end.
    """
    ones, eye = torch.ones(n_knots - 1, dtype=torch.float64), torch.eye(n_knots).double()
    beside = torch.diag(ones, 1) + torch.diag(ones, -1)
    if ends == "periodic":
        beside[0, -1] += 1.0
        beside[-1, 0] += 1.0
    left, right = beside + 4.0 * eye, 6.0 * (beside - 2.0 * eye)
    if ends == "natural":
        for end in (0, -1):
            left[end], right[end] = eye[end], 0.0
    elif ends == "clamped":
        # 2 m_0 + m_1 = 6 (y_1 - y_0 - h s_0), and mirrored at the other end
        left[0, 0] = left[-1, -1] = 2.0
        right[0, 0] = right[-1, -1] = -6.0
        slopes = torch.zeros(n_knots, 2, dtype=torch.float64)
        slopes[0, 0], slopes[-1, 1] = -6.0, 6.0
        right = torch.cat([right, slopes], 1)
    p: Tensor = torch.linalg.solve(left, right)
    return p


def cubic_spline(
    x: Tensor, rows: Tensor, low: Tensor, high: Tensor, values: Tensor, m: Tensor
) -> Tensor:
    """Values of splines with two ends.

    Args:
        x: (..., t) arguments.
        rows: (t,) which spline.
        low: (E,) first knots.
        high: (E,) last knots.
        values: (E, K) at the knots.
        m: (E, K) h^2 times the second derivatives there.

    Returns:
        (..., t).
    """
    intervals = values.shape[1] - 1
    start, end = low[rows], high[rows]  # [t]
    h = (end - start) / intervals
    position = ((x - start) / h).clamp(0.0, intervals)  # [..., t]
    i = position.detach().floor().clamp(max=intervals - 1)
    inside = _piece(position - i, i.long(), i.long() + 1, rows, values, m)
    first = (values[:, 1] - values[:, 0] - (2.0 * m[:, 0] + m[:, 1]) / 6.0)[rows] / h
    last = (values[:, -1] - values[:, -2] + (m[:, -2] + 2.0 * m[:, -1]) / 6.0)[rows] / h
    return inside - first * torch.relu(start - x) + last * torch.relu(x - end)


def periodic_spline(phi: Tensor, rows: Tensor, values: Tensor, m: Tensor) -> Tensor:
    """Values (..., t) of splines of period 2 pi, the first knot at -pi.

    Args:
        phi: (..., t) arguments in radian.
        rows: (t,) which spline.
        values: (E, K) at the knots.
        m: (E, K) h^2 times the second derivatives there.
    """
    n_knots = values.shape[1]
    position = (phi + math.pi) * (n_knots / (2.0 * math.pi))
    i = position.detach().floor()
    k = i.long() % n_knots
    return _piece(position - i, k, (k + 1) % n_knots, rows, values, m)


def _piece(b: Tensor, i: Tensor, j: Tensor, rows: Tensor, values: Tensor, m: Tensor) -> Tensor:
    """The cubic between knots i and j, b of the way."""
    y, m = values.flatten(), m.flatten()
    start = rows * values.shape[1]
    a, i, j = 1.0 - b, i + start, j + start
    bend = (a * a - 1.0) * a * m[i] + (b * b - 1.0) * b * m[j]
    return a * y[i] + b * y[j] + bend / 6.0
