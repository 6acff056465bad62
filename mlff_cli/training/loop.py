"""The training loop of every family, on ignite's engine.

step:       schedule -> batch -> prediction -> loss -> gradient -> clip -> optimizer
now and then: log the training loss; validate, keep the best, write the checkpoint to resume from

A batch is a pure function of its step, so that the position in the data is one number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.reporting import Progress, Reporter
from mlff_cli.core.runtime import StopRequest
from mlff_cli.data.model_file import ModelFile
from mlff_cli.training.checkpoints import Checkpoints
from mlff_cli.training.prefetch import ahead
from mlff_cli.training.run_log import RunLog
from mlff_cli.training.schedules import Schedule
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.task import Batch, Task

SHOW_SECONDS = 0.5  # between updates of the bar; each waits for the device once
_CLIP: dict[str, Callable[[list[nn.Parameter], float], object]] = {
    "value": nn.utils.clip_grad_value_,
    "norm": nn.utils.clip_grad_norm_,
    "none": lambda parameters, at: None,
}


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        steps: iterations done in all.
        interrupted: whether it was asked to stop before its end.
        metrics: of the last validation.
    """

    steps: int
    interrupted: bool
    metrics: dict[str, float]


class Loop:
    """Trains a task.

    Args:
        task: what to train.
        settings: how.
        optimizer: of the task's parameters.
        schedule: of the optimizer's learning rates.
        checkpoints: where they go.
        log: where the numbers go.
        reporter: who is told.
        stop: asked after every step.
        workers: threads that make batches ahead.
    """

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        checkpoints: Checkpoints,
        log: RunLog,
        reporter: Reporter,
        stop: StopRequest,
        workers: int = 0,
    ) -> None:
        self.task = task
        self.settings = settings
        self.optimizer = optimizer
        self.schedule = schedule
        self.checkpoints = checkpoints
        self.log = log
        self.reporter = reporter
        self.stop = stop
        self.workers = workers
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device
        self.total = settings.trainer.epochs * task.epoch_length
        self.metrics: dict[str, float] = {}
        self._row: dict[str, float] = {}
        self._reset_window()
        self._bad = torch.full((), -1, dtype=torch.int64, device=self.device)
        self._saved_at = -1
        self._validated = False

    # -- state ------------------------------------------------------------------------------------

    def _reset_window(self) -> None:
        """Forget the training losses since the last log."""
        n = len(self.task.loss.names)
        self._sums = torch.zeros(n, dtype=torch.float64, device=self.device)
        self._counts = torch.zeros(n, dtype=torch.float64, device=self.device)

    def state(self, step: int) -> dict[str, Any]:
        """Everything beyond the weights that an exact continuation needs."""
        return {
            "step": step,
            "finished": step >= self.total or self.schedule.exhausted,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": torch.get_rng_state(),
            "window": {"sums": self._sums.cpu(), "counts": self._counts.cpu()},
            "metrics": self.metrics,
        }

    def restore(self, checkpoint: ModelFile) -> int:
        """Continue from a checkpoint; returns the step to continue with."""
        state = checkpoint.training
        self.task.model.load_state_dict(checkpoint.weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        self._sums = state["window"]["sums"].to(self.device)
        self._counts = state["window"]["counts"].to(self.device)
        self.metrics = dict(state["metrics"])
        return int(state["step"])

    def _save(self, step: int) -> None:
        self._check()  # what is kept must be good: elsewhere than on a CPU nobody looked yet
        if step != self._saved_at:
            self.checkpoints.save_last(self._weights(), self.state(step))
            self._saved_at = step

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().cpu() for k, v in self.task.model.state_dict().items()}

    # -- running ----------------------------------------------------------------------------------

    def run(self, first: int = 0) -> FitResult:
        """Train from step `first` to the end, or until asked to stop.

        Raises:
            NumericalError: a loss is not finite; the last checkpoint stays good.
        """
        if first >= self.total:
            return FitResult(self.total, False, self.metrics)
        batches = ahead(self.task.train_batch, first, self.total, self.workers)
        engine = Engine(lambda e, _: self._step(e.state.iteration - 1, batches))
        engine.logger.disabled = True  # ignite would tell every error twice more
        length = self.task.epoch_length
        if first:
            engine.load_state_dict(
                {"iteration": first, "epoch_length": length, "max_epochs": self.total // length}
            )
        log_every = self.settings.frequency("train", length)
        validate_every = self.settings.frequency("val", length)
        done = Events.ITERATION_COMPLETED
        engine.add_event_handler(done(event_filter=self._due(log_every)), self._log_training)
        engine.add_event_handler(done(event_filter=self._due(validate_every)), self._validate)
        engine.add_event_handler(done, self._finish_step)
        self.task.model.train()
        self._started, self._shown, self._seen = time.monotonic(), 0.0, 0
        with self.reporter.progress(self.total, "training", "steps") as self._bar:
            if first:
                self._bar.advance(first)
            engine.run(max_epochs=self.settings.trainer.epochs, epoch_length=length)
        batches.close()  # type: ignore[attr-defined]
        step = engine.state.iteration
        self._save(step)
        return FitResult(step, self.stop.requested and step < self.total, self.metrics)

    def _due(self, every: int) -> Any:
        """Filter: every so many iterations, and at the very end."""
        return lambda engine, i: i % every == 0 or i == self.total

    _bar: Progress

    def _step(self, step: int, batches: Iterator[Sequence[Batch]]) -> int:
        """One step; returns the samples it used."""
        batch = [part.to(self.device) for part in next(batches)]
        self.schedule.before_step(step)
        self.optimizer.zero_grad(set_to_none=True)
        whole = self.task.loss.counts([part.tensors for part in batch])
        for part in batch:
            predicted = self.task.predict(self.task.model, part, True)
            loss = self.task.loss(predicted, part.tensors, whole)
            loss.total.backward()  # type: ignore[no-untyped-call]
            self._sums += loss.sums
            first_bad = (self._bad < 0) & ~torch.isfinite(loss.total)
            self._bad = torch.where(first_bad, step, self._bad)
        self._counts += whole
        if self.device.type == "cpu":  # elsewhere asking would make the device wait
            self._check()
        trainer = self.settings.trainer
        _CLIP[trainer.gradient_clip_by](self.parameters, trainer.gradient_clip)
        self.optimizer.step()
        return sum(len(part) for part in batch)

    def _check(self) -> None:
        """Stop when a loss was not finite, and name the molecules of its batch."""
        bad = int(self._bad)
        if bad < 0:
            return
        samples = self.task.name_samples(bad)
        raise NumericalError(
            f"the loss is not finite at step {bad + 1}; the batch holds {samples}",
            remedy="look at these molecules' labels and geometries, or lower the learning rate; "
            f"the last good state is {self.checkpoints.last}",
        )

    def _finish_step(self, engine: Engine) -> None:
        """Write the step's row, move the bar, and stop when asked to."""
        step = engine.state.iteration
        if self._row:
            self.log.write(step, -(-step // self.task.epoch_length), self._row)
            self._row = {}
        if self._validated:  # after the row, so that a killed run has both or neither
            self._save(step)
            self._validated = False
        self._seen += int(engine.state.output)
        now = time.monotonic()
        if now - self._shown >= SHOW_SECONDS:
            self._shown = now
            self._bar.advance(1, **self._fields(now))
        else:
            self._bar.advance(1)
        if self.stop.requested or self.schedule.exhausted:
            engine.terminate()

    def _fields(self, now: float) -> dict[str, str]:
        """What the bar shows."""
        fields = {}
        if float(self._counts.sum()):
            loss = float(self.task.loss.parts(self._sums, self._counts).sum())
            fields["loss"] = f"{loss:.4g}"
        for name in self.task.watch:
            if name in self.metrics:
                fields[name] = f"{self.metrics[name]:.3g}"
        fields["lr"] = f"{self.schedule.lr:.2g}"
        fields["molecules/s"] = f"{self._seen / max(now - self._started, 1e-9):.0f}"
        return fields

    def _log_training(self, engine: Engine) -> None:
        """Put the mean training loss since the last log into the row."""
        self._check()
        parts = self.task.loss.parts(self._sums, self._counts).tolist()
        self._row["train/loss"] = sum(parts)
        for name, part in zip(self.task.loss.names, parts, strict=True):
            self._row[f"train/{name}_loss"] = part
        for i, group in enumerate(self.optimizer.param_groups):
            self._row[f"lr_{i}"] = group["lr"]
        self._reset_window()

    def _validate(self, engine: Engine) -> None:
        """Measure on the whole validation set and keep the best."""
        self._check()
        step = engine.state.iteration
        loss, self.metrics = evaluate(self.task, self.device)
        if not math.isfinite(loss):
            raise NumericalError(
                f"the validation loss is {loss} after step {step}",
                remedy="look at labels and geometries of the validation molecules, or lower the "
                f"learning rate; the last good state is {self.checkpoints.last}",
            )
        self._row |= {f"val/{name}": value for name, value in self.metrics.items()}
        self.schedule.after_validation(self.metrics)
        best = self.checkpoints.offer(self._weights(), step, loss)
        self._validated = True
        self.reporter.info(self._line(engine, step, loss, best))

    def _line(self, engine: Engine, step: int, loss: float, best: bool) -> str:
        """One line about a validation."""
        parts = [f"epoch {engine.state.epoch}/{self.settings.trainer.epochs}", f"step {step}"]
        if "train/loss" in self._row:
            parts.append(f"train {self._row['train/loss']:.5g}")
        parts.append(f"val {loss:.5g}{' (best)' if best else ''}")
        units = self.task.new_metrics().units
        for name in self.task.watch:
            if name in self.metrics:
                parts.append(f"{name} {self.metrics[name]:.3g} {units[name]}")
        parts.append(f"lr {self.schedule.lr:.3g}")
        return "  ".join(parts)


def evaluate(task: Task, device: torch.device) -> tuple[float, dict[str, float]]:
    """Loss and metrics over the whole validation set, independent of its batches."""
    metrics = task.new_metrics()
    n = len(task.loss.names)
    sums = torch.zeros(n, dtype=torch.float64, device=device)
    counts = torch.zeros(n, dtype=torch.float64, device=device)
    was_training = task.model.training
    task.model.eval()
    with torch.no_grad():
        batches = ahead(task.validation_batch, 0, task.n_validation, task.validation_workers)
        for host_batch in batches:
            batch = host_batch.to(device)
            predicted = task.predict(task.model, batch, False)
            value = task.loss(predicted, batch.tensors)
            sums += value.sums
            counts += value.counts
            metrics.update(predicted, batch.tensors)
    task.model.train(was_training)
    parts = task.loss.parts(sums, counts).tolist()
    named = {f"{name}_loss": p for name, p in zip(task.loss.names, parts, strict=True)}
    return sum(parts), {"loss": sum(parts), **named, **metrics.compute()}
