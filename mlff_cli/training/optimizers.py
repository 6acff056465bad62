"""Optimizers with parameter groups chosen by regular expressions of the parameters' names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.allowlist import Allowlist
from mlff_cli.training.settings_optimizer import OptimizerSection, ParamGroup

_NAMES = (
    "AdamW", "Adam", "RAdam", "NAdam", "SGD", "Adagrad", "Adamax", "RMSprop", "Adadelta", "ASGD",
)  # fmt: skip
OPTIMIZERS: Allowlist[Any] = Allowlist(
    "optimizer.class",
    ("torch.optim",),
    {name: getattr(torch.optim, name) for name in _NAMES},
    later=("AdaBelief", "Yogi", "LBFGS", "Muon"),
)


def freeze(model: nn.Module, section: OptimizerSection) -> list[str]:
    """Exclude parameters from training as `force_no_train` and `force_train` say.

    Returns:
        Names of the excluded parameters.

    Raises:
        ConfigError: an expression is broken or matches nothing, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    stopped = _matching(names, section.force_no_train, "optimizer.force_no_train")
    kept = _matching(names, section.force_train, "optimizer.force_train")
    frozen = sorted(stopped - kept)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if len(frozen) == len(names):
        raise ConfigError(
            "optimizer.force_no_train leaves nothing to train",
            remedy="name what is trained under optimizer.force_train",
        )
    return frozen


def _matching(names: Sequence[str], patterns: Sequence[str], key: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if _search(pattern, name, key)]
        if not hits:
            raise ConfigError(
                f"{key}: {pattern!r} matches no parameter",
                remedy=f"parameters are named like {', '.join(names[:4])}",
            )
        found.update(hits)
    return found


def _search(pattern: str, name: str, key: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise ConfigError(f"{key}: {pattern!r} is no regular expression: {error}") from None


def build_optimizer(model: nn.Module, section: OptimizerSection) -> torch.optim.Optimizer:
    """The optimizer that a configuration describes.

    Every group holds its name and `lr_ratio`, its learning rate by the optimizer's, which
    schedules keep.

    Raises:
        ConfigError: unknown class, an argument that the class does not take, a group that matches
            no parameter.
    """
    kind = OPTIMIZERS.find(section.class_)
    base = section.kwargs.lr
    accepted = inspect.signature(kind).parameters
    kwargs = {k: v for k, v in section.kwargs.model_dump().items() if v is not None}
    for name in set(kwargs) - set(accepted):
        if name in section.kwargs.model_fields_set:
            raise ConfigError(
                f"optimizer.kwargs: {section.class_} does not take {name!r}", remedy="leave it out"
            )
        kwargs.pop(name)
    groups: dict[str, dict[str, Any]] = {
        name: _group(name, group, base) for name, group in section.param_groups.items()
    }
    groups["others"] = {"name": "others", "lr": base, "lr_ratio": 1.0, "params": []}
    for name, parameter in model.named_parameters():
        matching = (
            key
            for key, group in section.param_groups.items()
            if _search(group.re, name, f"optimizer.param_groups.{key}.re")
        )
        groups[next(matching, "others")]["params"].append((parameter, name))
    for key, group in section.param_groups.items():
        if not groups[key]["params"]:
            raise ConfigError(
                f"optimizer.param_groups.{key}.re: {group.re!r} matches no parameter",
                remedy=f"set optimizer.param_groups.{key} to match one",
            )
    for settings in groups.values():
        settings["params"] = [p for p, _ in settings["params"] if p.requires_grad]
    filled = [g for g in groups.values() if g["params"]]
    try:
        optimizer: torch.optim.Optimizer = kind(filled, **kwargs)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.kwargs: {error}") from None
    return optimizer


def _group(key: str, group: ParamGroup, base: float) -> dict[str, Any]:
    lr = group.lr if group.lr is not None else base * (group.lr_scale or 1.0)
    settings: dict[str, Any] = {"name": key, "lr": lr, "lr_ratio": lr / base, "params": []}
    if group.weight_decay is not None:
        settings["weight_decay"] = group.weight_decay
    return settings
