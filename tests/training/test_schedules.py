"""Every kind of schedule against its closed form; groups, warm-up, resuming, refusals."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mlff_cli.core.config import load_config
from mlff_cli.core.errors import ConfigError, NumericalError
from mlff_cli.training.schedule_builder import Clock
from mlff_cli.training.schedules import Schedule, course
from mlff_cli.training.settings_schedules import SCHEDULES, SchedulerSection
from tests.closed_forms import (
    cosine,
    cycle,
    line,
    one_cycle,
    plateau,
    polygon,
    triangle,
    warm,
)

BASE, TOTAL, EPOCH = 1e-3, 120, 5
VALIDATE = 4  # iterations between validations
LOSSES = [1.0, 0.9, 0.95, 0.95, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.7] + [0.7] * 19
RATIOS = (1.0, 0.5, 3.0)

Values = dict[str, object]
Rate = Callable[[int], float]


def named(name: str, kwargs: Values | None = None, **more: object) -> Values:
    return {"class": name, "kwargs": kwargs or {}, **more}


def per_epoch(rate: Rate) -> Rate:
    return lambda s: rate(s // EPOCH)


def cosine_cycles(s: int) -> float:
    k, t, n = cycle(s, 10, 2.0)
    return cosine(t, 1e-3 * 0.5**k, 1e-5 * 0.8**k, n)


def back_and_forth(s: int) -> float:
    """A cosine of 20 ticks, and a straight way of 10 back to a start that halves."""
    k, t = divmod(s, 30)
    start, end = 1e-3 * 0.5**k, 1e-5
    return cosine(t, start, end, 20) if t <= 20 else line(t - 20, end, start / 2, 10)


def after(s: int, *parts: tuple[int, Rate]) -> float:
    """Schedules one after the other, each from its own start."""
    for duration, rate in parts[:-1]:
        if s < duration:
            return rate(s)
        s -= duration
    return parts[-1][1](s)


def shrinking_triangle(s: int) -> float:
    return 1e-4 + (triangle(s, 0, 1, 20) * 9e-4) / 2 ** (s // 20)


def three_phases(s: int) -> float:
    top, n = 2e-3, TOTAL
    peak, valley = 0.25 * n - 1, 0.5 * n - 2
    if s <= peak:
        return line(s, top / 25, top, peak)
    if s <= valley:
        return line(s - peak, top, top / 25, valley - peak)
    return line(s - valley, top / 25, top / 25 / 1e4, n - 1 - valley)


def plateaus(s: int) -> float:
    return plateau(LOSSES, BASE, 0.5, 1)[s // VALIDATE]


CONCAT = named(
    "ignite.handlers.param_scheduler.ConcatScheduler",
    {
        "schedulers": [
            named("PiecewiseLinear", {"milestones_values": [[0, 1e-5], [10, 1e-3]]}),
            named(
                "ConcatScheduler",
                {
                    "schedulers": [
                        named("LinearCyclicalScheduler", {"cycle_size": 10, "end_value": 1e-4}),
                        named("CosineAnnealingScheduler", {"cycle_size": 7, "cycle_mult": 2}),
                    ],
                    "durations": [25],
                },
            ),
            named("CosineAnnealingScheduler", {"start_value": 5e-4, "end_value": 0.0}),
        ],
        "durations": [10, 50],
    },
)


def concatenated(s: int) -> float:
    def restarts(t: int) -> float:
        _, position, size = cycle(t, 7, 2)
        return cosine(position, BASE, BASE / 100, size)

    return after(
        s,
        (10, lambda t: line(t, 1e-5, 1e-3, 10)),
        (25, lambda t: triangle(t, BASE, 1e-4, 10)),
        (25, restarts),
        (60, lambda t: cosine(t, 5e-4, 0.0, 60)),
    )


def sequence(e: int) -> float:
    return after(
        e,
        (4, lambda t: BASE * line(t, 0.1, 1.0, 4)),
        (8, lambda t: cosine(t, BASE, 1e-5, 8)),
        (6, lambda t: BASE * 0.7**t),
        (6, lambda t: cosine(t % 3, BASE, 0.0, 3)),
    )


SEQUENTIAL = named(
    "SequentialLR",
    {
        "schedulers": [
            named("LinearLR", {"start_factor": 0.1, "total_iters": 4}),
            named("CosineAnnealingLR", {"eta_min": 1e-5}),
            named("ExponentialLR", {"gamma": 0.7}),
            named("CosineAnnealingWarmRestarts", {"T_0": 3}),
        ],
        "milestones": [4, 12, 18],
    },
)
CHAINED = named(
    "ChainedScheduler",
    {
        "schedulers": [
            named("ConstantLR", {"factor": 0.2, "total_iters": 3}),
            named("MultiStepLR", {"milestones": [5, 9, 9], "gamma": 0.5}),
            named("ExponentialLR", {"gamma": 0.9}),
            named("PolynomialLR", {"total_iters": 30, "power": 1.5}),
        ]
    },
)


def chained(e: int) -> float:
    steps = 0.5 ** sum(e >= m for m in (5, 9, 9))
    return BASE * (0.2 if e < 3 else 1.0) * steps * 0.9**e * (1 - e / 30) ** 1.5


CASES: dict[str, tuple[Values | None, Rate]] = {
    "none": (None, lambda s: BASE),
    "default": ({}, lambda s: cosine(s, BASE, BASE / 100, TOTAL)),
    "CosineAnnealingScheduler": (
        named(
            "ignite.handlers.param_scheduler.CosineAnnealingScheduler",
            {
                "start_value": 1e-3, "end_value": 1e-5, "cycle_size": 10, "cycle_mult": 2.0,
                "start_value_mult": 0.5, "end_value_mult": 0.8,
            },
        ),
        cosine_cycles,
    ),
    "CosineAnnealingScheduler, way back": (
        named(
            "CosineAnnealingScheduler",
            {
                "start_value": 1e-3, "end_value": 1e-5, "cycle_size": 20, "warmup_duration": 10,
                "start_value_mult": 0.5,
            },
        ),
        back_and_forth,
    ),
    "LinearCyclicalScheduler": (
        named("LinearCyclicalScheduler", {"end_value": 1e-4, "cycle_size": 20}),
        lambda s: triangle(s, BASE, 1e-4, 20),
    ),
    "LinearCyclicalScheduler, one way": (
        named("LinearCyclicalScheduler", {"end_value": 1e-4, "cycle_size": 20, "monotonic": True}),
        lambda s: line(s % 20, BASE, 1e-4, 20),
    ),
    "PiecewiseLinear": (
        named(
            "PiecewiseLinear", {"milestones_values": [[3, 1e-3], [30, 1e-4], [30, 5e-4], [60, 0]]}
        ),
        lambda s: polygon(s, [(3, 1e-3), (30, 1e-4), (30, 5e-4), (60, 0)]),
    ),
    "ConcatScheduler": (CONCAT, concatenated),
    "ReduceLROnPlateauScheduler": (
        named(
            "ignite.handlers.param_scheduler.ReduceLROnPlateauScheduler",
            {"metric_name": "val_loss", "factor": 0.5, "patience": 1},
        ),
        plateaus,
    ),
    "ReduceLROnPlateau": (
        named(
            "torch.optim.lr_scheduler.ReduceLROnPlateau",
            {"factor": 0.5, "patience": 1, "min_lr": 2e-4},
        ),
        lambda s: max(plateaus(s), 2e-4),
    ),
    "StepLR": (
        named("torch.optim.lr_scheduler.StepLR", {"step_size": 2, "gamma": 0.5}),
        per_epoch(lambda e: BASE * 0.5 ** (e // 2)),
    ),
    "MultiStepLR": (
        named("MultiStepLR", {"milestones": [3, 10], "gamma": 0.3}),
        per_epoch(lambda e: BASE * 0.3 ** ((e >= 3) + (e >= 10))),
    ),
    "ExponentialLR": (
        named("ExponentialLR", {"gamma": 0.9}), per_epoch(lambda e: BASE * 0.9**e),
    ),
    "ExponentialLR by iteration": (
        named("ExponentialLR", {"gamma": 0.97}, interval="iteration"), lambda s: BASE * 0.97**s,
    ),
    "CosineAnnealingScheduler by epoch": (
        named("CosineAnnealingScheduler", {"cycle_size": 6}, interval="epoch"),
        per_epoch(lambda e: cosine(e % 6, BASE, BASE / 100, 6)),
    ),
    "CosineAnnealingLR": (
        named("CosineAnnealingLR", {"T_max": 6, "eta_min": 1e-5}),
        per_epoch(lambda e: cosine(e, BASE, 1e-5, 6)),
    ),
    "CosineAnnealingWarmRestarts": (
        named("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 1e-6}),
        per_epoch(lambda e: cosine(cycle(e, 3, 2)[1], BASE, 1e-6, cycle(e, 3, 2)[2])),
    ),
    "ConstantLR": (
        named("ConstantLR", {"factor": 0.25, "total_iters": 4}),
        per_epoch(lambda e: BASE * (0.25 if e < 4 else 1.0)),
    ),
    "LinearLR": (
        named("LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 8}),
        per_epoch(lambda e: BASE * line(e, 1.0, 0.1, 8)),
    ),
    "PolynomialLR": (
        named("PolynomialLR", {"total_iters": 24, "power": 2.0}),
        per_epoch(lambda e: BASE * (1 - e / 24) ** 2),
    ),
    "CyclicLR": (
        named("CyclicLR", {"base_lr": 1e-4, "max_lr": 1e-3, "step_size_up": 10}),
        lambda s: triangle(s, 1e-4, 1e-3, 20),
    ),
    "CyclicLR, triangular2": (
        named(
            "CyclicLR",
            {"base_lr": 1e-4, "max_lr": 1e-3, "step_size_up": 10, "mode": "triangular2"},
        ),
        shrinking_triangle,
    ),
    "CyclicLR, exp_range": (
        named(
            "CyclicLR",
            {
                "base_lr": 1e-4, "max_lr": 1e-3, "step_size_up": 5, "step_size_down": 15,
                "mode": "exp_range", "gamma": 0.98,
            },
        ),
        lambda s: 1e-4 + 9e-4 * 0.98**s * polygon(s % 20, [(0, 0), (5, 1), (20, 0)]),
    ),
    "OneCycleLR": (
        named("OneCycleLR", {"max_lr": 2e-3}), lambda s: one_cycle(s, 2e-3, TOTAL),
    ),
    "OneCycleLR, three phases": (
        named(
            "OneCycleLR",
            {
                "max_lr": 2e-3, "anneal_strategy": "linear", "three_phase": True,
                "pct_start": 0.25, "epochs": 24, "steps_per_epoch": 5,
            },
        ),
        three_phases,
    ),
    "SequentialLR": (SEQUENTIAL, per_epoch(sequence)),
    "ChainedScheduler": (CHAINED, per_epoch(chained)),
}  # fmt: skip


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": BASE * r, "lr_ratio": r}
        for r in RATIOS
    )


def make(values: Values | None, opt: torch.optim.Optimizer) -> Schedule:
    section = None if values is None else SchedulerSection.model_validate(values)
    return Schedule(opt, section, BASE, TOTAL, EPOCH)


def follow(schedule: Schedule, opt: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    """Learning rates of the first group, with a validation now and then as the loop makes it."""
    found = []
    for step in range(first, last):
        schedule.before_step(step)
        rates = [g["lr"] for g in opt.param_groups]
        assert rates == pytest.approx([rates[0] * r for r in RATIOS], rel=1e-14)
        found.append(rates[0])
        if (step + 1) % VALIDATE == 0:
            schedule.after_validation({"loss": LOSSES[(step + 1) // VALIDATE - 1]})
    return found


def rates(values: Values | None) -> list[float]:
    opt = optimizer()
    return follow(make(values, opt), opt, 0, TOTAL)


def test_every_kind_is_tested() -> None:
    assert {name.partition(",")[0] for name in CASES} >= set(SCHEDULES.table)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("warmup", [0, 8])
def test_schedules_follow_their_closed_form(name: str, warmup: int) -> None:
    values, closed_form = CASES[name]
    if values is None and warmup:
        pytest.skip("no schedule, no warm-up")
    expected = [closed_form(s) * warm(s, warmup) for s in range(TOTAL)]
    found = rates(None if values is None else {**values, "warmup_steps": warmup})
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-17)


@pytest.mark.parametrize("name", CASES)
@settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(cuts=st.lists(st.integers(0, TOTAL), max_size=3).map(sorted))
def test_a_schedule_that_is_interrupted_anywhere_goes_on_as_if_it_was_not(
    name: str, cuts: list[int]
) -> None:
    values = CASES[name][0]
    opt = optimizer()
    schedule = make(values, opt)
    found = []
    for first, last in zip([0, *cuts], [*cuts, TOTAL], strict=True):
        found += follow(schedule, opt, first, last)
        buffer = io.BytesIO()
        torch.save({"schedule": schedule.state_dict(), "optimizer": opt.state_dict()}, buffer)
        buffer.seek(0)
        state = torch.load(buffer, weights_only=True)  # as checkpoints are read
        opt = optimizer()
        schedule = make(values, opt)
        opt.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    assert found == rates(values)  # to the last bit


@pytest.mark.parametrize("name", CASES)
def test_a_state_does_not_change_when_the_run_goes_on(name: str) -> None:
    opt = optimizer()
    schedule = make(CASES[name][0], opt)
    follow(schedule, opt, 0, 13)
    state = schedule.state_dict()
    before = repr(state)
    follow(schedule, opt, 13, TOTAL)
    assert repr(state) == before
    again = make(CASES[name][0], opt)
    again.load_state_dict(state)
    follow(again, opt, 13, TOTAL)
    assert repr(state) == before


# -- counts by the run ----------------------------------------------------------------------------


def test_counts_can_be_shares_and_epochs() -> None:
    assert Clock(1000, 50).ticks("30 %") == Clock(1000, 50).ticks("30%") == 300
    assert Clock(1000, 50).ticks("1 epoch") == 50
    assert Clock(1000, 50).ticks("0.01 %") == 1
    assert Clock(1000, 50).ticks("0 %") == 0
    assert Clock.of("epoch", 1001, 50) == Clock(21, 1)
    assert rates(named("StepLR", {"step_size": "25 %"})) == rates(named("StepLR", {"step_size": 6}))
    by_run = named("PiecewiseLinear", {"milestones_values": [["2 epochs", 1e-3], ["50 %", 0.0]]})
    assert rates({**by_run, "warmup_steps": "5 %"}) == pytest.approx(
        [polygon(s, [(10, 1e-3), (60, 0)]) * warm(s, 6) for s in range(TOTAL)]
    )


# -- plateau and termination ----------------------------------------------------------------------


def test_plateau_watches_any_metric_either_way() -> None:
    kwargs = {"metric_name": "val/fid0/E_r2", "mode": "max", "factor": 0.5, "patience": 0}
    schedule = make(named("ReduceLROnPlateauScheduler", kwargs), optimizer())
    assert schedule.metric == "fid0/E_r2"
    for r2, expected in ((0.5, 1.0), (0.6, 1.0), (0.6, 0.5), (0.1, 0.25), (0.9, 0.25)):
        schedule.after_validation({"fid0/E_r2": r2, "loss": 1.0})
        assert schedule.lr == pytest.approx(BASE * expected)
    schedule.check_metrics(["fid0/E_r2"])
    with pytest.raises(ConfigError, match=r"no metric 'fid0/E_r2'(.|\n)*loss, E_mae"):
        schedule.check_metrics(["loss", "E_mae"])


def test_plateau_ends_the_run_when_the_learning_rate_is_low() -> None:
    values = named(
        "ignite.handlers.param_scheduler.ReduceLROnPlateauScheduler",
        {"metric_name": "val_loss", "factor": 0.9, "patience": 0},
        terminate_on_low_lr=1e-9,  # torch's own eps would stop at 1e-7
    )
    schedule = make(values, optimizer())
    reductions = 0
    schedule.after_validation({"loss": 1.0})
    while not schedule.exhausted:
        schedule.after_validation({"loss": 1.0})
        reductions += 1
        assert reductions < 1000
    assert reductions == math.ceil(math.log(1e-9 / BASE) / math.log(0.9))


def test_a_cosine_ends_the_run_when_it_is_low() -> None:
    section = SchedulerSection.model_validate({"terminate_on_low_lr": 2e-4})
    found = course(section, BASE, TOTAL, EPOCH)
    expected = [s for s in range(TOTAL) if cosine(s, BASE, BASE / 100, TOTAL) < 2e-4]
    assert len(found) == expected[0] + 1


def test_what_begins_below_the_limit_is_not_ended_before_it_was_above() -> None:
    values = named("OneCycleLR", {"max_lr": 1e-3}, terminate_on_low_lr=1e-4)
    found = course(SchedulerSection.model_validate(values), BASE, TOTAL, EPOCH)
    assert found[0] < 1e-4
    assert found[-1] < 1e-4 < found[-2]
    assert len(found) > TOTAL / 2


def test_a_rate_that_grows_beyond_all_bounds_is_no_step() -> None:
    """Torch would fail in the middle of a step, when some weights are changed and some are not."""
    values = named("ExponentialLR", {"gamma": 1e200})
    with pytest.raises(NumericalError, match=r"is 1e\+197 at step 6, at most 1e\+09"):
        course(SchedulerSection.model_validate(values), BASE, TOTAL, EPOCH)


def test_warm_up_does_not_end_a_run() -> None:
    section = SchedulerSection.model_validate({"warmup_steps": 100, "terminate_on_low_lr": 9e-4})
    assert course(section, BASE, 10, 10)[0] == pytest.approx(BASE / 100)


def test_course_is_what_training_would_see() -> None:
    validation = {VALIDATE * (i + 1): loss for i, loss in enumerate(LOSSES)}
    for values, _ in CASES.values():
        section = None if values is None else SchedulerSection.model_validate(values)
        assert course(section, BASE, TOTAL, EPOCH, validation) == rates(values)


# -- refusals -------------------------------------------------------------------------------------

LINEAR, CYCLIC = named("LinearLR"), named("CyclicLR", {"base_lr": 0.1, "max_lr": 0.2})
COSINE = named("CosineAnnealingScheduler")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (named("os.system"), "unknown name 'os.system'"),
        (named("StepLr"), "did you mean 'StepLR'"),
        (named("torch.optim.lr_scheduler.LambdaLR"), "Python function, which YAML cannot hold"),
        (named("ignite.handlers.create_lr_scheduler_with_warmup"), "set scheduler.warmup_steps"),
        ({"kwargs": {"cycle_sizes": 4}}, "does not take 'cycle_sizes' .did you mean 'cycle_size'"),
        ({"kwargs": {"param_name": "momentum"}}, "param_name: Input should be 'lr'"),
        ({"kwargs": {"param_group_index": 1}}, "param_group_index"),
        ({"kwargs": {"start_value": "fast"}}, "kwargs.start_value.*found 'fast'"),
        ({"kwargs": {"cycle_mult": 0.5}}, "greater than or equal to 1"),
        ({"kwargs": {"cycle_size": "5 weeks"}}, "a count is a whole number"),
        ({"kwargs": {"cycle_size": 0}}, "must be above 0"),
        ({"kwargs": {"cycle_size": True}}, "a count is a whole number"),
        ({"warmup_steps": -1}, "a count is a whole number"),
        (named("StepLR"), "kwargs.step_size: StepLR needs it"),
        (named("StepLR", {"step_size": 2, "last_epoch": 3}), "does not take 'last_epoch'"),
        (named("CyclicLR", {"base_lr": 0, "max_lr": 1, "cycle_momentum": True}), "cycle_momentum"),
        (
            named("ConcatScheduler", {"schedulers": [COSINE, LINEAR], "durations": [5]}),
            "ConcatScheduler cannot hold LinearLR",
        ),
        (
            named("SequentialLR", {"schedulers": [LINEAR, CYCLIC], "milestones": [5]}),
            "SequentialLR cannot hold CyclicLR",
        ),
        (
            named(
                "ConcatScheduler",
                {"schedulers": [COSINE, named("PiecewiseLinear", {"x": 1})], "durations": [5]},
            ),
            r"kwargs.schedulers.1.kwargs.x: PiecewiseLinear does not take 'x'",
        ),
        (named("ReduceLROnPlateau", {}, interval="epoch"), "advances with every validation"),
        (
            named("ReduceLROnPlateau", {"min_lr": 1e-6}, terminate_on_low_lr=1e-7),
            "never falls below 1e-07",
        ),
        (
            named("ReduceLROnPlateau", {"factor": 0.9, "eps": 1e-8}, terminate_on_low_lr=1e-8),
            "never falls below 1e-08",
        ),
    ],
)
def test_wrong_settings_are_refused_by_the_schema(values: Values, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SchedulerSection.model_validate(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kwargs": {"cycle_size": 1}}, "larger than 1"),
        (
            named("ConcatScheduler", {"schedulers": [COSINE, COSINE], "durations": [5, 6]}),
            "2 schedulers need 1 values, found 2",
        ),
        (
            named("SequentialLR", {"schedulers": [LINEAR] * 3, "milestones": [9, 9]}),
            "milestones must rise",
        ),
        (
            named("PiecewiseLinear", {"milestones_values": [["50 %", 1.0], [3, 2.0]]}),
            "increasing",
        ),
        (named("OneCycleLR", {"total_steps": 100}), "ends after 100 of the run's 120 steps"),
        (named("OneCycleLR", {"epochs": 3}), "epochs and steps_per_epoch together"),
        (named("ReduceLROnPlateau", {}, terminate_on_low_lr=0.1), "above the learning rate"),
        (
            named("LinearCyclicalScheduler", {"warmup_duration": 5, "cycle_size": 9}),
            "warmup_duration",
        ),
    ],
)
def test_what_does_not_fit_the_run_is_refused(values: Values, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(values, optimizer())


# -- schedules by name ----------------------------------------------------------------------------


class Config(BaseModel):
    scheduler: SchedulerSection | None = None


def test_a_schedule_is_taken_by_its_name(tmp_path: Path) -> None:
    library = tmp_path / "schedules.yaml"
    library.write_text(
        "short: {scheduler: {kwargs: {cycle_size: 7}}}\n"
        "bare: {class: StepLR, kwargs: {step_size: 2}}\n"
    )
    config = tmp_path / "train.yaml"
    config.write_text(
        "scheduler:\n  class: PiecewiseLinear\n  kwargs: {milestones_values: [[0, 1]]}\n"
    )

    def load(name: str) -> SchedulerSection | None:
        return load_config([config], [f"scheduler={library}:{name}"], Config).model.scheduler

    assert load("short") == SchedulerSection.model_validate({"kwargs": {"cycle_size": 7}})
    assert load("bare") == SchedulerSection.model_validate(named("StepLR", {"step_size": 2}))
    with pytest.raises(ConfigError, match=r"no schedule 'shrt'(.|\n)*did you mean 'short'"):
        load("shrt")
    with pytest.raises(ConfigError, match="a mapping or FILE:NAME, found 'cosine'"):
        load_config([config], ["scheduler=cosine"], Config)
    with pytest.raises(ConfigError, match=r"below 'scheduler', which is .*short'"):
        load_config([config], [f"scheduler={library}:short", "scheduler.warmup_steps=3"], Config)
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config([config], ["scheduler=absent.yaml:short"], Config)


def test_another_class_takes_no_arguments_over(tmp_path: Path) -> None:
    first, second = tmp_path / "train.yaml", tmp_path / "plateau.yaml"
    first.write_text("scheduler: {kwargs: {start_value: 1e-3, cycle_size: 9}, warmup_steps: 5}\n")
    second.write_text("scheduler: {class: ReduceLROnPlateau, kwargs: {patience: 3}}\n")

    def load(files: list[Path], *overrides: str) -> Values:
        section = load_config(files, overrides, Config).model.scheduler
        assert section is not None
        return section.model_dump(by_alias=True, exclude_unset=True)

    plateau = {"class": "ReduceLROnPlateau", "kwargs": {"patience": 3}, "warmup_steps": 5}
    assert load([first, second]) == plateau
    by_class, by_kwargs = "scheduler.class=ReduceLROnPlateau", "scheduler.kwargs.patience=3"
    assert load([first], by_class, by_kwargs) == load([first], by_kwargs, by_class) == plateau
    same = load([first], "scheduler.class=ignite.handlers.CosineAnnealingScheduler")
    assert same["kwargs"] == {"start_value": 1e-3, "cycle_size": 9}


def test_a_wrong_argument_names_file_and_line(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("\nscheduler:\n  class: StepLR\n  kwargs: {step_sise: 3}\n")
    with pytest.raises(ConfigError, match=r"train.yaml:2: 'scheduler'(.|\n)*'step_size'"):
        load_config([config], [], Config)
