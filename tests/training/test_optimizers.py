"""Every optimizer that a configuration may name, parameter groups, and weights that stay."""

from __future__ import annotations

import importlib.util
import io
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError, MissingDependencyError
from mlff_cli.training import optimizers
from mlff_cli.training.averages import WeightAverage
from mlff_cli.training.loss_errors import MolecularError
from mlff_cli.training.losses import WEIGHTS_GROUP, AdaptiveLoss, FixedLoss, Term
from mlff_cli.training.optimizers import OPTIMIZERS, build_optimizer, freeze
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
# name -> arguments with which 200 steps get well down a parabola
FAST: dict[str, dict[str, object]] = {
    "AdamW": {"lr": 0.1},
    "Adam": {"lr": 0.1, "amsgrad": True},
    "RAdam": {"lr": 0.1, "decoupled_weight_decay": True},
    "NAdam": {"lr": 0.1},
    "SGD": {"lr": 0.02, "momentum": 0.9, "nesterov": True},
    "Adagrad": {"lr": 1.0},
    "Adamax": {"lr": 0.1},
    "RMSprop": {"lr": 0.02, "momentum": 0.5, "centered": True},
    "Adadelta": {"lr": 30.0},
    "ASGD": {"lr": 0.1},
    "Rprop": {"lr": 0.1},
    "Adafactor": {"lr": 1.0},
    "Muon": {"lr": 0.05},
    "AdaBelief": {"lr": 0.1},
    "Yogi": {"lr": 0.1},
}


