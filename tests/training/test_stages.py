"""Stages of a training: what they leave out, where they begin and end, and how they continue."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mlff_cli.core.errors import ConfigError, InterruptedRunError
from mlff_cli.core.reporting import NullProgress, NullReporter
from mlff_cli.data.model_file import load_model_file
from mlff_cli.families.configure import configure
from mlff_cli.training.distributed import World, join
from mlff_cli.training.fit import build_stepper
from mlff_cli.training.run_log import read_rows
from mlff_cli.training.schedules import course
from mlff_cli.training.settings import TrainingSettings
from tests.ranks import Ranks, succeed
from tests.training.chains import BATCHES, STAGES, chain_settings, chain_task, train_chain


def settings(**more: Any) -> TrainingSettings:
    return TrainingSettings.model_validate(more)


def test_a_stage_takes_what_it_leaves_out_from_the_run() -> None:
    made = settings(
        optimizer={"kwargs": {"lr": 1e-3}},
        scheduler={"class": "StepLR", "kwargs": {"step_size": 2}},
        trainer={"accumulate": 3},
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


def test_epochs_unlike_those_of_the_stages_are_refused() -> None:
    two = [{"name": "a", "epochs": 2}, {"name": "b", "epochs": 3}]
    assert settings(stages=two, trainer={"epochs": 5}).trainer.epochs == 5
    with pytest.raises(ValidationError, match=r"trainer\.epochs is 7, .* stages are 5 together"):
        settings(stages=two, trainer={"epochs": 7})
    listed = ("stages=[{name: a, epochs: 2}]",)
    assert configure("small", (), listed, "m")[1].trainer.epochs == 2  # in place of the preset's


# -- steps ----------------------------------------------------------------------------------------


def test_each_stage_has_its_own_warm_up_and_cosine() -> None:
    made, task = chain_settings(), chain_task()
    stepper = build_stepper(task, made, World())
    expected = [
        course(s.scheduler, s.optimizer.kwargs.lr, s.epochs * BATCHES, BATCHES)
        for s in made.in_stages
    ]
    rates, names = [], []
    for step in range(5 * BATCHES):
        stepper(step, task.train_batch(step))
        group = stepper.optimizer.param_groups[-1]
        rates.append(group["lr"])
        names.append((stepper.stage.name, type(stepper.optimizer).__name__))
    assert rates == [*expected[0], *expected[1]]
    assert names == [("AdaBelief", "AdaBelief")] * 15 + [("Yogi", "Yogi")] * 10
    assert rates[0] < max(rates[:15])
    assert rates[15] < max(rates[15:])


def test_a_stage_trains_its_parameters_alone_and_forgets_the_optimizer_before() -> None:
    task = chain_task()
    stepper = build_stepper(task, chain_settings(), World())
    prior = [p.detach().clone() for p in task.model.prior.values()]  # type: ignore[union-attr,operator]
    first = stepper.optimizer
    for step in range(15):
        stepper(step, task.train_batch(step))
    assert first.state
    assert all(torch.equal(a, b) for a, b in zip(prior, task.model.prior.values(), strict=True))  # type: ignore[union-attr,operator,arg-type]
    stepper(15, task.train_batch(15))
    assert not first.state
    assert len(stepper.optimizer.state) == 6
    assert not any(torch.equal(a, b) for a, b in zip(prior, task.model.prior.values(), strict=True))  # type: ignore[union-attr,operator,arg-type]


def test_a_bad_stage_is_refused_before_the_first_step_and_named() -> None:
    wrong = ({**STAGES[0]}, {**STAGES[1], "optimizer": {"class": "torch.optim.LBFGS"}})
    with pytest.raises(ConfigError, match="stage 'Yogi': .*LBFGS cannot train here"):
        build_stepper(chain_task(), chain_settings(wrong), World())
    wrong[1]["optimizer"] = {"force_no_train": ["nowhere"]}
    with pytest.raises(ConfigError, match="stage 'Yogi': .*'nowhere' matches no parameter"):
        build_stepper(chain_task(), chain_settings(wrong), World())


# -- runs -----------------------------------------------------------------------------------------


class Told(NullReporter):
    """Keeps lines, and stops the process when bars have moved `stop` times."""

    def __init__(self, stop: int = -1) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.left = stop

    def info(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, total: int | None, description: str, unit: str = "") -> NullProgress:
        told = self

        class Bar(NullProgress):
            def advance(self, n: int = 1, **fields: object) -> None:
                told.left -= n
                if told.left == 0 and n:
                    os.kill(os.getpid(), signal.SIGTERM)

        return Bar()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    folder, told = tmp_path_factory.mktemp("whole"), Told()
    train_chain(folder, told)
    return folder, told


def test_rows_and_lines_name_the_stage(whole: tuple[Path, Told]) -> None:
    folder, told = whole
    rows = read_rows(folder / "metrics.jsonl")
    before = [row for row in rows if row["step"] == 0]
    assert {row["stage"] for row in before} == {"prior"}
    assert [row["pretraining/iteration"] for row in before] == list(range(len(before)))
    losses = [row["pretraining/loss"] for row in before]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.1 * losses[0]
    after = [(row["step"], row["stage"]) for row in rows if row["step"]]
    assert after == [(s, "AdaBelief" if s <= 15 else "Yogi") for s, _ in after]
    assert {15, 25} <= {step for step, _ in after}
    text = "\n".join(told.lines)
    assert "prior: loss " in text
    assert "\nk: " in text
    assert "stages: AdaBelief to epoch 3, Yogi to epoch 5" in told.lines
    assert "noise in F_rmse: at most 2.00 kcal/mol/A" in told.lines
    assert "epoch 3/5 AdaBelief: train" in text
    assert "epoch 5/5 Yogi: train" in text
    assert "(noise at most 2.00) kcal/mol/A, F_relative " in text
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith("step,epoch,stage,pretraining/iteration,pretraining/loss")
    head = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[:3]]
    assert {"kind": "noise_bound", "val/F_rmse": 2.0} in head
    assert {"kind": "names", "lr_0": "others, prior", "lr_1": "others"} in head


@pytest.mark.parametrize(
    "stops", [("iteration 1", "iteration 4"), ("step 1", "step 16"), ("step 15",), ("step 22",)]
)
def test_a_run_stopped_anywhere_continues_to_the_same_bits(
    tmp_path: Path, whole: tuple[Path, Told], stops: tuple[str, ...]
) -> None:
    reference = whole[0]
    rows = read_rows(reference / "metrics.jsonl")
    iterations = sum(row["step"] == 0 for row in rows) - 1
    done = 0
    for stop in stops:
        kind, number = stop.split()
        at = int(number) + (iterations if kind == "step" else 0)
        said = f"at step {number} of 25" if kind == "step" else f"after {number} iteration"
        with pytest.raises(InterruptedRunError, match=said):
            train_chain(tmp_path, Told(at - done))
        done = at
    train_chain(tmp_path, Told())
    assert read_rows(tmp_path / "metrics.jsonl") == rows
    assert (tmp_path / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()
    ours, theirs = (load_model_file(f / "checkpoints" / "last.pt") for f in (tmp_path, reference))
    assert all(torch.equal(ours.weights[k], v) for k, v in theirs.weights.items())
    best = sorted(p.name for p in (reference / "checkpoints").glob("best_*.pt"))
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("best_*.pt")) == best


def test_pretraining_comes_once_and_what_follows_it_in_every_session(tmp_path: Path) -> None:
    then: list[float] = []
    calls: list[int] = []

    def task() -> Any:
        made = chain_task()
        assert made.pretraining is not None
        objective, k = made.pretraining.objective, made.model.prior["k"]  # type: ignore[index]

        def counted() -> torch.Tensor:
            calls.append(1)
            return objective()

        object.__setattr__(made.pretraining, "objective", counted)
        object.__setattr__(made.pretraining, "then", lambda: then.append(k.item()))
        return made

    with pytest.raises(InterruptedRunError):
        train_chain(tmp_path, Told(25), task=task())
    n = len(calls)
    assert n > 3
    train_chain(tmp_path, Told(), task=task())
    assert len(calls) == n
    assert then[0] == then[1]
    assert abs(then[0] - 80.0) < 20.0


def test_a_run_without_stages_says_nothing_of_them(tmp_path: Path) -> None:
    told = Told()
    settings = chain_settings((), trainer={"epochs": 2})
    train_chain(tmp_path, told, settings, chain_task(pretrain=False))
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert not any("stage" in row for row in rows)
    assert not any("stages" in line for line in told.lines)
    assert any(line.startswith("epoch 1/2: train") for line in told.lines)
    assert (tmp_path / "metrics.csv").read_text().startswith("step,epoch,train/loss")


def of_a_rank(folder: str) -> None:
    with join("cpu") as world:
        train_chain(Path(folder), NullReporter(), world=world)


def test_two_processes_pretrain_and_train_as_one(tmp_path: Path, whole: tuple[Path, Told]) -> None:
    succeed(Ranks(tmp_path, of_a_rank, str(tmp_path / "run")))
    ours, theirs = (read_rows(f / "metrics.jsonl") for f in (tmp_path / "run", whole[0]))
    assert [(r["step"], r["stage"]) for r in ours] == [(r["step"], r["stage"]) for r in theirs]
    for a, b in zip(ours, theirs, strict=True):
        names = ("train/loss", "val/loss", "pretraining/loss", "val/F_rmse")
        shared = [name for name in names if name in b]
        assert shared
        assert [a[name] for name in shared] == pytest.approx([b[name] for name in shared], rel=1e-6)
