"""The estimate of a step's memory is what the step allocates, and touches nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlff_cli.data.batching import Batch
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.training.losses import build_loss
from mlff_cli.training.memory import StepMemory, free_memory, optimizer_bytes
from mlff_cli.training.metrics import RegressionMetrics
from mlff_cli.training.optimizers import OPTIMIZERS, build_optimizer
from mlff_cli.training.precision import Precision, mixed
from mlff_cli.training.settings_loss import LossSection
from mlff_cli.training.settings_optimizer import OptimizerSection
from mlff_cli.training.task import Batching, Task
from tests.benchmarks.bench_memory import run_case
from tests.tiny import tiny_network

LABELS = ("energy", "forces", "charges")
CPU = torch.device("cpu")


def batch(molecules: int, atoms: int) -> Batch:
    """Molecules with all labels; where their atoms are costs no memory."""
    b, n = molecules, atoms
    shapes = {"energy": (b,), "forces": (b, n, 3), "charges": (b, n)}
    tensors: dict[str, Tensor] = {
        "coord": 4.0 * torch.rand(b, n, 3, generator=torch.Generator().manual_seed(0)),
        "numbers": torch.full((b, n), 6),
        "charge": torch.zeros(b),
        "mult": torch.ones(b),
        "n_atoms": torch.full((b,), n),
        "fidelity": torch.zeros(b, dtype=torch.int64),
        **{name: torch.zeros(shape) for name, shape in shapes.items()},
        **{f"{name}_mask": torch.ones(b, dtype=torch.bool) for name in LABELS},
    }
    tensors["energy"] = tensors["energy"].double()
    return Batch(tensors, frozenset(LABELS), np.zeros(b, dtype=int), np.arange(b))


def never(step: int) -> Batch:
    raise AssertionError("an estimate makes no batches")


def tiny_task(**changes: object) -> Task:
    """A task around a small network; its batches are given by hand."""
    components = {name: {"weight": 1.0} for name in LABELS}
    section = LossSection.model_validate({"kwargs": {"components": components}})
    return Task(
        model=tiny_network(**{"nfeature": 8, **changes}).train().requires_grad_(True),
        epoch_length=1,
        train_batch=lambda step: [never(step)],
        n_validation=0,
        validation_batch=never,
        predict=lambda model, b, training: energy_and_forces(model, b.tensors, training),
        loss=build_loss(section, LABELS),
        new_metrics=lambda: RegressionMetrics({}, 1, CPU),
        measured=(),
        watch=[],
        name_samples=lambda step: "some",
        name_largest=lambda step: "fidelity 0 group 027 molecule 3",
        batching=Batching(size=64, mode="molecules", split=2),
    )


def adam(task: Task) -> torch.optim.Optimizer:
    return torch.optim.AdamW(p for p in task.model.parameters() if p.requires_grad)


def allocated(work: Callable[[], object]) -> int:
    """Most bytes that torch's allocator held at a time beside what it held before."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    found = profile.profiler
    assert found is not None
    events = [e for e in found.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    return int(np.cumsum([e.nbytes() for e in events]).max())


def real_step(task: Task, parts: list[Batch], precision: Precision = "full") -> None:
    whole = task.loss.counts([part.tensors for part in parts])
    for part in parts:
        with mixed(precision, CPU):
            predicted = task.predict(task.model, part, True)
        task.loss(predicted, part.tensors, whole).total.backward()


@pytest.mark.parametrize(
    ("sizes", "precision"),
    [
        ([(16, 12)], "full"),
        ([(40, 5)], "full"),
        ([(12, 5), (8, 14)], "full"),
        ([(12, 5), (8, 14)], "bf16"),
    ],
)
def test_it_is_what_a_real_step_allocates(
    sizes: list[tuple[int, int]], precision: Precision
) -> None:
    task = tiny_task()
    parts = [batch(*size) for size in sizes]
    estimate = StepMemory(task, adam(task), precision=precision).of(parts)
    measured = allocated(lambda: real_step(task, parts, precision))
    given = max(sum(t.nbytes for t in part.tensors.values()) for part in parts)
    expected = estimate.gradients + estimate.activations - given  # the batch was there before
    assert expected == pytest.approx(measured, rel=0.03)


def test_activations_grow_with_the_molecules_and_faster_than_the_atoms() -> None:
    task = tiny_task()
    memory = StepMemory(task, adam(task))
    of = {
        size: memory.of([batch(*size)]).activations for size in ((8, 9), (16, 9), (32, 9), (8, 18))
    }
    assert of[32, 9] - of[16, 9] == pytest.approx(2 * (of[16, 9] - of[8, 9]), rel=0.01)
    assert of[8, 18] > 2.1 * of[8, 9]


def test_the_largest_batch_fits_and_one_more_molecule_does_not() -> None:
    task = tiny_task()
    memory = StepMemory(task, adam(task))
    part, available = batch(6, 11), 60 << 20
    n = memory.largest(part, available)
    again = batch(1, 2)  # a part before it, so that gradients are there
    assert n > 6
    assert memory.of([again, batch(n, 11)]).total <= available
    assert memory.of([again, batch(n + 1, 11)]).total > available
    assert memory.largest(part, memory.of([batch(1, 11)]).total // 2) == 0


def test_it_leaves_model_optimizer_and_randomness_alone() -> None:
    task = tiny_task()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    optimizer = adam(task)
    state = torch.get_rng_state()
    with torch.no_grad():  # whatever the caller holds
        StepMemory(task, optimizer, average=True).of([batch(4, 5)])
    assert torch.equal(torch.get_rng_state(), state)
    assert not optimizer.state
    assert all(p.grad is None and p.device == CPU for p in task.model.parameters())
    assert all(torch.equal(before[k], v) for k, v in task.model.state_dict().items())


def test_the_parts_are_those_of_the_model() -> None:
    task = tiny_task()
    weights = sum(p.nbytes for p in (*task.model.parameters(), *task.model.buffers()))
    trained = sum(p.nbytes for p in task.model.parameters())
    kept = StepMemory(task, adam(task), average=True).of([batch(2, 3)])
    assert kept.weights == pytest.approx(weights, abs=100)  # and the shares of the loss
    assert (kept.gradients, kept.average) == (trained, kept.weights)
    assert kept.total == kept.kept + kept.activations + kept.lost
    for parameter in task.model.parameters():
        parameter.requires_grad_(False)
    next(task.model.parameters()).requires_grad_(True)
    frozen = StepMemory(task, adam(task)).of([batch(2, 3)])
    assert frozen.gradients == next(task.model.parameters()).nbytes
    assert frozen.optimizer < kept.optimizer
    assert frozen.average == 0


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.table))
def test_the_optimizer_s_state_is_known_before_its_first_step(name: str) -> None:
    model = nn.Sequential(nn.Linear(7, 5, bias=False), nn.Linear(5, 3, bias=False))
    if name != "Muon":  # which takes matrices only
        model.append(nn.LayerNorm(3))
    kwargs = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    section = OptimizerSection.model_validate({"class": name, "kwargs": kwargs})
    optimizer = build_optimizer(model, section)
    expected = optimizer_bytes(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [t for state in optimizer.state.values() for t in state.values()]
    assert expected == sum(t.nbytes for t in kept if isinstance(t, Tensor)) > 0
    assert optimizer_bytes(optimizer) == expected


def test_memory_that_is_free_is_less_than_the_machine_has() -> None:
    assert 0 < free_memory(CPU) < 1 << 50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("atoms", [9, 27])
def test_a_process_takes_what_was_estimated(atoms: int) -> None:
    found = run_case("default", 64, atoms, atoms, ())
    assert found["estimate"] == pytest.approx(found["measured"], rel=0.3)
