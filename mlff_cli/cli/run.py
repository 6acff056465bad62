"""Run a stage for the command line: say what happens, print the result, end with the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import typer

from mlff_cli.cli.options import Talk
from mlff_cli.core.errors import MLFFError

if TYPE_CHECKING:
    from mlff_cli.core.reporting import Reporter, Summary

INTERRUPTED = 130
BUG = 1
AGAIN = 0.01  # seconds until a swallowed interrupt is raised again


@contextlib.contextmanager
def _stops_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, SIGUSR1 and SIGHUP end a command as Ctrl-C does: no temporary file stays.

    Stages that can be resumed put their own handlers in place of these. What the parent ignores
    (nohup) stays ignored. An interrupt that strikes inside a destructor is swallowed by Python; it
    is raised again a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    report_swallowed = sys.unraisablehook

    def swallowed(problem: sys.UnraisableHookArgs) -> None:
        if issubclass(problem.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            report_swallowed(problem)

    wanted = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGALRM)
    numbers = [s for s in wanted if signal.getsignal(s) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, handle)
    sys.unraisablehook = swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        sys.unraisablehook = report_swallowed
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _show(summary: Summary, talk: Talk) -> None:
    """Print the result; that nobody reads it to its end is no error.

    Raises:
        StorageError: stdout goes to a file, and the disk is full.
    """
    from mlff_cli.cli.console import print_summary
    from mlff_cli.core.artifacts import storage_error

    if summary.told or sys.stdout is None:  # closed by the caller, as `>&-` does
        return
    try:
        print_summary(summary, as_json=talk.json, quiet=talk.quiet)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the reader left, as `head` does; Rich exits then
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        raise storage_error(error, "standard output") from error


def _forget_stdout() -> None:
    """Send what is still buffered nowhere, or Python would fail on it again at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def execute(stage: Callable[[Reporter], Summary], talk: Talk) -> None:
    """Call `stage` with a reporter on the terminal and exit with the code of what happened.

    Args:
        stage: does the work, given a reporter.
        talk: verbosity, JSON output, progress bars.
    """
    from mlff_cli.cli.console import ConsoleReporter  # `--help` needs none of it

    reporter = ConsoleReporter(talk.verbosity, progress=not talk.no_progress)
    try:
        with _stops_as_ctrl_c():
            summary = stage(reporter)
        _show(summary, talk)
        if summary.failure is not None:
            summary.failure.told |= summary.told
            raise summary.failure
    except MLFFError as error:
        if not error.told:
            reporter.error(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        reporter.error("interrupted, nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    except Exception:
        reporter.error("this is a bug in mlff; please report it with the lines below")
        reporter.err.out(traceback.format_exc(), highlight=False)
        raise typer.Exit(BUG) from None
