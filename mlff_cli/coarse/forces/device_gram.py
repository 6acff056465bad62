"""Gram matrices multiplied on a GPU: y y^T of `coarse.forces.gram` in float64, summed there.

torch is imported when a device is asked for, not before.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from mlff_cli.coarse.forces.gram import BLOCK_BYTES, Gram, reduce_groups
from mlff_cli.core.errors import MissingDependencyError, UsageError

GPU_BLOCK_BYTES = 4 * BLOCK_BYTES  # of float64 forces sent at a time


def require_device(name: str) -> Any:
    """The torch device of `--device cuda` or `cuda:1`.

    Raises:
        UsageError: the name is no such device.
        MissingDependencyError: the machine has no such GPU.
    """
    kind, _, number = name.partition(":")
    if kind != "cuda" or (":" in name and not number.isdecimal()):
        raise UsageError(f"--device must be cpu, cuda or cuda:N, found {name!r}")
    torch = importlib.import_module("torch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise MissingDependencyError(
            f"--device {name} needs a GPU that torch {torch.__version__} can use, found {count}",
            remedy="use --device cpu, or install a build of torch with CUDA",
        )
    return torch.device(name)


class DeviceGram:
    """Adds frames as `Gram` does, on a torch device.

    Args:
        n_groups: g.
        device: of torch.
    """

    def __init__(self, n_groups: int, device: Any) -> None:
        self._torch = importlib.import_module("torch")
        self._device = device
        self._sum = self._torch.zeros(
            (n_groups, n_groups), dtype=self._torch.float64, device=device
        )
        self._n_frames = 0

    def add(self, forces: np.ndarray, groups: np.ndarray) -> DeviceGram:
        """Add frames (T, N, 3) in kcal/mol/angstrom; see `Gram.add`."""
        step = max(1, GPU_BLOCK_BYTES // (24 * max(1, forces.shape[1])))
        for start in range(0, len(forces), step):
            block = forces[start : start + step]
            y = self._torch.from_numpy(reduce_groups(block, groups)).to(self._device)  # (g, 3T)
            self._sum.addmm_(y, y.T)
            self._n_frames += len(block)
        return self

    def gram(self) -> Gram:
        """What has been added, on the CPU."""
        product = self._sum.cpu().numpy()
        return Gram(len(product)).add_product(product, self._n_frames)
