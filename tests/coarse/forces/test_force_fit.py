"""Fitted maps beside those they are judged against, and what is told of them."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from mlff_cli.coarse.forces.force_fit import Fit, Recipe, check_groups, fit_force_map
from mlff_cli.coarse.forces.force_map import mean_square, objective
from mlff_cli.coarse.forces.force_report import MOST_SHOWN, fit_report, judgement, tables
from mlff_cli.coarse.forces.force_split import split_frames
from mlff_cli.coarse.forces.gram import Gram
from mlff_cli.core.errors import DataError, MissingDependencyError, NumericalError

GROUPS = np.array([0, 0, 1, 2, 3, 3, 4, 5])
MAPPING = np.zeros((2, 8))
MAPPING[0, 0] = MAPPING[1, 6] = 1.0


def grams(n: int, folds: int = 1, seed: int = 0) -> list[Gram]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(8, 8))
    found = []
    for _ in range(folds):
        forces = np.einsum("tjc,ij->tic", rng.normal(0.0, 5.0, (n, 8, 3)), mix)
        found.append(Gram(6).add(forces, GROUPS))
    return found


def fitted(n: int = 60, folds: int = 1, **recipe: Any) -> Fit:
    (held_out,) = grams(20, seed=9)
    return fit_force_map(MAPPING, GROUPS, grams(n, folds), held_out, Recipe(**recipe))


@pytest.mark.parametrize("l2", [0.0, 0.5, 50.0])
def test_the_optimal_objective_is_never_above_the_basic_one(l2: float) -> None:
    found = fitted(l2=l2)
    best = objective(found.chosen, found.training, l2)
    assert best <= objective(found.basic, found.training, l2)
    assert found.aggforce_l2 == 3 * 60 * l2


def test_noise_lowers_the_mean_square_and_leaves_consistency() -> None:
    found = fitted(sigma=0.3, temperature=300.0)
    assert found.chosen.method == "noise"
    assert found.optimal is not None
    assert objective(found.chosen, found.training, 0.0) <= objective(
        found.optimal, found.training, 0.0
    )
    assert found.optimal.consistency < 1e-10 < found.chosen.consistency


def test_cross_validation_takes_the_best_of_its_grid() -> None:
    found = fitted(n=4, folds=5, l2="cv")
    assert found.validation is not None
    assert found.chosen.l2 == found.validation.l2
    assert found.training.n_frames == 20


def test_too_few_frames_end_an_optimal_map_and_not_a_basic_one() -> None:
    with pytest.raises(NumericalError, match="singular") as caught:
        fit_force_map(MAPPING, GROUPS, grams(1), None, Recipe(), where="set, molecule m")
    assert str(caught.value).startswith("set, molecule m")
    basic = fitted(n=1, method="basic")
    assert basic.optimal is None
    assert basic.chosen.method == "basic"


def test_groups_across_beads_name_the_molecule() -> None:
    with pytest.raises(DataError, match="set, molecule m: .* belongs to beads 0, 1"):
        check_groups(MAPPING, np.array([0, 1, 2, 3, 4, 5, 0, 6]), "set, molecule m")


def test_aggforce_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aggforce", None)
    with pytest.raises(MissingDependencyError):
        fitted(engine="aggforce")


def report(found: Fit, name: str = "m", holdout: float = 0.25) -> dict[str, Any]:
    split = split_frames(np.arange(80), holdout, 0)
    constraints = {
        "groups": 2,
        "atoms": 4,
        "from_topology": None,
        "from_trajectory": None,
        "relied_on": "the file c.txt",
    }
    told = fit_report(found, split)
    return {"molecule": name, "beads": 2, "atoms": 8, "constraints": constraints, **told}


@pytest.mark.parametrize(
    "recipe",
    [{}, {"method": "basic"}, {"l2": "cv"}, {"sigma": 0.3, "temperature": 300.0}],
)
def test_a_report_is_json_without_nan(recipe: dict[str, Any]) -> None:
    found = report(fitted(n=12, folds=5, **recipe))
    json.dumps(found, allow_nan=False)
    assert {"basic", found["map"]} <= set(found["mean_square_force"])
    for scores in found["mean_square_force"].values():
        mean = np.mean(scores["held_out_of_beads"])
        assert mean == pytest.approx(scores["held_out"], rel=1e-5)


def test_tables_show_some_molecules_and_say_how_many_are_left() -> None:
    reports = [report(fitted(), f"m{k}") for k in range(MOST_SHOWN + 3)]
    for table in tables(reports):
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert any("3 more molecules" in note for note in table.notes)
    assert not any("more molecules" in n for t in tables(reports[:1]) for n in t.notes)


def test_a_map_worse_than_the_basic_one_and_an_l2_at_the_edge_are_told() -> None:
    told = report(fitted())
    told["mean_square_force"]["optimal"]["held_out"] = 2.0
    told["mean_square_force"]["basic"]["held_out"] = 1.0
    assert "worse than the basic one" in judgement(told)[0]
    told["mean_square_force"]["basic"]["held_out"] = 3.0
    told["mean_square_force"]["optimal"]["training"] = 1.4
    assert judgement(told) == []
    told["cross_validation"] = {"at_edge": True}
    assert "the largest l2" in judgement(told)[0]


@pytest.mark.parametrize("fitted_on", [0.0, 1e-7, 1.0])
def test_held_out_forces_far_above_fitted_ones_are_told(fitted_on: float) -> None:
    told = report(fitted())
    told["mean_square_force"]["basic"]["held_out"] = 3.0
    told["mean_square_force"]["optimal"] |= {"held_out": 1.6, "training": fitted_on}
    (note,) = judgement(told)
    assert "times the mean squared force of those fitted on" in note
    assert note.endswith("use more frames, or --l2 cv")
    told["cross_validation"] = {"at_edge": False}  # has been tried
    assert judgement(told)[0].endswith("use more frames")
    del told["cross_validation"]
    told["frames"]["training"] = 4  # five folds need five
    assert judgement(told)[0].endswith("use more frames")


def test_fewer_components_than_weights_are_told_where_nothing_is_held_out() -> None:
    found = fit_force_map(MAPPING, GROUPS, grams(1), None, Recipe(l2=1.0))
    told = fit_report(found, split_frames(np.arange(1), 0.0, 0))
    (note,) = judgement(told)
    assert "6 weights to fewer components of force, 3 x 1" in note
    basic = fit_force_map(MAPPING, GROUPS, grams(1), None, Recipe(method="basic"))
    assert judgement(fit_report(basic, split_frames(np.arange(1), 0.0, 0))) == []


@pytest.mark.parametrize("n", [1, 4, 5, 6])
def test_what_is_proposed_for_a_singular_matrix_works(n: int) -> None:
    """More frames first, cross-validation only where folds can be made; the l2 is no small one."""
    rng = np.random.default_rng(0)
    groups = np.arange(40)
    mapping = np.zeros((2, 40))
    mapping[0, 0] = mapping[1, 20] = 1.0
    gram, unseen = (Gram(40).add(rng.normal(0.0, 5.0, (k, 40, 3)), groups) for k in (n, 500))
    with pytest.raises(
        NumericalError, match="of [1-6] frames? are fewer than the 40 groups"
    ) as caught:
        fit_force_map(mapping, groups, [gram], None, Recipe())
    remedy = str(caught.value.remedy)
    assert remedy.startswith("use more frames")
    assert ("--l2 cv" in remedy) == (n >= 5)
    l2 = float(remedy.partition("as --l2 ")[2].partition(",")[0])
    found = fit_force_map(mapping, groups, [gram], unseen, Recipe(l2=l2))
    judged = [mean_square(m, unseen).mean() for m in (found.chosen, found.basic)]
    assert judged[0] < 1.3 * judged[1]  # what reproduced the frames seen would be far above
