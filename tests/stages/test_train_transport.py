"""`mlff train` of a flow: its files, what it says, and runs that stop, skip or diverge."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mlff_cli.core.errors import InterruptedRunError, NumericalError
from mlff_cli.data.gate_log import EpochRecord, epochs_of, read_gate_log
from mlff_cli.data.model_file import load_model_file
from mlff_cli.families.transport_model import load_transport
from mlff_cli.stages.train import Options, run
from mlff_cli.training import loop
from mlff_cli.training.run_log import read_rows
from tests.ranks import Ranks, command, succeed
from tests.stages.test_train import Listening, StopAt
from tests.transport_frames import write_frames

TINY = (
    "flow.transforms=2",
    "flow.hidden=[8]",
    "flow.bins=3",
    "training.batch_size=8",
    "training.epochs=3",
    "training.batches_per_epoch=3",
    "trainer.ema_decay=0.9",
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    folder = tmp_path_factory.mktemp("transport")
    file = write_frames(folder / "remd.h5")
    return Options(save=folder / "model.pt", preset="ic_300_450", overrides=(f"data={file}", *TINY))


@pytest.fixture(scope="module")
def told() -> Listening:
    return Listening()


@pytest.fixture(scope="module")
def trained(options: Options, told: Listening) -> Path:
    run(options, told)
    return options.save


def test_a_run_leaves_a_model_a_log_and_a_figure(trained: Path) -> None:
    model = load_transport(trained)
    assert model.temperatures == (300.0, 450.0)
    folder = trained.with_suffix(".run")
    assert (folder / "loss_curves.png").stat().st_size > 10_000
    records = read_gate_log(folder / "gate.jsonl")
    epochs = [r for r in records if isinstance(r, EpochRecord)]
    assert [r.epoch for r in epochs] == [1, 2, 3]
    assert len(records) == 12
    assert [r.step for r in epochs] == [3, 6, 9]
    assert epochs[0].fwd.samples == 24
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 3, 6, 9]
    assert [r.excess_nats for r in epochs] == [row["val/excess_nats"] for row in rows[1:]]
    assert rows[-1]["val/loss"] == pytest.approx(rows[-1]["val/excess_nats"])
    best = min(rows, key=lambda r: r["val/loss"])
    assert load_model_file(trained).training["step"] == best["step"]


def test_a_run_says_what_the_seed_said(trained: Path, told: Listening) -> None:
    said = "\n".join(told.lines)
    for words in (
        "transport 300 K -> 450 K",
        "beta_source = 0.4009078501 mol/kJ",
        "energy evaluation: torch",
        "energy gating: ON, mode safe",
        "epoch 1/3",
        "Total Loss:",
        "Forward  - Energy:",
        "Inverse  - Energy:",
        "LR:",
        "Improvement from start:",
        "before the first step: excess_nats",
        "skipped batches: 0/9 (0.0 %)",
        "regularized samples:",
    ):
        assert words in said, words
    log = (trained.with_suffix(".run") / "train.log").read_text()
    assert "regularized samples" in log


def test_a_stopped_run_continues_as_if_never_stopped(
    trained: Path, options: Options, tmp_path: Path
) -> None:
    again = dataclasses.replace(options, save=tmp_path / "model.pt")
    ear = StopAt(5)
    with pytest.raises(InterruptedRunError):
        run(again, ear)
    folder = again.save.with_suffix(".run")
    assert "skipped batches: 0/5" in (folder / "train.log").read_text()
    assert (folder / "loss_curves.png").exists()
    run(again)
    assert again.save.read_bytes() == trained.read_bytes()
    for name in ("gate.jsonl", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (trained.with_suffix(".run") / name).read_bytes()


def test_a_run_of_which_everything_is_skipped_ends_without_a_loss(
    options: Options, tmp_path: Path
) -> None:
    """As the seed's did from epoch 50 on; there the loss was written as 0."""
    gate = ("E_cut=-1e6", "E_max=-1e5", "gate.gate_warmup_epochs=0")
    again = dataclasses.replace(
        options, save=tmp_path / "model.pt", overrides=(*options.overrides, *gate)
    )
    run(again)
    folder = again.save.with_suffix(".run")
    epochs = epochs_of(read_gate_log(folder / "gate.jsonl"))
    assert [r.loss for r in epochs] == [None] * 3
    assert [r.skipped for r in epochs] == [3] * 3
    rows = read_rows(folder / "metrics.jsonl")
    assert not any("train/loss" in row for row in rows)
    assert len({row["val/loss"] for row in rows}) == 1  # nothing moved
    told = (folder / "train.log").read_text()
    assert "skipped batches: 9/9 (100.0 %)" in told
    assert "9/9 (100.0 %) batches were skipped, of which nothing was learned" in told


