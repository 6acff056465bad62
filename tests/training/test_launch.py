"""Who this process is, from the variables that torchrun, srun and batch systems leave."""

from __future__ import annotations

import pytest

from mlff_cli.core.errors import UsageError
from mlff_cli.training.launch import (
    FIRST_PORT,
    JOIN_SECONDS,
    PEER_SECONDS,
    PORTS,
    Launch,
    first_host,
    world_from_environment,
)

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
JOB = {  # of sbatch --nodes=2 --ntasks-per-node=4; its script has a rank, but is no task of srun
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_JOB_NODELIST": "gpu[007-008]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SRUN = {
    **JOB,
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
    "SLURM_NODEID": "1",
}
EARLY = SRUN | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}
PORT_OF_4711 = FIRST_PORT + 4711 % PORTS


def without(environ: dict[str, str], *names: str) -> dict[str, str]:
    return {k: v for k, v in environ.items() if k not in names}


def test_an_empty_environment_is_one_process() -> None:
    assert world_from_environment({}) == Launch()
    assert world_from_environment({"WORLD_SIZE": "1"}) == Launch()
    assert world_from_environment({"RANK": "0", "WORLD_SIZE": "1"}) == Launch()


def test_torchrun_says_everything() -> None:
    assert world_from_environment(TORCHRUN) == Launch(
        5, 8, 1, 4, "node1", 29500, True, 2, JOIN_SECONDS, PEER_SECONDS
    )


def test_a_task_of_srun_needs_no_other_variables() -> None:
    found = world_from_environment(SRUN)
    assert found == Launch(6, 8, 2, 4, "gpu007", PORT_OF_4711)
    assert world_from_environment({**SRUN, "MASTER_ADDR": "ib7", "MASTER_PORT": "4000"}) == Launch(
        6, 8, 2, 4, "ib7", 4000
    )
    assert world_from_environment({**SRUN, "WORLD_SIZE": "8"}) == found


def test_uneven_nodes_are_counted_by_slurms_list() -> None:
    uneven = without(SRUN, "SLURM_NTASKS_PER_NODE") | {
        "SLURM_STEP_TASKS_PER_NODE": "4(x1),3",
        "SLURM_STEP_NUM_TASKS": "7",
    }
    assert world_from_environment(uneven).local_size == 3
    assert world_from_environment(uneven | {"SLURM_NODEID": "0"}).local_size == 4
    assert world_from_environment(without(uneven, "SLURM_STEP_TASKS_PER_NODE")).local_size is None


def test_torchruns_variables_are_read_first() -> None:
    job = SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_NTASKS_PER_NODE": "1"}
    assert world_from_environment(job | TORCHRUN) == world_from_environment(TORCHRUN)


def test_the_classic_script_that_exports_rank_and_size_from_srun() -> None:
    own = {"RANK": "6", "WORLD_SIZE": "8", "MASTER_ADDR": "gpu007", "MASTER_PORT": "12345"}
    assert world_from_environment(SRUN | own) == Launch(6, 8, None, None, "gpu007", 12345)


@pytest.mark.parametrize(
    "environ",
    [
        JOB,  # the batch script itself
        {**JOB, "SLURM_STEP_ID": str(0xFFFFFFFA), "SLURM_STEP_NUM_TASKS": "1"},  # salloc's shell
        without(JOB, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),  # salloc on the login node
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun --ntasks=1
    ],
)
def test_a_single_process_in_an_allocation_is_one_process(environ: dict[str, str]) -> None:
    found = world_from_environment(environ)
    assert (found.rank, found.size) == (0, 1)
    started_by_srun = environ.get("SLURM_STEP_ID") == "0"
    assert bool(found.warnings) == (not started_by_srun)
    if found.warnings:
        assert "8 tasks" in found.warnings[0]


def test_steps_and_jobs_meet_at_different_ports() -> None:
    ports = {
        world_from_environment({**SRUN, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).port
        for job in range(4711, 4721)
        for step in range(3)
    }
    assert len(ports) == 30
    assert all(1024 < port < 32768 for port in ports)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node[1-3]", "node1"),
        ("node[001,003-005],gpu1", "node001"),
        ("a1,a2", "a1"),
        ("r[2-3]n[07-08]-ib", "r2n07-ib"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"WORLD_SIZE": "4"}, "RANK is missing"),
        ({"RANK": "1"}, "WORLD_SIZE is missing"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is a whole number, found 'x'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is a whole number, found '-1'"),
        ({**TORCHRUN, "RANK": "8"}, "found RANK=8 and WORLD_SIZE=8"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "found RANK=0 and WORLD_SIZE=0"),
        ({**TORCHRUN, "LOCAL_RANK": "4"}, "found LOCAL_RANK=4 and LOCAL_WORLD_SIZE=4"),
        (without(TORCHRUN, "MASTER_ADDR"), "MASTER_ADDR is missing"),
        (without(TORCHRUN, "MASTER_PORT"), "MASTER_PORT is missing"),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, "a port from 1 to 65535, found 70000"),
        ({**SRUN, "WORLD_SIZE": "4"}, "WORLD_SIZE=4, but srun started 8 tasks"),
        ({**SRUN, "SLURM_PROCID": "8"}, "found SLURM_PROCID=8"),
        (
            {**EARLY, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"},
            "2 tasks on 1 nodes, but the allocation is 2 nodes of 4 tasks",
        ),
        ({**EARLY, "SLURM_STEP_NUM_TASKS": "6"}, "6 tasks on 2 nodes, but the allocation is"),
        ({**SRUN, **TORCHRUN}, "torchrun counts 2 nodes, but it is started by srun in each of 8"),
        ({**SRUN, "RANK": "1", "WORLD_SIZE": "8"}, "but this is task 6 of 8 tasks"),
        ({**SRUN, "RANK": "6", "WORLD_SIZE": "16"}, "RANK=6 and WORLD_SIZE=16, but"),
        (
            {**JOB, **TORCHRUN, "GROUP_WORLD_SIZE": "1"},
            "torchrun counts 1 nodes, but the SLURM allocation has 2",
        ),
        (
            {k: v for k, v in SRUN.items() if "NODELIST" not in k},
            "SLURM_STEP_NODELIST is missing",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun started 2 processes"),
        ({**TORCHRUN, "MLFF_JOIN_TIMEOUT": "0"}, "MLFF_JOIN_TIMEOUT is a number of seconds"),
        ({**TORCHRUN, "MLFF_PEER_TIMEOUT": "soon"}, "found 'soon'"),
    ],
)
def test_contradictions_are_refused_with_a_remedy(environ: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match="found|but|missing|mpirun|seconds") as caught:
        world_from_environment(environ)
    assert words in str(caught.value)
    assert caught.value.remedy or "TIMEOUT" in words or "soon" in words
    assert caught.value.exit_code == 2


def test_timeouts_are_the_users() -> None:
    found = world_from_environment(
        {**TORCHRUN, "MLFF_JOIN_TIMEOUT": "12.5", "MLFF_PEER_TIMEOUT": "60"}
    )
    assert (found.join_timeout, found.peer_timeout) == (12.5, 60.0)
