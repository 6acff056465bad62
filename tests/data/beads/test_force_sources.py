"""Trajectories found again by content, and a few of them open at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads import force_sources
from mlff_cli.data.beads.force_sources import ForceSources, absolute, digests, match_sources


def files(folder: Path, n: int) -> list[Path]:
    paths = []
    for k in range(n):
        paths.append(folder / f"t{k}.npz")
        np.savez(paths[-1], R=np.full((2, 1, 3), float(k)), F=np.zeros((2, 1, 3)))
    return paths


def test_every_source_is_found_wherever_its_file_went(tmp_path: Path) -> None:
    paths = files(tmp_path, 3)
    sources = [{"path": f"/gone/{path.name}", "sha256": sha256(path)} for path in paths]
    found = digests(paths[::-1])
    matched = match_sources(found, sources, np.array([0, 1, 2]), "m.npz")
    assert matched == {k: str(path) for k, path in enumerate(paths)}


def test_sources_without_frames_may_be_given_or_not(tmp_path: Path) -> None:
    paths = files(tmp_path, 2)
    sources = [{"path": path.name, "sha256": sha256(path)} for path in paths]
    for given in (paths, paths[:1]):
        assert 0 in match_sources(digests(given), sources, np.array([0]), "m.npz")


def test_a_file_that_two_molecules_were_mapped_from(tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    sources = [{"path": "a", "sha256": sha256(path), "molecule": k} for k in (0, 1)]
    matched = match_sources(digests([path]), sources, np.array([0, 1]), "m.npz")
    assert matched == {0: str(path), 1: str(path)}


def test_what_is_missing_or_surplus_is_named(tmp_path: Path) -> None:
    paths = files(tmp_path, 2)
    sources = [{"path": "far/first.h5", "sha256": sha256(paths[0])}]
    with pytest.raises(UsageError, match="t1.npz is not among the sources.*first.h5"):
        match_sources(digests(paths), sources, np.array([0]), "m.npz")
    with pytest.raises(UsageError, match="mapped from far/first.h5"):
        match_sources({}, sources, np.array([0]), "m.npz")
    with pytest.raises(DataError, match="every frame needs a source among the 1"):
        match_sources(digests(paths[:1]), sources, np.array([-1, 0]), "m.npz")


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(force_sources, "OPEN_FILES", 2)
    paths = files(tmp_path, 5)
    with ForceSources({k: absolute(path) for k, path in enumerate(paths)}) as sources:
        for k in (0, 1, 2, 3, 4, 0, 4, 2):
            found = sources[k].read(np.array([1])).positions
            assert found is not None
            assert (found == k).all()
            assert len(sources._opened) <= 2
    assert not sources._opened
