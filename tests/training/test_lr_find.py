"""The range test where theory knows the answer: full-batch descent on a quadratic."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.report.lr_curve import plot_range_test
from mlff_cli.training.distributed import World, join
from mlff_cli.training.losses import build_loss
from mlff_cli.training.lr_find import RangeTest, divergence, find_learning_rate, judge
from mlff_cli.training.settings import TrainerSection
from mlff_cli.training.settings_loss import LossSection
from mlff_cli.training.task import Task
from tests.ranks import Ranks, succeed

N, DIMENSIONS = 64, 4
TRAINER = TrainerSection(gradient_clip_by="none")


@dataclass(frozen=True)
class Samples:
    """Inputs and labels of a linear regression."""

    tensors: dict[str, Tensor]

    @property
    def labels(self) -> frozenset[str]:
        return frozenset({"energy"})

    def __len__(self) -> int:
        return len(self.tensors["energy"])

    def to(self, device: torch.device) -> Samples:
        return self


def whitened(seed: int, scale: float) -> Tensor:
    """Inputs (N, D) with x^T x / N = scale^2 1, so that the loss has the curvature 2 scale^2."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, DIMENSIONS, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(x)[0] * math.sqrt(N) * scale


def regression(
    scale: float = 1.0,
    noise: float = 0.0,
    predict: Callable[[nn.Module, Samples], Tensor] = lambda model, s: model(s.tensors["x"])[:, 0],
    first: float = 0.0,
) -> Task:
    """Learn sum(x) from zero, from other samples at every step.

    Args:
        scale: of the inputs.
        noise: standard deviation of the labels.
        predict: energies of samples.
        first: the weights to start from; at 1 there is nothing to learn.
    """
    model = nn.Linear(DIMENSIONS, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(model.weight, first)

    def batch(step: int) -> list[Samples]:
        x = whitened(step, scale)
        generator = torch.Generator().manual_seed(step)
        scatter = torch.randn(N, generator=generator, dtype=torch.float64)
        tensors = {"x": x, "energy": x.sum(1) + noise * scatter}
        tensors["energy_mask"] = torch.ones(N, dtype=torch.bool)
        tensors["n_atoms"] = torch.ones(N, dtype=torch.int64)
        return [Samples({k: v[:40] for k, v in tensors.items()})] + [
            Samples({k: v[40:] for k, v in tensors.items()})
        ]

    loss = LossSection.model_validate(
        {"kwargs": {"components": {"energy": {"weight": 1.0, "fn": "mse_loss_fn"}}}}
    )
    return Task(
        model=model,
        epoch_length=10,
        train_batch=batch,
        n_validation=0,
        validation_batch=lambda i: batch(i)[0],
        predict=lambda m, samples, training: {"energy": predict(m, samples)},  # type: ignore[arg-type]
        loss=build_loss(loss, ["energy"]),
        new_metrics=lambda: None,  # type: ignore[arg-type,return-value]
        measured=(),
        watch=(),
        name_samples=lambda step: f"samples of step {step}",
    )


def sgd(task: Task, ratio: float = 1.0) -> torch.optim.Optimizer:
    group = {"params": list(task.model.parameters()), "lr": 0.5 * ratio, "lr_ratio": ratio}
    group["name"] = "others"
    return torch.optim.SGD([group], momentum=0.0)


def find(task: Task, optimizer: torch.optim.Optimizer | None = None, **more: float) -> RangeTest:
    trainer = TRAINER
    return find_learning_rate(
        task,
        optimizer or sgd(task),
        trainer,
        World(),
        **{"steps": 100, "lowest": 1e-5, "highest": 1e2, **more},  # type: ignore[arg-type]
    )


# -- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_divergence_is_found_where_theory_puts_it(scale: float) -> None:
    limit = 1 / scale**2  # 2 / curvature: beyond it every step of descent is an ascent
    task = regression(scale, noise=0.3 * scale)
    found = find(task, lowest=1e-5 * limit, highest=1e2 * limit)
    assert found.diverged is not None
    assert limit < found.diverged < 4 * limit
    assert found.steepest is not None
    assert 0.003 * limit < found.steepest < limit
    assert found.suggestion == pytest.approx(found.diverged / 10, rel=0.06)
    assert 0.1 * limit < found.suggestion < 0.4 * limit


def test_the_loss_follows_the_recursion_of_descent() -> None:
    found = find(regression())
    distance = 1.0  # of the weights from the solution: the loss is its square times the dimensions
    for rate, loss, ratio in zip(found.rates, found.losses, found.relative, strict=True):
        assert loss == pytest.approx(DIMENSIONS * distance**2, rel=1e-6, abs=1e-12)
        assert ratio == pytest.approx(distance**2, rel=1e-6, abs=1e-12)
        distance *= 1 - 2 * rate
    steps = np.diff(np.log(found.rates))
    assert steps == pytest.approx(math.log(1e7) / 99)


def test_units_of_the_learning_rate_cancel() -> None:
    one, other = find(regression(1.0)), find(regression(0.1), lowest=1e-3, highest=1e4)
    assert one.suggestion is not None
    assert other.suggestion == pytest.approx(100 * one.suggestion, rel=1e-3)


def test_groups_keep_their_ratio() -> None:
    task = regression()
    half = find(task, sgd(task, ratio=0.5), lowest=2e-5, highest=2e2)
    whole = find(regression())
    assert half.losses == pytest.approx(whole.losses, rel=1e-9)


def test_scatter_of_the_batches_cancels() -> None:
    found = find(regression(noise=3.0), highest=1e1)
    assert max(abs(np.array(found.relative[:20]) - 1)) < 1e-2 < np.std(found.losses[:20])
    assert found.suggestion is not None


def check_two() -> None:
    with join("cpu") as world:
        task = regression(noise=1.0)
        shared = replace(task, train_batch=lambda step: task.train_batch(step)[world.rank :][:1])
        together = find_learning_rate(
            shared, sgd(task), TRAINER, world, steps=40, lowest=1e-3, highest=1e2
        )
        alone = find(regression(noise=1.0), steps=40, lowest=1e-3)
        assert together.diverged == alone.diverged
        assert together.suggestion == alone.suggestion
        assert together.losses == pytest.approx(alone.losses, rel=1e-9)


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    succeed(Ranks(tmp_path, check_two))


# -- nothing is left behind -----------------------------------------------------------------------


def exploding(model: nn.Module, samples: Samples) -> Tensor:
    """Not finite once a weight is large."""
    weight: Tensor = model.weight  # type: ignore[assignment]
    return model(samples.tensors["x"])[:, 0] * torch.where(weight.abs().max() > 9, math.nan, 1.0)


@pytest.mark.parametrize("kind", ["ends", "diverges", "fails"])
def test_weights_and_optimizer_are_as_before(kind: str) -> None:
    calls = 0

    def predict(model: nn.Module, samples: Samples) -> Tensor:
        nonlocal calls
        calls += 1
        if kind == "fails" and calls > 30:
            raise RuntimeError("out of luck")
        return exploding(model, samples) + 0 * torch.randn(1)  # draws a random number

    task = regression(predict=predict)
    task.model.eval()
    group = {"params": list(task.model.parameters()), "lr": 0.5, "lr_ratio": 1.0, "name": "others"}
    optimizer = torch.optim.AdamW([group])
    task.model.weight.grad = torch.ones_like(task.model.weight)  # type: ignore[arg-type,union-attr]
    optimizer.step()
    optimizer.zero_grad()
    before = copy.deepcopy((task.model.state_dict(), optimizer.state_dict()))
    random = torch.get_rng_state()
    if kind == "fails":
        with pytest.raises(RuntimeError, match="out of luck"):
            find(task, optimizer)
    else:
        found = find(task, optimizer, highest=1e-2 if kind == "ends" else 1e9)
        assert (found.diverged is None) == (kind == "ends")
    after = (task.model.state_dict(), optimizer.state_dict())
    for old, new in zip(before, after, strict=True):
        for group in (*old.get("param_groups", ()), *new.get("param_groups", ())):
            assert group.pop("name") == "others"
        torch.testing.assert_close(new, old, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert not task.model.training
    assert all(p.grad is None for p in task.model.parameters())


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_divergence() -> None:
    found = find(regression(predict=exploding), highest=1e6)
    assert found.diverged is not None
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 100
    assert found.diverged > found.rates[-1] or found.diverged in found.rates
    json.dumps(found.plain(), allow_nan=False)


def test_a_loss_that_is_not_finite_from_the_start_is_no_matter_of_the_rate() -> None:
    task = regression(predict=lambda model, samples: model(samples.tensors["x"])[:, 0] * math.nan)
    with pytest.raises(NumericalError, match="samples of step 0"):
        find(task)


def test_divergence_at_once_suggests_nothing() -> None:
    found = find(regression(), lowest=10.0, highest=1e6)
    assert (found.suggestion, found.steepest) == (None, None)
    assert found.diverged is not None
    assert "begin lower" in found.verdict


def test_where_there_is_nothing_to_learn_nothing_is_suggested() -> None:
    found = find(regression(noise=1.0, first=1.0))
    assert (found.suggestion, found.steepest) == (None, None)
    assert "no descent stands out" in found.verdict
    assert found.diverged is not None


def test_without_divergence_the_steepest_descent_is_suggested() -> None:
    found = find(regression(), highest=0.4)
    assert found.diverged is None
    assert found.suggestion == pytest.approx(found.steepest, rel=0.06)
    assert "stable up to 0.4" in found.verdict


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"steps": 19}, "at least 20 steps, found 19"),
        ({"lowest": 1e-3, "highest": 1e-2}, "two decades"),
        ({"lowest": 0.0}, "two decades"),
        ({"highest": math.inf}, "two decades"),
    ],
)
def test_a_test_too_short_or_narrow_is_refused(more: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find(regression(), **more)


# -- reading curves -------------------------------------------------------------------------------

RATES = np.logspace(-7, 0, 100)


def read(curve: np.ndarray, diverged: bool = False) -> RangeTest:
    return judge(RATES[: len(curve)].tolist(), curve.tolist(), curve.tolist(), diverged, 99 / 7)


@pytest.mark.parametrize("seed", range(5))
def test_the_steepest_descent_of_a_noisy_fall_is_its_middle(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=100)
    fall = 1 - 0.5 / (1 + np.exp(-5 * (np.log10(RATES) + 3)))
    found = read(fall + 0.01 * noise)
    assert found.steepest is not None
    assert abs(math.log10(found.steepest) + 3) < 0.25


def test_scatter_alone_suggests_nothing() -> None:
    generator = np.random.default_rng(0)
    curves = [1 + 0.2 * generator.normal(size=100) for _ in range(100)]
    curves += [generator.lognormal(sigma=0.5, size=100) for _ in range(100)]
    assert sum(read(curve).suggestion is not None for curve in curves) <= 1
    assert not any(divergence(curve[:n]) for curve in curves for n in range(10, 101, 5))


def test_a_single_bad_batch_is_no_divergence() -> None:
    curve = np.ones(100)
    curve[50] = 1e6
    assert divergence(curve) is None
    curve[90:] = np.logspace(0, 6, 10)
    assert divergence(curve[:80]) is None
    assert divergence(np.append(curve, [1e8] * 4)) == 50  # everything before must be exceeded
    curve[50] = 1.0
    assert divergence(curve) == 91


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    found = find(regression())
    plain = {k: v for k, v in found.plain().items() if k not in ("losses", "verdict")}
    plot_range_test(tmp_path / "a.png", plain.pop("rates"), plain.pop("relative"), **plain)
    plot_range_test(tmp_path / "b.png", [1e-3], [0.0], [0.0])
    assert all((tmp_path / f"{n}.png").read_bytes()[:4] == b"\x89PNG" for n in "ab")
