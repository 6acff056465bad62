"""A step is the same however its batch is cut, and averages, stops and checks what it should."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError, MissingDependencyError, NumericalError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.families.base import Inputs
from mlff_cli.families.configure import configure
from mlff_cli.training.averages import WeightAverage
from mlff_cli.training.distributed import World
from mlff_cli.training.early_stopping import Patience
from mlff_cli.training.fit import build_stepper
from mlff_cli.training.precision import matrix_products, mixed
from mlff_cli.training.settings import EarlyStopping
from mlff_cli.training.step import Stepper
from mlff_cli.training.task import Task
from mlff_cli.training.window import LossWindow, gather, own_share
from tests.tiny_training import tiny_overrides

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return tiny_overrides(tmp_path_factory.mktemp("data"))


def prepare(overrides: Sequence[str], *more: str) -> tuple[Task, Stepper]:
    family, settings = configure("default", [], [*overrides, *more], "model")
    inputs = Inputs(None, None, CPU, torch.float64, "test", World(), split_seed=0)
    task = family.prepare(settings, inputs, NullReporter()).task
    return task, build_stepper(task, settings, World())


def gradients(stepper: Stepper, step: int) -> tuple[dict[str, Tensor], float]:
    """Gradients and loss of a step that moves nothing."""
    for group in stepper.optimizer.param_groups:
        group["lr"] = 0.0
    sums, counts = stepper(step, stepper.task.train_batch(step))
    named = stepper.task.model.named_parameters()
    grads = {n: p.grad.clone() for n, p in named if p.grad is not None}
    return grads, float(stepper.task.loss.parts(sums, counts).sum())


NO_CLIP = "trainer.gradient_clip_by=none"
STILL = ("scheduler=null", NO_CLIP)


@pytest.mark.parametrize(("n", "batch"), [(2, 8), (4, 4), (16, 1)])
def test_accumulated_batches_are_one_batch(overrides: tuple[str, ...], n: int, batch: int) -> None:
    size = "data.samplers.train.kwargs.batch_size"
    length = "data.samplers.train.kwargs.batches_per_epoch"
    _, whole = prepare(overrides, *STILL, f"{size}=16", f"{length}=3")
    _, parts = prepare(
        overrides, *STILL, f"{size}={batch}", f"{length}={3 * n}", f"trainer.accumulate={n}"
    )
    assert whole.task.epoch_length == parts.task.epoch_length == 3
    for step in range(3):
        expected, loss = gradients(whole, step)
        found, same_loss = gradients(parts, step)
        assert same_loss == pytest.approx(loss, rel=1e-10)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12)


def test_the_last_accumulated_step_of_an_epoch_takes_what_is_left(
    overrides: tuple[str, ...],
) -> None:
    _, stepper = prepare(overrides, "trainer.accumulate=4")  # 6 batches of 8
    task = stepper.task
    assert task.epoch_length == 2
    sizes = [sum(len(b) for b in task.train_batch(step)) for step in range(4)]
    assert sizes == [32, 16, 32, 16]
    assert task.name_samples(1).count(";") == 1


@pytest.mark.parametrize("how", ["norm", "value"])
def test_gradients_are_clipped_as_asked(overrides: tuple[str, ...], how: str) -> None:
    _, free = prepare(overrides, "scheduler=null", NO_CLIP)
    clip = (f"trainer.gradient_clip_by={how}", "trainer.gradient_clip=1e-3")
    _, clipped = prepare(overrides, "scheduler=null", *clip)
    g, _ = gradients(free, 0)
    c, _ = gradients(clipped, 0)
    total = torch.stack([v.square().sum() for v in g.values()]).sum().sqrt()
    assert total > 1e-3
    torch.testing.assert_close(free.gradient_norm, total)
    torch.testing.assert_close(clipped.gradient_norm, total)
    for name, gradient in g.items():
        expected = gradient.clamp(-1e-3, 1e-3) if how == "value" else gradient * 1e-3 / total
        torch.testing.assert_close(c[name], expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("how", ["norm", "value", "none"])
def test_a_batch_without_any_label_of_the_loss_moves_nothing(
    overrides: tuple[str, ...], how: str
) -> None:
    others = ("energy", "charges", "spin_charges")  # forces are left, which only fidelity 0 has
    weights = (f"loss.kwargs.components.{name}.weight=0" for name in others)
    one = ("data.samplers.train.kwargs.batch_size=1", f"trainer.gradient_clip_by={how}")
    task, stepper = prepare(overrides, *weights, *one, "optimizer.kwargs.weight_decay=0")
    step = next(s for s in range(50) if "forces" not in task.train_batch(s)[0].labels)
    before = copy.deepcopy(task.model.state_dict())
    sums, counts = stepper(step, task.train_batch(step))
    assert (float(sums.sum()), float(counts.sum()), float(stepper.gradient_norm)) == (0, 0, 0)
    stepper.check()
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())


def test_averaged_weights_follow_their_formula() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    average = WeightAverage(model, 0.9)
    expected = None
    for step in range(5):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        average.update(model)
        new = model.weight.detach().clone()
        expected = new if expected is None else 0.9 * expected + 0.1 * new
        if step == 2:  # an interruption
            state = copy.deepcopy(average.state())
            average = WeightAverage(model, 0.9)
            average.load(state, step + 1)
    torch.testing.assert_close(average.state()["weight"], expected, rtol=1e-14, atol=1e-14)
    assert not any(p.requires_grad for p in average.model.parameters())


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(
    overrides: tuple[str, ...],
) -> None:
    task, stepper = prepare(overrides)
    before = copy.deepcopy(task.model.state_dict())

    def poisoned(batch: object, whole: Tensor) -> object:
        loss, predicted = stepper._by_autograd(batch, whole)  # type: ignore[arg-type]
        next(task.model.parameters()).grad[0, 0] = torch.nan  # type: ignore[index]
        return loss, predicted

    stepper._backward = poisoned  # type: ignore[assignment]
    with pytest.raises(NumericalError, match="not finite at step 1; the batch holds fidelity"):
        stepper(0, task.train_batch(0))
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())


def test_bfloat16_products_come_close_and_leave_no_trace(overrides: tuple[str, ...]) -> None:
    def loss(precision: str) -> float:
        torch.manual_seed(0)
        task, stepper = prepare(overrides, f"trainer.precision={precision}")
        task.model.float()
        sums, counts = stepper(0, task.train_batch(0))
        return float(task.loss.parts(sums, counts).sum())

    exact, rough = loss("full"), loss("bf16")
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.05)
    assert not torch.is_autocast_enabled("cpu")


def test_precision_is_restored_and_tf32_needs_its_hardware() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(MissingDependencyError, match="trainer.precision=tf32 needs an NVIDIA GPU"):
        matrix_products("tf32", CPU).__enter__()
    torch.set_float32_matmul_precision("medium")
    try:
        with matrix_products("full", CPU), mixed("full", CPU):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_patience_counts_validations_without_improvement() -> None:
    patience = Patience(EarlyStopping(patience=2, min_delta=0.1, metric="val/F_rmse"))
    for value, exhausted in ((5.0, False), (4.95, False), (4.8, False), (4.75, False)):
        patience.after_validation({"F_rmse": value})
        assert patience.exhausted is exhausted
    again = Patience(EarlyStopping(patience=2, min_delta=0.1, metric="F_rmse"))
    again.load(patience.state())
    again.after_validation({"F_rmse": 4.71})
    assert again.exhausted
    with pytest.raises(ConfigError, match="early_stopping.metric: no metric 'F_rmse'"):
        again.after_validation({"loss": 1.0})
    never = Patience(EarlyStopping())
    for _ in range(10):
        never.after_validation({"loss": 1.0})
    assert not never.exhausted


def test_a_window_continues_and_sums_over_processes(overrides: tuple[str, ...]) -> None:
    task, stepper = prepare(overrides)
    one, two = LossWindow(task, CPU), LossWindow(task, CPU)
    assert one.components() == {}
    for step in range(3):
        sums, counts = stepper(step, task.train_batch(step))
        one.add(sums, counts)
        two.add(sums, counts)
        resumed = LossWindow(task, CPU)
        resumed.load(two.state())
        two = resumed
    assert one.components() == two.components()
    assert list(one.components()) == list(task.loss.names)
    values = torch.arange(4.0)
    total = lambda stacked: stacked.sum(dim=0)  # noqa: E731
    assert torch.equal(own_share(gather(values, World()), World(), total), values)
    assert torch.equal(own_share(torch.stack([values, values]), World(), total), 2 * values)
