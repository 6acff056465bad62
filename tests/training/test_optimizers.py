"""Parameter groups, freezing, and names that are looked up and never imported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.optimizers import build_optimizer, freeze
from mlff_cli.training.settings_optimizer import OptimizerSection


def model() -> nn.Module:
    return nn.ModuleDict(
        {"afv": nn.Embedding(5, 3), "mlp": nn.Linear(3, 2), "out": nn.Linear(2, 1)}
    )


def section(**values: object) -> OptimizerSection:
    return OptimizerSection.model_validate(values)


GROUPS = {
    "embeddings": {"re": "afv.weight", "lr_scale": 0.5, "weight_decay": 0.0},
    "out": {"re": "out.*", "lr": 1e-3},
}


def test_the_defaults_are_the_published_ones() -> None:
    optimizer = build_optimizer(model(), section())
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (5e-5, 1e-6, (0.9, 0.999))


def test_groups_have_their_own_settings_and_every_parameter_one_group() -> None:
    net = model()
    optimizer = build_optimizer(net, section(param_groups=GROUPS))
    groups = {g["name"]: g for g in optimizer.param_groups}
    assert groups["embeddings"]["lr"] == pytest.approx(2.5e-5)
    assert groups["embeddings"]["weight_decay"] == 0.0
    assert groups["out"]["lr_ratio"] == pytest.approx(20.0)
    assert groups["others"]["weight_decay"] == 1e-6
    listed = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in net.parameters())


def test_a_group_lr_of_the_user_wins_over_the_scale_of_a_preset() -> None:
    groups = {"a": {"re": "afv", "lr": 3e-4, "lr_scale": 0.5}}
    optimizer = build_optimizer(model(), section(param_groups=groups))
    assert [g["lr"] for g in optimizer.param_groups if g["name"] == "a"] == [3e-4]


def test_frozen_parameters_do_not_move() -> None:
    net = model()
    frozen = freeze(net, section(force_no_train=["mlp", "afv"], force_train=["mlp.bias"]))
    assert frozen == ["afv.weight", "mlp.weight"]
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    optimizer = build_optimizer(net, section(kwargs={"lr": 0.1}, param_groups=GROUPS))
    net["out"](net["mlp"](net["afv"](torch.arange(5)))).square().sum().backward()
    optimizer.step()
    moved = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"mlp.bias", "out.weight", "out.bias"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class": "os.system"}, "unknown name"),
        ({"class": "mypackage.AdamW"}, "unknown name"),
        ({"class": "torch_optimizer.AdaBelief"}, "unknown name"),
        ({"class": "AdaBelief"}, "later version"),
        ({"kwargs": {"momentum": 0.9}}, "does not take 'momentum'"),
        ({"kwargs": {"betas": [1.5, 0.9]}}, "beta"),
        ({"param_groups": {"a": {"re": "nothing"}}}, "matches no parameter"),
        ({"param_groups": {"a": {"re": "("}}}, "no regular expression"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_optimizer(model(), section(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"force_no_train": ["backbone.*"]}, "matches no parameter"),
        ({"force_no_train": [".*"]}, "nothing to train"),
    ],
)
def test_freezing_nothing_or_everything_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze(model(), section(**values))


@pytest.mark.parametrize("name", ["SGD", "torch.optim.RAdam", "Adagrad", "RMSprop", "NAdam"])
def test_other_optimizers_take_the_common_arguments(name: str) -> None:
    values = {"class": name, "kwargs": {"lr": 0.01}}
    assert type(build_optimizer(model(), section(**values))).__name__ == name.split(".")[-1]
