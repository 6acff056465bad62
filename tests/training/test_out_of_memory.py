"""Missing memory is told in words that help, and what it held is free by then."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from mlff_cli.core.errors import MLFFError, UsageError
from mlff_cli.training.memory import StepMemory
from mlff_cli.training.out_of_memory import explain_step, explained, is_out_of_memory
from tests.training.test_memory import adam, batch, tiny_task

TOO_MUCH = 1 << 46  # elements: more than any address space
MB = 1 << 20


def raised(work: object) -> BaseException:
    try:
        work()  # type: ignore[operator]
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.empty(TOO_MUCH),
        lambda: np.ones(TOO_MUCH),
        lambda: bytearray(1 << 62),
    ],
)
def test_every_library_s_way_to_say_it_is_known(work: object) -> None:
    assert is_out_of_memory(raised(work))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))


@pytest.mark.parametrize("work", [lambda: torch.ones(2) @ torch.ones(3), lambda: [][0]])
def test_other_errors_pass(work: object) -> None:
    error = raised(work)
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), explained(lambda: UsageError("never said")):
        work()  # type: ignore[operator]


def test_what_the_failed_step_held_is_free_when_it_is_explained() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def step() -> None:
        activations = torch.ones(1000)
        held.append(weakref.ref(activations))
        torch.empty(TOO_MUCH)

    def explain() -> MLFFError:
        assert held[0]() is None
        return UsageError("said")

    with pytest.raises(UsageError, match="said") as caught, explained(explain):
        step()
    assert caught.value.__cause__ is None


def test_it_says_what_was_needed_and_what_would_have_fitted(tmp_path: Path) -> None:
    task = tiny_task()
    memory = StepMemory(task, adam(task))
    parts = [batch(16, 11), batch(16, 12)]
    last = tmp_path / "last.pt"
    error = explain_step(memory, task, 4, parts, free=20 * MB, last=last)
    assert error.exit_code == 4
    assert "out of memory on cpu at step 5: 16 molecules of up to 12 atoms" in error.message
    assert "20 MB were free" in error.message
    assert "the largest are fidelity 0 group 027 molecule 3" in error.message
    assert error.remedy is not None
    assert "last good state" not in error.remedy
    size = int(error.remedy.split("batch_size=")[1].split()[0])
    split = int(error.remedy.split("split=")[1].split(":")[0])
    # the 64 molecules of the setting are 32 here: half of the batch is another process's
    smaller = [batch(16 * size // 64, 11), batch(16 * size // 64, 12)]
    assert memory.of(smaller).total - memory.held <= 20 * MB
    assert memory.of(parts).total - memory.held > 20 * MB
    assert 0 < size < 64
    assert split >= 2 * 64 / size
    last.touch()
    told = explain_step(memory, task, 4, parts, free=20 * MB, last=last)
    assert str(last) in str(told.remedy)


def test_it_says_when_no_batch_would_fit() -> None:
    task = tiny_task()
    error = explain_step(StepMemory(task, adam(task)), task, 0, [batch(2, 30)], free=MB)
    assert "not even one" in str(error.remedy)
