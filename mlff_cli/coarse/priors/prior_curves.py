"""Energies of a prior's entries on a grid, and the densities they stand for.

    U(q) of `data.beads.prior_forms`, wall included;     p(q) = J(q) exp(-U(q) / kT) / Z

The same energies as `physics.bonded`, in numpy, so that fits and figures need no torch.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from mlff_cli.coarse.priors.distributions import TermKind
from mlff_cli.data.beads.prior_forms import (
    Cosine,
    Form,
    Fourier,
    Harmonic,
    PeriodicSpline,
    SoftSphere,
    Spline,
    Wall,
)


def energy(form: Form, q: np.ndarray, wall: Wall | None = None) -> np.ndarray:
    """U (B,) in kcal/mol at q (B,) in angstrom or radian, wall included."""
    u = _energy(form, np.asarray(q, dtype=np.float64))
    if wall is not None:
        if wall.low is not None:
            u = u + 0.5 * wall.k * np.clip(wall.low - q, 0.0, None) ** 2
        if wall.high is not None:
            u = u + 0.5 * wall.k * np.clip(q - wall.high, 0.0, None) ** 2
    return u


def boltzmann(
    kind: TermKind, form: Form, kt: float, edges: np.ndarray, wall: Wall | None = None
) -> np.ndarray:
    """Shares p (m,) of bins with these edges (m + 1,), which sum to 1; U at the middles."""
    measure = np.diff(kind.moment(edges))
    u = energy(form, 0.5 * (edges[1:] + edges[:-1]), wall)
    p = measure * np.exp(-(u - u.min()) / kt)
    shares: np.ndarray = p / p.sum()
    return shares


def _energy(form: Form, q: np.ndarray) -> np.ndarray:
    u: np.ndarray
    if isinstance(form, Harmonic):
        u = 0.5 * form.k * (q - form.r0) ** 2
    elif isinstance(form, Fourier):
        n = np.arange(1, len(form.a) + 1)[:, None]
        u = np.asarray(form.a) @ np.cos(n * q) + np.asarray(form.b) @ np.sin(n * q)
    elif isinstance(form, Cosine):
        n = np.arange(1, len(form.k) + 1)[:, None]
        u = np.asarray(form.k) @ (1.0 + np.cos(n * q - np.asarray(form.gamma)[:, None]))
    elif isinstance(form, PeriodicSpline):
        knots = np.append(form.knots, np.pi)
        u = CubicSpline(knots, [*form.values, form.values[0]], bc_type="periodic")(q)
    elif isinstance(form, Spline):
        u = _spline(form, q)
    else:
        u = _soft_sphere(form, q)
    return u


def _spline(form: Spline, q: np.ndarray) -> np.ndarray:
    ends = "natural" if form.slopes is None else tuple((1, s) for s in form.slopes)
    curve = CubicSpline(form.knots, form.values, bc_type=ends)
    inside = np.clip(q, form.low, form.high)
    u: np.ndarray = curve(inside) + curve(inside, 1) * (q - inside)
    return u


def _soft_sphere(form: SoftSphere, q: np.ndarray) -> np.ndarray:
    r = np.maximum(q, form.core)
    x = np.clip((r - form.onset) / (form.cutoff - form.onset), 0.0, 1.0)
    switch = 1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x**2)
    u: np.ndarray = form.epsilon * (form.sigma / r) ** 4 * switch
    if form.core < form.onset:  # there the slope is that of the bare power
        slope = -4.0 * form.epsilon * (form.sigma / form.core) ** 4 / form.core
        u = u + slope * np.minimum(q - form.core, 0.0)
    return u
