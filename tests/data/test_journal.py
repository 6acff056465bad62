"""The journal: what was added comes back bit by bit, whatever was torn does not."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.core.errors import StorageError, UsageError
from mlff_cli.data.journal import Journal

FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=8), FLOATS, max_size=5), st.integers(0, 400))
def test_a_torn_file_gives_the_entries_before_the_tear(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, list[float]], cut: int
) -> None:
    output = tmp_path_factory.mktemp("journal") / "out.h5"
    ends, before = [], dict[str, list[float]]()
    with Journal(output) as journal:
        for key, value in entries.items():
            journal.add(key, value)
            ends.append(journal.path.stat().st_size)
    size = min(cut, journal.path.stat().st_size)
    os.truncate(journal.path, size)
    before = {k: v for (k, v), end in zip(entries.items(), ends, strict=True) if end <= size}
    with Journal(output) as journal:
        assert journal.done == before
        journal.add("later", [0.1])
    with Journal(output) as journal:
        assert journal.done == {**before, "later": [0.1]}
        journal.remove()
    assert not journal.folder.exists()


def test_garbage_ends_the_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "o") as journal:
        journal.add("a", 1)
    with journal.path.open("ab") as stream:
        stream.write(b"\x00\xff garbage\n[1]\n")
    with Journal(tmp_path / "o") as journal:
        assert journal.done == {"a": 1}
        journal.add("b", 2)
    with Journal(tmp_path / "o") as journal:
        assert journal.done == {"a": 1, "b": 2}


def test_two_processes_do_not_share_one(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "o"),
        pytest.raises(UsageError, match="another process"),
        Journal(tmp_path / "o"),
    ):
        pass
    with Journal(tmp_path / "o"):
        pass  # the lock went with its owner


def test_a_killed_owner_leaves_its_work_and_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_add_and_die, args=(tmp_path / "o",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with Journal(tmp_path / "o") as journal:
        assert journal.done == {"kept": [1.5]}


def _add_and_die(output: Path) -> None:
    with Journal(output) as journal:
        journal.add("kept", [1.5])
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"), Journal(tmp_path / "file" / "o"):
        pass


def test_a_full_disk_is_an_error_and_the_journal_stays_usable(tmp_path: Path) -> None:
    """A limit on the file's size stands for the disk: the kernel refuses in the same places."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        with Journal(tmp_path / "o") as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
            for number in range(1000):
                journal.add(str(number), [0.1] * 10)

    try:
        with pytest.raises(StorageError, match=r"journal\.jsonl"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Journal(tmp_path / "o") as journal:
        assert list(journal.done) == [str(k) for k in range(len(journal.done))]
        assert 10 < len(journal.done) < 100
        journal.add("later", 1)
        assert journal.done["later"] == 1
