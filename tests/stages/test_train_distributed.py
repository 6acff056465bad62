"""`mlff train` by several processes: the run of one process, shared.

The processes are real, and run the command line with its exit codes.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mlff_cli.core.errors import InterruptedRunError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.model_file import load_model_file
from mlff_cli.families.base import Inputs
from mlff_cli.families.configure import configure
from mlff_cli.stages.train import Options, run
from mlff_cli.training.distributed import World
from mlff_cli.training.run_log import read_rows
from mlff_cli.training.task import Task
from tests.ranks import DEADLINE, Ranks, command, succeed
from tests.stages.test_train import StopAt
from tests.tiny_training import tiny_overrides

WORDS = ("train", "--save", "m.pt", "--device", "cpu")
FEATURES = (  # what has a state of its own, or a part in the gradient
    "trainer.accumulate=2",
    "trainer.ema_decay=0.9",
    "trainer.gradient_clip_by=norm",
    "data.samplers.train.kwargs.split=2",
    "loss.class=MTAdaWLoss",
    "scheduler.class=ReduceLROnPlateau",
    "scheduler.kwargs={patience: 0, factor: 0.5}",
    "trainer.early_stopping.patience=2",
)


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return tiny_overrides(tmp_path_factory.mktemp("data"), missing=0.2)


def train(folder: Path, size: int, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train in a folder; returns the logged rows and the weights."""
    succeed(Ranks(folder, command, *WORDS, *words, size=size))
    return results(folder)


