"""Type of the weights, precision and threads of matrix products during training.

full   as the weights are
tf32   products of float32 with 10-bit mantissas, accumulated in float32 (NVIDIA tensor cores)
bf16   mixed: products in bfloat16, weights, sums and energies stay as they are
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

from mlff_cli.core.errors import MissingDependencyError, UsageError

Precision = Literal["full", "tf32", "bf16"]
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@contextlib.contextmanager
def matrix_products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Set the precision of matrix products, and restore torch's own setting afterwards.

    Raises:
        MissingDependencyError: the device cannot do it.
    """
    if precision == "tf32":
        check_tf32(device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_precision(precision: Precision, dtype: torch.dtype) -> None:
    """Refuse lower precision for weights that torch would compute in full all the same.

    Raises:
        UsageError: the weights are float64.
    """
    if precision != "full" and dtype == torch.float64:
        raise UsageError(
            f"trainer.precision={precision} has no effect on weights of float64",
            remedy="leave out one of --dtype float64 and trainer.precision",
        )


def check_tf32(device: torch.device) -> None:
    """Refuse tf32 where no tensor cores are.

    Raises:
        MissingDependencyError: the device is no NVIDIA GPU of the Ampere generation or later.
    """
    capable = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    if not capable:
        raise MissingDependencyError(
            f"trainer.precision=tf32 needs an NVIDIA GPU of compute capability 8.0, not {device}",
            remedy="set trainer.precision=full (or bf16, which a CPU can do, too)",
        )


def mixed(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context of a prediction: bfloat16 products where asked for."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def choose_dtype(name: str) -> torch.dtype:
    """The type that `--dtype` names.

    Raises:
        UsageError: unknown name.
    """
    if name not in _DTYPES:
        raise UsageError(f"--dtype is one of {', '.join(_DTYPES)}, found {name!r}")
    return _DTYPES[name]


@contextlib.contextmanager
def threads(cores: int) -> Iterator[None]:
    """Use all cores of this process, unless OMP_NUM_THREADS says otherwise."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)
