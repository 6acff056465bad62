"""Hashes taken in the background: right, told once, and given up with the work."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest

from mlff_cli.core.artifacts import provenance
from mlff_cli.core.digests import Digests
from mlff_cli.core.errors import StorageError


def test_digests_are_those_of_the_bytes_and_serve_the_provenance(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k]) * 3_000_000)
    wanted = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
    with Digests(paths) as digests:
        assert digests.of(str(paths[1])) == wanted[paths[1]]
        assert digests.all() == wanted
        for path in paths:
            path.unlink()  # read once: the provenance needs the files no more
        record = provenance("mlff", paths, digests=digests.all())
    assert record["inputs"] == {str(p): digest for p, digest in wanted.items()}


def test_an_unreadable_file_is_told_to_who_asks_and_the_others_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"b")
    with Digests([tmp_path / "absent", tmp_path / "b"]) as digests:
        with pytest.raises(StorageError, match="the file does not exist"):
            digests.of(tmp_path / "absent")
        assert digests.of(tmp_path / "b") == hashlib.sha256(b"b").hexdigest()


def test_hashing_ends_with_the_block(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: hashing it would take the better part of an hour
    with pytest.raises(KeyboardInterrupt), Digests([large]):
        raise KeyboardInterrupt
    until = time.monotonic() + 10
    while any(t.name == "hash" for t in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(t.name == "hash" for t in threading.enumerate())
