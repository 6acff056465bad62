"""Weights of one model in another of the same shape, or with more fidelities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError


@dataclass(frozen=True)
class Transferred:
    """What became of the weights.

    Attributes:
        copied: parameters taken over as they are.
        repeated: parameters of one fidelity that every fidelity got a copy of.
    """

    copied: list[str]
    repeated: list[str]


@torch.no_grad()
def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> Transferred:
    """Copy weights into a model.

    A tensor whose first dimension is k times too short is repeated k times: the tables of a
    single-fidelity model become the same start for every fidelity.

    Raises:
        ConfigError: names or shapes do not fit; says which.
    """
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if missing or extra:
        raise ConfigError(
            f"the weights belong to another architecture: missing {missing[:3] or 'none'}, "
            f"unknown {extra[:3] or 'none'}",
            where=where,
            remedy="train with the --model that they were made with",
        )
    copied, repeated = [], []
    for name, target in own.items():
        source = weights[name]
        if source.shape == target.shape:
            copied.append(name)
        elif _repeatable(source, target):
            source = source.repeat(target.shape[0] // source.shape[0], *[1] * (source.dim() - 1))
            repeated.append(name)
        else:
            raise ConfigError(
                f"{name!r} has shape {tuple(source.shape)}, this model needs {tuple(target.shape)}",
                where=where,
                remedy="train with the --model and the fidelities that they were made with",
            )
        target.copy_(source)
    return Transferred(copied, repeated)


def _repeatable(source: Tensor, target: Tensor) -> bool:
    return (
        source.dim() == target.dim() > 0
        and source.shape[1:] == target.shape[1:]
        and source.shape[0] > 0
        and target.shape[0] % source.shape[0] == 0
    )
