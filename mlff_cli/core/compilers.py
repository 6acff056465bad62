"""What torch needs of a machine to turn a model into machine code."""

from __future__ import annotations

from mlff_cli.core.errors import MissingDependencyError


def check_compiler(device: str, what: str) -> None:
    """Refuse where Inductor has nothing to compile with.

    Args:
        device: type of the device, as "cpu" or "cuda".
        what: is to be compiled, as "a training step".

    Raises:
        MissingDependencyError: no C++ compiler, or no Triton for a GPU.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise MissingDependencyError(
            f"compiling {what} needs a C++ compiler, found none",
            remedy="install g++ (apt install g++, conda install gxx) or set CXX; or leave "
            "--compile out",
        ) from None
    if device != "cpu" and not has_triton():
        raise MissingDependencyError(
            f"compiling {what} on {device} needs Triton, found none",
            remedy="pip install triton, or leave --compile out",
        )
