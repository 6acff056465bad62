"""SHA-256 of inputs, taken while the work goes on: it takes as long as using a large file."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from threading import Event, Thread

from mlff_cli.core.artifacts import sha256


class Digests:
    """Hashes files one after the other, each once; use it as a context manager.

    The thread is a daemon (an executor's is not), so that Ctrl-C need not wait for it. Leaving the
    block ends it.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Iterable[Path | str]) -> None:
        self._futures: dict[Path, Future[str]] = {Path(p): Future() for p in paths}
        self._left = Event()

    def __enter__(self) -> Digests:
        Thread(target=self._hash, name="hash", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()

    def of(self, path: Path | str) -> str:
        """The SHA-256 of one of the files, as 64 hex digits; waits for it.

        Raises:
            StorageError: the file cannot be read.
        """
        return self._futures[Path(path)].result()

    def all(self) -> dict[Path, str]:
        """SHA-256 of every file, for `core.artifacts.provenance`; waits and raises as `of`."""
        return {path: future.result() for path, future in self._futures.items()}

    def _hash(self) -> None:
        for path, future in self._futures.items():
            try:
                future.set_result(sha256(path, given_up=self._left))
            except BaseException as error:  # told to whoever asks
                future.set_exception(error)
