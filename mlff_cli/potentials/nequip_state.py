"""The process's state around nequip, which changes it when it is imported and when it builds.

Importing nequip draws from Python's generator; its `set_global_state` sets torch's default dtype to
float64, seeds every generator, and writes environment variables. All of it is put back.
"""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mlff_cli.core.runtime import require

EXTRA = "coarse"  # of mlff-cli, which brings nequip and nequip-allegro
_TORCH_FUSION = [("STATIC", 2), ("DYNAMIC", 10)]  # of TorchScript, as torch starts


@contextlib.contextmanager
def nequip_state() -> Iterator[None]:
    """Where nequip builds, exports and compiles models: with the state that it asks for.

    Inside, nequip and allegro are imported and the default dtype is float64. Afterwards the default
    dtype, generators (Python, NumPy, torch and its GPUs), environment, precision of float32
    products, sharing of tensors between processes and TorchDynamo's switches are as before.

    Raises:
        MissingDependencyError: nequip or nequip-allegro is not installed.
    """
    with contextlib.ExitStack() as stack:
        _restore_afterwards(stack)
        with warnings.catch_warnings():
            # nequip registers resolvers by a name that omegaconf has deprecated
            warnings.filterwarnings("ignore", r"register_new_resolver\(\)", UserWarning)
            warnings.filterwarnings("ignore", r".*torch\.jit", DeprecationWarning)
            state = require("nequip.utils.global_state", EXTRA)
            require("allegro.model", EXTRA)
            # nequip sets these once per process, and here they are put back each time
            dynamo = torch._dynamo.config
            stack.enter_context(
                dynamo.patch(capture_dynamic_output_shape_ops=True, capture_scalar_outputs=True)
            )
            state.set_global_state()
        torch.set_default_dtype(torch.float64)
        yield


def _restore_afterwards(stack: contextlib.ExitStack) -> None:
    environment = dict(os.environ)
    stack.callback(_restore_environment, environment)
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())
    stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
    sharing: Any = torch.multiprocessing
    stack.callback(sharing.set_sharing_strategy, sharing.get_sharing_strategy())
    fusion = _set_fusion(_TORCH_FUSION)  # tells what was set
    _set_fusion(fusion)
    stack.callback(_set_fusion, fusion)
    if torch.cuda.is_available():
        backends: Any = torch.backends
        stack.callback(setattr, backends, "fp32_precision", backends.fp32_precision)


def _set_fusion(strategy: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Set TorchScript's fusion strategy; returns the one before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit", DeprecationWarning)
        before: list[tuple[str, int]] = torch.jit.set_fusion_strategy(strategy)
    return before


def _restore_environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
