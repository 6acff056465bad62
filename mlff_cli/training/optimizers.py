"""Optimizers with parameter groups chosen by regular expressions of the parameters' names.

Torch's own, and AdaBelief (Zhuang et al., NeurIPS 2020) and Yogi (Zaheer et al., NeurIPS 2018) of
pytorch_optimizer, which takes a second to import and is imported only for these.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from mlff_cli.core.config import nearest
from mlff_cli.core.errors import ConfigError, MissingDependencyError
from mlff_cli.training.allowlist import Allowlist
from mlff_cli.training.losses import WEIGHTS_GROUP, MultiTaskLoss
from mlff_cli.training.settings_optimizer import OptimizerSection, ParamGroup
from mlff_cli.training.task import PartOf, whole_model


@dataclass(frozen=True)
class Kind:
    """One optimizer, imported when it is asked for.

    Attributes:
        module: where its class is.
        name: of its class.
    """

    module: str
    name: str

    def load(self) -> type[torch.optim.Optimizer]:
        """The class.

        Raises:
            MissingDependencyError: its package is not installed.
        """
        try:
            kind: type[torch.optim.Optimizer] = getattr(import_module(self.module), self.name)
        except ImportError as error:
            raise MissingDependencyError(
                f"optimizer.class: {self.name} needs the package {self.module}: {error}",
                remedy="pip install pytorch-optimizer, or use torch.optim.AdamW",
            ) from error
        return kind


_TORCH = (
    "AdamW", "Adam", "RAdam", "NAdam", "SGD", "Adagrad", "Adamax", "RMSprop", "Adadelta", "ASGD",
    "Rprop", "Adafactor", "Muon",
)  # fmt: skip
_OTHERS = ("AdaBelief", "Yogi")  # pytorch_optimizer holds classes of other licences, too
OPTIMIZERS: Allowlist[Kind] = Allowlist(
    "optimizer.class",
    ("torch.optim", "pytorch_optimizer"),
    {name: Kind("torch.optim", name) for name in _TORCH}
    | {name: Kind("pytorch_optimizer", name) for name in _OTHERS},
)
_UNFIT = {
    "LBFGS": "it computes the same batch several times per step and keeps one learning rate",
    "SparseAdam": "it takes sparse gradients, and the gradients here are dense",
}
_REST = "others"  # the group of parameters that match no expression


def freeze(model: nn.Module, section: OptimizerSection, part_of: PartOf = whole_model) -> list[str]:
    """Exclude parameters from training as `force_no_train` and `force_train` say.

    Args:
        model: the model.
        section: `optimizer` of the configuration.
        part_of: part that a parameter belongs to: expressions are searched in `part.name`, too,
            so that `backbone.*` means the backbone.

    Returns:
        Names of the excluded parameters.

    Raises:
        ConfigError: an expression is broken or matches nothing, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    stopped = _matching(names, part_of, section.force_no_train, "optimizer.force_no_train")
    kept = _matching(names, part_of, section.force_train, "optimizer.force_train")
    frozen = sorted(stopped - kept)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if len(frozen) == len(names):
        raise ConfigError(
            "optimizer.force_no_train leaves nothing to train",
            remedy="name what is trained under optimizer.force_train",
        )
    return frozen


def _matching(names: Sequence[str], part_of: PartOf, patterns: Sequence[str], key: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if _search(pattern, name, part_of, key)]
        if not hits:
            raise ConfigError(
                f"{key}: {pattern!r} matches no parameter",
                remedy="parameters are named like "
                + ", ".join(f"{part_of(name)}.{name}".lstrip(".") for name in names[:4]),
            )
        found.update(hits)
    return found


def _search(pattern: str, name: str, part_of: PartOf, key: str) -> bool:
    try:
        return any(re.search(pattern, text) for text in (name, f"{part_of(name)}.{name}"))
    except re.error as error:
        raise ConfigError(f"{key}: {pattern!r} is no regular expression: {error}") from None


