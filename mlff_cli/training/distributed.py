"""Processes that train together: every rank a share of the batch, one sum of gradients.

Losses are divided by the counts of the whole batch before the backward pass, so that the gradient
of the whole batch is the plain sum over ranks:  g = sum_r g_r.  It is summed in the order of the
ranks, whatever the network and the library prefer: a run repeats to the last bit.

Beside the collectives the processes share a key-value store. There they meet, and there a process
that fails leaves the reason, so that the others end with it instead of a broken connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore

from mlff_cli.core.config import differences
from mlff_cli.core.errors import ConfigError
from mlff_cli.training.launch import Launch, world_from_environment
from mlff_cli.training.meeting import Board
from mlff_cli.training.placement import Member, cores_for, neighbours, place

SMALL = 4096  # elements up to which one message is faster than two shorter ones
SHOWN = 12  # differences between processes in a message
BUCKET = 32 << 20  # elements summed at once, which bounds the memory of copies


@dataclass(frozen=True)
class World:
    """The processes that train together, as one of them sees them; alone by default.

    Attributes:
        rank: of this process, 0 to size - 1.
        size: processes in all.
        local_rank: of this process on its host.
        local_size: processes on its host.
        host: its name.
        device: of this process.
        cores: of this process alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host: str = ""
    device: str = "cpu"
    cores: int = 1
    _board: Board | None = field(default=None, repr=False, compare=False)

    @property
    def main(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place, in the order of the ranks: same bits everywhere.

        Raises:
            PeerError: another process failed.
        """
        if self.size == 1 or tensor.numel() == 0:
            return tensor
        with self._contact():
            if tensor.numel() <= SMALL:
                flat = tensor.detach().reshape(-1)
                received = flat.new_empty((self.size, len(flat)))
                dist.all_gather(list(received.unbind()), flat)
                with torch.no_grad():
                    tensor.copy_(_add_in_order(received).view_as(tensor))
            else:
                flat = _divisible(tensor.detach(), self.size)
                self._sum_by_parts(flat)
                if flat.data_ptr() != tensor.data_ptr():
                    with torch.no_grad():
                        tensor.copy_(flat[: tensor.numel()].view_as(tensor))
        return tensor

    def _sum_by_parts(self, flat: Tensor) -> None:
        """Sum (R n) in place: every rank sums a part for all."""
        parts = flat.view(self.size, -1)  # [r, i]
        received = torch.empty_like(parts)
        dist.all_to_all_single(received, parts)
        dist.all_gather(list(parts.unbind()), _add_in_order(received))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; the same answer everywhere.

        Raises:
            PeerError: another process failed.
        """
        if self.size == 1:
            return flag
        return bool(self.sum_(torch.tensor([int(flag)])).item())

    def barrier(self) -> None:
        """Wait until every rank is here.

        Raises:
            PeerError: another process failed.
        """
        self.any(False)

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, of plain types, on every rank.

        Raises:
            PeerError: another process failed.
        """
        if self.size == 1:
            return value
        values = [value if self.main else None]
        with self._contact():
            dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's value, of plain types, in the order of the ranks, on every rank.

        Raises:
            PeerError: another process failed.
        """
        if self.size == 1:
            return [value]
        values = [None] * self.size
        with self._contact():
            dist.all_gather_object(values, value)
        return values

    def agree(self, what: str, value: Mapping[str, Any]) -> None:
        """Refuse processes that see different configurations or files.

        Raises:
            ConfigError: the value is not the same on every rank.
            PeerError: another process failed.
        """
        values = self.gather_objects(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                found = "\n    ".join(differences(values[0], other)[:SHOWN])
                raise ConfigError(
                    f"the processes disagree about {what}; rank 0 and rank {rank}:\n    {found}",
                    remedy="give all processes the same command and the same files",
                )

    @contextlib.contextmanager
    def _contact(self) -> Iterator[None]:
        """Turn a broken connection into the reason why."""
        assert self._board is not None
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # gloo's and NCCL's errors have no type of their own
            raise self._board.reason(error) from error


def reduce_gradients(
    parameters: Sequence[nn.Parameter], world: World, extra: Sequence[Tensor] = ()
) -> None:
    """Sum gradients over all ranks, in place, in few messages.

    A parameter without a gradient on some ranks counts as zero there; one that has none on any
    rank keeps none, so that the optimizer leaves it alone as in one process.

    Args:
        parameters: the same on every rank, in the same order; frozen ones are passed over.
        world: the ranks.
        extra: tensors summed along with them, in place; the same shapes on every rank.

    Raises:
        PeerError: another process failed.
    """
    if world.size == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    present = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32)
    tensors: list[Tensor] = []
    for parameter, anywhere in zip(trained, world.sum_(present).tolist(), strict=True):
        if anywhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            tensors.append(parameter.grad)
    for bucket in _buckets([*tensors, *extra]):
        sizes = [t.numel() for t in bucket]
        zeros = bucket[0].new_zeros(-sum(sizes) % world.size)  # spares another copy
        flat = world.sum_(torch.cat([*(t.detach().reshape(-1) for t in bucket), zeros]))
        parts = torch.split(flat, [*sizes, len(zeros)])[:-1]
        with torch.no_grad():
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))


