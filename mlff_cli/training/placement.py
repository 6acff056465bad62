"""Which device each process takes: one process per GPU, decided by all from the same list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlff_cli.core.errors import MissingDependencyError, UsageError


@dataclass(frozen=True)
class Member:
    """What a process tells the others when they meet.

    Attributes:
        rank: of the process.
        host: its name.
        local_rank: on the host, as the launcher says; None: not known.
        local_size: processes on the host, as the launcher says; None: not known.
        gpus: identities of the GPUs it sees, in the order of their numbers.
        cores: the cores it may run on.
        device: what it was told to use: auto, cpu, cuda or cuda:N.
        versions: of the software that must be the same.
    """

    rank: int
    host: str
    local_rank: int | None
    local_size: int | None
    gpus: Sequence[str]
    cores: Sequence[int]
    device: str
    versions: str


def neighbours(members: Sequence[Member], rank: int) -> tuple[int, int]:
    """Local rank and local size: what the launcher said, else counted by host name."""
    me = members[rank]
    here = [m.rank for m in members if m.host == me.host]
    local_rank = here.index(rank) if me.local_rank is None else me.local_rank
    return local_rank, len(here) if me.local_size is None else me.local_size


def cores_for(members: Sequence[Member], rank: int) -> int:
    """Cores of a process: those it may run on, divided among those that may use the same."""
    me = members[rank]
    sharing = [m for m in members if m.host == me.host and list(m.cores) == list(me.cores)]
    return max(1, len(me.cores) // len(sharing))


def place(members: Sequence[Member]) -> list[str]:
    """The device of every process: one process per GPU, or all on the CPU.

    Raises:
        UsageError: one GPU is named for several processes, or processes were told different things.
        MissingDependencyError: more processes than GPUs, or GPUs on some hosts only.
    """
    for name, values in (
        ("--device", [m.device for m in members]),
        ("versions", [m.versions for m in members]),
    ):
        for member, value in zip(members, values, strict=True):
            if value != values[0]:
                raise UsageError(
                    f"all processes need the same {name}, found {values[0]} in rank 0 and {value} "
                    f"in rank {member.rank} on {member.host}",
                    remedy="start all of them with one command in one environment",
                )
    devices = [_device(m, *neighbours(members, m.rank)) for m in members]
    owners: dict[tuple[str, str], int] = {}
    for member, device in zip(members, devices, strict=True):
        if (device == "cpu") != (devices[0] == "cpu"):
            here, there = (0, member.rank) if devices[0] == "cpu" else (member.rank, 0)
            raise MissingDependencyError(
                f"rank {here} on {members[here].host} sees no GPU, rank {there} on "
                f"{members[there].host} does",
                remedy="ask for GPUs on every node, or use --device cpu",
            )
        if device != "cpu":
            gpu = (member.host, member.gpus[int(device.partition(":")[2])])
            if gpu in owners:
                raise _too_few(member.host, f"ranks {owners[gpu]} and {member.rank} share one GPU")
            owners[gpu] = member.rank
    return devices


def _device(member: Member, local_rank: int, local_size: int) -> str:
    """The device of one process among `local_size` on its host."""
    kind, _, index = member.device.partition(":")
    n = len(member.gpus)
    if kind == "cpu" or (kind == "auto" and n == 0):
        return "cpu"
    if index and local_size > 1:
        raise UsageError(
            f"--device {member.device} names one GPU for {local_size} processes on {member.host}",
            remedy="use --device cuda: every process takes the GPU of its local rank",
        )
    if index:
        local_rank = int(index)
    elif n == 1:  # the launcher gave every process its own
        local_rank = 0
    elif n < local_size:
        raise _too_few(member.host, f"{local_size} processes see {n} GPUs")
    if local_rank >= n:
        raise MissingDependencyError(
            f"rank {member.rank} on {member.host} needs GPU {local_rank}, {n} were found",
            remedy="ask for one GPU per process, or use --device cpu",
        )
    return f"cuda:{local_rank}"


def _too_few(host: str, seen: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"a process needs a GPU of its own; on {host} {seen}",
        remedy="start one process per GPU (torchrun --nproc_per_node, srun --ntasks-per-node and "
        "--gpus-per-node), or use --device cpu",
    )
