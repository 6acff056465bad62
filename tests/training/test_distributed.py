"""Sums over real processes, and what each of them learns when another fails."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError, DataError, MissingDependencyError, MLFFError
from mlff_cli.training import distributed
from mlff_cli.training.distributed import World, join, reduce_gradients
from tests.ranks import Outcome, Ranks, free_port, succeed

SHAPES = ((), (1,), (7,), (0,), (64, 64), (4097,), (3, 5, 700))


def of_rank(rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(rank + 1)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (values * 10.0 ** (3 * rank)).to(dtype)


# -- one process ----------------------------------------------------------------------------------


def test_one_process_is_a_world_of_its_own() -> None:
    world = World()
    tensor = torch.ones(3)
    assert world.sum_(tensor) is tensor
    assert torch.equal(tensor, torch.ones(3))
    assert (world.any(True), world.any(False), world.main) == (True, False, True)
    assert world.broadcast_object({"a": 1}) == {"a": 1}
    assert world.gather_objects(4) == [4]
    world.barrier()
    world.agree("the weather", {"sky": "blue"})
    p = nn.Parameter(torch.ones(2))
    reduce_gradients([p], world)
    assert p.grad is None
    with join("cpu", environ={}) as alone:
        assert (alone.rank, alone.size, alone.device) == (0, 1, "cpu")
        assert alone.host == socket.gethostname()
        assert 1 <= alone.cores <= (os.cpu_count() or 1)
    assert not torch.distributed.is_initialized()


# -- sums -----------------------------------------------------------------------------------------


def check_sums() -> None:
    with join("auto", lambda line: print(line, file=sys.stderr)) as world:
        assert world.local_size == world.size
        assert world.local_rank == world.rank
        assert world.main == (world.rank == 0)
        for shape in SHAPES:
            for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64):
                expected = of_rank(0, shape, dtype)
                for rank in range(1, world.size):
                    expected = expected + of_rank(rank, shape, dtype)
                tensor = of_rank(world.rank, shape, dtype)
                assert world.sum_(tensor) is tensor
                assert torch.equal(tensor, expected), (shape, dtype)
        for n in (3, 5000):  # (1e8 + 1) - 1e8 = 0 in float32; another order gives 1
            big = torch.full((n,), (1e8, 1.0, -1e8)[world.rank])
            assert torch.equal(world.sum_(big), torch.zeros(n))
        turned = of_rank(world.rank, (40, 200), torch.float64)
        world.sum_(turned.t())  # a view in another order of memory
        whole = [of_rank(rank, (40, 200), torch.float64) for rank in range(world.size)]
        assert torch.equal(turned, whole[0] + whole[1] + whole[2])

        assert world.any(world.rank == 2)
        assert not world.any(False)
        value = {"step": 3, "loss": float("nan"), "names": ["a", None]}
        assert str(world.broadcast_object(value if world.main else None)) == str(value)
        assert world.gather_objects(world.rank**2) == [0, 1, 4]
        world.agree("the seed", {"seed": 7})
        begin = time.monotonic()
        if world.rank == 1:
            time.sleep(0.3)
        world.barrier()
        assert world.rank == 1 or time.monotonic() - begin > 0.2
    assert not torch.distributed.is_initialized()


def test_sums_are_those_in_the_order_of_ranks_bit_for_bit(tmp_path: Path) -> None:
    texts = succeed(Ranks(tmp_path, check_sums, size=3))
    for rank, text in enumerate(texts):
        assert f"rank {rank} of 3: host {socket.gethostname()}, device cpu" in text


def gradients_of(parameters: dict[str, nn.Parameter], rank: int) -> None:
    """Rank 0 misses `right`, rank 1 misses `left`, nobody reaches `unused` and `frozen`."""
    used = ["both", "double", "left" if rank == 0 else "right"]
    for name in used:
        p = parameters[name]
        loss = (p * of_rank(rank, tuple(p.shape), p.dtype)).sum()
        loss.backward()  # type: ignore[no-untyped-call]


def make_parameters() -> dict[str, nn.Parameter]:
    shapes = {"both": (30, 7), "unused": (3,), "left": (11,), "right": (2, 2), "frozen": (5,)}
    made = {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    made["double"] = nn.Parameter(torch.ones(6, dtype=torch.float64))
    made["frozen"].requires_grad_(False)
    return made


def check_gradients(bucket: int) -> None:
    distributed.BUCKET = bucket
    with join("cpu") as world:
        parameters = make_parameters()
        gradients_of(parameters, world.rank)
        loss = of_rank(world.rank, (), torch.float64)
        counts = torch.tensor([3, world.rank])
        reduce_gradients(list(parameters.values()), world, [loss, counts])

        alone = make_parameters()
        for rank in range(world.size):
            gradients_of(alone, rank)
        for name, p in parameters.items():
            expected = alone[name].grad
            if expected is None:
                assert p.grad is None, name
            else:
                assert p.grad is not None, name
                assert torch.equal(p.grad, expected), name
        assert torch.equal(loss, of_rank(0, (), torch.float64) + of_rank(1, (), torch.float64))
        assert counts.tolist() == [6, 1]


@pytest.mark.parametrize("bucket", [1 << 20, 20])
def test_gradients_sum_to_those_of_one_process(tmp_path: Path, bucket: int) -> None:
    succeed(Ranks(tmp_path, check_gradients, bucket))


# -- failures -------------------------------------------------------------------------------------


def fail(how: str) -> None:
    """Fail on some rank, and end with the exit code and a line about who tells what."""
    time.sleep(float(os.environ.get("START_LATER", "0")))
    try:
        with join("cpu") as world:
            world.barrier()
            _strike(how, world)
            for _ in range(50):
                time.sleep(0.02)
                world.barrier()
    except MLFFError as error:
        print("told elsewhere" if error.told else f"error: {error}", flush=True)
        assert not torch.distributed.is_initialized()
        sys.exit(error.exit_code)


def _strike(how: str, world: World) -> None:
    kind, _, rank = how.partition("-")
    if kind == "agree":
        world.agree("the data", {"files": {"a.h5": f"hash {world.rank}"}, "n": 1})
    if rank and world.rank != int(rank):
        return
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "data":
        raise DataError("molecule 3 has no atoms", where="a.h5")
    if kind == "bug":
        raise ValueError("oops")
    if kind == "config":
        raise ConfigError("unknown key trainer.epoch")


def told(outcomes: list[Outcome]) -> list[str]:
    return [o.text for o in outcomes if "error: " in o.text]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_others_name_a_rank_that_was_killed(tmp_path: Path, rank: int) -> None:
    begin = time.monotonic()
    outcomes = Ranks(tmp_path, fail, f"kill-{rank}").finish()
    assert time.monotonic() - begin < 30.0
    assert outcomes[rank].code == -signal.SIGKILL
    assert outcomes[1 - rank].code == 5
    text = outcomes[1 - rank].text
    assert f"error: lost contact with rank {rank} on {socket.gethostname()}" in text
    assert "remedy: " in text
    assert "frame #" not in text
    assert "Traceback" not in text


def test_a_rank_that_goes_silent_is_given_up_in_time(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, fail, "freeze-1", environ={"MLFF_PEER_TIMEOUT": "2"})
    ranks.processes[0].join(60.0)
    ranks.processes[1].kill()
    outcomes = ranks.finish()
    assert [o.code for o in outcomes] == [5, -signal.SIGKILL]
    assert f"error: lost contact with rank 1 on {socket.gethostname()} (" in outcomes[0].text
    assert "Timed out" in outcomes[0].text
    assert "frame #" not in outcomes[0].text


@pytest.mark.parametrize("rank", [0, 1])
def test_one_ranks_error_ends_all_with_its_code(tmp_path: Path, rank: int) -> None:
    outcomes = Ranks(tmp_path, fail, f"data-{rank}").finish()
    assert [o.code for o in outcomes] == [3, 3]
    assert "error: a.h5: molecule 3 has no atoms" in outcomes[rank].text
    if rank == 0:  # said already
        assert outcomes[1].text == "told elsewhere\n"
    else:  # in rank 0's log, too, which is the one that people read
        assert f"rank 1 on {socket.gethostname()} failed: a.h5: molecule 3" in outcomes[0].text


@pytest.mark.parametrize("how", ["config", "agree"])
def test_an_error_of_all_is_told_once(tmp_path: Path, how: str) -> None:
    outcomes = Ranks(tmp_path, fail, how).finish()
    assert [o.code for o in outcomes] == [2, 2]
    assert told(outcomes) == [outcomes[0].text]
    if how == "agree":
        assert "disagree about the data; rank 0 and rank 1:" in outcomes[0].text
        assert "files.a.h5: hash 0 -> hash 1" in outcomes[0].text


def test_a_bug_shows_where_it_is_and_ends_all(tmp_path: Path) -> None:
    outcomes = Ranks(tmp_path, fail, "bug-1").finish()
    assert [o.code for o in outcomes] == [1, 1]
    assert "ValueError: oops" in outcomes[1].text
    assert "rank 1 on" in outcomes[0].text


def test_who_does_not_come_is_named_in_time(tmp_path: Path) -> None:
    soon = {"MLFF_JOIN_TIMEOUT": "3", "WORLD_SIZE": "3"}
    outcomes = Ranks(tmp_path, fail, "", environ=soon).finish()
    assert [o.code for o in outcomes] == [2, 2]
    assert "2 of 3 processes came to localhost:" in outcomes[0].text
    assert "missing: rank 2" in outcomes[0].text
    assert "MLFF_JOIN_TIMEOUT" in outcomes[0].text
    assert told(outcomes) == [outcomes[0].text]


def test_one_rank_tells_of_the_missing_where_another_lost_patience_first(tmp_path: Path) -> None:
    soon = {"MLFF_JOIN_TIMEOUT": "4", "WORLD_SIZE": "3"}
    outcomes = Ranks(tmp_path, fail, "", environ=soon, each=[{"START_LATER": "1.5"}, {}]).finish()
    assert [o.code for o in outcomes] == [2, 2]
    assert told(outcomes) == [outcomes[0].text]


def test_nobody_at_the_address(tmp_path: Path) -> None:
    each = [{"RANK": "1", "MLFF_JOIN_TIMEOUT": "0.5"}]
    outcome = Ranks(tmp_path, fail, "", size=1, each=each, environ={"WORLD_SIZE": "2"}).finish()[0]
    assert outcome.code == 2
    assert "found nobody at localhost:" in outcome.text


def test_an_address_that_is_none(tmp_path: Path) -> None:
    wrong = {"WORLD_SIZE": "2", "MASTER_ADDR": "no-such-host.invalid"}
    each = [{"RANK": "1", **wrong}]
    outcome = Ranks(tmp_path, fail, "", size=1, each=each).finish()[0]
    assert outcome.code == 2
    assert "'no-such-host.invalid' of rank 0 has no address" in outcome.text
    assert "frame #" not in outcome.text


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = {"MASTER_PORT": str(other.getsockname()[1]), "WORLD_SIZE": "2"}
        outcome = Ranks(tmp_path, fail, "", size=1, environ=port).finish()[0]
    assert outcome.code == 2
    assert "rank 0 on" in outcome.text
    assert "cannot open the meeting place" in outcome.text
    assert "set MASTER_PORT" in outcome.text


def test_two_processes_of_one_rank(tmp_path: Path) -> None:
    each = [{}, {"RANK": "1"}, {"RANK": "1"}]
    outcomes = Ranks(tmp_path, fail, "", size=3, each=each).finish()
    assert sorted(o.code for o in outcomes) == [2, 2, 2]
    assert any("two processes of rank 1" in o.text for o in outcomes)


def test_processes_that_count_differently(tmp_path: Path) -> None:
    each = [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "3"}]
    outcomes = Ranks(tmp_path, fail, "", each=each, environ={"MLFF_JOIN_TIMEOUT": "3"}).finish()
    assert [o.code for o in outcomes] == [2, 2]
    assert "counts 2 processes, rank 1 counts 3" in outcomes[0].text


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPUs")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    environ = {
        "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())
    }  # fmt: skip
    with join("cuda", environ=environ) as world:  # alone: the stage looks for the device
        assert world.device == "cuda"
    outcomes = Ranks(tmp_path, want_gpu).finish()
    assert [o.code for o in outcomes] == [4, 4]
    assert "2 processes see 0 GPUs" in outcomes[0].text


def want_gpu() -> None:
    try:
        with join("cuda"):
            pass
    except MissingDependencyError as error:
        print(error)
        sys.exit(error.exit_code)
