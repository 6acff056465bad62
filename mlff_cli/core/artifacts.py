"""Files that appear under their name only when complete, and the record of where they came from.

A file is written to a temporary name in its own folder, flushed to disk, then renamed: a reader
sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlff_cli.core.errors import StorageError, UsageError

CHUNK = 1 << 20  # bytes hashed at a time


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits.

    Raises:
        StorageError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
    except OSError as error:
        raise storage_error(error, path) from error
    return digest.hexdigest()


def check_writable(path: Path | str, *, force: bool) -> None:
    """Refuse an output that exists, or that cannot be created, before any work is done.

    Raises:
        UsageError: the file exists and `force` is off, or it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError("the output is a folder, a file name is needed", where=str(path))
    if path.exists() and not force:
        raise UsageError(
            "the output exists already",
            where=str(path),
            remedy="pass --force to replace it, or choose another name",
        )


@contextlib.contextmanager
def atomic_path(path: Path | str, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends without an error.

    Parent folders are created. On any error, KeyboardInterrupt included, nothing is left behind.

    Raises:
        UsageError: `path` exists and `force` is off.
        StorageError: the disk is full or the folder is not writable.
    """
    path = Path(path)
    check_writable(path, force=force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str, *, force: bool = False) -> None:
    """Write UTF-8 text atomically (see `atomic_path` for the errors)."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any, *, force: bool = False) -> None:
    """Write plain values as JSON atomically; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", force=force)


def storage_error(error: OSError, path: Path | str) -> StorageError:
    """Turn an operating system error into one that names the file and the way out."""
    remedies = {
        errno.ENOSPC: "free some space, or write to another disk",
        errno.EACCES: "check the permissions of the folder",
        errno.ENOENT: "check the path",
    }
    reason = error.strerror or str(error)
    remedy = remedies.get(error.errno) if error.errno else None
    return StorageError(
        f"the file could not be read or written: {reason}", where=str(path), remedy=remedy
    )


def provenance(
    command: Sequence[str] | str,
    inputs: Sequence[Path | str] = (),
    *,
    seed: int | None = None,
    packages: Sequence[str] = (),
) -> dict[str, Any]:
    """What made an artifact: command, SHA-256 of every input, versions, seed.

    Holds no time and no host name, so that the same inputs give the same bytes.
    """
    names = ("mlff-cli", *packages)
    return {
        "command": command if isinstance(command, str) else shlex.join(command),
        "inputs": {str(p): sha256(p) for p in inputs},
        "seed": seed,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in names}},
    }


def version(distribution: str) -> str:
    """Installed version of a distribution, or 'absent'."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; some file systems do not allow it, which loses nothing."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
