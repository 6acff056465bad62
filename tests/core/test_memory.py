"""Memory that is left: the tightest of the machine, its control groups and ulimit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlff_cli.core.memory import available_memory

GB = 1 << 30


def machine(root: Path, groups: str = "", **files: str) -> Path:
    """A tree of system files; names of group files have '__' for '/'."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    8388608 kB\n")
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path)) == 8 * GB


def test_a_limit_of_any_group_above_counts(tmp_path: Path) -> None:
    files = {
        "jobDOTslice__memoryDOTmax": str(4 * GB),
        "jobDOTslice__memoryDOTcurrent": str(3 * GB),
        "jobDOTslice__memoryDOTstat": f"anon 1\ninactive_file {GB}\n",
        "jobDOTslice__step__memoryDOTmax": "max",
        "jobDOTslice__step__memoryDOTcurrent": "0",
    }
    root = machine(tmp_path, "0::/job.slice/step\n", **files)
    assert available_memory(root) == 2 * GB  # what was read from disk can be dropped


def test_version_1_of_control_groups_is_understood(tmp_path: Path) -> None:
    files = {
        "memory__memoryDOTlimit_in_bytes": "9223372036854771712",
        "memory__memoryDOTusage_in_bytes": "0",
        "memory__slurm__memoryDOTlimit_in_bytes": str(2 * GB),
        "memory__slurm__memoryDOTusage_in_bytes": str(GB // 2),
    }
    root = machine(tmp_path, "3:cpu,cpuacct:/x\n2:memory:/slurm\n", **files)
    assert available_memory(root) == 3 * GB // 2


def test_more_used_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    files = {"memoryDOTmax": "1000", "memoryDOTcurrent": "2000"}
    assert available_memory(machine(tmp_path, "0::/\n", **files)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ulimit_counts() -> None:
    code = (
        "import resource; from mlff_cli.core.memory import available_memory;"
        f"resource.setrlimit(resource.RLIMIT_AS, ({GB}, {GB})); print(available_memory())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(run.stdout) < GB
