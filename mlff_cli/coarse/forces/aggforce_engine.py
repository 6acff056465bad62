"""The force map of the `aggforce` package, where a user has installed it.

Its map depends on the forces only through their second moments, summed over constrained groups:

    minimise  w^T (XC)^T (XC) w + l2' w^T C^T C w,     l2' = 3 T l2

so it is not given the forces but a factor S of our Gram matrix, S^T S = (XC)^T (XC), as if it were
a trajectory of n_groups / 3 frames. The problem is the same, and memory does not grow with frames.

aggforce (Kraemer, Durumeric, Charron, Chen, Clementi, Noe, J. Phys. Chem. Lett. 2023, 14, 3970) is
not on the package index; it is called through what its `__init__` exports.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from mlff_cli.core.errors import MissingDependencyError, NumericalError

INSTALL = "pip install git+https://github.com/noegroup/aggforce"
CONSISTENT = 1e-6  # largest |W M^T - 1| of a map that its solver is believed to have found
_METHODS = {"optimal": "qp_linear_map", "basic": "constraint_aware_uni_map"}


def require_aggforce() -> Any:
    """The package.

    Raises:
        MissingDependencyError: it is absent, or older than the interface used here.
    """
    try:
        package = importlib.import_module("aggforce")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"--engine aggforce needs the package {error.name!r}, which is not installed",
            remedy=INSTALL,
        ) from error
    names = ("LinearMap", "project_forces", *_METHODS.values())
    absent = [name for name in names if not hasattr(package, name)]
    if absent:
        raise MissingDependencyError(
            f"the installed aggforce has no {', '.join(absent)}: it is too old",
            remedy=f"{INSTALL} --upgrade",
        )
    return package


def aggforce_map(
    mapping: np.ndarray,
    groups: np.ndarray,
    moments: np.ndarray,
    n_frames: int,
    *,
    method: str = "optimal",
    l2: float = 0.0,
) -> np.ndarray:
    """A force map as aggforce finds it.

    Args:
        mapping: (n_beads, n_atoms) M.
        groups: (n_atoms,) group of every atom, from 0.
        moments: (n_groups, n_groups) second moments (XC)^T XC / 3T, (kcal/mol/angstrom)^2.
        n_frames: T.
        method: "optimal" or "basic".
        l2: ours, (kcal/mol/angstrom)^2; aggforce is given 3 T l2.

    Returns:
        (n_beads, n_atoms) W.

    Raises:
        MissingDependencyError: aggforce is absent or too old.
        NumericalError: its solver found no map, or one with W M^T other than 1.
    """
    package = require_aggforce()
    forces = _equivalent_forces(groups, moments * (3 * n_frames))
    arguments = {"l2_regularization": 3 * n_frames * l2} if method == "optimal" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its solver, to its own caller
            found = package.project_forces(
                coords=np.zeros_like(forces),
                forces=forces,
                coord_map=package.LinearMap(np.asarray(mapping, dtype=np.float64)),
                constrained_inds=_constraints(groups),
                method=getattr(package, _METHODS[method]),
                **arguments,
            )
        weights = np.asarray(found["tmap"].force_map.standard_matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:  # its QP solver returns None where it gives up
        raise NumericalError(
            f"aggforce found no force map: {error}",
            remedy="use --engine native, or add --l2",
        ) from error
    error_of_map = float(np.abs(weights @ np.asarray(mapping).T - np.eye(len(mapping))).max())
    if method == "optimal" and not error_of_map <= CONSISTENT:
        raise NumericalError(
            f"W M^T must be 1 to {CONSISTENT:g}, aggforce's map is off by {error_of_map:.1e}",
            remedy="use --engine native, or add --l2",
        )
    return weights


def _equivalent_forces(groups: np.ndarray, total: np.ndarray) -> np.ndarray:
    """(ceil(n_groups / 3), n_atoms, 3) forces whose sums over groups have these second moments."""
    values, vectors = np.linalg.eigh(total)
    factor = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T  # S: [row, group]
    n_groups = len(total)
    n = -(-n_groups // 3)
    rows = np.zeros((3 * n, n_groups))
    rows[:n_groups] = factor
    _, first = np.unique(groups, return_index=True)  # a group's force, on its first atom
    forces = np.zeros((n, len(groups), 3))
    forces[:, first, :] = rows.reshape(n, 3, n_groups).transpose(0, 2, 1)
    return forces


def _constraints(groups: np.ndarray) -> set[frozenset[int]]:
    """Pairs of every group's first atom with each of its others."""
    _, first = np.unique(groups, return_index=True)
    anchor = first[groups]
    return {frozenset((int(anchor[i]), i)) for i in range(len(groups)) if anchor[i] != i}