def _divisible(tensor: Tensor, by: int) -> Tensor:
    """The tensor as a row, itself or a copy with zeros behind it."""
    missing = -tensor.numel() % by
    flat = tensor.reshape(-1)
    return torch.cat([flat, flat.new_zeros(missing)]) if missing else flat


def _add_in_order(parts: Tensor) -> Tensor:
    """Sum (R, n) over ranks, one after the other."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Tensors of one type and device together, up to a size."""
    kinds: dict[tuple[torch.dtype, torch.device], list[list[Tensor]]] = {}
    for tensor in tensors:
        lists = kinds.setdefault((tensor.dtype, tensor.device), [[]])
        if lists[-1] and sum(t.numel() for t in lists[-1]) + tensor.numel() > BUCKET:
            lists.append([])
        lists[-1].append(tensor)
    return [bucket for lists in kinds.values() for bucket in lists]


# -- meeting --------------------------------------------------------------------------------------


@contextlib.contextmanager
def join(
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
    warn: Callable[[str], None] = lambda line: None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[World]:
    """Meet the other processes, if there are any, and part from them on every way out.

    An error that leaves the block on one rank ends all of them with its exit code. One that rank 0
    tells as well is marked `told` on the others.

    Args:
        device: auto, cpu, cuda or cuda:N; auto and cuda give every process the GPU of its rank.
        say: is told one line per process: rank, host and device.
        warn: is told what the user may not have meant.
        environ: the launcher's variables; None: this process's.

    Raises:
        UsageError: see `world_from_environment` and `place`; the processes do not meet in time.
        MissingDependencyError: see `place`.
        PeerError: another process failed.
    """
    launch = world_from_environment(os.environ if environ is None else environ)
    for warning in launch.warnings:
        warn(warning)
    if launch.size == 1:
        me = _member(launch, device)
        chosen = device if device != "auto" else ("cuda" if me.gpus else "cpu")
        yield World(host=me.host, device=chosen, cores=len(me.cores))
        return
    board = Board(launch)
    with board.parting():
        members = board.meet(_member(launch, device))
        chosen = place(members)[launch.rank]
        dist.init_process_group(
            "gloo" if chosen == "cpu" else "cpu:gloo,cuda:nccl",
            store=PrefixStore("group", board.store),
            rank=launch.rank,
            world_size=launch.size,
            timeout=timedelta(seconds=launch.peer_timeout),
            device_id=None if chosen == "cpu" else torch.device(chosen),
        )
        world = World(
            launch.rank,
            launch.size,
            *neighbours(members, launch.rank),
            members[launch.rank].host,
            chosen,
            cores_for(members, launch.rank),
            board,
        )
        say(f"rank {world.rank} of {world.size}: host {world.host}, device {_describe(chosen)}")
        with world._contact():
            world.barrier()
        yield world


def _member(launch: Launch, device: str) -> Member:
    """What this process tells the others."""
    gpus = []
    if device != "cpu":
        for i in range(torch.cuda.device_count()):
            gpus.append(str(torch.cuda.get_device_properties(i).uuid))
    can_bind = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if can_bind else range(os.cpu_count() or 1)
    local = (launch.local_rank, launch.local_size)
    host, versions = socket.gethostname(), f"torch {torch.__version__}"
    return Member(launch.rank, host, *local, gpus, list(cores), device, versions)


def _describe(device: str) -> str:
    if device == "cpu":
        return device
    return f"{device} ({torch.cuda.get_device_name(device)})"
