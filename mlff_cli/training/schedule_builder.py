"""Makes ignite's and torch's schedules from their checked arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from ignite.handlers import param_scheduler
from torch.optim import lr_scheduler

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.schedule_arguments import RELATIVE, PlateauArguments
from mlff_cli.training.settings_schedules import SchedulePart, SchedulerSection

FINAL_SHARE = 0.01  # a cycle without end_value ends at this share of its start
_COUNTS = frozenset({
    "cycle_size", "warmup_duration", "durations", "milestones", "step_size", "total_iters",
    "T_max", "T_0", "total_steps", "step_size_up", "step_size_down",
})  # fmt: skip
_NOT_PASSED = frozenset(
    {"param_name", "save_history", "param_group_index", "trainer", "metric_name"}
)


@dataclass(frozen=True)
class Clock:
    """What a schedule counts.

    Attributes:
        total: ticks of the whole run.
        epoch: ticks of an epoch.

    >>> Clock(total=1000, epoch=50).ticks("2 epochs"), Clock(1000, 50).ticks("5 %")
    (100, 50)
    """

    total: int
    epoch: int

    @classmethod
    def of(
        cls, interval: Literal["iteration", "epoch"], total_steps: int, epoch_length: int
    ) -> Clock:
        """The clock of a run."""
        if interval == "iteration":
            return cls(total_steps, epoch_length)
        return cls(-(-total_steps // epoch_length), 1)

    def ticks(self, count: int | str) -> int:
        """Ticks of a count, which may be relative; what is not nothing is at least one tick."""
        if isinstance(count, int):
            return count
        found = RELATIVE.fullmatch(count.strip())
        assert found is not None, "the schema lets no other text through"
        number = float(found["number"])
        exact = number / 100 * self.total if found["unit"] == "%" else number * self.epoch
        return max(1, round(exact)) if number else 0


def build_schedule(section: SchedulerSection, base: torch.optim.Optimizer, clock: Clock) -> Any:
    """The schedule of an optimizer that a configuration describes.

    Args:
        section: `scheduler` of the configuration.
        base: an optimizer of one group, whose learning rate is the run's.
        clock: what the schedule counts.

    Raises:
        ConfigError: arguments that do not fit each other or the length of the run.
    """
    try:
        inner = _make(section, base, clock, clock.total)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"scheduler.kwargs: {error}") from None
    base.step()  # torch wants a step of the optimizer before a schedule's second
    return inner


def _make(part: SchedulePart, base: torch.optim.Optimizer, clock: Clock, span: int) -> Any:
    """A schedule that lasts `span` ticks."""
    kind, arguments = part.kind, part.arguments
    values = {
        name: _ticks(value, clock) if name in _COUNTS else value
        for name in type(arguments).model_fields
        if (value := getattr(arguments, name)) is not None and name not in _NOT_PASSED
    }
    if isinstance(arguments, PlateauArguments):
        return lr_scheduler.ReduceLROnPlateau(base, **values)
    lr = float(base.param_groups[0].get("initial_lr", base.param_groups[0]["lr"]))
    if kind.name in ("CosineAnnealingScheduler", "LinearCyclicalScheduler"):
        start = values.setdefault("start_value", lr)
        values.setdefault("end_value", FINAL_SHARE * start)
        values.setdefault("cycle_size", max(2, span))
    elif kind.name == "PiecewiseLinear":
        pairs = values["milestones_values"]
        values["milestones_values"] = [(clock.ticks(count), rate) for count, rate in pairs]
    elif kind.name == "CosineAnnealingLR":
        values.setdefault("T_max", span)
    elif kind.name == "OneCycleLR":
        values.setdefault("max_lr", lr)
        _whole_cycle(values, clock)
    elif kind.parts:
        spans = _spans(kind.name, values, clock)
        values["schedulers"] = [
            _make(child, base, clock, own)
            for child, own in zip(values["schedulers"], spans, strict=True)
        ]
    if kind.name == "ConcatScheduler":
        return param_scheduler.ConcatScheduler(**values)
    if kind.library == "ignite":
        return getattr(param_scheduler, kind.name)(base, "lr", **values)
    if kind.name == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler(**values, optimizer=base)
    return getattr(lr_scheduler, kind.name)(base, **values)


def _ticks(value: Any, clock: Clock) -> Any:
    return [clock.ticks(v) for v in value] if isinstance(value, list) else clock.ticks(value)


def _whole_cycle(values: dict[str, Any], clock: Clock) -> None:
    """Give OneCycleLR its length; it cannot go on after its end."""
    per_epoch, epochs = values.pop("steps_per_epoch", None), values.pop("epochs", None)
    if (per_epoch is None) != (epochs is None):
        raise ConfigError(
            "scheduler.kwargs: OneCycleLR takes epochs and steps_per_epoch together",
            remedy="leave both out: the cycle then lasts as long as the run",
        )
    length = values.setdefault("total_steps", epochs * per_epoch if epochs else clock.total)
    if length < clock.total:
        raise ConfigError(
            f"scheduler.kwargs: OneCycleLR ends after {length} of the run's {clock.total} steps",
            remedy="leave its length out: the cycle then lasts as long as the run",
        )


def _spans(name: str, values: dict[str, Any], clock: Clock) -> list[int]:
    """Ticks of every part of a composed schedule."""
    n = len(values["schedulers"])
    if name == "ChainedScheduler":
        return [clock.total] * n
    key = "durations" if name == "ConcatScheduler" else "milestones"
    given: Sequence[int] = values[key]
    if len(given) != n - 1:
        raise ConfigError(
            f"scheduler.kwargs.{key}: {n} schedulers need {n - 1} values, found {len(given)}",
            remedy="the last schedule goes on to the end of the run",
        )
    if key == "durations":
        return [*given, max(1, clock.total - sum(given))]
    spans = [
        b - a for a, b in zip([0, *given], [*given, max(clock.total, given[-1] + 1)], strict=True)
    ]
    if min(spans) < 1:
        raise ConfigError(f"scheduler.kwargs.milestones must rise, found {list(given)}")
    return spans