def build_optimizer(
    model: nn.Module,
    section: OptimizerSection,
    loss: MultiTaskLoss | None = None,
    part_of: PartOf = whole_model,
) -> torch.optim.Optimizer:
    """The optimizer that a configuration describes.

    Every group holds its name and `lr_ratio`, its learning rate by the optimizer's, which
    schedules keep. What the loss learns is the last group.

    Args:
        model: whose parameters are trained, as far as they require a gradient.
        section: `optimizer` of the configuration.
        loss: may have parameters of its own.
        part_of: see `freeze`.

    Raises:
        ConfigError: unknown class, an argument that the class does not take, a group that matches
            no parameter.
        MissingDependencyError: the optimizer's package is not installed.
    """
    kind = _kind(section.class_)
    base = section.kwargs.lr
    kwargs = _arguments(kind, section)
    groups = _groups(model, section, part_of)
    if "weight_decay" not in kwargs and any(g.get("weight_decay") for g in groups):
        raise ConfigError(
            f"optimizer.param_groups: {section.class_} does not take 'weight_decay'",
            remedy="leave it out",
        )
    if loss is not None:
        groups += loss.param_groups(base)
    if kind.__name__ == "Muon":
        _check_matrices(model, loss)
    try:
        return kind(groups, **kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"optimizer.kwargs: {error}") from None


def _kind(name: str) -> type[torch.optim.Optimizer]:
    short = name.removeprefix("torch.optim.")
    if short in _UNFIT:
        raise ConfigError(
            f"optimizer.class: {name} cannot train here: {_UNFIT[short]}",
            remedy="use torch.optim.AdamW",
        )
    return OPTIMIZERS.find(name).load()


def _arguments(kind: type[torch.optim.Optimizer], section: OptimizerSection) -> dict[str, Any]:
    """What is given to the class; a default of ours that it does not take is dropped."""
    known = type(section.kwargs).model_fields
    accepted = [name for name in inspect.signature(kind).parameters if name in known]
    kwargs = {k: v for k, v in section.kwargs.model_dump().items() if v is not None}
    for name in set(kwargs) - set(accepted):
        if name in section.kwargs.model_fields_set:
            near = nearest(name, accepted, 1)
            raise ConfigError(
                f"optimizer.kwargs: {section.class_} does not take {name!r}",
                remedy=f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(accepted)}",
            )
        kwargs.pop(name)
    pair = kind.__name__ == "Adafactor"
    if "eps" in kwargs and isinstance(kwargs["eps"], tuple) != pair:
        needed = "two numbers" if pair else "a number"
        raise ConfigError(
            f"optimizer.kwargs.eps: {section.class_} takes {needed}, found {kwargs['eps']}",
            remedy="leave it out: the optimizer has its own",
        )
    return kwargs


def _groups(model: nn.Module, section: OptimizerSection, part_of: PartOf) -> list[dict[str, Any]]:
    """Groups of the trained parameters; each parameter is in the first that it matches."""
    for name in (_REST, WEIGHTS_GROUP):
        if name in section.param_groups:
            raise ConfigError(
                f"optimizer.param_groups: {name!r} is the name of a group that is always there",
                remedy="call it something else",
            )
    groups = {
        name: _group(name, group, section.kwargs.lr) for name, group in section.param_groups.items()
    }
    groups[_REST] = _group(_REST, ParamGroup(re=""), section.kwargs.lr)
    matched = set()
    for name, parameter in model.named_parameters():
        key = next(
            (
                key
                for key, group in section.param_groups.items()
                if _search(group.re, name, part_of, f"optimizer.param_groups.{key}.re")
            ),
            _REST,
        )
        matched.add(key)
        if parameter.requires_grad:
            groups[key]["params"].append(parameter)
    for key, group in section.param_groups.items():
        if key not in matched:
            raise ConfigError(
                f"optimizer.param_groups.{key}.re: {group.re!r} matches no parameter",
                remedy=f"set optimizer.param_groups.{key} to match one",
            )
    return [group for group in groups.values() if group["params"]]


def _group(key: str, group: ParamGroup, base: float) -> dict[str, Any]:
    lr = group.lr if group.lr is not None else base * (group.lr_scale or 1.0)
    settings: dict[str, Any] = {"name": key, "lr": lr, "lr_ratio": lr / base, "params": []}
    if group.weight_decay is not None:
        settings["weight_decay"] = group.weight_decay
    return settings


def _check_matrices(model: nn.Module, loss: MultiTaskLoss | None) -> None:
    """Muon orthogonalises matrices; nothing else has rows and columns."""
    named = [*model.named_parameters(), *(loss.named_parameters() if loss is not None else ())]
    other = next(((n, p) for n, p in named if p.requires_grad and p.dim() != 2), None)
    if other is not None:
        raise ConfigError(
            f"optimizer.class: Muon trains matrices only, and {other[0]!r} has shape "
            f"{tuple(other[1].shape)}",
            remedy="use torch.optim.AdamW, or freeze the others (optimizer.force_no_train)",
        )
