"""Loss, figures of merit and journal of transport: parts, processes, skips and records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlff_cli.data.gate_log import BatchRecord, EpochRecord, read_gate_log
from mlff_cli.flows.gating import Gate
from mlff_cli.flows.objective import Transported
from mlff_cli.physics import reweighting
from mlff_cli.training.distributed import World
from mlff_cli.training.gate_journal import GATE_LOG, GateJournal, Thresholds
from mlff_cli.training.memory import TensorBatch
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.stages import build_stages
from mlff_cli.training.step import Stepper
from mlff_cli.training.task import Batch, Task
from mlff_cli.training.transport import TransportLoss, TransportMetrics, tensors_of, works

BETAS = (0.4, 0.27)
CPU = torch.device("cpu")
Tensors = dict[str, Tensor]


def batch(n: int, seed: int = 0, *, E_max: float | None = 1e5, wild: bool = False) -> Tensors:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {
        "source": normal(n, 3, 3),
        "target": normal(n, 3, 3),
        "source_energy": normal(n) * 10,
        "target_energy": normal(n) * 15 + 40,
    }
    if E_max is not None:
        tensors["E_max"] = torch.full((n,), E_max, dtype=torch.float64)
    return tensors


def predictions(n: int, seed: int = 1, wild: bool = False) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    U = torch.randn(2, n, generator=generator, dtype=torch.float64) * 30
    if wild:
        U[0, 0], U[0, 1], U[1, 2], U[1, 3] = 700.0, 2e6, math.inf, math.nan
    log_det = torch.randn(2, n, generator=generator, dtype=torch.float64)
    return tensors_of(Transported(U[0], log_det[0]), Transported(U[1], log_det[1]))


def cut(tensors: Mapping[str, Tensor], rows: slice) -> Tensors:
    return {k: v[rows] for k, v in tensors.items()}


# -- the loss -------------------------------------------------------------------------------------


def test_parts_of_a_batch_sum_to_the_whole() -> None:
    loss = TransportLoss(BETAS, Gate(), forward=2.0, inverse=0.5)
    tensors, found = batch(12), predictions(12, wild=True)
    whole = loss(found, tensors)
    parts = [
        loss(cut(found, rows), cut(tensors, rows), whole.counts)
        for rows in (slice(0, 5), slice(5, 12))
    ]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    torch.testing.assert_close(sum(p.sums for p in parts), whole.sums)
    assert float(loss.counts([tensors, tensors])[0]) == 24


def test_components_of_a_validation_sum_to_the_excess() -> None:
    loss = TransportLoss(BETAS, Gate(), forward=3.0)
    tensors, found = batch(9, E_max=None), predictions(9)
    value = loss(found, tensors)
    parts = loss.parts(value.sums, value.counts)
    w_f, w_r = works(found, tensors, BETAS)
    assert float(parts.sum()) == pytest.approx(float(w_f.mean() + w_r.mean()))


def test_a_validation_counts_every_sample_as_it_is() -> None:
    loss = TransportLoss(BETAS, Gate())
    value = loss(predictions(9, wild=True), batch(9, E_max=None))
    assert not torch.isfinite(value.sums).all()
    gated = loss(predictions(9, wild=True), batch(9))
    assert torch.isfinite(gated.sums).all()


def test_the_symmetric_term_vanishes_where_volumes_are_opposite() -> None:
    tensors, found = batch(8), predictions(8)
    plain = TransportLoss(BETAS, Gate())(found, tensors).total
    loss = TransportLoss(BETAS, Gate(), symmetric=2.0)
    mean = (found["fwd_logdet"] + found["inv_logdet"]).mean()
    torch.testing.assert_close(loss(found, tensors).total, plain + 2 * mean.square())
    found["inv_logdet"] = -found["fwd_logdet"]
    balanced = TransportLoss(BETAS, Gate())(found, tensors).total
    torch.testing.assert_close(loss(found, tensors).total, balanced)


# -- figures of merit -----------------------------------------------------------------------------


def test_figures_of_merit_are_those_of_the_evaluation() -> None:
    tensors, found = batch(40, E_max=None), predictions(40)
    metrics = TransportMetrics(BETAS, CPU)
    for rows in (slice(0, 7), slice(7, 40)):
        metrics.update(cut(found, rows), cut(tensors, rows))
    got = metrics.compute()
    w_f, w_r = (w.numpy() for w in works(found, tensors, BETAS))
    assert got["ess_fwd"] == pytest.approx(reweighting.effective_share(w_f))
    assert got["ess_inv"] == pytest.approx(reweighting.effective_share(w_r))
    assert got["excess_nats"] == pytest.approx(w_f.mean() + w_r.mean())
    pairs = np.minimum(1.0, np.exp(-(w_f + w_r))).mean()
    assert got["acceptance"] == pytest.approx(pairs)


def test_lost_samples_have_no_weight_and_an_infinite_excess() -> None:
    tensors, found = batch(20, E_max=None), predictions(20, wild=True)
    metrics = TransportMetrics(BETAS, CPU)
    metrics.update(found, tensors)
    got = metrics.compute()
    assert got["excess_nats"] == math.inf
    assert 0.0 < got["ess_fwd"] <= 1.0
    again = TransportMetrics(BETAS, CPU)
    again.load(metrics.state())
    assert again.compute() == got
    metrics.update(found, {**tensors, "E_max": torch.ones(20)})  # of training: not measured
    assert metrics.compute() == got


# -- the journal ----------------------------------------------------------------------------------


def journal(gate: Gate | None = None, *, on: bool = True) -> GateJournal:
    gate = gate or Gate(warmup_epochs=0)
    return GateJournal((300.0, 450.0), BETAS, Thresholds(gate if on else None, gate), 64)


def step(j: GateJournal, found: Tensors, tensors: Tensors, n: int, *, healthy: bool = True) -> bool:
    j.see(found, tensors)
    made = j.judge(lambda: healthy, World())
    j.close(n, epoch=-(-n // 2), at_end=n % 2 == 0, lr=1e-3, warmup=False, grad_norm=1.5)
    return made


def test_records_count_what_the_gate_saw(tmp_path: Path) -> None:
    j = journal()
    j.open(tmp_path, None)
    assert step(j, predictions(20, wild=True), batch(20), 1)
    assert step(j, predictions(20), batch(20), 2)
    first, second, epoch = read_gate_log(tmp_path / GATE_LOG)
    assert isinstance(first, BatchRecord)
    assert isinstance(epoch, EpochRecord)
    assert (first.fwd.samples, first.fwd.regularized, first.fwd.clamped) == (20, 1, 1)
    assert (first.inv.regularized, first.inv.clamped, first.inv.nonfinite) == (0, 2, 2)
    assert first.excess_nats is None
    assert first.loss is not None
    assert (epoch.batches, epoch.fwd.samples, epoch.inv.clamped) == (2, 40, 2)
    assert epoch.loss == pytest.approx((first.loss + (second.loss or 0.0)) / 2)
    value = TransportLoss(BETAS, Gate(warmup_epochs=0))(predictions(20), batch(20))
    assert second.loss == pytest.approx(float(value.total))
    assert second.fwd.gated_minus_true == pytest.approx(0.0, abs=1e-12)
    assert first.fwd.gated_minus_true is not None
    assert first.fwd.gated_minus_true < 0
    assert dict(j.summary())["regularized samples"] == "4/80 (5.0 %)"


@pytest.mark.parametrize("direction", ["fwd_U", "inv_U"])
def test_a_batch_is_skipped_when_either_direction_is_lost(tmp_path: Path, direction: str) -> None:
    j = journal()
    j.open(tmp_path, None)
    found = predictions(10)
    found[direction][1:] = 1e9
    assert step(j, found, batch(10), 1)  # 9 of 10
    found[direction][:] = math.nan
    assert not step(j, found, batch(10), 2)
    *_, record, epoch = read_gate_log(tmp_path / GATE_LOG)
    assert (record.loss, record.skipped) == (None, 1)
    assert (epoch.skipped, epoch.batches) == (1, 2)
    assert epoch.loss is not None
    assert j.bar(1e-3)["skipped"] == "1"
    assert any("1 of 2 batches skipped" in line for line in j.block(1e-3, None))


def test_a_share_of_exactly_the_limit_is_not_above_it() -> None:
    for percent in range(1, 100):
        gate = Gate(skip_share=percent / 100)
        assert not gate.skips(percent, 100)
        assert gate.skips(percent + 1, 100)


def test_a_gradient_that_is_not_finite_skips_behind_a_gate_and_only_there(tmp_path: Path) -> None:
    assert not step(journal(), predictions(4), batch(4), 1, healthy=False)
    assert step(journal(on=False), predictions(4), batch(4), 1, healthy=False)


def test_without_a_gate_the_log_tells_what_one_would_have_seen(tmp_path: Path) -> None:
    j = journal(on=False)
    j.open(tmp_path, None)
    found = predictions(10)
    found["fwd_U"][:] = 1e9
    assert step(j, found, batch(10), 1)
    (record,) = read_gate_log(tmp_path / GATE_LOG)
    assert (record.mode, record.fwd.clamped, record.skipped) == ("off", 10, 0)
    assert "OFF" in " ".join(j.banner())


def test_a_journal_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    whole, first = journal(), journal()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole.open(tmp_path / "a", None)
    first.open(tmp_path / "b", None)
    for n in (1, 2, 3):
        step(whole, predictions(8, n), batch(8), n)
        step(first, predictions(8, n), batch(8), n)
    state = first.state()
    step(first, predictions(8, 99), batch(8), 4)  # after the checkpoint, and lost with it
    second = journal()
    second.open(tmp_path / "b", 3)
    second.load(state)
    for j in (whole, second):
        step(j, predictions(8, 4), batch(8), 4)
    texts = [(tmp_path / d / GATE_LOG).read_text() for d in "ab"]
    assert texts[0] == texts[1]
    assert whole.summary() == second.summary()


@pytest.mark.parametrize("E_max", [1e7, 0.0])
def test_processes_note_the_whole_batch(monkeypatch: pytest.MonkeyPatch, E_max: float) -> None:
    """Three processes, one of them without samples; what they send is put together by hand."""
    found, tensors = predictions(8, wild=True), batch(8, E_max=E_max)
    shares = [slice(0, 5), slice(5, 8), None]
    sent: list[Tensor] = []
    for rows in shares:
        j = journal()
        if rows is not None:
            j.see(cut(found, rows), cut(tensors, rows))

        def keep(own: Tensor, world: World) -> Tensor:
            sent.append(own)
            return own[None]

        monkeypatch.setattr("mlff_cli.training.gate_journal.gather", keep)
        j.judge(lambda: True, World(0, 3))
    monkeypatch.setattr("mlff_cli.training.gate_journal.gather", lambda *_: torch.stack(sent))
    last = journal()
    assert last.judge(lambda: True, World(2, 3))
    last.close(1, epoch=1, at_end=True, lr=1.0, warmup=False, grad_norm=1.0)
    alone = journal()
    alone.see(found, tensors)
    alone.judge(lambda: True, World())
    alone.close(1, epoch=1, at_end=True, lr=1.0, warmup=False, grad_norm=1.0)
    assert last.state()["last"] == alone.state()["last"]
    assert last.totals.samples == 16


# -- skipped steps --------------------------------------------------------------------------------


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))


def toy_task(bad: set[int], gate: Gate | None) -> Task:
    """A flow y = e^s x of a harmonic system; energies of some steps are lost."""

    def train_batch(n: int) -> list[Batch]:
        tensors = batch(16, n)
        tensors["lost"] = torch.full((16,), n in bad)
        return [TensorBatch(tensors, frozenset(), 16)]

    def predict(model: nn.Module, part: Batch, training: bool) -> Tensors:
        assert isinstance(model, Scale)
        found = []
        for name, s in (("source", model.log), ("target", -model.log)):
            U = 50 * (part.tensors[name] * s.exp()).square().flatten(1).sum(1)
            if "lost" in part.tensors:
                U = torch.where(part.tensors["lost"], math.inf, U)
            found.append(Transported(U, 9 * s.expand(len(U))))
        return tensors_of(*found)

    watched = Gate(warmup_epochs=0)
    return Task(
        model=Scale(),
        epoch_length=2,
        train_batch=train_batch,
        n_validation=1,
        validation_batch=lambda i: TensorBatch(batch(16, 99, E_max=None), frozenset(), 16),
        predict=predict,
        loss=TransportLoss(BETAS, gate),
        new_metrics=lambda: TransportMetrics(BETAS, CPU),
        measured=("excess_nats",),
        watch=(),
        name_samples=lambda n: f"batch {n}",
        journal=GateJournal((300.0, 450.0), BETAS, Thresholds(gate, watched), 16),
    )


def stepper_of(task: Task, **trainer: Any) -> Stepper:
    settings = TrainingSettings.model_validate(
        {"trainer": {"epochs": 4, "ema_decay": 0.5, **trainer}, "scheduler": None}
    )
    return Stepper(task, build_stages(task, settings), settings.trainer, World())


def test_a_skipped_step_moves_nothing() -> None:
    gate = Gate(warmup_epochs=0)
    task = toy_task({1}, gate)
    stepper = stepper_of(task)
    first, _ = stepper(0, task.train_batch(0))
    made = [stepper.made]
    assert first.abs().sum() > 0
    assert stepper.average is not None
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    averaged = stepper.average.state()
    moments = str(stepper.optimizer.state_dict())
    sums, counts = stepper(1, task.train_batch(1))
    assert [*made, stepper.made] == [True, False]
    assert not sums.any()
    assert not counts.any()
    assert str(stepper.optimizer.state_dict()) == moments
    torch.testing.assert_close(task.model.state_dict(), before)
    torch.testing.assert_close(stepper.average.state(), averaged)


def test_a_run_with_a_lost_batch_is_the_run_without_that_step() -> None:
    weights = []
    for steps, bad in (([0, 1, 2], {1}), ([0, 2], set())):
        task = toy_task(bad, Gate(warmup_epochs=0))
        stepper = stepper_of(task)
        for n in steps:
            stepper(n, task.train_batch(n))
        weights.append(task.model.state_dict())
    torch.testing.assert_close(weights[0], weights[1])
