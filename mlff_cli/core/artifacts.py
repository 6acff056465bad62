"""Files that appear under their name only when complete, and the record of where they came from.

A file is written to a hidden temporary name in its own folder, flushed to disk, then renamed: a
reader sees the old file or the new one, never half of one. What a killed process could not remove
is removed by the next one that writes the same file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Any

from mlff_cli.core.errors import StorageError, UsageError

CHUNK = 1 << 20  # bytes hashed at a time
DEVICES = (Path("/dev"), Path("/dev/fd"))


def sha256(path: Path | str, *, given_up: Event | None = None) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits.

    Args:
        path: the file.
        given_up: set by another thread when nobody waits for the result any longer.

    Raises:
        StorageError: the file cannot be read.
        CancelledError: it was given up.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
                if given_up is not None and given_up.is_set():
                    raise CancelledError
    except OSError as error:
        raise storage_error(error, path) from error
    return digest.hexdigest()


def check_writable(path: Path | str, *, force: bool, inputs: Sequence[Path | str] = ()) -> None:
    """Refuse an output that exists, or that cannot be created, before any work is done.

    Args:
        path: the output.
        force: replace an existing file.
        inputs: files that must survive, whatever `force` says.

    Raises:
        UsageError: the file exists and `force` is off, it is an input, a folder or a device.
        StorageError: no folder can be made there, or it is not writable.
    """
    path = Path(path)
    try:
        # /dev/stdout leads to a file where the shell redirects it, and must not be replaced by one
        exists, regular = path.exists(), path.is_file() and path.absolute().parent not in DEVICES
        folder = next((p for p in path.absolute().parents if p.exists()), path)  # path: of /
    except OSError as error:  # a name too long, a folder that may not be entered
        raise storage_error(error, path) from error
    if exists and not regular:
        raise UsageError(
            "the output must be a file, this is a folder or device",
            where=str(path),
            remedy="name a file; `--json` prints a summary to stdout",
        )
    if exists and not force:
        raise UsageError(
            "the output exists already",
            where=str(path),
            remedy="pass --force to replace it, or choose another name",
        )
    if exists and any(Path(p).is_file() and path.samefile(p) for p in inputs):
        raise UsageError(
            "the output would replace an input", where=str(path), remedy="choose another name"
        )
    if not folder.is_dir():
        raise storage_error(OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)), path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise storage_error(OSError(errno.EACCES, os.strerror(errno.EACCES)), path)


@contextlib.contextmanager
def atomic_path(path: Path | str, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends without an error.

    Parent folders are created, a link is followed. On any error, KeyboardInterrupt included,
    nothing is left behind.

    Raises:
        UsageError: `path` exists and `force` is off.
        StorageError: the disk is full or the folder is not writable.
    """
    path = Path(path)
    check_writable(path, force=force)
    if path.is_symlink():  # the link stays, what it leads to is written
        try:
            path = path.resolve()
        except RuntimeError:  # what Python before 3.13 makes of a link to itself
            raise storage_error(OSError(errno.ELOOP, os.strerror(errno.ELOOP)), path) from None
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        ours = (str(temporary), *map(str, path.parents))
        named = error.filename if isinstance(error.filename, str) else None
        # an input that the block failed to read must not be blamed on the output
        raise storage_error(error, named if named and named not in ours else path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside an output, for what other processes read while it is made.

    The file is removed when the block ends; what a killed process left is removed by the next one
    that asks with the same `path`. No folder is created: if the output's is not there yet, the file
    stands in the nearest that is.

    Args:
        path: the output.
    """
    folder = next(p for p in Path(path).absolute().parents if p.exists())
    path = folder / f"{Path(path).name}.scratch"
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.tmp{path.suffix}")
    try:
        with contextlib.suppress(OSError):  # whoever writes the file is told
            _sweep(path)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str, *, force: bool = False) -> None:
    """Write UTF-8 text atomically (see `atomic_path` for the errors)."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any, *, force: bool = False) -> None:
    """Write plain values as JSON atomically; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", force=force)


@contextlib.contextmanager
def alone_in(folder: Path | str, who: str) -> Iterator[None]:
    """Keep other processes that ask the same from working in a folder; the folder is made.

    The lock is the kernel's, so that a process that is killed leaves none behind. A file system
    without locks is trusted.

    Args:
        folder: the folder.
        who: what works there, for the message.

    Raises:
        UsageError: another process works there.
        StorageError: the folder cannot be made or opened.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another {who} is working in this folder",
                where=str(folder),
                remedy="wait for it or stop it, or save under another name",
            ) from None
        except OSError:
            pass  # network file systems may know no locks
        yield
    finally:
        os.close(handle)


def storage_error(error: OSError, path: Path | str) -> StorageError:
    """Turn an operating system error into one that names the file and the way out."""
    remedies = {
        errno.ENOSPC: "free some space, or write to another disk",
        errno.EACCES: "check the permissions of the folder",
        errno.ENOTDIR: "a part of the path is a file: choose another folder",
        errno.EEXIST: "a file stands where a folder is needed: choose another name",
        errno.ENOENT: "check the path",
        errno.EISDIR: "name a file, this is a folder",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.ELOOP: "remove the link",
    }
    reason = f"the file could not be read or written: {error.strerror or error}"
    if error.errno == errno.ENOENT:
        reason = "the file does not exist"
    remedy = remedies.get(error.errno) if error.errno else None
    return StorageError(reason, where=str(path), remedy=remedy)


def provenance(
    command: Sequence[str] | str,
    inputs: Sequence[Path | str] = (),
    *,
    seed: int | None = None,
    packages: Sequence[str] = (),
    digests: Mapping[Path, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What made an artifact: command, SHA-256 of every input, versions, seed.

    Inputs whose SHA-256 is among `digests` are not read again. Holds no time and no host name, so
    that the same inputs give the same bytes.
    """
    names = ("mlff-cli", *packages)
    return {
        "command": command if isinstance(command, str) else shlex.join(command),
        "inputs": {str(p): digests.get(Path(p)) or sha256(p) for p in inputs},
        "seed": seed,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in names}},
    }


def version(distribution: str) -> str:
    """Installed version of a distribution, or 'absent'."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _prefix(path: Path) -> str:
    """How the temporary names of `path` begin on this machine; the process id follows."""
    return f".{path.name}.{socket.gethostname()}."


def _sweep(path: Path) -> None:
    """Remove temporary files of `path` whose process on this machine was killed."""
    prefix, end = _prefix(path), f".tmp{path.suffix}"
    for stale in path.parent.iterdir():
        pid = stale.name.removeprefix(prefix).removesuffix(end)
        if stale.name == f"{prefix}{pid}{end}" and pid.isdecimal() and not _alive(int(pid)):
            stale.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks whether the process is there
    except ProcessLookupError:
        return False
    except OSError:  # it is there, but another user's
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; some file systems do not allow it, which loses nothing."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
