"""Schedules against their closed forms, with groups, warm-up and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.schedules import Schedule
from mlff_cli.training.settings_optimizer import SchedulerSection

BASE, TOTAL, EPOCH = 1e-3, 60, 10


def optimizer() -> torch.optim.Optimizer:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": BASE * r, "lr_ratio": r}
        for r in (1.0, 0.5)
    ]
    return torch.optim.AdamW(groups)


def make(values: dict[str, object] | None, opt: torch.optim.Optimizer) -> Schedule:
    section = None if values is None else SchedulerSection.model_validate(values)
    return Schedule(opt, section, BASE, TOTAL, EPOCH)


def rates(values: dict[str, object] | None) -> list[float]:
    opt = optimizer()
    schedule = make(values, opt)
    found = []
    for step in range(TOTAL):
        schedule.before_step(step)
        a, b = (g["lr"] for g in opt.param_groups)
        assert b == pytest.approx(a / 2, rel=1e-12)
        found.append(a)
    return found


def cosine(start: float, end: float, size: int) -> Callable[[int], float]:
    return lambda s: start + (end - start) / 2 * (1 - math.cos(math.pi * (s % size) / size))


IGNITE = "ignite.handlers.param_scheduler."
TORCH = "torch.optim.lr_scheduler."
CASES: list[tuple[dict[str, object] | None, Callable[[int], float]]] = [
    (None, lambda s: BASE),
    ({}, cosine(BASE, BASE / 100, TOTAL)),
    (
        {
            "class": IGNITE + "CosineAnnealingScheduler",
            "kwargs": {"start_value": 1e-4, "end_value": 1e-6, "cycle_size": 20},
        },
        cosine(1e-4, 1e-6, 20),
    ),
    (
        {
            "class": IGNITE + "LinearCyclicalScheduler",
            "kwargs": {"start_value": 1e-3, "end_value": 1e-4, "cycle_size": 20},
        },
        lambda s: 1e-4 + 9e-4 * abs((s % 20) / 20 - 0.5) * 2,
    ),
    (
        {
            "class": IGNITE + "PiecewiseLinear",
            "kwargs": {"milestones_values": [[0, 1e-3], [30, 1e-4], [60, 1e-4]]},
        },
        lambda s: 1e-3 - 9e-4 * min(s, 30) / 30,
    ),
    (
        {"class": TORCH + "StepLR", "kwargs": {"step_size": 2, "gamma": 0.5}},
        lambda s: BASE * 0.5 ** (s // EPOCH // 2),
    ),
    (
        {"class": TORCH + "ExponentialLR", "kwargs": {"gamma": 0.9}},
        lambda s: BASE * 0.9 ** (s // EPOCH),
    ),
    (
        {"class": TORCH + "CosineAnnealingLR", "kwargs": {"T_max": 6}},
        lambda s: BASE * (1 + math.cos(math.pi * (s // EPOCH) / 6)) / 2,
    ),
    ({"warmup_steps": 8}, lambda s: min(1, (s + 1) / 8) * cosine(BASE, BASE / 100, TOTAL)(s)),
]


@pytest.mark.parametrize(("values", "closed_form"), CASES)
def test_schedules_follow_their_closed_form(
    values: dict[str, object] | None, closed_form: Callable[[int], float]
) -> None:
    assert rates(values) == pytest.approx([closed_form(s) for s in range(TOTAL)], rel=1e-9)


def test_cycles_can_grow() -> None:
    values = {"kwargs": {"start_value": 1.0, "end_value": 0.0, "cycle_size": 10, "cycle_mult": 2.0}}
    found = rates(values)
    assert found[0] == found[10] == found[30] == 1.0
    assert found[20] == pytest.approx(0.5)


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("at", [1, 10, 25])
def test_a_resumed_schedule_goes_on_as_if_never_stopped(case: int, at: int) -> None:
    values = CASES[case][0]
    expected = rates(values)
    opt = optimizer()
    first = make(values, opt)
    for step in range(at):
        first.before_step(step)
    state = first.state_dict()
    torch.save(state, buffer := __import__("io").BytesIO())
    buffer.seek(0)
    resumed = optimizer()
    second = make(values, resumed)
    resumed.load_state_dict(opt.state_dict())
    second.load_state_dict(torch.load(buffer, weights_only=True))
    found = []
    for step in range(at, TOTAL):
        second.before_step(step)
        found.append(resumed.param_groups[0]["lr"])
    assert found == pytest.approx(expected[at:], rel=1e-12)


def test_plateau_reduces_on_the_metric_and_ends_when_low() -> None:
    opt = optimizer()
    values = {
        "class": IGNITE + "ReduceLROnPlateauScheduler",
        "kwargs": {"metric_name": "val_loss", "factor": 0.5, "patience": 1},
        "terminate_on_low_lr": 3e-4,
    }
    schedule = make(values, opt)
    seen = []
    for loss in (1.0, 0.9, 0.95, 0.95, 0.95, 0.95):
        schedule.after_validation({"loss": loss})
        schedule.before_step(len(seen))
        seen.append(opt.param_groups[1]["lr"] / BASE)
    assert seen == pytest.approx([0.5, 0.5, 0.5, 0.25, 0.25, 0.125])
    assert schedule.exhausted
    with pytest.raises(ConfigError, match="no metric"):
        make({**values, "kwargs": {"metric_name": "X_rmse"}}, opt).after_validation({"loss": 1.0})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class": "os.system"}, "unknown name"),
        ({"class": IGNITE + "ConcatScheduler"}, "later version"),
        ({"kwargs": {"cycle_sizes": 4}}, "does not take 'cycle_sizes'"),
        ({"kwargs": {"cycle_size": 1}}, "larger than 1"),
        ({"kwargs": {"param_name": "momentum"}}, "only 'lr'"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(values, optimizer())
