"""The trajectories that a coarse-grained set was mapped from: found again by their content.

A set names its sources by path and SHA-256. Files move and folders are renamed, so that only the
digest counts: a trajectory belongs to the source whose digest it has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import DataError, MLFFError, UsageError
from mlff_cli.data.trajectories.opening import Trajectory, open_trajectory, split_selection

OPEN_FILES = 8  # trajectories kept open at a time


def absolute(path: Path | str) -> str:
    """A trajectory's path that holds in any folder; what stands behind its `@` stays."""
    file, selection = split_selection(path)
    return str(file.absolute()) + (f"@{selection}" if selection is not None else "")


def digests(
    trajectories: Sequence[Path | str], of: Callable[[Path], str] = sha256
) -> dict[str, str]:
    """SHA-256 of every trajectory as a set's `sources` write it.

    Args:
        trajectories: files, or parts of them.
        of: a file's SHA-256, as `core.digests.Digests.of`.

    Raises:
        UsageError: a path is given twice.
        StorageError: a file does not exist or cannot be read.
    """
    found: dict[str, str] = {}
    for path in trajectories:
        if str(path) in found:
            raise UsageError(f"{path} is given twice", remedy="give each trajectory once")
        file, selection = split_selection(path)
        found[str(path)] = of(file) + (f"@{selection}" if selection is not None else "")
    return found


@contextmanager
def paths_as_given(trajectories: Iterable[Path | str]) -> Iterator[None]:
    """Let errors of the block name trajectories as the user did, not by absolute paths."""
    given: dict[str, str] = {}
    for path in trajectories:
        file = split_selection(path)[0]
        given |= {absolute(path): str(path), str(file.absolute()): str(file)}

    def said(text: str) -> str:
        for path in sorted(given, key=len, reverse=True):
            text = text.replace(path, given[path])
        return text

    try:
        yield
    except MLFFError as error:
        error.message = said(error.message)
        error.where = error.where and said(error.where)
        error.remedy = error.remedy and said(error.remedy)
        raise


def match_sources(
    found: Mapping[str, str], sources: Sequence[Mapping[str, Any]], used: np.ndarray, where: str
) -> dict[int, str]:
    """Which trajectory each source is.

    Args:
        found: digest of every trajectory, by path.
        sources: of the set: {path, sha256, ...}.
        used: rows of `sources` that frames of the set come from.
        where: the set, for messages.

    Returns:
        Path of a trajectory by row of `sources`.

    Raises:
        UsageError: a trajectory is given twice, is no source of the set, or is missing.
        DataError: frames come from a source that the set does not name.
    """
    unknown = used[(used < 0) | (used >= len(sources))]
    if len(unknown):
        raise DataError(
            f"every frame needs a source among the {len(sources)} that the set names, found "
            f"{unknown[0]}",
            where=where,
            remedy="make the set with `mlff cg-map`, which records them",
        )
    by_digest: dict[str, str] = {}
    for path, digest in found.items():
        if digest in by_digest:
            raise UsageError(
                f"two trajectories have the same content: {by_digest[digest]} and {path}",
                remedy="give each trajectory once",
            )
        by_digest[digest] = path
    matched = {
        k: by_digest[source["sha256"]]
        for k, source in enumerate(sources)
        if source.get("sha256") in by_digest
    }
    for path in found:
        if path not in matched.values():
            raise _surplus(path, sources, where)
    for k in used.tolist():
        if k not in matched:
            raise UsageError(
                f"the set was mapped from {sources[k].get('path')}, which is not among the "
                f"trajectories (SHA-256 {str(sources[k].get('sha256'))[:12]}...)",
                where=where,
                remedy="give every trajectory that was mapped; its path does not matter",
            )
    return matched


def _surplus(path: str, sources: Sequence[Mapping[str, Any]], where: str) -> UsageError:
    name = split_selection(path)[0].name
    namesakes = [s for s in sources if Path(str(s.get("path", ""))).name.startswith(name)]
    if namesakes:
        return UsageError(
            f"{path} is not the file that was mapped: its content has changed since",
            where=where,
            remedy="run `mlff cg-map` on it again, or restore the file",
        )
    return UsageError(
        f"{path} is not among the sources of the set: "
        f"{', '.join(str(s.get('path')) for s in sources) or 'none'}",
        where=where,
        remedy="leave it out, or map it first with `mlff cg-map`",
    )


class ForceSources:
    """Trajectories by their number, opened when they are needed and a few kept open.

    Args:
        paths: path by row of a set's `sources`.

    Attributes:
        notes: what a user must be told of those that were opened.
    """

    def __init__(self, paths: Mapping[int, str]) -> None:
        self._paths = paths
        self.notes: list[str] = []
        self._opened: OrderedDict[int, tuple[Trajectory, ExitStack]] = OrderedDict()

    def __enter__(self) -> ForceSources:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        while self._opened:
            self._opened.popitem()[1][1].close()

    def __getitem__(self, source: int) -> Trajectory:
        """An opened trajectory; raises what `open_trajectory` raises."""
        if source not in self._opened:
            while len(self._opened) >= OPEN_FILES:
                self._opened.popitem(last=False)[1][1].close()
            stack = ExitStack()
            trajectory = stack.enter_context(open_trajectory(self._paths[source]))
            self._opened[source] = trajectory, stack
            self.notes += trajectory.notes
        self._opened.move_to_end(source)
        return self._opened[source][0]
