"""What an interrupted simulation left beside its output, in `<output>.partial/`.

config.json     what the run was asked for; the same must be asked to continue
system.xml      what is simulated
trajectory.h5   frames so far; becomes the output
state.npz       where to go on; replaced as a whole, and written after the frames it counts
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import atomic_path, sha256, storage_error, write_json, write_text
from mlff_cli.core.errors import DataError, UsageError

_DIGEST = "system SHA-256"  # in config.json
_FILES = ("config.json", "system.xml", "trajectory.h5", "state.npz")


class PartialRun:
    """The folder of one output; the caller holds `core.artifacts.alone_in` of it.

    Args:
        output: the file that is being made.
    """

    def __init__(self, output: Path) -> None:
        self.folder = Path(f"{output}.partial")
        self.config, self.system, self.trajectory, self.state = (
            self.folder / name for name in _FILES
        )

    @property
    def complete(self) -> bool:
        """Whether a run can go on from here."""
        return all((self.folder / name).is_file() for name in _FILES)

    def require_same(self, config: Mapping[str, Any]) -> None:
        """Refuse to continue a run that was asked for something else.

        Raises:
            UsageError: naming every difference.
            DataError: the folder is damaged.
        """
        try:
            before = dict(json.loads(self.config.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"the interrupted run cannot be read: {error}",
                where=str(self.config),
                remedy="--force starts anew, or delete the folder",
            ) from error
        if before.pop(_DIGEST, None) != sha256(self.system):
            raise DataError(
                "what the interrupted run simulates is not what was written",
                where=str(self.system),
                remedy="--force starts anew, or delete the folder",
            )
        now = json.loads(json.dumps(config))
        names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
        if names:
            told = "; ".join(f"{n} was {before.get(n)!r}, is {now.get(n)!r}" for n in names)
            raise UsageError(
                f"an interrupted run was asked for something else: {told}",
                where=str(self.folder),
                remedy="ask for the same to continue, or --force to start anew",
            )

    def clear(self) -> None:
        """Forget an earlier run."""
        for name in _FILES[::-1]:  # the state first: without it nothing continues
            (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget the run and its folder; what is not ours stays."""
        self.clear()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def begin(self, config: Mapping[str, Any], system: str) -> None:
        """Keep what a run was asked for and what it simulates.

        Raises:
            StorageError: the disk is full.
        """
        write_text(self.system, system, force=True)
        write_json(self.config, {**config, _DIGEST: sha256(self.system)}, force=True)

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep where to go on, durably and as a whole.

        Raises:
            StorageError: the disk is full.
        """
        with atomic_path(self.state, force=True) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **dict(arrays))

    def load(self) -> dict[str, np.ndarray]:
        """What was saved last.

        Raises:
            DataError: it is damaged.
        """
        try:
            with (
                self.state.open("rb") as stream,  # numpy does not close a damaged file itself
                np.load(stream, allow_pickle=False) as arrays,
            ):
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"the interrupted run cannot be read: {error}",
                where=str(self.state),
                remedy="--force starts anew, or delete the folder",
            ) from error

    def finish(self, output: Path, *, force: bool) -> None:
        """Turn the frames into the output.

        Raises:
            StorageError: the disk is full.
        """
        with atomic_path(output, force=force) as temporary:
            try:
                shutil.move(self.trajectory, temporary)  # a rename, unless a link leads elsewhere
            except OSError as error:
                raise storage_error(error, output) from error
        self.remove()
