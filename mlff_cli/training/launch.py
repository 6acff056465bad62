"""Which of how many processes this one is, from what torchrun or srun left in the environment.

torchrun's variables are read first, SLURM's second, and neither is needed. A shell inside a SLURM
allocation is one process: only what srun started (SLURM_STEP_ID and SLURM_PROCID) is several.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlff_cli.core.errors import UsageError

FIRST_PORT, PORTS = 10_000, 20_000  # below 32768, where Linux begins to give ports away by itself
STEP_STRIDE = 5_003  # steps of one job, and neighbouring jobs, get ports apart
OWN_STEPS = 0xFFFF_FFF0  # step numbers from here on are SLURM's: batch script, interactive, extern
JOIN_SECONDS, PEER_SECONDS = 300.0, 1800.0


@dataclass(frozen=True)
class Launch:
    """One process among those that train together.

    Attributes:
        rank: of this process, 0 to size - 1.
        size: processes in all.
        local_rank: of this process on its host; None: not known.
        local_size: processes on its host; None: not known.
        address: host of rank 0, where the processes meet.
        port: there.
        store_runs: whether the launcher keeps the meeting place itself, as torchrun does.
        attempt: how often the launcher restarted the processes.
        join_timeout: seconds to wait for all processes to come.
        peer_timeout: seconds to wait for the others in the middle of the work.
        warnings: what the user should know.
    """

    rank: int = 0
    size: int = 1
    local_rank: int | None = 0
    local_size: int | None = 1
    address: str = ""
    port: int = 0
    store_runs: bool = False
    attempt: int = 0
    join_timeout: float = JOIN_SECONDS
    peer_timeout: float = PEER_SECONDS
    warnings: tuple[str, ...] = ()


def world_from_environment(environ: Mapping[str, str]) -> Launch:
    """Read the launcher's variables.

    Raises:
        UsageError: variables are missing, no numbers, or contradict each other or the allocation.
    """
    rank, size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    tasks = _tasks(environ)
    if tasks and rank is None:
        return _from_slurm(environ, tasks, size)
    if rank is None and size in (None, 1):
        return Launch(warnings=_alone(environ))
    if rank is None or size is None:
        missing = "RANK" if rank is None else "WORLD_SIZE"
        raise UsageError(
            f"{missing} is missing, found RANK={environ.get('RANK')} and "
            f"WORLD_SIZE={environ.get('WORLD_SIZE')}",
            remedy="start with torchrun or srun, which set both; unset both for one process",
        )
    _check_rank("RANK", rank, "WORLD_SIZE", size)
    if tasks:
        _check_torchrun_in_srun(environ, tasks, rank, size)
    elif size > 1:
        _check_torchrun_in_allocation(environ)
    if size == 1:
        return Launch()
    address, port = environ.get("MASTER_ADDR", ""), _number(environ, "MASTER_PORT")
    if not address or port is None:
        missing = "MASTER_PORT" if address else "MASTER_ADDR"
        raise UsageError(
            f"{missing} is missing, without which {size} processes cannot meet",
            remedy="start with torchrun, or export the host name of rank 0 as MASTER_ADDR and a "
            "free port of it as MASTER_PORT",
        )
    local_rank, local_size = _number(environ, "LOCAL_RANK"), _number(environ, "LOCAL_WORLD_SIZE")
    if local_rank is not None and local_size is not None:
        _check_rank("LOCAL_RANK", local_rank, "LOCAL_WORLD_SIZE", local_size)
    return Launch(
        rank,
        size,
        local_rank,
        local_size,
        address,
        _check_port(port),
        environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        _number(environ, "TORCHELASTIC_RESTART_COUNT") or 0,
        *_timeouts(environ),
    )


# -- SLURM ----------------------------------------------------------------------------------------


def _tasks(environ: Mapping[str, str]) -> int:
    """Tasks that srun started; 0 where this process was not started by srun."""
    step = _number(environ, "SLURM_STEP_ID")
    if step is None:
        step = _number(environ, "SLURM_STEPID")
    if step is None or step >= OWN_STEPS or "SLURM_PROCID" not in environ:
        return 0
    return _number(environ, "SLURM_STEP_NUM_TASKS") or _number(environ, "SLURM_NTASKS") or 0


def _from_slurm(environ: Mapping[str, str], tasks: int, size: int | None) -> Launch:
    """A task of srun; MASTER_ADDR and MASTER_PORT count where the user has set them."""
    if size is not None and size != tasks:
        raise UsageError(
            f"WORLD_SIZE={size}, but srun started {tasks} tasks",
            remedy=f"unset WORLD_SIZE, or start srun with --ntasks={size}",
        )
    rank = _number(environ, "SLURM_PROCID") or 0
    _check_rank("SLURM_PROCID", rank, "SLURM_STEP_NUM_TASKS", tasks)
    if tasks == 1:
        return Launch(warnings=_alone(environ))
    nodes = _number(environ, "SLURM_STEP_NUM_NODES") or _number(environ, "SLURM_NNODES") or 1
    of_job = _number(environ, "SLURM_JOB_NUM_NODES") or nodes
    per_node = _tasks_per_node(environ)
    asked = _number(environ, "SLURM_NTASKS_PER_NODE")
    if nodes != of_job or (asked and asked * nodes != tasks):
        granted = f"{of_job} nodes" + (f" of {asked} tasks" if asked else "")
        raise UsageError(
            f"srun started {tasks} tasks on {nodes} nodes, but the allocation is {granted}",
            remedy="give srun the allocation's --nodes and --ntasks-per-node, or none of them; "
            "ask sbatch for as much as you use",
        )
    address = environ.get("MASTER_ADDR") or first_host(
        environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    )
    if not address:
        raise UsageError(
            "srun did not say its nodes: SLURM_STEP_NODELIST is missing",
            remedy="export the host name of the first node as MASTER_ADDR",
        )
    job = _number(environ, "SLURM_JOB_ID") or 0
    step = _number(environ, "SLURM_STEP_ID") or 0
    port = _number(environ, "MASTER_PORT") or FIRST_PORT + (job + STEP_STRIDE * step) % PORTS
    node = _number(environ, "SLURM_NODEID") or 0
    local_size = per_node[node] if node < len(per_node) else asked
    local_rank = _number(environ, "SLURM_LOCALID")
    return Launch(
        rank,
        tasks,
        local_rank,
        local_size,
        address,
        _check_port(port),
        False,
        0,
        *_timeouts(environ),
    )


def first_host(nodes: str) -> str:
    """The first host of SLURM's list.

    >>> first_host("gpu[007-009,12],cpu1"), first_host("a,b"), first_host("rack2n[3,5]-ib")
    ('gpu007', 'a', 'rack2n3-ib')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group() if first else "")


