"""Velocities drawn anew in the middle of a run, as the middle scheme would have them.

The scheme (see `physics.langevin`) keeps velocities of half a step before the positions, where they
and the positions are not independent: what it samples of a harmonic system, H its matrix of second
derivatives, is at the positions themselves

    x ~ N(0, kT H^-1),      v ~ N(0, kT M^-1 (1 - h^2 H M^-1 / 4)),      x and v independent

(Leimkuhler and Matthews, J. Chem. Phys. 138, 174102, 2013, of the same scheme as BAOAB). So xi
drawn from N(0, kT M^-1) is first made narrower where the system is stiff, and then goes back half a
step:

    v         = xi - h^2/8 M^-1 H xi + O(h^4)  =  xi + h/2 M^-1 [F(x + h xi / 4) - F(x)]
    v_{-1/2}  = v - h/2 M^-1 F(x)              =  xi + h/2 M^-1 F(x + h xi / 4) - h M^-1 F(x)

Drawn without a thought for that, velocities get a whole kick that belongs to others: with steps of
1 fs the potential energy of alanine dipeptide swings by 3 kJ/mol for 0.1 ps after every draw.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)

AHEAD = 0.25  # of a step: where the second force is asked for


def half_a_step_behind(drawn: Array, ahead: Array, here: Array, kick: Array) -> Array:
    """Velocities for the scheme of what was drawn for the temperature.

    Args:
        drawn: xi, (..., N, 3) in length/time.
        ahead: forces (..., N, 3) at x + AHEAD h xi.
        here: forces (..., N, 3) at x.
        kick: h/m in the units of forces and velocities, (N, 1).
    """
    behind: Array = drawn + kick * (0.5 * ahead - here)
    return behind
