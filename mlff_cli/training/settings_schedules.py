"""Schema of the learning rate schedule: which kinds there are, and which may hold which.

`scheduler: FILE:NAME` takes a schedule by its name from a YAML file of many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from mlff_cli.core.config import nearest, read_yaml
from mlff_cli.core.errors import ConfigError
from mlff_cli.training.allowlist import Allowlist
from mlff_cli.training.schedule_arguments import (
    ConstantArguments,
    CosineArguments,
    Count,
    CountOrZero,
    CyclicalArguments,
    CyclicArguments,
    ExponentialArguments,
    IgniteArguments,
    LinearArguments,
    LinearCyclicalArguments,
    MultiStepArguments,
    OneCycleArguments,
    PiecewiseArguments,
    PlateauArguments,
    PolynomialArguments,
    Rate,
    StepArguments,
    TorchArguments,
    WarmRestartsArguments,
)
from mlff_cli.training.settings_base import Section


class ConcatArguments(IgniteArguments):
    """Of ConcatScheduler: ignite's schedules one after the other."""

    schedulers: list[SchedulePart] = Field(min_length=2)
    """Schedules, each with `class` and `kwargs`; each counts from its own start."""
    durations: list[Count]
    """How long each but the last lasts."""


class SequentialArguments(TorchArguments):
    """Of SequentialLR: torch's schedules one after the other."""

    schedulers: list[SchedulePart] = Field(min_length=2)
    """Schedules, each with `class` and `kwargs`; each counts from its own start."""
    milestones: list[Count]
    """When each but the first begins."""


class ChainedArguments(TorchArguments):
    """Of ChainedScheduler: the product of torch's schedules."""

    schedulers: list[SchedulePart] = Field(min_length=1)
    """Schedules, each with `class` and `kwargs`."""


@dataclass(frozen=True)
class Kind:
    """One schedule.

    Attributes:
        name: of its class.
        arguments: what it takes.
        interval: when it advances.
        library: whose class it is.
        parts: classes that its `schedulers` may be of.
    """

    name: str
    arguments: type[Section]
    interval: Literal["iteration", "epoch", "validation"]
    library: Literal["ignite", "torch"]
    parts: tuple[str, ...] = ()


_IGNITE = (
    "CosineAnnealingScheduler", "LinearCyclicalScheduler", "PiecewiseLinear", "ConcatScheduler",
)  # fmt: skip
# The product law of a chain holds for schedules that multiply what they find. In a sequence those
# that set torch's `initial_lr` (OneCycleLR, CyclicLR) would change their neighbours.
_FACTORS = ("StepLR", "MultiStepLR", "ExponentialLR", "ConstantLR", "LinearLR", "PolynomialLR")
_SEQUENCE = (*_FACTORS, "CosineAnnealingLR", "CosineAnnealingWarmRestarts")
_KINDS = (
    Kind("CosineAnnealingScheduler", CyclicalArguments, "iteration", "ignite"),
    Kind("LinearCyclicalScheduler", LinearCyclicalArguments, "iteration", "ignite"),
    Kind("PiecewiseLinear", PiecewiseArguments, "iteration", "ignite"),
    Kind("ConcatScheduler", ConcatArguments, "iteration", "ignite", _IGNITE),
    Kind("ReduceLROnPlateauScheduler", PlateauArguments, "validation", "torch"),
    Kind("ReduceLROnPlateau", PlateauArguments, "validation", "torch"),
    Kind("StepLR", StepArguments, "epoch", "torch"),
    Kind("MultiStepLR", MultiStepArguments, "epoch", "torch"),
    Kind("ExponentialLR", ExponentialArguments, "epoch", "torch"),
    Kind("CosineAnnealingLR", CosineArguments, "epoch", "torch"),
    Kind("CosineAnnealingWarmRestarts", WarmRestartsArguments, "epoch", "torch"),
    Kind("ConstantLR", ConstantArguments, "epoch", "torch"),
    Kind("LinearLR", LinearArguments, "epoch", "torch"),
    Kind("PolynomialLR", PolynomialArguments, "epoch", "torch"),
    Kind("CyclicLR", CyclicArguments, "iteration", "torch"),
    Kind("OneCycleLR", OneCycleArguments, "iteration", "torch"),
    Kind("SequentialLR", SequentialArguments, "epoch", "torch", _SEQUENCE),
    Kind("ChainedScheduler", ChainedArguments, "epoch", "torch", _FACTORS),
)
SCHEDULES: Allowlist[Kind] = Allowlist(
    "class",
    ("ignite.handlers.param_scheduler", "ignite.handlers", "torch.optim.lr_scheduler"),
    {kind.name: kind for kind in _KINDS},
)
_FUNCTION = "takes a Python function, which YAML cannot hold; write its course as PiecewiseLinear"
_INSTEAD = {
    "LambdaLR": _FUNCTION,
    "MultiplicativeLR": _FUNCTION,
    "LRScheduler": "wraps a schedule of torch: name that schedule",
    "ParamGroupScheduler": "drives groups apart: here one schedule drives all in their ratio",
    "create_lr_scheduler_with_warmup": "is no class: set scheduler.warmup_steps",
}