def lose(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """Make the losses of validations infinite from the `first` on."""
    real, seen = loop.evaluate, []

    def evaluate(*args: Any) -> tuple[float, dict[str, float]]:
        loss, metrics = real(*args)
        seen.append(loss)
        if len(seen) > first:
            loss = math.inf
            metrics |= {"loss": loss, "excess_nats": loss}
        return loss, metrics

    monkeypatch.setattr(loop, "evaluate", evaluate)


def test_a_run_whose_validations_are_infinite_keeps_no_model(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, 0)
    again = dataclasses.replace(options, save=tmp_path / "model.pt")
    with pytest.raises(NumericalError, match="no validation of the run was finite") as caught:
        run(again)
    assert caught.value.exit_code == 5
    assert not again.save.exists()
    rows = read_rows(again.save.with_suffix(".run") / "metrics.jsonl")
    assert all("val/loss" not in row and "val/acceptance" in row for row in rows)
    epochs = epochs_of(read_gate_log(again.save.with_suffix(".run") / "gate.jsonl"))
    assert [r.excess_nats for r in epochs] == [None] * 3


def test_a_run_that_is_worse_than_its_start_keeps_the_start_and_says_so(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, 1)
    again = dataclasses.replace(options, save=tmp_path / "model.pt")
    run(again)
    log = (again.save.with_suffix(".run") / "train.log").read_text()
    assert log.count("is not finite: this flow is not kept") == 3
    assert "no validation was better than the one before the first step" in log
    assert load_model_file(again.save).training["step"] == 0


def test_the_end_tells_figures_of_merit(options: Options, tmp_path: Path) -> None:
    again = dataclasses.replace(
        options,
        save=tmp_path / "model.pt",
        overrides=(*options.overrides, "training.epochs=1"),
    )
    summary = run(again)
    rows = [row[0] for row in summary.tables[0].rows]
    assert rows == [
        "excess, 0 for a perfect flow",
        "accepted swaps",
        "effective samples, forward",
        "effective samples, inverse",
    ]


def test_a_dry_run_checks_the_data(options: Options, tmp_path: Path) -> None:
    summary = run(dataclasses.replace(options, save=tmp_path / "m.pt", dry_run=True))
    checks = {c["check"]: c for c in summary.data["checks"]}
    assert "80 of 300 K, 80 of 450 K" in checks["frames"]["finding"]
    assert "safe, E_cut" in checks["energy gate"]["finding"]
    assert summary.failure is None
    assert list(tmp_path.iterdir()) == []


def test_a_gate_below_the_data_and_a_batch_above_them_are_told(
    options: Options, tmp_path: Path
) -> None:
    told = Listening()
    odd = ("E_cut=-1e4", "training.batch_size=81", "training.epochs=1")
    run(
        dataclasses.replace(options, save=tmp_path / "m.pt", overrides=(*options.overrides, *odd)),
        told,
    )
    warnings = "\n".join(told.warnings)
    assert "100 % of the frames themselves lie above E_cut" in warnings
    assert "a batch of 81 draws from 80 frames" in warnings


def test_weights_of_another_flow_are_refused_and_those_of_the_same_taken(
    trained: Path, options: Options, tmp_path: Path
) -> None:
    again = dataclasses.replace(
        options,
        save=tmp_path / "model.pt",
        load=trained,
        overrides=(*options.overrides, "training.epochs=1", "training.lr=1e-9"),
    )
    run(again)
    a, b = (load_model_file(p).weights for p in (trained, again.save))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_without_a_gate_infinite_energies_end_the_run(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlff_cli.physics import energies

    real = energies.TorchEnergy.__call__

    def failing(self: energies.TorchEnergy, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        U, gradient = real(self, x)
        if len(U) == 8:  # of batches; recorded energies are compared in others
            U = torch.where(torch.arange(8) == 3, torch.inf, U)
        return U, gradient

    monkeypatch.setattr(energies.TorchEnergy, "__call__", failing)
    off = dataclasses.replace(
        options, save=tmp_path / "off.pt", overrides=(*options.overrides, "use_energy_gating=false")
    )
    with pytest.raises(NumericalError, match="not finite at step 1") as caught:
        run(off)
    assert "use_energy_gating=true" in str(caught.value.remedy)
    on = dataclasses.replace(options, save=tmp_path / "on.pt")
    with pytest.raises(NumericalError, match="no validation of the run was finite"):
        run(on)  # to its end: batches of eight are the validation's, too
    assert not on.save.exists()
    (first, *_) = read_gate_log(tmp_path / "on.run" / "gate.jsonl")
    assert (first.fwd.nonfinite, first.skipped) == (1, 0)


@pytest.mark.slow
def test_openmm_trains_as_the_torch_force_field_does(
    trained: Path, options: Options, tmp_path: Path
) -> None:
    again = dataclasses.replace(
        options,
        save=tmp_path / "model.pt",
        overrides=(*options.overrides, "energy=openmm", "openmm_workers=1"),
    )
    run(again)
    a, b = (read_rows(p.with_suffix(".run") / "metrics.jsonl") for p in (trained, again.save))
    for row, other in zip(a, b, strict=True):
        assert other["val/loss"] == pytest.approx(row["val/loss"], abs=0.02)


@pytest.mark.slow
def test_two_processes_train_as_one(options: Options, tmp_path: Path) -> None:
    words = ("train", "--preset", "ic_300_450", "--save", "m.pt", "--device", "cpu", "--dtype",
             "float64", *options.overrides)  # fmt: skip
    found = []
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        succeed(Ranks(folder, command, *words, size=size))
        log = read_gate_log(folder / "m.run" / "gate.jsonl")
        found.append((load_model_file(folder / "m.pt").weights, log))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-7, atol=1e-9)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        assert one.loss == pytest.approx(two.loss, rel=1e-8)
        assert one.fwd.samples == two.fwd.samples
        assert one.fwd.q50 == pytest.approx(two.fwd.q50, rel=1e-8)
