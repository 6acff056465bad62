"""Stages of a training: what they leave out, and where they begin and end."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mlff_cli.training.settings import TrainingSettings


def settings(**more: Any) -> TrainingSettings:
    return TrainingSettings.model_validate(more)


def test_a_stage_takes_what_it_leaves_out_from_the_run() -> None:
    made = settings(
        optimizer={"kwargs": {"lr": 1e-3}},
        scheduler={"class": "StepLR", "kwargs": {"step_size": 2}},
        trainer={"epochs": 77, "accumulate": 3},
        stages=[
            {"name": "one", "epochs": 2, "scheduler": None},
            {"name": "two", "epochs": 3, "optimizer": {"class": "Yogi"}},
        ],
    )
    one, two = made.in_stages
    assert one.optimizer == made.optimizer
    assert one.scheduler is None
    assert two.optimizer.class_ == "Yogi"
    assert two.optimizer.kwargs.lr != 1e-3
    assert two.scheduler == made.scheduler
    assert made.trainer.epochs == 5
    assert made.trainer.accumulate == 3
    written = made.model_dump(mode="json", by_alias=True)
    assert settings(**written) == made


def test_a_run_without_stages_is_a_single_one_without_a_name() -> None:
    made = settings(trainer={"epochs": 9}, scheduler=None)
    (only,) = made.in_stages
    assert (only.name, only.epochs, only.scheduler) == ("", 9, None)
    assert only.optimizer == made.optimizer


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"name": "a", "epochs": 1}, {"name": "a", "epochs": 2}], "two are called 'a'"),
        ([{"name": "a", "epochs": 0}], "greater than 0"),
        ([{"name": "", "epochs": 1}], "pattern"),
        ([{"epochs": 1}], "name"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages: list[Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(stages=stages)