class SchedulePart(Section):
    """A schedule inside another."""

    class_: str = Field(alias="class")
    """Its class, see `SchedulerSection`."""
    kwargs: dict[str, Any] = {}
    """Its arguments."""

    @property
    def kind(self) -> Kind:
        """What `class_` names."""
        return SCHEDULES.find(self.class_)

    @property
    def arguments(self) -> Section:
        """`kwargs`, checked."""
        return self.kind.arguments.model_validate(self.kwargs)

    @model_validator(mode="after")
    def _check(self) -> SchedulePart:
        short = self.class_.rpartition(".")[2]
        if short in _INSTEAD:
            raise ValueError(f"class: {short} {_INSTEAD[short]}")
        try:
            kind, arguments = self.kind, self.arguments
        except ConfigError as error:
            raise ValueError(f"{error.message} ({error.remedy})") from None
        except ValidationError as error:
            raise ValueError(_explain(error, short, self.kind.arguments)) from None
        for part in getattr(arguments, "schedulers", ()):
            if part.kind.name not in kind.parts:
                raise ValueError(
                    f"kwargs.schedulers: {kind.name} cannot hold {part.kind.name}, "
                    f"only {', '.join(kind.parts)}"
                )
        return self


def _explain(error: ValidationError, name: str, arguments: type[Section]) -> str:
    """The first problem of the arguments, in one line; a wrong key before a missing one."""
    item = min(error.errors(include_url=False), key=lambda item: item["type"] == "missing")
    place = ".".join(["kwargs", *(str(p) for p in item["loc"])])
    reason = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        near = nearest(str(item["loc"][-1]), list(arguments.model_fields), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(_own(arguments))}"
        return f"{place}: {name} does not take {item['loc'][-1]!r} ({hint})"
    if item["type"] == "missing":
        return f"{place}: {name} needs it"
    if reason.startswith(("kwargs", "class")):  # said by a part about itself
        return f"{place}.{reason}"
    return f"{place}: {reason}, found {item['input']!r}"


def _own(arguments: type[Section]) -> list[str]:
    """Arguments worth naming."""
    return [name for name in arguments.model_fields if name not in IgniteArguments.model_fields]


class SchedulerSection(SchedulePart):
    """How the learning rate changes.

    In place of its keys the section may be `FILE:NAME`, an entry of a YAML file of schedules. A
    layer of the configuration that names another class takes nothing over from the old `kwargs`.
    """

    kwargs_of_class: ClassVar[bool] = True

    class_: str = Field(
        default="ignite.handlers.param_scheduler.CosineAnnealingScheduler", alias="class"
    )
    """Schedule: CosineAnnealingScheduler, LinearCyclicalScheduler, PiecewiseLinear, ConcatScheduler
    or ReduceLROnPlateauScheduler of ignite, or one of torch.optim.lr_scheduler."""
    kwargs: dict[str, Any] = {}
    """Its arguments; a cosine without any goes from the learning rate to a hundredth of it."""
    interval: Literal["iteration", "epoch"] | None = None
    """When it advances and what it counts; null: iterations for ignite's classes, OneCycleLR and
    CyclicLR, epochs for torch's others."""
    warmup_steps: CountOrZero = 0
    """Iterations over which the learning rate rises linearly to the schedule's."""
    terminate_on_low_lr: Rate = 0.0
    """Stop when the learning rate, once above this, is below it; 0 never stops."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: object) -> object:
        return named_schedule(values) if isinstance(values, str) else values

    @model_validator(mode="after")
    def _check_reach(self) -> SchedulerSection:
        arguments, low = self.arguments, self.terminate_on_low_lr
        if isinstance(arguments, PlateauArguments):
            if self.interval:
                raise ValueError(f"interval: {self.kind.name} advances with every validation")
            smallest = arguments.eps / (1 - arguments.factor)
            if low and (low <= arguments.min_lr or low < smallest):
                raise ValueError(
                    f"terminate_on_low_lr: the learning rate never falls below {low:g}, "
                    f"kwargs.min_lr is {arguments.min_lr:g} and kwargs.eps {arguments.eps:g}"
                )
        return self


def named_schedule(text: str) -> Mapping[Any, Any]:
    """The entry of a file of schedules that `FILE:NAME` means.

    Args:
        text: `FILE:NAME`; the file's path is relative to the working directory.

    Returns:
        The schedule's keys. An entry may be `{scheduler: {...}}`, as in the example's file, so that
        it can be copied into a configuration as it is.

    Raises:
        ConfigError: not of that form, an unreadable file, an unknown name.
    """
    file, _, name = text.rpartition(":")
    if not file or not name:
        raise ConfigError(
            f"scheduler is a mapping or FILE:NAME, found {text!r}",
            remedy="write for example scheduler=schedules.yaml:cosine",
        )
    entries = read_yaml(file)
    if name not in entries:
        names = [str(key) for key in entries]
        near = nearest(name, names, n=1)
        raise ConfigError(
            f"there is no schedule {name!r}",
            where=file,
            remedy=f"did you mean {near[0]!r}?" if near else f"it holds {', '.join(names)}",
        )
    entry = entries[name]
    values = entry.get("scheduler", entry) if isinstance(entry, dict) else entry
    if not isinstance(values, dict):
        raise ConfigError(f"{name!r} must be a mapping, found {values!r}", where=file)
    return values


ConcatArguments.model_rebuild()
SequentialArguments.model_rebuild()
ChainedArguments.model_rebuild()
