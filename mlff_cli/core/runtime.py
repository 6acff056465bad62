"""What a running command needs from its machine: optional packages, signals, devices."""

from __future__ import annotations

import contextlib
import importlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, ModuleType

from mlff_cli.core.errors import MissingDependencyError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: the module's import name, as "rdkit.Chem".
        extra: the extra of mlff-cli that brings it.

    Raises:
        MissingDependencyError: it is not installed.
        ImportError: it is installed but broken; the package's own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = error.name or module
        if not f"{module}.".startswith(f"{name}."):
            raise  # the package is there but broken: hiding the reason would mislead
        raise MissingDependencyError(
            f"the package {name!r} is not installed",
            remedy=f"pip install 'mlff-cli[{extra}]'",
        ) from error


def require_openmm() -> None:
    """Load OpenMM, or say how to get one that loads.

    Raises:
        MissingDependencyError: it is not installed, or this system cannot load it.
    """
    try:
        importlib.import_module("openmm")
    except (ImportError, OSError) as error:  # its wheel needs glibc 2.34
        raise MissingDependencyError(
            f"OpenMM cannot be loaded: {error}",
            remedy="pip install openmm; where its wheel does not load (glibc before 2.34), "
            "conda install -c conda-forge openmm",
        ) from error


class StopRequest:
    """Set when the user or the scheduler asked the command to stop.

    Attributes:
        signal: the signal that asked, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None


@contextlib.contextmanager
def interruptible() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM, SIGUSR1 and SIGHUP into a flag that the work asks between its steps.

    A hang-up that the parent ignores (nohup) stays ignored. A second SIGINT raises
    KeyboardInterrupt, so that a hung step can still be left. Outside the main thread, where Python
    allows no handlers, the flag is simply never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)

    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    heard = STOP_SIGNALS[:-1] if ignored else STOP_SIGNALS
    previous = {s: signal.signal(s, handle) for s in heard}
    try:
        yield request
    finally:
        for s, old in previous.items():
            signal.signal(s, old if old is not None else signal.SIG_DFL)
