"""The force map that was asked for, beside the ones that it is judged against.

All from Gram matrices: of the frames that are fitted on, one per fold, and of those held out.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlff_cli.coarse.forces.aggforce_engine import aggforce_map
from mlff_cli.coarse.forces.cross_validation import CrossValidation, cross_validate
from mlff_cli.coarse.forces.force_map import ForceMap, basic_map, noise_map, optimal_map
from mlff_cli.coarse.forces.gram import Gram
from mlff_cli.core.errors import MLFFError, NumericalError


@dataclass(frozen=True)
class Recipe:
    """Which force map is wanted.

    Attributes:
        method: "optimal" or "basic".
        l2: weight of |W|^2 in (kcal/mol/angstrom)^2, or "cv" for cross-validation over a grid.
        engine: "native" or "aggforce".
        sigma: noise on beads in angstrom; None for none.
        temperature: of the forces' ensemble in K; needed with `sigma`.
    """

    method: Literal["optimal", "basic"] = "optimal"
    l2: float | Literal["cv"] = 0.0
    engine: Literal["native", "aggforce"] = "native"
    sigma: float | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Fit:
    """Force maps of one molecule, and the second moments that judge them.

    Attributes:
        chosen: the map that was asked for.
        basic: the basic map.
        optimal: the optimal map without noise; None where it is not determined.
        training: of the frames that were fitted on.
        held_out: of those that were not; None where there are none.
        validation: how l2 was chosen; None where it was given.
        difference: largest difference between the weights of aggforce and of the closed form.
    """

    chosen: ForceMap
    basic: ForceMap
    optimal: ForceMap | None
    training: Gram
    held_out: Gram | None
    validation: CrossValidation | None = None
    difference: float | None = None

    @property
    def aggforce_l2(self) -> float:
        """The regulariser that means the same to aggforce, 3 T l2."""
        return 3 * self.training.n_frames * self.chosen.l2


def check_groups(mapping: np.ndarray, groups: np.ndarray, where: str) -> None:
    """Refuse rigid groups that span two beads; needs no forces.

    Raises:
        DataError: see `coarse.forces.force_map.basic_map`, with `where`.
    """
    with _said_of(where):
        basic_map(mapping, groups)


def fit_force_map(
    mapping: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[Gram],
    held_out: Gram | None,
    recipe: Recipe,
    where: str | None = None,
) -> Fit:
    """Fit what `recipe` asks for.

    Args:
        mapping: (n, N) M.
        groups: (N,) rigid group of every atom.
        folds: second moments of the frames to fit on; several for cross-validation.
        held_out: of the frames to judge on.
        recipe: see `Recipe`.
        where: the molecule, for messages.

    Raises:
        MissingDependencyError: aggforce is asked for and absent.
        DataError, UsageError, NumericalError: see `coarse.forces.force_map`, with `where`.
    """
    training = Gram.total(folds, folds[0].n_groups)
    with _said_of(where):
        return _fit(mapping, groups, folds, training, held_out, recipe)


@contextlib.contextmanager
def _said_of(where: str | None) -> Iterator[None]:
    """Let errors name the molecule."""
    try:
        yield
    except MLFFError as error:
        error.where = error.where or where
        raise


def _fit(
    mapping: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[Gram],
    training: Gram,
    held_out: Gram | None,
    recipe: Recipe,
) -> Fit:
    basic = basic_map(mapping, groups)
    sigma, temperature = recipe.sigma, recipe.temperature
    validation = None
    l2 = recipe.l2
    if l2 == "cv":
        validation = cross_validate(mapping, groups, folds, sigma=sigma, temperature=temperature)
        l2 = validation.l2
    try:
        optimal = optimal_map(mapping, groups, training, l2)
    except NumericalError:
        if recipe.method == "optimal" and recipe.engine == "native" and sigma is None:
            raise
        optimal = None
    difference = None
    if recipe.engine == "aggforce":
        weights = aggforce_map(
            mapping, groups, training.matrix, training.n_frames, method=recipe.method, l2=l2
        )
        native = optimal if recipe.method == "optimal" else basic
        difference = None if native is None else float(np.abs(weights - native.matrix).max())
        chosen = _from_weights(weights, mapping, groups, recipe.method, l2, native)
    elif recipe.method == "basic":
        chosen = dataclasses.replace(basic, sigma=sigma, temperature=temperature)
    elif sigma is not None and temperature is not None:
        chosen = noise_map(mapping, groups, training, l2, sigma, temperature)
    else:
        assert optimal is not None
        chosen = optimal
    return Fit(chosen, basic, optimal, training, held_out, validation, difference)


def _from_weights(
    weights: np.ndarray,
    mapping: np.ndarray,
    groups: np.ndarray,
    method: Literal["optimal", "basic"],
    l2: float,
    native: ForceMap | None,
) -> ForceMap:
    _, first = np.unique(groups, return_index=True)
    excess = weights @ mapping.T - np.eye(len(mapping))
    condition = native.condition if native else None
    return ForceMap(
        weights[:, first], groups, excess, method, l2 if method == "optimal" else 0.0, condition
    )
