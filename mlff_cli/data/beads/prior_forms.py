"""Parameters of the functional forms that a prior may use; kcal/mol, angstrom, radian.

harmonic         U(r)     = 1/2 k (r - r0)^2
fourier          U(theta) = sum_n a_n cos(n theta) + b_n sin(n theta)            n = 1, 2, ...
cosine           U(phi)   = sum_n k_n (1 + cos(n phi - gamma_n))                 n = 1, 2, ...
spline           cubic, natural or with given slopes at its ends; straight lines beyond them
periodic_spline  cubic, of period 2 pi
soft_sphere      U(r)     = eps (sigma/r)^4 S(r)
                 S(r)     = 1 - x^3 (10 - 15 x + 6 x^2),  x = (r - onset)/(cutoff - onset) in [0, 1]
                 below `core` the straight line that continues U, so that U(0) is finite

and a wall, added where the data end:

                 1/2 k (low - q)^2 below `low`,  1/2 k (q - high)^2 above `high`

`physics.bonded` and `physics.splines` compute them. No torch here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
CORE = 0.5  # of sigma: U = 16 eps there, 80 eps where two beads coincide
REACH = 2.5  # of sigma: cutoff where nothing else is asked for
ONSET = 0.8  # of the cutoff


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


Number = Annotated[float, BeforeValidator(_plain)]
Positive = Annotated[float, BeforeValidator(_plain), Field(gt=0.0)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_plain)]


def _at_least(n: int) -> AfterValidator:
    def check(values: tuple[float, ...]) -> tuple[float, ...]:
        if len(values) < n:
            raise ValueError(f"{n} or more numbers are needed, found {len(values)}")
        return values

    return AfterValidator(check)


@dataclass(frozen=True, config=STRICT)
class Harmonic:
    """A spring.

    Attributes:
        k: kcal/mol/angstrom^2.
        r0: angstrom.
    """

    k: Positive
    r0: Positive
    form: Literal["harmonic"] = "harmonic"


@dataclass(frozen=True, config=STRICT)
class Fourier:
    """A Fourier series of an angle; its constant is left out.

    Attributes:
        a: (N,) a_1 ... a_N in kcal/mol.
        b: (N,) b_1 ... b_N in kcal/mol.
    """

    a: Annotated[Numbers, _at_least(1)]
    b: Annotated[Numbers, _at_least(1)]
    form: Literal["fourier"] = "fourier"

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        _equal(a=self.a, b=self.b)
        return self


@dataclass(frozen=True, config=STRICT)
class Cosine:
    """A periodic torsion.

    Attributes:
        k: (N,) k_1 ... k_N in kcal/mol.
        gamma: (N,) phases in radian.
    """

    k: Annotated[Numbers, _at_least(1)]
    gamma: Annotated[Numbers, _at_least(1)]
    form: Literal["cosine"] = "cosine"

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        _equal(k=self.k, gamma=self.gamma)
        return self


@dataclass(frozen=True, config=STRICT)
class Spline:
    """A cubic spline through evenly spaced knots, both ends included.

    Attributes:
        low: first knot, angstrom or radian.
        high: last knot.
        values: (K,) energies at the knots, kcal/mol.
        slopes: first derivative at both ends; None is the natural spline (second derivative zero).
    """

    low: Number
    high: Number
    values: Annotated[Numbers, _at_least(3)]
    slopes: tuple[Number, Number] | None = None
    form: Literal["spline"] = "spline"

    @model_validator(mode="after")
    def _order(self) -> Self:
        _ascending(low=self.low, high=self.high)
        return self

    @property
    def knots(self) -> np.ndarray:
        """(K,) where the values belong."""
        return np.linspace(self.low, self.high, len(self.values))


@dataclass(frozen=True, config=STRICT)
class PeriodicSpline:
    """A cubic spline of period 2 pi through evenly spaced knots.

    Attributes:
        values: (K,) energies in kcal/mol at -pi + 2 pi i/K for i = 0 ... K - 1; the value at pi is
            the first one and is not repeated.
    """

    values: Annotated[Numbers, _at_least(3)]
    form: Literal["periodic_spline"] = "periodic_spline"

    @property
    def knots(self) -> np.ndarray:
        """(K,) where the values belong, radian."""
        return np.linspace(-np.pi, np.pi, len(self.values), endpoint=False)


@dataclass(frozen=True, config=STRICT)
class SoftSphere:
    """A repulsion of finite reach and finite height.

    Attributes:
        epsilon: kcal/mol.
        sigma: angstrom.
        core: below it the energy rises in a straight line, angstrom.
        onset: from here on the energy is taken to zero, angstrom.
        cutoff: zero from here on, angstrom.
    """

    epsilon: Positive
    sigma: Positive
    core: Positive
    onset: Positive
    cutoff: Positive
    form: Literal["soft_sphere"] = "soft_sphere"

    @model_validator(mode="after")
    def _order(self) -> Self:
        _ascending(core=self.core, onset=self.onset, cutoff=self.cutoff)
        return self

    @classmethod
    def of(cls, epsilon: float, sigma: float, cutoff: float | None = None) -> SoftSphere:
        """With the usual core, onset and cutoff."""
        reach = REACH * sigma if cutoff is None else cutoff
        return cls(epsilon, sigma, CORE * sigma, ONSET * reach, reach)


@dataclass(frozen=True, config=STRICT)
class Wall:
    """Half a spring on either side of the sampled range.

    Attributes:
        k: kcal/mol/angstrom^2 or kcal/mol/radian^2.
        low: where the lower one begins, None without one.
        high: where the upper one begins, None without one.
    """

    k: Positive
    low: Number | None = None
    high: Number | None = None

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("a wall needs `low`, `high` or both")
        if self.low is not None and self.high is not None:
            _ascending(low=self.low, high=self.high)
        return self


Form = Annotated[
    Harmonic | Fourier | Cosine | Spline | PeriodicSpline | SoftSphere, Field(discriminator="form")
]


def _equal(**values: tuple[float, ...]) -> None:
    if len({len(v) for v in values.values()}) > 1:
        found = ", ".join(f"{len(v)} of {name}" for name, v in values.items())
        raise ValueError(f"{' and '.join(values)} need the same number of values, found {found}")


def _ascending(**values: float) -> None:
    if sorted(values.values()) != list(values.values()) or len({*values.values()}) < len(values):
        found = ", ".join(f"{name} {v:g}" for name, v in values.items())
        raise ValueError(f"{' < '.join(values)} is needed, found {found}")
