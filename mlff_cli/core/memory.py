"""How much memory this process can still take before the system refuses or kills it.

The smallest of: memory that the machine can give without swapping, what the limits of the control
groups above this process leave (containers, SLURM), and what `ulimit -v` leaves.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60  # bytes; version 1 of control groups writes its "no limit" as such a number
_UNITS = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take.

    Args:
        root: where `proc` and `sys` are mounted.
    """
    limits = [*_machine(root), *_control_groups(root), *_address_space(root)]
    return max(0, min(limits, default=UNLIMITED))


def size_text(n: float) -> str:
    """Bytes for people, in units of 1024.

    >>> size_text(3 * 2**29), size_text(40 * 2**20), size_text(12)
    ('1.5 GB', '40 MB', '12 bytes')
    """
    for unit, name in _UNITS:
        if abs(n) >= unit:
            value = n / unit
            return f"{value:.1f} {name}" if value < 9.95 else f"{value:.0f} {name}"
    return f"{n:.0f} bytes"


def _machine(root: Path) -> Iterator[int]:
    """What the kernel could give without swapping."""
    found = _fields(root / "proc" / "meminfo").get("MemAvailable")
    if found is not None:
        yield found
    elif "SC_AVPHYS_PAGES" in os.sysconf_names:
        yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _address_space(root: Path) -> Iterator[int]:
    """What `ulimit -v` leaves."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _fields(root / "proc" / "self" / "status").get("VmSize")
    if soft != resource.RLIM_INFINITY and used is not None:
        yield soft - used


def _control_groups(root: Path) -> Iterator[int]:
    """What is left of the limit of every group that this process is in."""
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        mount = root / "sys" / "fs" / "cgroup"
        names = ("memory.max", "memory.current", "inactive_file")
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            mount /= "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts) + 1):  # limits hold for all groups below theirs
            yield from _left(mount.joinpath(*parts[:depth]), *names)


def _left(group: Path, limit_file: str, usage_file: str, cache_field: str) -> Iterator[int]:
    limit, usage = _number(group / limit_file), _number(group / usage_file)
    if limit is not None and usage is not None and limit < UNLIMITED:
        cache = 0  # files that were read count as used, but are dropped when memory is needed
        for line in _lines(group / "memory.stat"):
            if line.split()[0] == cache_field:
                cache = int(line.split()[1])
        yield limit - usage + cache


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def _fields(path: Path) -> dict[str, int]:
    """Rows 'Name:  123 kB' in bytes."""
    rows = (line.split() for line in _lines(path))
    return {r[0].rstrip(":"): int(r[1]) << 10 for r in rows if len(r) == 3 and r[2] == "kB"}


def _lines(path: Path) -> list[str]:
    """Lines of a file of the system; none where it has no such file."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