def _tasks_per_node(environ: Mapping[str, str]) -> list[int]:
    """Tasks on every node of the step, from a list as `4(x2),1`."""
    counts: list[int] = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if found:
            counts += [int(found[1])] * int(found[2] or 1)
    return counts


def _alone(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What one process should know about its surroundings.

    Raises:
        UsageError: mpirun started several processes, which would not know of each other.
    """
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if (_number(environ, name) or 1) > 1:
            raise UsageError(
                f"mpirun started {environ[name]} processes ({name}), which cannot train together",
                remedy="start them with torchrun or srun",
            )
    granted = _number(environ, "SLURM_NTASKS") or 1
    if not _tasks(environ) and granted > 1:
        return (
            f"one process trains, the SLURM allocation is for {granted} tasks; "
            "put srun before the command to use them all",
        )
    return ()


# -- contradictions -------------------------------------------------------------------------------


def _check_torchrun_in_srun(environ: Mapping[str, str], tasks: int, rank: int, size: int) -> None:
    """Under srun, either every task is a process or every task is one torchrun."""
    groups = _number(environ, "GROUP_WORLD_SIZE")
    if groups is None:
        matches = size == tasks and rank == _number(environ, "SLURM_PROCID")
        seen = f"RANK={rank} and WORLD_SIZE={size}, but this is task {environ['SLURM_PROCID']}"
        remedy = "unset RANK and WORLD_SIZE: srun's own variables say the same"
    else:
        matches = groups == tasks
        seen = f"torchrun counts {groups} nodes, but it is started by srun in each"
        remedy = (
            "start one torchrun per node: srun --ntasks-per-node=1 torchrun "
            "--nnodes=$SLURM_JOB_NUM_NODES --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT"
        )
    if not matches:
        raise UsageError(f"{seen} of {tasks} tasks of srun", remedy=remedy)


def _check_torchrun_in_allocation(environ: Mapping[str, str]) -> None:
    """One torchrun in a batch script reaches one node only."""
    groups = _number(environ, "GROUP_WORLD_SIZE")
    nodes = _number(environ, "SLURM_JOB_NUM_NODES")
    if groups is not None and nodes is not None and groups != nodes:
        raise UsageError(
            f"torchrun counts {groups} nodes, but the SLURM allocation has {nodes}",
            remedy="start one torchrun per node: srun --ntasks-per-node=1 torchrun "
            f"--nnodes={nodes} ...; or ask sbatch for --nodes={groups}",
        )


def _check_rank(name: str, rank: int, of: str, size: int) -> None:
    if size < 1 or rank >= size:
        raise UsageError(
            f"{name} is 0 to {of} - 1, found {name}={rank} and {of}={size}",
            remedy="start with torchrun or srun, which number the processes",
        )


def _check_port(port: int) -> int:
    if not 0 < port < 65536:
        raise UsageError(
            f"MASTER_PORT is a port from 1 to 65535, found {port}",
            remedy="choose a free one above 1024",
        )
    return port


def _number(environ: Mapping[str, str], name: str) -> int | None:
    """A variable's whole number; None where it is not set."""
    value = environ.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdecimal()):
        raise UsageError(
            f"the variable {name} is a whole number, found {value!r}", remedy=f"unset {name}"
        )
    return int(value)


def _timeouts(environ: Mapping[str, str]) -> tuple[float, float]:
    """Seconds to wait for all processes to come, and for a process in the middle of the work."""
    found = []
    for name, default in (("MLFF_JOIN_TIMEOUT", JOIN_SECONDS), ("MLFF_PEER_TIMEOUT", PEER_SECONDS)):
        text = environ.get(name) or str(default)
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0.0 < seconds < 1e7:
            raise UsageError(f"{name} is a number of seconds above 0, found {text!r}")
        found.append(seconds)
    return found[0], found[1]
