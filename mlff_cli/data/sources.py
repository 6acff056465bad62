"""Which files a configuration means: lists and patterns resolved, the same file never twice."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlff_cli.core.errors import ConfigError

Given = str | list[str]  # a file, a pattern, or a list of them
TRAIN, VALIDATION = "data.fidelity_datasets", "data.val_fidelity_datasets"


def expand(key: str, given: Given) -> list[Path]:
    """Files of one entry of the configuration; those of a pattern in alphabetical order.

    Raises:
        ConfigError: an empty list, or a pattern that no file matches.
    """
    found: list[Path] = []
    for name in [given] if isinstance(given, str) else given:
        if not glob.has_magic(name) or Path(name).exists():
            found.append(Path(name))
            continue
        matches = [Path(p) for p in sorted(glob.glob(name, recursive=True)) if Path(p).is_file()]
        if not matches:
            raise ConfigError(
                f"{key}: no file matches {name!r}",
                remedy="check the pattern, and quote it if the shell must not expand it",
            )
        found += matches
    if not found:
        raise ConfigError(f"{key} names no file", remedy="give it a file, a list or a pattern")
    return found


def refuse_repeated(files: Mapping[str, Iterable[Path]]) -> None:
    """Refuse a file that is named twice, whatever links lead to it.

    Args:
        files: by the keys of the configuration that name them.

    Raises:
        ConfigError: with both keys and the file.
    """
    owner: dict[object, str] = {}
    for key, paths in files.items():
        for path in paths:
            identity = _identity(path)
            if identity in owner:
                first = owner[identity]
                raise ConfigError(
                    f"{first} and {key} are the same file {path}"
                    if first != key
                    else f"{key} names the file {path} twice",
                    remedy="give every fidelity its own labels; data.val_fraction splits a file",
                )
            owner[identity] = key


def same_content(files: Mapping[str, Iterable[Path]], digests: Mapping[Path, str]) -> list[str]:
    """What a user should hear about files that are copies of each other, byte by byte."""
    owner: dict[str, str] = {}
    notes = []
    for key, paths in files.items():
        for path in paths:
            name = f"{key}: {path}"
            first = owner.setdefault(digests[path], name)
            if first != name:
                notes.append(f"{name} holds the same bytes as {first}: its labels are no new ones")
    return notes


def _identity(path: Path) -> object:
    """What two names of one file have in common, be they relative, symbolic or hard links."""
    try:
        found = path.stat()
    except OSError:  # it is missing, which its reader will tell
        return path.absolute()
    return found.st_dev, found.st_ino
