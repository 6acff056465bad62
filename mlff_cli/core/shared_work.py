"""What a Dask worker is given of a crew: how to prepare, and what it must have and see for that."""

from __future__ import annotations

import os
import pickle
import platform
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import distributed
import threadpoolctl

from mlff_cli.core import artifacts
from mlff_cli.core.errors import MissingDependencyError, UsageError

SHOWN_WORKERS = 3
SAME_ENVIRONMENT = "start scheduler and workers from the environment that runs this command"


class _Prepared:
    """What a worker made of the recipe."""

    def __init__(self) -> None:
        self.one_at_a_time = threading.Lock()
        self.function: Any = None
        self.libraries: Any = None


# By the crew's name: copies that Dask brings a worker use what the first one prepared. It goes with
# the last of them, when the crew's process leaves or is killed.
_PREPARED: weakref.WeakValueDictionary[str, _Prepared] = weakref.WeakValueDictionary()


class SharedWork:
    """What the tasks share. Pickled without what was prepared of it.

    Args:
        name: of the crew, as no other has it.
        recipe: `prepare` and what it is given, pickled: a worker that cannot unpickle them fails in
            its task and says why, where Dask would give the worker up without a word.
        versions: that a worker must have.
        sizes: of files that it must see.
    """

    def __init__(
        self, name: str, recipe: bytes, versions: dict[str, str], sizes: dict[str, int]
    ) -> None:
        self.name, self.recipe, self.versions, self.sizes = name, recipe, versions, sizes
        self._prepared = _PREPARED.setdefault(name, _Prepared())

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedWork, (self.name, self.recipe, self.versions, self.sizes)

    def __call__(self, *arguments: Any) -> Any:
        """Run a task, on one thread, when no other task of the crew runs in this process."""
        made = self._prepared
        with made.one_at_a_time:
            if made.function is None:
                self._check()  # workers that joined later
                with threadpoolctl.threadpool_limits(1):
                    prepare, shared = pickle.loads(self.recipe)
                    made.function = prepare(*shared)
                made.libraries = threadpoolctl.ThreadpoolController()  # all are loaded now
            with made.libraries.limit(limits=1):
                return made.function(*arguments)

    def _check(self) -> None:
        name = f"the worker {distributed.get_worker().address}"
        versions, sizes = look_around(list(self.versions), list(self.sizes))
        compare_versions(self.versions, {name: versions})
        compare_sizes(self.sizes, sizes, name)


def itself(work: SharedWork) -> SharedWork:
    """The task that brings what is shared to a worker, and keeps it there."""
    return work


def run_task(work: SharedWork, *arguments: Any) -> Any:
    """A task of the crew."""
    return work(*arguments)


def look_around(
    packages: Sequence[str], paths: Sequence[str], function: bytes | None = None
) -> tuple[dict[str, str], dict[str, int]]:
    """Versions here, and sizes of files in bytes, -1 for those that are not seen.

    Raises:
        ImportError: the pickled function is not to be found here.
    """
    if function is not None:
        pickle.loads(function)
    return versions_of(packages), sizes_of(paths)


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python, mlff, numpy and other distributions, as they are here."""
    names = dict.fromkeys(("mlff-cli", "numpy", *packages))
    found = {name: artifacts.version(name) for name in names if name != "Python"}
    return {"Python": platform.python_version(), **found}


def sizes_of(paths: Sequence[Path | str]) -> dict[str, int]:
    """Bytes of files by their absolute path, -1 for those that are not seen."""
    return {os.path.abspath(p): _size(p) for p in paths}


def _size(path: Path | str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def compare_versions(ours: Mapping[str, str], theirs: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse other versions than ours.

    Raises:
        MissingDependencyError: names who has which.
    """
    found = [
        f"{who} has {name} {has[name]}"
        for who, has in theirs.items()
        for name in ours
        if has[name] != ours[name]
    ]
    if found:
        wanted = ", ".join(f"{name} {version}" for name, version in ours.items())
        more = f" and {len(found) - SHOWN_WORKERS} more" if len(found) > SHOWN_WORKERS else ""
        raise MissingDependencyError(
            f"a cluster needs the versions of this process ({wanted}), but "
            f"{'; '.join(found[:SHOWN_WORKERS])}{more}",
            remedy=SAME_ENVIRONMENT,
        )


def compare_sizes(ours: Mapping[str, int], theirs: Mapping[str, int], who: str) -> None:
    """Refuse other files than ours.

    Raises:
        UsageError: names the first that differs or is not seen.
    """
    for path, size in ours.items():
        if theirs[path] != size:
            found = "does not see it" if theirs[path] < 0 else f"sees {theirs[path]} bytes"
            raise UsageError(
                f"workers must see the same files, this one has {size} bytes and {who} {found}",
                where=path,
                remedy="put it on a file system that all nodes share, under one path",
            )


def lacks_mlff(who: str, error: Exception) -> MissingDependencyError:
    """The error of a process that cannot import what it is to run."""
    return MissingDependencyError(
        f"{who} cannot run mlff: {type(error).__name__}: {error}", remedy=SAME_ENVIRONMENT
    )
