"""The prior as functions of collective variables, for LAMMPS' `fix colvars`.

    U = sum_i f_i(q_i),   f(phi, theta_1, theta_2) = U(phi) S(sin theta_1/d) S(sin theta_2/d)

What a bonded style cannot do, fade a dihedral by the angles beside it, a function of three
variables can. Colvars reads every expression once; LAMMPS' own lepton styles read theirs anew at
every step. Angles of Colvars are in degrees. Each variable is pulled with force 1 by a `linear`
bias, so that its value is the energy.
"""

from __future__ import annotations

import math

import numpy as np

from mlff_cli.deploy.lammps.lepton import VARIABLE, number, smoothstep
from mlff_cli.deploy.lammps.native_prior import NativePrior, NativeTerms

BIAS = "prior"
_RADIAN = number(math.pi / 180.0)  # per degree
_HEAD = ["colvarsTrajFrequency 0", "colvarsRestartFrequency 0"]


def colvars_file(prior: NativePrior) -> str:
    """The file's text; every term is a variable."""
    blocks: list[str] = []
    names: list[str] = []
    for terms in (prior.bond, prior.angle, prior.dihedral):
        expressions = [_expression(terms, row, prior) for row in range(len(terms.types))]
        for beads, row in zip(terms.beads, terms.rows.tolist(), strict=True):
            names.append("_".join(["q", *(str(i + 1) for i in beads)]))
            blocks.append(_variable(names[-1], expressions[row], _parts(beads, prior)))
    bias = [
        "linear {",
        f"  name {BIAS}",
        f"  colvars {' '.join(names)}",
        f"  centers {' '.join(['0'] * len(names))}",
        "  forceConstant 1.0",
        "}",
    ]
    return "\n".join([*_HEAD, *blocks, *(bias if names else [])]) + "\n"


def _expression(terms: NativeTerms, row: int, prior: NativePrior) -> str:
    """Energy by what Colvars calls the parts of a variable."""
    width = terms.beads.shape[1]
    energy, *definitions = terms.types[row].expression.split(";")
    if width == 4 and prior.fades:
        energy = f"({energy})*{smoothstep('f1')}*{smoothstep('f2')}"
        definitions += [
            f"f{k}=min(1,sin(angle{k}*{_RADIAN})/{number(prior.damping)})" for k in (1, 2)
        ]
    if width > 2:
        definitions.append(f"{VARIABLE[width]}=degrees*{_RADIAN}")
    return ";".join([energy, *definitions])


def _parts(beads: np.ndarray, prior: NativePrior) -> list[str]:
    i = beads.tolist()
    if len(i) == 2:
        return _component("distance", VARIABLE[2], i)
    if len(i) == 3:
        return _component("angle", "degrees", i)
    parts = _component("dihedral", "degrees", i)
    if prior.fades:
        parts += _component("angle", "angle1", i[:3]) + _component("angle", "angle2", i[1:])
    return parts


def _component(kind: str, name: str, beads: list[int]) -> list[str]:
    groups = [f"    group{k} {{ atomNumbers {i + 1} }}" for k, i in enumerate(beads, 1)]
    return [f"  {kind} {{", f"    name {name}", *groups, "  }"]


def _variable(name: str, expression: str, parts: list[str]) -> str:
    return "\n".join(["colvar {", f"  name {name}", f"  customFunction {expression}", *parts, "}"])