def results(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = read_rows(folder / "m.run" / "metrics.jsonl")
    return rows, load_model_file(folder / "m.pt").weights


def assert_close(
    found: tuple[list[dict[str, Any]], dict[str, Any]],
    expected: tuple[list[dict[str, Any]], dict[str, Any]],
    tolerance: float,
) -> None:
    """Every logged number and every weight agrees to a relative tolerance."""
    assert len(found[0]) == len(expected[0]) > 0
    for row, other in zip(found[0], expected[0], strict=True):
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        assert any(k.startswith("val/fid") for k in numbers)
        for name, value in numbers.items():
            assert value == pytest.approx(other[name], rel=tolerance, abs=tolerance), name
    for name, weight in found[1].items():
        torch.testing.assert_close(
            weight, expected[1][name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m
        )


def assert_same(found: Path, expected: Path) -> None:
    """Two runs gave the same bits."""
    log = Path("m.run", "metrics.jsonl")
    assert (found / log).read_bytes() == (expected / log).read_bytes()
    weights, others = results(found)[1], results(expected)[1]
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


# -- the same run ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tolerance", "more"),
    [
        ("float64", 1e-10, ()),
        ("float32", 1e-3, ()),
        # every molecule once: the last batch of an epoch is smaller
        ("float64", 1e-10, ("data.samplers.train.kwargs.batches_per_epoch=-1",)),
        # most shares hold one fidelity only, and one of the three ranks none at all
        ("float64", 1e-10, ("data.samplers.train.kwargs.batch_size=2",)),
        ("float64", 1e-10, FEATURES),
    ],
)
def test_processes_train_as_one(
    tmp_path: Path, overrides: tuple[str, ...], dtype: str, tolerance: float, more: tuple[str, ...]
) -> None:
    words = ("--dtype", dtype, *overrides, *more)
    size = 3 if any("batch_size" in word for word in more) else 2
    alone = train(tmp_path / "alone", 1, *words)
    shared = train(tmp_path / "shared", size, *words)
    assert_close(shared, alone, tolerance)
    for folder in ("m.run", "m.run/checkpoints"):
        names = [{p.name for p in (tmp_path / w / folder).iterdir()} for w in ("alone", "shared")]
        assert names[0] == names[1]


def test_every_molecule_of_a_batch_is_in_one_share(overrides: tuple[str, ...]) -> None:
    family, settings = configure("default", (), overrides, "m")
    tasks = {}
    for size in (1, 3):
        for rank in range(size):
            world = World(rank, size)
            inputs = Inputs(None, None, torch.device("cpu"), torch.float64, "", world, 0)
            tasks[rank, size] = family.prepare(settings, inputs, NullReporter()).task
    labels = set()
    for step in range(8):  # into the second epoch
        whole = energies(tasks[0, 1], step)
        shares = [energies(tasks[rank, 3], step) for rank in range(3)]
        assert sorted(sum(shares, [])) == sorted(whole)
        assert len(whole) == 8
        assert max(map(len, shares)) < 8
        labels |= {tasks[rank, 3].train_batch(step)[0].labels for rank in range(3)}
    assert len(labels) > 1  # shares of one step differ in what they know
    names = {tasks[rank, 3].name_samples(0) for rank in range(3)}
    assert names == {tasks[0, 1].name_samples(0)}  # an error names the batch, not the share


def energies(task: Task, step: int) -> list[float]:
    parts = task.train_batch(step)
    return [e for part in parts for e in part.tensors["energy"].tolist()]


def test_gradients_are_those_of_one_process(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """One step of plain descent with rate 1 moves every weight by its gradient."""
    words = (
        *("--dtype", "float64", *overrides, "trainer.epochs=1", "scheduler=null"),
        *("data.samplers.train.kwargs.batches_per_epoch=1", "trainer.gradient_clip_by=none"),
        *("optimizer.class=torch.optim.SGD", "optimizer.kwargs.lr=1.0"),
        *("optimizer.kwargs.weight_decay=0.0",),
    )
    _, alone = train(tmp_path / "alone", 1, *words)
    _, shared = train(tmp_path / "shared", 2, *words)
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-10, atol=1e-10)


def test_each_rank_says_where_it_is_and_rank_0_the_rest(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    texts = succeed(Ranks(tmp_path, command, *WORDS, *overrides, "trainer.epochs=1", "--json"))
    for rank, text in enumerate(texts):
        assert text.count(f"rank {rank} of 2: host ") == 1
    assert texts[1].count("\n") == 1
    lines = texts[0].splitlines()
    summary = json.loads("\n".join(lines[lines.index("{") :]))
    assert summary["model"] == "m.pt"


def test_a_dry_run_of_several_processes_touches_nothing(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    texts = succeed(Ranks(tmp_path, command, *WORDS, *overrides, "--dry-run"))
    assert "training" in texts[0]
    assert texts[1].count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"rank0.out", "rank1.out"}


# -- the same end ---------------------------------------------------------------------------------


def wait_for_rows(ranks: Ranks, log: Path, rows: int) -> None:
    """Wait until training has logged so much."""
    until = time.monotonic() + DEADLINE
    while all(p.is_alive() for p in ranks.processes) and time.monotonic() < until:
        if log.is_file() and log.read_bytes().count(b"\n") >= rows:
            return
        time.sleep(0.005)
    pytest.fail(f"nothing to stop: {ranks.finish()}")


def test_a_run_that_was_stopped_and_killed_continues_to_the_same_bits(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    words = (*WORDS, *overrides, "trainer.epochs=12", "trainer.ema_decay=0.9")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    succeed(Ranks(whole, command, *words))

    log = broken / "m.run" / "metrics.jsonl"
    seen = 2  # units and names
    for rank, number in ((1, signal.SIGTERM), (0, signal.SIGUSR1), (1, signal.SIGKILL)):
        ranks = Ranks(broken, command, *words)
        wait_for_rows(ranks, log, seen + 2)
        begin = time.monotonic()
        os.kill(ranks.processes[rank].pid or 0, number)
        outcomes = ranks.finish()
        codes = [o.code for o in outcomes]
        if number == signal.SIGKILL:
            assert codes == [5, -signal.SIGKILL]
            assert "lost contact with rank 1 on" in outcomes[0].text
            assert "the same command continues" in outcomes[0].text
            assert "frame #" not in outcomes[0].text
            assert time.monotonic() - begin < 30.0
        else:
            assert codes == [75, 75], outcomes
            assert "stopped at step" in outcomes[0].text
            assert "error" not in outcomes[1].text
        assert not (broken / "m.pt").exists()
        seen = log.read_bytes().count(b"\n")
    texts = succeed(Ranks(broken, command, *words))
    assert "continuing at step" in texts[0]
    assert_same(broken, whole)


def test_a_run_continues_with_fewer_processes(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    words = (*WORDS, "--dtype", "float64", *overrides, "trainer.epochs=12")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    succeed(Ranks(whole, command, *words, size=1))
    ranks = Ranks(broken, command, *words)
    wait_for_rows(ranks, broken / "m.run" / "metrics.jsonl", 3)
    os.kill(ranks.processes[0].pid or 0, signal.SIGTERM)
    outcomes = ranks.finish()
    assert [o.code for o in outcomes] == [75, 75], outcomes
    succeed(Ranks(broken, command, *words, size=1))
    assert_close(results(broken), results(whole), 1e-10)


def test_an_ensemble_is_chosen_by_rank_0(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    words = (*WORDS, *overrides, "trainer.epochs=2", "--ensemble", "2")
    texts = succeed(Ranks(tmp_path, command, *words))
    assert texts[1].count("\n") == 1
    found = json.loads((tmp_path / "m.run" / "ensemble.json").read_text())
    assert len(found["members"]) == 2
    assert load_model_file(tmp_path / "m.pt").species == [1, 6, 7, 8]


def test_a_loss_that_is_not_finite_ends_all(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    words = (*WORDS, *overrides, "optimizer.kwargs.lr=1000", "trainer.gradient_clip_by=none")
    outcomes = Ranks(tmp_path, command, *words).finish()
    assert [o.code for o in outcomes] == [5, 5], outcomes
    assert "not finite" in outcomes[0].text
    assert "error" not in outcomes[1].text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("trainer.epoch=3",), "trainer.epoch"),
        (("data.fidelity_datasets.0=missing.h5",), "missing.h5"),
        (("optimizer.param_groups={a: {re: nowhere, lr: 1.0}}",), "nowhere"),
    ],
)
def test_an_error_of_the_configuration_is_told_once(
    tmp_path: Path, overrides: tuple[str, ...], more: tuple[str, ...], words: str
) -> None:
    outcomes = Ranks(tmp_path, command, *WORDS, *overrides, *more).finish()
    code = 3 if "missing" in words else 2
    assert [o.code for o in outcomes] == [code, code], outcomes
    assert words in outcomes[0].text
    assert "error" not in outcomes[1].text
    assert not (tmp_path / "m.run").exists()


def seeded_by_rank(*words: str) -> None:
    command(*words, "--seed", os.environ["RANK"])


def test_processes_with_different_commands_are_refused(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    outcomes = Ranks(tmp_path, seeded_by_rank, *WORDS, *overrides).finish()
    assert [o.code for o in outcomes] == [2, 2], outcomes
    assert "the processes disagree about" in outcomes[0].text
    assert not (tmp_path / "m.run").exists()


def elsewhere_on_rank_1(*words: str) -> None:
    if os.environ["RANK"] == "1":
        Path("elsewhere").mkdir()
        os.chdir("elsewhere")
    command(*words)


def test_ranks_that_see_different_checkpoints_are_refused(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    with pytest.raises(InterruptedRunError):
        run(Options(save=tmp_path / "m.pt", overrides=overrides, device="cpu"), StopAt(8))
    last = tmp_path / "m.run" / "checkpoints" / "last.pt"
    before = last.read_bytes()
    outcomes = Ranks(tmp_path, elsewhere_on_rank_1, *WORDS, *overrides).finish()
    assert [o.code for o in outcomes] == [2, 2], outcomes
    assert "disagree about the checkpoint to continue from" in outcomes[0].text
    assert last.read_bytes() == before
