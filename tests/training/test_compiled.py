"""A compiled step gives the losses, predictions and gradients of the plain one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlff_cli.core.compilers import check_compiler
from mlff_cli.core.errors import MissingDependencyError
from mlff_cli.families.multifidelity import predict
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.training.compiled import CompiledBackward
from mlff_cli.training.losses import build_loss
from mlff_cli.training.recording import Recorded
from mlff_cli.training.settings_loss import LossSection
from tests.potentials.aimnet2_cases import make_batch
from tests.tiny import tiny_spec

LABELS = ("energy", "forces", "charges")
# two passes instead of three, and few layers: a graph half as long, with every kind of operation
SIZES: dict[str, object] = {"hidden": ((6,), (6,)), "energy_hidden": (5,), "aim_size": 4}


def uncompiled(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """Runs the record as it is: what is recorded can be tested without minutes of compiling."""
    return graph


def make_task(dtype: torch.dtype = torch.float64, loss: str = "MTLoss", **sizes: object) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AIMNet2(tiny_spec(num_fidelities=2, **{**SIZES, **sizes})).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
    components = {"energy": {"weight": 1.0}, "forces": {"weight": 0.5}, "charges": {"weight": 0.2}}
    section = LossSection.model_validate({"class": loss, "kwargs": {"components": components}})
    return SimpleNamespace(model=model, loss=build_loss(section, LABELS), predict=predict)


def labelled(
    sizes: list[int], absent: tuple[str, ...] = (), dtype: torch.dtype = torch.float64
) -> Any:
    """Molecules of two fidelities; each label is missing in some of them, or in all."""
    b, n = len(sizes), max(sizes)
    tensors = make_batch(sizes, dtype=dtype, fidelities=[i % 2 for i in range(b)])
    rng = torch.Generator().manual_seed(1)
    shapes = {"energy": (b,), "forces": (b, n, 3), "charges": (b, n)}
    for i, label in enumerate(LABELS):
        values = torch.randn(shapes[label], generator=rng, dtype=torch.float64)
        tensors[label] = values if label == "energy" else values.to(dtype)
        tensors[f"{label}_mask"] = (torch.arange(b) % 3 != i) & (label not in absent)
    tensors["n_atoms"] = torch.tensor(sizes)
    tensors["fidelity"] = torch.arange(b) % 2
    present = frozenset(label for label in LABELS if tensors[f"{label}_mask"].any())
    return SimpleNamespace(tensors=tensors, labels=present)


def eager(task: Any, batch: Any, whole: Tensor) -> tuple[Any, dict[str, Tensor]]:
    predicted = task.predict(task.model, batch, True)
    value = task.loss(predicted, batch.tensors, whole)
    value.total.backward()
    return value, predicted


def gradients(task: Any) -> dict[str, Tensor | None]:
    parts = (("model", task.model), ("loss", task.loss))
    named = ((f"{part}.{n}", p) for part, m in parts for n, p in m.named_parameters())
    return {name: p.grad for name, p in named}


def assert_same(task: Any, backward: CompiledBackward, batch: Any, tolerance: float) -> None:
    """Losses, predictions, and gradients on top of gradients that are there already."""
    other = SimpleNamespace(**{k: copy.deepcopy(v) for k, v in vars(task).items()})
    before = gradients(task)
    for part in (other.model, other.loss):
        prefix = "model" if part is other.model else "loss"
        for name, parameter in part.named_parameters():  # a copy of a parameter has no gradient
            there = before[f"{prefix}.{name}"]
            parameter.grad = None if there is None else there.clone()
    whole = task.loss.counts([batch.tensors]) + 2  # a part of something larger
    expected, predictions = eager(other, batch, whole)
    value, predicted = backward(batch, whole)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(value.total, expected.total.detach(), **close)
    torch.testing.assert_close(value.sums, expected.sums, **close)
    assert torch.equal(value.counts, expected.counts)
    assert predicted.keys() == predictions.keys()
    for name, y in predictions.items():
        torch.testing.assert_close(predicted[name], y.detach(), **close)
    found = gradients(task)
    for name, gradient in gradients(other).items():
        if gradient is None:
            assert found[name] is None, name
        else:
            scale = float(gradient.abs().max()) + 1e-6
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=tolerance * scale)
            assert found[name].stride() == gradient.stride(), name


SIZES_OF_BATCHES = ([5, 3, 4], [2, 7, 2], [9, 1, 1, 6, 2], [3, 3, 3], [16] * 16, [1, 1, 1], [4])


@pytest.fixture(scope="module")
def recorded() -> tuple[Any, CompiledBackward]:
    """A task and its record for molecules with all labels, which takes seconds to make."""
    task = make_task(loss="MTAdaWLoss")
    backward = CompiledBackward(task, compiler=uncompiled)
    assert_same(task, backward, labelled([5, 3, 4]), 1e-10)
    return task, backward


def test_one_record_serves_batches_of_every_size(recorded: tuple[Any, CompiledBackward]) -> None:
    task, backward = recorded
    before = backward.compilations
    for sizes in SIZES_OF_BATCHES:
        batch = labelled(sizes)
        assert_same(task, backward, batch, 1e-10)
        assert (len(batch.labels) == 3) == (len(sizes) > 2)
    assert backward.compilations == before == 1  # a single molecule is not worth a compilation


def test_sizes_are_no_condition_of_the_record(recorded: tuple[Any, CompiledBackward]) -> None:
    record = next(iter(recorded[1]._graphs.values()))._recorded
    assert record is not None
    assert all(record.holds(B=b, N=n) for b in range(2, 70) for n in range(2, 70))
    assert not record.holds(B=1, N=5)
    assert not record.holds(B=5, N=1)


def test_gradients_follow_the_weights(recorded: tuple[Any, CompiledBackward]) -> None:
    task, backward = recorded
    optimizer = torch.optim.SGD([*task.model.parameters(), *task.loss.parameters()], lr=1e-3)
    for sizes in ([5, 3, 4], [2, 7, 3]):
        optimizer.zero_grad()
        assert_same(task, backward, labelled(sizes), 1e-10)
        optimizer.step()


def test_padding_may_hold_anything(recorded: tuple[Any, CompiledBackward]) -> None:
    task, backward = recorded
    task.model.zero_grad()
    batch = labelled([5, 3, 4])
    batch.tensors["coord"][batch.tensors["numbers"] == 0] = float("nan")
    assert_same(task, backward, batch, 1e-10)


def test_every_set_of_labels_and_of_trained_parameters_has_its_own_record() -> None:
    task = make_task()
    backward = CompiledBackward(task, compiler=uncompiled)
    for _ in range(2):
        for absent in (("forces",), ("forces", "charges")):
            assert_same(task, backward, labelled([5, 3, 4], absent), 1e-10)
    assert backward.compilations == 2
    task.model.zero_grad()
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad_(not name.startswith(("mlps", "afv")))
    assert_same(task, backward, labelled([5, 3, 4], ("forces",)), 1e-10)
    frozen = [p for p in task.model.parameters() if not p.requires_grad]
    assert frozen
    assert all(p.grad is None for p in frozen)
    assert backward.compilations == 3


def test_a_size_that_the_function_looks_at_becomes_a_guard() -> None:
    def function(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        x = inputs["x"]
        return [x.sum(dim=1) if x.shape[0] > 5 else x.amax(dim=1)]

    recorded = Recorded(function, {"x": torch.ones(2, 3)}, {"x": ("B", "N")}, uncompiled)
    assert recorded.guards
    assert recorded.holds(B=6, N=40)
    assert not recorded.holds(B=5, N=40)
    x = torch.randn(7, 3)
    assert torch.equal(recorded({"x": x})[0], x.sum(dim=1))


def test_without_a_compiler_the_remedy_is_named() -> None:
    from torch._inductor import config

    absent = config.patch({"cpp.cxx": ("no-such-compiler",)})
    with absent, pytest.raises(MissingDependencyError, match="C\\+\\+ compiler") as caught:
        check_compiler("cpu", "a training step")
    assert caught.value.exit_code == 4
    assert "g++" in str(caught.value.remedy)


class Spring(nn.Module):
    """A potential of three operations."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(1.5))

    def forward(self, coord: Tensor) -> Tensor:
        return (self.k * coord.cos()).sum(dim=(1, 2))


