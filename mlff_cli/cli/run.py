"""Run a stage for the command line: say what happens, print the result, end with the exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from mlff_cli.cli.options import Talk
from mlff_cli.core.errors import MLFFError

if TYPE_CHECKING:
    from mlff_cli.core.reporting import Reporter, Summary

INTERRUPTED = 130
BUG = 1


def execute(stage: Callable[[Reporter], Summary], talk: Talk) -> None:
    """Call `stage` with a reporter on the terminal and exit with the code of what happened.

    Args:
        stage: does the work, given a reporter.
        talk: verbosity, JSON output, progress bars.
    """
    from mlff_cli.cli.console import ConsoleReporter, print_summary  # `--help` needs none of it

    reporter = ConsoleReporter(talk.verbosity, progress=not talk.no_progress)
    try:
        summary = stage(reporter)
        print_summary(summary, as_json=talk.json, quiet=talk.quiet)
        sys.stdout.flush()
    except MLFFError as error:
        reporter.error(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        reporter.error("interrupted, nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader of our output left, as `head` does
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception:
        reporter.error("this is a bug in mlff; please report it with the lines below")
        reporter.err.out(traceback.format_exc(), highlight=False)
        raise typer.Exit(BUG) from None
