"""Energies of a prior's terms as expressions of Lepton, LAMMPS' own parser, which derives them.

    harmonic     w/2 k (r - r0)^2
    fourier      w sum_n (a_n cos(n theta) + b_n sin(n theta))
    cosine       w sum_n k_n (1 + cos(n phi - gamma_n))
    soft_sphere  w eps (sigma/max(r, core))^4 (1 + 4 max(0, 1 - r/core)) S((cutoff - r)/(cutoff - onset))
    spline       w [y_0 + s_0 min(0, x - x_0) + s_K max(0, x - x_K) + sum_i b_i (c_i + b_i (d_i + b_i e_i))]
                 b_i = min(1, max(0, (x - x_i)/h)),   c_i = y_(i+1) - y_i - (2 m_i + m_(i+1))/6,
                 d_i = m_i/2,   e_i = (m_(i+1) - m_i)/6,   m = h^2 U''
    wall         w/2 k (max(0, low - q)^2 + max(0, q - high)^2)
    S(x)         x^3 (10 - 15 x + 6 x^2) of x = min(1, max(0, x))

The forms and symbols are those of `physics.bonded` and `physics.splines`. A spline is the sum of
what its intervals add to it: only one of them has a slope where x is, and nothing cancels. Numbers
are written in full. Distances in angstrom, angles in radian, energies in kcal/mol.
"""  # noqa: E501 -- one formula, one line

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

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
from mlff_cli.physics.splines import Ends, curvature_matrix

VARIABLE = MappingProxyType({2: "r", 3: "theta", 4: "phi"})  # by the beads of a term


def expression(form: Form, wall: Wall | None, weight: float, n_beads: int) -> str:
    """Energy of one term in kcal/mol.

    Args:
        form: functional form and its parameters.
        wall: added to it.
        weight: factor of the whole.
        n_beads: 2, 3 or 4: the variable is r in angstrom, theta or phi in radian.

    Returns:
        What Lepton reads, without blanks; what follows a semicolon defines a part of it.
    """
    q = VARIABLE[n_beads]
    energy, definitions = _FORMS[form.form](form, q)
    if wall is not None:
        energy = f"{energy}+{_wall(wall, q)}"
    if weight != 1.0:
        energy = f"{number(weight)}*({energy})"
    return ";".join([energy, *definitions])


def number(value: float) -> str:
    """A number in full, in brackets below zero."""
    text = repr(float(value))
    return f"({text})" if value < 0 else text


def smoothstep(x: str) -> str:
    """S(x) of a name x that is already between 0 and 1."""
    return f"{x}^3*(10-{x}*(15-6*{x}))"


def _harmonic(form: Harmonic, q: str) -> tuple[str, list[str]]:
    return f"{number(0.5 * form.k)}*({q}-{number(form.r0)})^2", []


def _fourier(form: Fourier, q: str) -> tuple[str, list[str]]:
    terms = [
        f"{number(c)}*{f}({n}*{q})"
        for n, pair in enumerate(zip(form.a, form.b, strict=True), 1)
        for f, c in zip(("cos", "sin"), pair, strict=True)
    ]
    return "+".join(terms), []


def _cosine(form: Cosine, q: str) -> tuple[str, list[str]]:
    terms = [
        f"{number(k)}*(1+cos({n}*{q}-{number(gamma)}))"
        for n, (k, gamma) in enumerate(zip(form.k, form.gamma, strict=True), 1)
    ]
    return "+".join(terms), []


def _soft_sphere(form: SoftSphere, q: str) -> tuple[str, list[str]]:
    reach = form.cutoff - form.onset
    energy = (
        f"{number(form.epsilon)}*({number(form.sigma)}/max({q},{number(form.core)}))^4"
        f"*(1+4*max(0,1-{q}/{number(form.core)}))*{smoothstep('x')}"
    )
    return energy, [f"x=min(1,max(0,({number(form.cutoff)}-{q})/{number(reach)}))"]


def _spline(form: Spline, q: str) -> tuple[str, list[str]]:
    y = np.asarray(form.values)
    h = (form.high - form.low) / (len(y) - 1)
    if form.slopes is None:
        m = _bends(len(y), "natural", y)
    else:
        m = _bends(len(y), "clamped", np.concatenate([y, h * np.asarray(form.slopes)]))
    first = (y[1] - y[0] - (2.0 * m[0] + m[1]) / 6.0) / h
    last = (y[-1] - y[-2] + (m[-2] + 2.0 * m[-1]) / 6.0) / h
    lines = (
        f"{number(first)}*min(0,{q}-{number(form.low)})"
        f"+{number(last)}*max(0,{q}-{number(form.high)})"
    )
    energy, definitions = _intervals(y, m, f"({q}-{number(form.low)})/{number(h)}")
    return f"{energy}+{lines}", definitions


def _periodic_spline(form: PeriodicSpline, q: str) -> tuple[str, list[str]]:
    y = np.asarray(form.values)
    m = _bends(len(y), "periodic", y)
    y, m = np.append(y, y[0]), np.append(m, m[0])
    pi, h = number(math.pi), number(2.0 * math.pi / (len(y) - 1))
    # LAMMPS counts phi from 0 to 2 pi, the knots from -pi
    return _intervals(y, m, f"({q}-2*{pi}*step({q}-{pi})+{pi})/{h}")


def _bends(n_knots: int, ends: Ends, known: np.ndarray) -> np.ndarray:
    """Second derivatives m (K,) from what determines them."""
    m: np.ndarray = curvature_matrix(n_knots, ends).numpy() @ known
    return m


def _intervals(y: np.ndarray, m: np.ndarray, position: str) -> tuple[str, list[str]]:
    """Sum over the intervals between knots y (K,), and what it is made of."""
    c = np.diff(y) - (2.0 * m[:-1] + m[1:]) / 6.0
    d, e = 0.5 * m[:-1], np.diff(m) / 6.0
    parts = [
        f"b{i}*({number(c[i])}+b{i}*({number(d[i])}+b{i}*{number(e[i])}))" for i in range(len(c))
    ]
    definitions = [f"b{i}=min(1,max(0,s-{i}))" for i in range(len(c))]
    return "+".join([number(y[0]), *parts]), [*definitions, f"s={position}"]


def _wall(wall: Wall, q: str) -> str:
    half = number(0.5 * wall.k)
    ends = []
    if wall.low is not None:
        ends.append(f"{half}*max(0,{number(wall.low)}-{q})^2")
    if wall.high is not None:
        ends.append(f"{half}*max(0,{q}-{number(wall.high)})^2")
    return "+".join(ends)


_FORMS: Mapping[str, Callable[[Any, str], tuple[str, list[str]]]] = MappingProxyType(
    {
        "harmonic": _harmonic,
        "fourier": _fourier,
        "cosine": _cosine,
        "soft_sphere": _soft_sphere,
        "spline": _spline,
        "periodic_spline": _periodic_spline,
    }
)
