"""Linear maps of atomic forces to beads: basic, optimal, and for positions with noise.

    F = W f,   W = V C^T,   A = M C,   D = C^T C     f (N,), M (n, N), C (N, g), V (n, g)
    basic      V_Ig = 1 where group g meets bead I, else 0
    optimal    min |V G V^T|_tr + l2 |W|^2  subject to  V A^T = 1:
               V = (A K^-1 A^T)^-1 A K^-1,   K = G + l2 D + A^T diag(alpha) A
    noise      R = M r + sigma eps,   F = W f + (W M^T - 1) kT eps / sigma:
               V = s A (G + l2 D + s A^T A)^-1,   s = (kT / sigma)^2

Equal weights within a rigid group (columns of C) cancel constraint forces, and W M^T = 1 makes F an
unbiased estimate of minus the gradient of the beads' potential of mean force (Ciccotti, Kapral &
Vanden-Eijnden, ChemPhysChem 6, 1809 (2005); Noid et al., J. Chem. Phys. 128, 244114 (2008)). The
optimal map is that of Kramer et al., J. Phys. Chem. Lett. 14, 3970 (2023), in closed form.

Under V A^T = 1 the term A^T diag(alpha) A adds the constant sum alpha to the objective, so that it
moves no minimiser. It is there because forces of an isolated system add up to zero: then G is
singular along the vector of ones, on which A is not. With K~ = S K S = L L^T of unit diagonal and
L^-1 S A^T = Q R, V = R^-1 Q^T L^-1 S: no matrix is inverted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dlange, dpocon, dpotrf

from mlff_cli.coarse.forces.gram import Gram, group_sums, reduce_groups
from mlff_cli.core.errors import DataError, NumericalError, UsageError
from mlff_cli.core.units import KJ_PER_KCAL

GAS_CONSTANT = 8.31446261815324e-3 / KJ_PER_KCAL  # kcal/mol/K, CODATA 2018
_ROW_SUM = 1e-6  # how far the weights of a bead may be from 1: more is not rounding
_MENDING = 1e-4  # of the mean square force on an atom: an l2 that mends G, and changes little else
FEWEST = 5  # frames, of which cross-validation makes its folds

Method = Literal["basic", "optimal", "noise"]


@dataclass(frozen=True)
class ForceMap:
    """A map of forces and how it was made.

    Attributes:
        v: V (n, g), weights of groups.
        groups: (N,) group of every atom.
        excess: W M^T - 1 (n, n); zero but for rounding, except of a noise map.
        method: "basic", "optimal" or "noise".
        l2: in (kcal/mol/angstrom)^2.
        condition: of K~ in the 1-norm, estimated; None of a basic map.
        sigma: standard deviation of the noise in angstrom.
        temperature: in K, of the noise.
    """

    v: np.ndarray
    groups: np.ndarray
    excess: np.ndarray
    method: Method
    l2: float = 0.0
    condition: float | None = None
    sigma: float | None = None
    temperature: float | None = None

    @property
    def matrix(self) -> np.ndarray:
        """W (n, N)."""
        w: np.ndarray = self.v[:, self.groups]
        return w

    @property
    def consistency(self) -> float:
        """Largest element of |W M^T - 1|."""
        return float(np.abs(self.excess).max())

    @property
    def s(self) -> float:
        """(kT / sigma)^2 in (kcal/mol/angstrom)^2 of a noise map, else 0."""
        if self.sigma is None or self.temperature is None:
            return 0.0
        return (GAS_CONSTANT * self.temperature / self.sigma) ** 2

    def apply(self, forces: np.ndarray) -> np.ndarray:
        """W f (T, n, 3) float64 of forces (T, N, 3); the noise of a noise map is not in it."""
        y = reduce_groups(forces, self.groups)  # (g, 3T)
        mapped: np.ndarray = (self.v @ y).reshape(len(self.v), len(forces), 3).transpose(1, 0, 2)
        return mapped


def basic_map(mapping: np.ndarray, groups: np.ndarray) -> ForceMap:
    """The sum of the forces on all atoms of every group that a bead's support meets.

    Args:
        mapping: M (n, N), rows that add up to 1.
        groups: (N,) group of every atom, 0 to g - 1.

    Raises:
        DataError: the mapping is not one, or a group meets two beads.
    """
    a, meets = _group_mapping(mapping, groups)
    # a row that adds up to 1 but for rounding is divided by its sum: W M^T = 1 to the last digit
    return _made(meets / a.sum(axis=1, keepdims=True), mapping, groups, "basic")


def optimal_map(mapping: np.ndarray, groups: np.ndarray, gram: Gram, l2: float = 0.0) -> ForceMap:
    """The consistent map with the smallest mean square force, E|W f|^2 + l2 |W|^2.

    Args:
        mapping: M (n, N), rows that add up to 1.
        groups: (N,) group of every atom, 0 to g - 1.
        gram: of the forces to fit on.
        l2: weight of |W|^2 in (kcal/mol/angstrom)^2. aggforce's is 3T times as large.

    Raises:
        DataError: the mapping is not one, a group meets two beads, or there are no frames.
        UsageError: `l2` is negative.
        NumericalError: more than one map has the smallest mean square force.
    """
    a, _ = _group_mapping(mapping, groups)
    g = _regularised(gram, groups, l2)
    square = a**2
    alpha = (square @ np.diag(g)) / square.sum(axis=1) ** 2  # of the size of G on a bead's groups
    alpha[alpha == 0.0] = 1.0  # a bead that feels no force
    k = g + (a.T * alpha) @ a
    chol, s, condition = _cholesky(k, gram, groups, l2)
    q, r = np.linalg.qr(solve_triangular(chol, s[:, None] * a.T, lower=True))  # (g, n), (n, n)
    v = solve_triangular(r, solve_triangular(chol, q, lower=True, trans=1).T) * s
    v -= (v @ a.T - np.eye(len(a))) @ v  # one step of refinement squares what V A^T lacks
    return _made(v, mapping, groups, "optimal", l2=l2, condition=condition)


def noise_map(
    mapping: np.ndarray,
    groups: np.ndarray,
    gram: Gram,
    l2: float,
    sigma: float,
    temperature: float,
) -> ForceMap:
    """The map with the smallest mean square force on beads whose positions were given noise.

    Here W M^T is not 1: the known force of the noise makes up for what is missing
    (`coarse.forces.noise`).

    Args:
        mapping: M (n, N), rows that add up to 1.
        groups: (N,) group of every atom, 0 to g - 1.
        gram: of the forces to fit on.
        l2: weight of |W|^2 in (kcal/mol/angstrom)^2.
        sigma: standard deviation of the noise on every coordinate of a bead, angstrom.
        temperature: of the forces' ensemble, K.

    Raises:
        DataError: the mapping is not one, a group meets two beads, or there are no frames.
        UsageError: `l2` is negative, `sigma` or `temperature` is not positive.
        NumericalError: more than one map has the smallest mean square force.
    """
    if not (sigma > 0.0 and temperature > 0.0 and np.isfinite([sigma, temperature]).all()):
        raise UsageError(
            "noise needs a width above 0 angstrom and a temperature above 0 K, found "
            f"{sigma:g} A and {temperature:g} K",
            remedy="give --noise SIGMA --temperature T, or neither",
        )
    a, _ = _group_mapping(mapping, groups)
    strength = (GAS_CONSTANT * temperature / sigma) ** 2  # s
    k = _regularised(gram, groups, l2) + strength * a.T @ a
    chol, s, condition = _cholesky(k, gram, groups, l2)
    half = solve_triangular(chol, s[:, None] * a.T, lower=True)  # (g, n)
    v = strength * solve_triangular(chol, half, lower=True, trans=1).T * s
    return _made(
        *(v, mapping, groups, "noise"),
        l2=l2,
        condition=condition,
        sigma=sigma,
        temperature=temperature,
    )


def mean_square(force_map: ForceMap, gram: Gram) -> np.ndarray:
    """E|W f|^2 (n,) of every bead per component, (kcal/mol/angstrom)^2, of the Gram's frames.

    A noise map's includes that of the noise: E|W f|^2 + s |W M^T - 1|^2.
    """
    v = force_map.v
    of_noise = force_map.s * (force_map.excess**2).sum(axis=1)
    found: np.ndarray = np.einsum("ng,ng->n", v @ gram.matrix, v) + of_noise
    return found


def objective(force_map: ForceMap, gram: Gram, l2: float) -> float:
    """What the fit makes small: the sum over beads of E|F|^2 + l2 |W|^2, per component."""
    sizes = np.bincount(force_map.groups)  # D
    return float(mean_square(force_map, gram).sum() + l2 * (force_map.v**2 @ sizes).sum())


def suggested_l2(gram: Gram, groups: np.ndarray) -> float:
    """An l2 to propose where G is singular, (kcal/mol/angstrom)^2.

    It mends G and changes little else where there are frames enough to determine the map. With
    fewer components of force than groups a small one would reproduce them and mean nothing: then
    it is the mean square force on an atom, which holds the weights near those of the beads' atoms.
    """
    size = float(np.trace(gram.matrix)) / len(groups)  # mean square force on an atom
    share = _MENDING if determined(gram) else 1.0
    return float(f"{share * size or 1.0:.0e}")


def determined(gram: Gram) -> bool:
    """Whether there are as many components of force as weights of groups, or more."""
    return 3 * gram.n_frames >= gram.n_groups


def _made(
    v: np.ndarray,
    mapping: np.ndarray,
    groups: np.ndarray,
    method: Method,
    **facts: float,
) -> ForceMap:
    excess = v[:, groups] @ mapping.T - np.eye(len(v))
    return ForceMap(v, groups, excess, method, **facts)


def _regularised(gram: Gram, groups: np.ndarray, l2: float) -> np.ndarray:
    """G + l2 D, (g, g)."""
    if not (l2 >= 0.0 and np.isfinite(l2)):
        raise UsageError(f"--l2 must be 0 or more, found {l2:g}")
    matrix = gram.matrix
    matrix[np.diag_indices_from(matrix)] += l2 * np.bincount(groups)
    return matrix


def _cholesky(
    k: np.ndarray, gram: Gram, groups: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """L (g, g; above the diagonal anything), S (g,) and the condition number of K~ = S K S = L L^T.

    K is overwritten.
    """
    diagonal = np.diag(k)
    if not (diagonal > 0.0).all():
        atoms = np.flatnonzero(np.isin(groups, np.flatnonzero(diagonal <= 0.0)))
        raise NumericalError(
            f"the Gram matrix of forces is singular: no force acts on atoms {_some(atoms)} in any "
            "frame, so that their weights are not determined",
            remedy=_remedy(gram, groups, l2),
        )
    components = 3 * gram.n_frames
    if l2 == 0.0 and not determined(gram):  # a fit would reproduce them, and mean nothing
        raise NumericalError(
            f"the Gram matrix of forces is singular: {components} components of force of "
            f"{gram.n_frames} frame{'s' * (gram.n_frames > 1)} are fewer than the {len(k)} groups "
            "whose weights they determine",
            remedy=_remedy(gram, groups, l2),
        )
    s = 1.0 / np.sqrt(diagonal)
    scaled = k.T  # symmetric, and in the order that LAPACK overwrites
    scaled *= s
    scaled *= s[:, None]
    norm = float(dlange("1", scaled))
    chol, failed = dpotrf(scaled, lower=1, clean=0, overwrite_a=1)
    share = 0.0 if failed else float(dpocon(chol, norm, uplo="L")[0])  # 1 / condition
    if share < len(k) * np.finfo(float).eps:
        raise NumericalError(
            f"the Gram matrix of forces is singular: with l2 {l2:g}, more than one set of weights "
            f"of the {len(k)} groups has the smallest mean square force",
            remedy=_remedy(gram, groups, l2),
        )
    return chol, s, 1.0 / share


def _remedy(gram: Gram, groups: np.ndarray, l2: float) -> str:
    ways = [f"give --l2, as --l2 {max(suggested_l2(gram, groups), 10 * l2):g}"]
    if not determined(gram):
        ways = ["use more frames, many times as many as groups", "--method basic", *ways]
    if gram.n_frames >= FEWEST:
        ways.append("--l2 cv")
    return ", or ".join(ways)


def _group_mapping(mapping: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A = M C (n, g) and whether a bead's support meets a group (n, g); each group at most one."""
    n, n_atoms = mapping.shape
    if groups.shape != (n_atoms,):
        raise DataError(f"{n_atoms} atoms are mapped, but groups are given for {len(groups)}")
    total = mapping.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(total - 1.0) <= _ROW_SUM))
    if wrong.size:
        raise DataError(
            f"the weights of a bead must add up to 1, found {total[wrong[0]]:g} for bead "
            f"{wrong[0]}",
            remedy="map the trajectory again: a bead needs atoms and normalised weights",
        )
    a, meets = group_sums(mapping, groups), group_sums((mapping != 0.0).astype(float), groups) > 0.0
    shared = np.flatnonzero(meets.sum(axis=0) > 1)
    if shared.size:
        atoms = np.flatnonzero(groups == shared[0])
        beads = np.flatnonzero(meets[:, shared[0]])
        what = "atom" if len(atoms) == 1 else "constraint group of atoms"
        raise DataError(
            f"{what} {_some(atoms)} belongs to beads {_some(beads)}, but may meet only one: its "
            "force cannot be told apart between them",
            remedy="use a mapping whose beads share no rigid group (centres of mass for rigid "
            "chains), or --constraints with the groups that the simulation really had",
        )
    return a, meets


def _some(numbers: np.ndarray, most: int = 8) -> str:
    shown = ", ".join(str(int(i)) for i in numbers[:most])
    return f"{shown} and {len(numbers) - most} more" if len(numbers) > most else shown
