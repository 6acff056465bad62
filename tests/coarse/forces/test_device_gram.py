"""Gram matrices of torch are those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlff_cli.coarse.forces.device_gram import DeviceGram, require_device
from mlff_cli.coarse.forces.gram import Gram
from mlff_cli.core.errors import MissingDependencyError, UsageError

GROUPS = np.array([0, 1, 1, 2, 3, 0])


def forces(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(0.0, 10.0, (n, len(GROUPS), 3))


def same_on(device: torch.device) -> None:
    there = DeviceGram(4, device).add(forces(7), GROUPS).add(forces(3), GROUPS).gram()
    here = Gram(4).add(forces(7), GROUPS).add(forces(3), GROUPS)
    assert there.n_frames == here.n_frames == 10
    np.testing.assert_allclose(there.matrix, here.matrix, rtol=1e-12)


def test_the_same_as_on_the_cpu() -> None:
    same_on(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_same_on_a_gpu() -> None:
    same_on(require_device("cuda"))


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "auto"])
def test_names_that_are_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="--device must be cpu, cuda or cuda:N"):
        require_device(name)


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(MissingDependencyError, match="needs a GPU") as caught:
        require_device("cuda:99")
    assert caught.value.exit_code == 4
