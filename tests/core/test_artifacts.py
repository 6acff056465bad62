"""Artifacts: a file is there whole or not at all, and says where it came from."""

import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.core import artifacts
from mlff_cli.core.artifacts import (
    alone_in,
    atomic_path,
    check_writable,
    provenance,
    scratch_path,
    sha256,
    write_json,
    write_text,
)
from mlff_cli.core.errors import StorageError, UsageError
from tests.tiny_disk import run_on_tiny_disk

OLD = "the old content"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("exists", [False, True])
def test_an_error_leaves_the_folder_as_it_was(
    tmp_path: Path, error: type[BaseException], exists: bool
) -> None:
    target = tmp_path / "out.txt"
    if exists:
        target.write_text(OLD)
    before = sorted(tmp_path.iterdir())

    def work() -> None:
        with atomic_path(target, force=True) as temporary:
            temporary.write_text("half")
            assert not exists or target.read_text() == OLD  # nobody sees the half
            raise error

    with pytest.raises(error):
        work()
    assert sorted(tmp_path.iterdir()) == before
    assert not exists or target.read_text() == OLD


def test_a_killed_process_leaves_no_half_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text(OLD)
    code = (
        "import sys, time\n"
        "from mlff_cli.core.artifacts import atomic_path\n"
        "with atomic_path(sys.argv[1], force=True) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(30)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (running,) = (p for p in tmp_path.iterdir() if p != target)
        write_text(target, "from another process", force=True)
        assert running.exists()  # a living process keeps its temporary file
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert target.read_text() == "from another process"
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["out.txt"]
    write_text(target, "the next one", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]
    assert target.read_text() == "the next one"


def test_what_is_kept_beside_an_output_goes_with_its_process_or_with_the_next(
    tmp_path: Path,
) -> None:
    target = tmp_path / "new" / "out.txt"
    code = (
        "import os, signal, sys\n"
        "from mlff_cli.core.artifacts import scratch_path\n"
        "with scratch_path(sys.argv[1]) as path:\n"
        "    path.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(target)])
    assert killed.returncode == -signal.SIGKILL
    (stale,) = tmp_path.iterdir()
    with scratch_path(target) as path:
        assert not stale.exists()
        assert not path.exists()
        path.write_text("whole")
        with scratch_path(tmp_path / "other.txt"):
            assert path.read_text() == "whole"
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mlff_cli.core.artifacts import write_text\n"
        "from mlff_cli.core.errors import StorageError\n"
        "folder = Path(sys.argv[1])\n"
        "write_text(folder / 'fits.txt', 'x' * 1000)\n"
        "try:\n"
        "    write_text(folder / 'fits.txt', 'x' * 1_000_000, force=True)\n"
        "except StorageError as error:\n"
        "    print(error.exit_code, error)\n"
        "print([p.name for p in folder.iterdir()], len((folder / 'fits.txt').read_text()))\n"
    )
    result = run_on_tiny_disk(tmp_path, code)
    assert result.stdout.splitlines() == [
        f"3 {tmp_path}/fits.txt: the file could not be read or written: No space left on device",
        "  remedy: free some space, or write to another disk",
        "['fits.txt'] 1000",
    ]
    assert result.stderr == ""


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    whole = ["a" * 200_000, "b" * 300_000]
    write_text(target, whole[0])
    done = threading.Event()

    def write() -> None:
        for i in range(20):
            write_text(target, whole[i % 2], force=True)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert target.read_text() in whole
        reads += 1
    writer.join()
    assert reads


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\r")))
def test_text_round_trip(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    write_text(path, text)
    assert path.read_text(encoding="utf-8") == text
    assert sha256(path) == hashlib.sha256(text.encode()).hexdigest()


def test_hash_of_a_file_longer_than_one_block(tmp_path: Path) -> None:
    data = os.urandom(2 * artifacts.CHUNK + 12345)
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_existing_output_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text(OLD)
    with pytest.raises(UsageError, match="exists already") as caught:
        write_text(target, "new")
    assert "--force" in str(caught.value)
    assert str(target) in str(caught.value)
    assert target.read_text() == OLD
    write_text(target, "new", force=True)
    assert target.read_text() == "new"


def test_parents_are_created_and_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out.txt"
    write_text(target, "x")
    (tmp_path / "plain").write_text("x")
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("force", [False, True])
def test_folders_and_devices_are_no_outputs(tmp_path: Path, force: bool) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(UsageError, match="must be a file"):
            check_writable(path, force=force)
    assert Path(os.devnull).is_char_device()


def test_a_file_as_parent_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(OLD)
    for path in (tmp_path / "file" / "out.txt", tmp_path / "file" / "sub" / "out.txt"):
        with pytest.raises(StorageError, match="Not a directory") as caught:
            check_writable(path, force=False)
        assert str(path) in str(caught.value)
    assert (tmp_path / "file").read_text() == OLD


def test_a_name_too_long_is_an_error_with_a_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="name too long"):
        check_writable(tmp_path / ("x" * 300), force=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_before_any_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        check_writable(tmp_path / "out.txt", force=False)


def test_an_unreadable_input_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    target, absent = tmp_path / "out.txt", tmp_path / "absent.txt"
    with pytest.raises(StorageError) as caught, atomic_path(target):
        absent.read_text()
    assert caught.value.where == str(absent)
    with pytest.raises(StorageError) as caught, atomic_path(target):
        pass  # the block forgot to write
    assert caught.value.where == str(target)


def test_json_refuses_nan_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2.5, None]}


