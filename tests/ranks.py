"""Several real processes that train together on this machine.

They are forked from a server that has imported torch, which spares every test the import. What they
write is kept per rank.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

DEADLINE = 120.0  # seconds
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["mlff_cli.stages.train", "mlff_cli.cli.app"])


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@dataclass
class Outcome:
    """How a rank ended: its exit code (minus the signal that killed it), and what it wrote."""

    code: int
    text: str


class Ranks:
    """Start a function in several processes, with the variables of torchrun.

    Args:
        folder: where their output goes, and where they run.
        function: module-level; called with `arguments` in every process.
        arguments: of the function.
        size: how many.
        environ: further variables, or other values of torchrun's.
        each: further variables per rank.
    """

    def __init__(
        self,
        folder: Path,
        function: Callable[..., object],
        *arguments: Any,
        size: int = 2,
        environ: Mapping[str, str] | None = None,
        each: Sequence[Mapping[str, str]] = (),
    ) -> None:
        folder.mkdir(exist_ok=True)
        shared = {
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(free_port()),
            "OMP_NUM_THREADS": "1",
            **(environ or {}),
        }
        self.processes: list[BaseProcess] = []
        self._outputs = []
        for rank in range(size):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            own |= each[rank] if each else {}
            output = folder / f"rank{rank}.out"
            process = _CONTEXT.Process(  # type: ignore[attr-defined]
                target=_run, args=(folder, output, own, function, arguments), daemon=True
            )
            process.start()
            self.processes.append(process)
            self._outputs.append(output)

    def finish(self) -> list[Outcome]:
        """Wait for all of them."""
        for process in self.processes:
            process.join(DEADLINE)
        stuck = [rank for rank, p in enumerate(self.processes) if p.exitcode is None]
        for process in self.processes:
            process.kill()
            process.join()
        texts = [output.read_text() for output in self._outputs]
        assert not stuck, f"ranks {stuck} did not end:\n" + "\n".join(texts)
        return [
            Outcome(int(p.exitcode or 0), text)
            for p, text in zip(self.processes, texts, strict=True)
        ]


def succeed(ranks: Ranks) -> list[str]:
    """Wait for the success of all; returns what they wrote."""
    outcomes = ranks.finish()
    assert [o.code for o in outcomes] == [0] * len(outcomes), "\n".join(o.text for o in outcomes)
    return [o.text for o in outcomes]


def command(*words: str) -> None:
    """Run `mlff` with its exit code, as the shell would."""
    import mlff_cli.cli.app as app

    sys.argv = ["mlff", *words]
    app.main()


def _run(
    folder: Path,
    output: Path,
    environ: Mapping[str, str],
    function: Callable[..., object],
    arguments: Sequence[Any],
) -> None:
    import torch

    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(folder)
    os.environ.update(environ)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    function(*arguments)