def test_machine_code_of_second_derivatives() -> None:
    """The whole way down to Inductor, of a function that takes a second to compile."""
    check_compiler("cpu", "a training step")
    spring = Spring()

    def function(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        coord = inputs["coord"].detach().requires_grad_()
        k = inputs["k"].detach().requires_grad_()
        energy = torch.func.functional_call(spring, {"k": k}, coord)
        (slope,) = torch.autograd.grad(energy.sum(), coord, create_graph=True)
        return [*torch.autograd.grad(slope.square().sum(), k)]

    def inputs(b: int, n: int) -> dict[str, Tensor]:
        return {"coord": torch.randn(b, n, 3), "k": spring.k.detach()}

    recorded = Recorded(function, inputs(2, 2), {"coord": ("B", "N", 3), "k": ()})
    for b, n in [(2, 3), (5, 4), (16, 27)]:
        assert recorded.holds(B=b, N=n)
        given = inputs(b, n)
        torch.testing.assert_close(recorded(given), function(given))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_machine_code_of_the_whole_step(dtype: torch.dtype, tolerance: float) -> None:
    sizes = {"hidden": ((12, 8), (12, 8), (12, 8, 8)), "energy_hidden": (6, 6)}
    task = make_task(dtype, **sizes)
    backward = CompiledBackward(task)
    for atoms in SIZES_OF_BATCHES:
        assert_same(task, backward, labelled(atoms, dtype=dtype), tolerance)
    batch = labelled([5, 3, 4], dtype=dtype)
    runs = []
    for _ in range(2):
        task.model.zero_grad()
        backward(batch, task.loss.counts([batch.tensors]))
        runs.append([p.grad.clone() for p in task.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