def test_provenance_holds_hashes_versions_and_no_time(tmp_path: Path) -> None:
    source = tmp_path / "a.h5"
    source.write_bytes(b"abc")
    record = provenance(["mlff", "label", "a b.xyz"], [source], seed=3, packages=("numpy", "nope"))
    assert record["command"] == "mlff label 'a b.xyz'"
    assert record["inputs"] == {
        str(source): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }  # FIPS 180-2, the example "abc"
    assert record["seed"] == 3
    assert set(record["versions"]) == {"python", "mlff-cli", "numpy", "nope"}
    assert record["versions"]["nope"] == "absent"
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    again = provenance(["mlff", "label", "a b.xyz"], [source], seed=3, packages=("numpy", "nope"))
    assert json.dumps(record) == json.dumps(again)


def test_known_digests_are_taken(tmp_path: Path) -> None:
    source = tmp_path / "a.h5"
    source.write_bytes(b"data")
    known = {tmp_path / "large.h5": "12ab"}
    inputs = provenance("mlff", [source, tmp_path / "large.h5"], digests=known)["inputs"]
    assert inputs == {str(source): sha256(source), str(tmp_path / "large.h5"): "12ab"}


def test_provenance_of_a_missing_input_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent\.h5.*the file does not exist"):
        provenance("mlff", [tmp_path / "absent.h5"])


def test_remedies_follow_the_reason() -> None:
    for number, word in ((errno.ENOSPC, "space"), (errno.EACCES, "permissions")):
        error = artifacts.storage_error(OSError(number, os.strerror(number)), "a.h5")
        assert word in str(error.remedy)
    assert artifacts.storage_error(OSError("odd"), "a.h5").remedy is None


def test_a_folder_is_worked_in_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "a.run"
    code = f"""
import sys, time
from mlff_cli.core.artifacts import alone_in
with alone_in({str(folder)!r}, "mlff train"):
    print("in", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(UsageError, match="another mlff train is working in this folder"):
            alone_in(folder, "mlff train").__enter__()
        other.kill()
    with alone_in(folder, "mlff train"):
        pass
    assert list(folder.iterdir()) == []


def test_a_link_to_itself_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    with pytest.raises(StorageError, match="symbolic links") as e, atomic_path(loop):
        pass
    assert e.value.exit_code == 3
    assert loop.is_symlink()
