"""Parts of the replicas in threads: the same numbers, whatever the order they are done in."""

from __future__ import annotations

import threading

import pytest
import torch

from mlff_cli.sampling.threaded import Threaded, threads_for, torch_threads
from tests.bead_chains import PriorAlone, stretched


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_energies_and_forces_are_the_potentials(n: int) -> None:
    potential, x = PriorAlone(), torch.from_numpy(stretched(n))
    energy, forces = potential(x)
    with Threaded(potential, 3) as threaded:
        found = [threaded(x) for _ in range(3)]
    for one in found:
        torch.testing.assert_close(one[0], energy, rtol=1e-13, atol=1e-12)
        torch.testing.assert_close(one[1], forces, rtol=1e-12, atol=1e-12)
        assert torch.equal(one[1], found[0][1])
    threaded.settle()
    assert potential.settled == 1


def test_parts_are_computed_at_the_same_time_with_one_thread_each() -> None:
    together, seen = threading.Barrier(2), []

    def meet(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        together.wait(30)
        seen.append(torch.get_num_threads())
        return x.sum((1, 2)), x

    before = torch.get_num_threads()
    x = torch.arange(12.0).reshape(4, 1, 3)
    with Threaded(meet, 2) as threaded:
        energy, same = threaded(x)
    assert torch.equal(same, x)
    assert torch.equal(energy, x.sum((1, 2)))
    assert seen == [1, 1]
    assert torch.get_num_threads() == before


def test_errors_of_a_part_reach_the_caller() -> None:
    def fail(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError(f"{len(x)} replicas")

    with Threaded(fail, 2) as threaded, pytest.raises(RuntimeError, match="2 replicas"):
        threaded(torch.zeros(4, 1, 3))


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert (threads_for(3), threads_for(None)) == (3, 7)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_for(None) >= 1
    before = torch.get_num_threads()
    with torch_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