class Parabola(nn.Module):
    """Half the squared distance of a matrix from a target, with unequal curvatures."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.x = nn.Parameter(torch.randn(4, 3, generator=g))
        self.target = torch.randn(4, 3, generator=g)
        self.curvature = torch.linspace(0.5, 2.0, 12).reshape(4, 3)

    def forward(self) -> Tensor:
        return 0.5 * (self.curvature * (self.x - self.target).square()).sum()


def steps(net: Parabola, optimizer: torch.optim.Optimizer, n: int) -> None:
    for _ in range(n):
        optimizer.zero_grad(set_to_none=True)
        net().backward()
        optimizer.step()


def test_every_optimizer_is_tried() -> None:
    assert set(FAST) == set(OPTIMIZERS.table)


@pytest.mark.parametrize("name", FAST)
def test_every_optimizer_goes_downhill(name: str) -> None:
    net = Parabola()
    optimizer = build_optimizer(net, section(**{"class": name, "kwargs": FAST[name]}))
    assert type(optimizer).__name__ == name
    start = float(net().detach())
    steps(net, optimizer, 200)
    assert float(net().detach()) < 0.02 * start


@pytest.mark.parametrize("name", FAST)
def test_every_optimizer_is_resumed_to_the_last_bit(name: str) -> None:
    values = section(**{"class": name, "kwargs": FAST[name]})
    whole = Parabola()
    steps(whole, build_optimizer(whole, values), 9)

    first = Parabola()
    optimizer = build_optimizer(first, values)
    steps(first, optimizer, 4)
    file = io.BytesIO()
    torch.save({"x": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = Parabola()
    optimizer = build_optimizer(second, values)
    second.load_state_dict(state["x"])
    optimizer.load_state_dict(state["optimizer"])
    assert optimizer.param_groups[0]["name"] == "others"
    assert optimizer.param_groups[0]["lr_ratio"] == 1.0
    steps(second, optimizer, 5)
    assert torch.equal(second.x, whole.x)
    assert not torch.equal(second.x, first.x)


def reference(name: str, x: np.ndarray, slopes: list[np.ndarray], lr: float) -> np.ndarray:
    """The published updates in NumPy."""
    b1, b2 = 0.9, 0.999
    if name == "AdaBelief":
        eps, m, s = 1e-16, np.zeros_like(x), np.zeros_like(x)
    else:
        eps, m, s = 1e-3, np.full_like(x, 1e-6), np.full_like(x, 1e-6)
    for t, g in enumerate(slopes, 1):
        m = b1 * m + (1 - b1) * g
        if name == "AdaBelief":
            s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        else:
            s = s - (1 - b2) * np.sign(s - g**2) * g**2
        x = x - lr * (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + eps)
    return x


@pytest.mark.parametrize("name", ["AdaBelief", "Yogi"])
def test_adabelief_and_yogi_are_the_published_ones(name: str) -> None:
    g = torch.Generator().manual_seed(4)
    net = nn.Linear(3, 4, bias=False).double()
    kwargs = {"lr": 0.01, "weight_decay": 0.0}
    optimizer = build_optimizer(net, section(**{"class": name, "kwargs": kwargs}))
    start = net.weight.detach().clone().numpy()
    slopes = [torch.randn(4, 3, generator=g, dtype=torch.float64) for _ in range(12)]
    for slope in slopes:
        net.weight.grad = slope.clone()
        optimizer.step()
    expected = reference(name, start, [s.numpy() for s in slopes], 0.01)
    np.testing.assert_allclose(net.weight.detach().numpy(), expected, rtol=1e-10)


def test_the_package_of_the_rare_ones_is_imported_only_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)  # importing it fails
    found = importlib.util.spec_from_file_location("fresh_optimizers", optimizers.__file__)
    assert found is not None
    assert found.loader is not None
    fresh = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "fresh_optimizers", fresh)
    found.loader.exec_module(fresh)
    assert isinstance(fresh.build_optimizer(model(), section()), torch.optim.AdamW)
    with pytest.raises(MissingDependencyError, match="Yogi needs the package") as error:
        fresh.build_optimizer(model(), section(**{"class": "Yogi"}))
    assert "pip install pytorch-optimizer" in str(error.value)


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


def test_what_the_loss_learns_is_the_last_group_and_does_not_decay() -> None:
    terms = [Term("energy", MolecularError("energy"), 1.0)]
    loss = AdaptiveLoss(terms, lr=0.02)
    values = section(kwargs={"lr": 1e-3, "weight_decay": 0.5}, param_groups=GROUPS)
    last = build_optimizer(model(), values, loss).param_groups[-1]
    assert last["name"] == WEIGHTS_GROUP
    assert (last["lr"], last["weight_decay"]) == (0.02, 0.0)
    assert last["lr_ratio"] == pytest.approx(20.0)
    assert last["params"] == [loss.log_variance]
    fixed = build_optimizer(model(), values, FixedLoss(terms))
    assert [g["name"] for g in fixed.param_groups] == ["embeddings", "out", "others"]


# -- freezing -------------------------------------------------------------------------------------

DECAYING = [
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.3, "momentum": 0.9}),
    ("AdaBelief", {"lr": 0.1, "weight_decay": 0.3}),
    ("Yogi", {"lr": 0.1, "weight_decay": 0.3}),
]


@pytest.mark.parametrize(("name", "kwargs"), DECAYING)
@pytest.mark.parametrize("decay", [0.9, 0.3])
def test_frozen_parameters_do_not_change_a_bit(
    name: str, kwargs: dict[str, object], decay: float
) -> None:
    net = model()
    values = section(
        **{"class": name, "kwargs": kwargs, "param_groups": GROUPS},
        force_no_train=["mlp", "afv"],
        force_train=["mlp.bias"],
    )
    assert freeze(net, values) == ["afv.weight", "mlp.weight"]
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    optimizer = build_optimizer(net, values)
    average = WeightAverage(net, decay)
    for _ in range(7):
        optimizer.zero_grad(set_to_none=True)
        net["out"](net["mlp"](net["afv"](torch.arange(5)))).square().sum().backward()
        optimizer.step()
        average.update(net)
    for held in (net, average.model):
        moved = {n for n, p in held.named_parameters() if not torch.equal(p, before[n])}
        assert moved == {"mlp.bias", "out.weight", "out.bias"}


def test_a_group_that_is_frozen_whole_is_left_out() -> None:
    net = model()
    values = section(param_groups=GROUPS, force_no_train=["afv"])
    freeze(net, values)
    names = [g["name"] for g in build_optimizer(net, values).param_groups]
    assert names == ["out", "others"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"force_no_train": ["nothing"]}, "matches no parameter"),
        ({"force_no_train": [".*"]}, "nothing to train"),
        ({"force_no_train": ["("]}, "no regular expression"),
    ],
)
def test_freezing_nothing_or_everything_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze(model(), section(**values))


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class": "os.system"}, "unknown name"),
        ({"class": "mypackage.AdamW"}, "unknown name"),
        ({"class": "torch_optimizer.AdaBelief"}, "unknown name"),
        ({"class": "pytorch_optimizer.Lion"}, "unknown name"),
        ({"class": "AdanW"}, "did you mean 'AdamW'"),
        ({"class": "torch.optim.LBFGS"}, "the same batch several times"),
        ({"class": "SparseAdam"}, "sparse gradients"),
        ({"class": "Muon"}, "'mlp.bias' has shape"),
        ({"kwargs": {"momentum": 0.9}}, "does not take 'momentum'"),
        ({"class": "SGD", "kwargs": {"momentum_decay": 0.9}}, "did you mean 'momentum'"),
        ({"class": "Yogi", "kwargs": {"rectify": True}}, "does not take 'rectify'"),
        ({"kwargs": {"betas": [1.5, 0.9]}}, "beta"),
        ({"class": "AdaBelief", "kwargs": {"betas": [1.5, 0.9]}}, "beta"),
        ({"class": "SGD", "kwargs": {"nesterov": True}}, "[Nn]esterov"),
        ({"kwargs": {"foreach": True, "fused": True}}, "fused"),
        ({"param_groups": {"a": {"re": "nothing"}}}, "matches no parameter"),
        ({"param_groups": {"a": {"re": "("}}}, "no regular expression"),
        ({"param_groups": {"others": {"re": "afv"}}}, "always there"),
        ({"class": "Rprop", "param_groups": {"a": {"re": "afv", "weight_decay": 0.1}}}, "take"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_optimizer(model(), section(**values))


def test_muon_trains_matrices_when_the_rest_is_frozen() -> None:
    net = model()
    values = section(**{"class": "Muon"}, force_no_train=[".*bias"])
    freeze(net, values)
    optimizer = build_optimizer(net, values)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 3


@pytest.mark.parametrize("name", FAST)
def test_the_defaults_of_the_configuration_suit_every_optimizer(name: str) -> None:
    build_optimizer(Parabola(), section(**{"class": name}))
