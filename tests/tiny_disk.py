"""A real disk of a few kilobytes, for tests of what happens when it is full."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run_on_tiny_disk(
    folder: Path, code: str, size: str = "64k"
) -> subprocess.CompletedProcess[str]:
    """Run Python code whose `sys.argv[1]` is `folder`, mounted as a tmpfs of `size`.

    The mount lives in a namespace of its own and goes with the process. Skips the test where the
    system allows no such namespace.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare command: a tiny file system cannot be mounted")

    def shell(command: str, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [unshare, "--map-root-user", "--mount", "sh", "-ec", command, "sh", *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    mount = 'mount -t tmpfs -o "size=$1" tmpfs "$2"'
    trial = shell(mount, size, str(folder))
    if trial.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted: {trial.stderr.strip()}")
    return shell(f'{mount}; exec "$3" -c "$4" "$2"', size, str(folder), sys.executable, code)
