"""The training loop of every family, on ignite's engine.

step:         batch -> gradients -> clip -> optimizer                        (step.py)
now and then: log the training loss; validate, keep the best, write the checkpoint to resume from

A batch is a pure function of its step, so that the position in the data is one number. Every
process runs the same loop and takes the same decisions; only the main one writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from mlff_cli.core.errors import MLFFError, NumericalError
from mlff_cli.core.reporting import Progress, Reporter
from mlff_cli.core.runtime import StopRequest
from mlff_cli.data.model_file import ModelFile
from mlff_cli.training.checkpoints import Checkpoints
from mlff_cli.training.clocks import DATA, VALIDATION, WRITING, FigureClock
from mlff_cli.training.early_stopping import Patience
from mlff_cli.training.evaluation import evaluate
from mlff_cli.training.memory import StepMemory, free_memory
from mlff_cli.training.out_of_memory import explain_step, explain_validation, explained
from mlff_cli.training.prefetch import ahead
from mlff_cli.training.pretraining import Minimiser
from mlff_cli.training.run_log import RunLog
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.step import Stepper
from mlff_cli.training.task import Batch
from mlff_cli.training.trackers import Trackers
from mlff_cli.training.watch import Watch
from mlff_cli.training.window import LossWindow, gather, own_share

SHOW_SECONDS = 0.5  # between updates of the bar; each waits for the device once


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        steps: iterations done in all.
        interrupted: whether it was asked to stop before its end.
        watch: what was seen on the way.
    """

    steps: int
    interrupted: bool
    watch: Watch


class Loop:
    """Trains a task.

    Args:
        stepper: makes the steps.
        settings: how to train.
        checkpoints: where they go.
        log: where the numbers go; None where another process writes.
        reporter: who is told.
        stop: asked after every step.
        redraw: draws the figure of what was logged so far.
        trackers: hear every row, too.
        workers: threads that make batches ahead.
    """

    def __init__(
        self,
        stepper: Stepper,
        settings: TrainingSettings,
        checkpoints: Checkpoints,
        log: RunLog | None,
        reporter: Reporter,
        stop: StopRequest,
        redraw: Callable[[], None],
        trackers: Trackers,
        workers: int = 0,
    ) -> None:
        self.stepper = stepper
        self.task = stepper.task
        self.world = stepper.world
        self.device = stepper.device
        self.settings = settings
        self.checkpoints = checkpoints
        self.log = log
        self.reporter = reporter
        self.stop = stop
        self.redraw = redraw
        self.trackers = trackers
        self.workers = workers
        self.total = settings.trainer.epochs * self.task.epoch_length
        self.watch = Watch(
            settings.log_frequency,
            self.task.new_metrics().units,
            self.task.watch,
            settings.trainer.epochs,
            self.task.epoch_length,
            samples=self.task.samples,
            stages=[(stage.name, stage.end) for stage in stepper.stages if stage.name],
            noise_bound=self.task.noise_bound,
        )
        self.figure = FigureClock(settings.log_frequency.figure_seconds)
        self.window = LossWindow(self.task, self.device)
        self.errors = self.task.new_metrics()  # of training, since the epoch began
        self.patience = Patience(settings.trainer.early_stopping)
        self.minimiser = (
            Minimiser(pretraining, self.task.model, self.world, lambda: stop.requested)
            if (pretraining := self.task.pretraining)
            else None
        )
        self._row: dict[str, float] = {}
        self._saved_at = -1
        self._saved_time = time.monotonic()
        self._validated = False
        self._moved = False  # whether a step was made since the last validation
        self._finished = False
        self._free: int | None = None

    # -- state ------------------------------------------------------------------------------------

    def state(self, step: int) -> dict[str, Any]:
        """Everything beyond the weights that an exact continuation needs; all must call it."""
        return {
            "step": step,
            "finished": step >= self.total or self._exhausted,
            **self.stepper.state(),
            "loss": _on_host(self.task.loss),
            "rng": torch.get_rng_state(),
            "window": self.window.state(),
            "errors": gather(self.errors.state(), self.world),
            "patience": self.patience.state(),
            "watch": self.watch.state(),
            "pretraining": self.minimiser.state() if self.minimiser else None,
            "moved": self._moved,
            "journal": self.task.journal.state() if self.task.journal else None,
        }

    def restore(self, checkpoint: ModelFile) -> int:
        """Continue from a checkpoint; returns the step to continue with."""
        state = checkpoint.training
        self.task.model.load_state_dict(checkpoint.weights)
        self.task.loss.load_state_dict(state["loss"])
        self.stepper.load(state)
        if self.stepper.average is not None and checkpoint.ema is not None:
            self.stepper.average.load(checkpoint.ema, int(state["step"]))
        torch.set_rng_state(state["rng"])
        self.window.load(state["window"])
        errors = own_share(state["errors"], self.world, self.errors.merge)
        self.errors.load(errors.to(self.device))
        self.patience.load(state["patience"])
        self.watch.load(state["watch"])
        if self.minimiser:
            self.minimiser.load(state["pretraining"])
        self._moved = bool(state.get("moved", True))
        if self.task.journal:
            self.task.journal.load(state["journal"])
        self._finished = bool(state["finished"])
        return int(state["step"])

    def _save(self, step: int, *, again: bool = False) -> None:
        self.stepper.check()  # what is kept must be good: elsewhere than on a CPU nobody looked yet
        if step != self._saved_at or again:
            state = self.state(step)
            if self.world.main:
                average = self.stepper.average
                self.checkpoints.save_last(
                    _on_host(self.task.model), state, average.state() if average else None
                )
            self._saved_at = step
            self._saved_time = time.monotonic()

    @property
    def _measured(self) -> torch.nn.Module:
        """The model that is validated and kept: the averaged one, where there is one."""
        average = self.stepper.average
        return average.model if average else self.task.model

    @property
    def _exhausted(self) -> bool:
        return self.stepper.schedule.exhausted or self.patience.exhausted

    # -- running ----------------------------------------------------------------------------------

    def run(self, first: int = 0) -> FitResult:
        """Train from step `first` to the end, or until asked to stop; before step 0, pre-train.

        Raises:
            NumericalError: a loss is not finite; the last checkpoint stays good.
        """
        if self._finished:
            return FitResult(first, False, self.watch)
        minimiser = self.minimiser
        if minimiser and not minimiser.run(self.reporter, self._keep_pretraining):
            return FitResult(0, True, self.watch)
        batches = ahead(self.task.train_batch, first, self.total, self.workers)
        engine = Engine(lambda e, _: self._step(e.state.iteration - 1, batches))
        engine.logger.disabled = True  # ignite would tell every error twice more
        length = self.task.epoch_length
        if first:
            engine.load_state_dict(
                {"iteration": first, "epoch_length": length, "max_epochs": self.total // length}
            )
        done = Events.ITERATION_COMPLETED
        log_every = self.settings.frequency("train", length)
        validate_every = self.settings.frequency("val", length)
        for every, handler in (
            (log_every, self._log_losses),
            (length, self._log_errors),
            (validate_every, self._validate),
        ):
            engine.add_event_handler(done(event_filter=self._due(every)), handler)
        engine.add_event_handler(done, self._finish_step)
        self.task.model.train()
        journal = self.task.journal
        for line in (
            *(journal.banner() if journal else ()),
            *self.watch.banner(first, log_every, validate_every),
        ):
            self.reporter.info(line)
        if journal and not first and not self.watch.begun:
            self._measure_start()
        self._shown = 0.0
        with batches, self.reporter.progress(self.total, "training", "steps") as self._bar:
            if first:
                self._bar.skip(first)
            engine.run(max_epochs=self.settings.trainer.epochs, epoch_length=length)
        step = engine.state.iteration
        self._save(step)
        interrupted = self._stopping and step < self.total
        return FitResult(step, interrupted, self.watch)

    def _keep_pretraining(self, row: Mapping[str, float] | None) -> None:
        """Write an iteration's row, if there is one, and the checkpoint."""
        if row is not None and self.log is not None and self.task.pretraining is not None:
            self.log.write(0, 0, row, stage=self.task.pretraining.name)
            self.trackers.log(0, row)
        self._save(0, again=True)

    def _due(self, every: int) -> Any:
        """Filter: every so many iterations, at stages' ends, and when the end comes early."""
        ends = {stage.end for stage in self.stepper.stages}
        return lambda engine, i: i % every == 0 or i in ends or self._exhausted

    _bar: Progress

    def _step(self, step: int, batches: Any) -> int:
        """One step; returns the samples of all processes."""
        start = time.monotonic()
        parts = next(batches)
        if self._free is None:  # what threads and batches take is taken by now
            self._free = free_memory(self.device)
        self.watch.stopwatch.claim(DATA, start)
        late = start - self._saved_time > 60 * self.settings.checkpoint.minutes
        with explained(lambda: self._lack(step, parts)):
            sums, counts = self.stepper(
                step, parts, self._see, stop=self.stop.requested, save=late and self.world.main
            )
        self.window.add(sums, counts)
        self._moved |= self.stepper.made
        return self.stepper.samples

    def _lack(self, step: int, parts: Sequence[Batch]) -> MLFFError:
        """What to say where a step found no memory."""
        self.stepper.optimizer.zero_grad(set_to_none=True)
        memory = StepMemory(
            self.task,
            self.stepper.optimizer,
            average=self.stepper.average is not None,
            precision=self.settings.trainer.precision,
        )
        return explain_step(memory, self.task, step, parts, self._free or 0, self.checkpoints.last)

    def _see(self, predicted: Mapping[str, Tensor], batch: Batch) -> None:
        self.errors.update(predicted, batch.tensors)

    @property
    def _stopping(self) -> bool:
        """Whether to stop: alone at once; together one step later, when all have heard of it."""
        return self.stop.requested if self.world.size == 1 else self.stepper.stop

    def _finish_step(self, engine: Engine) -> None:
        """Write the step's row and checkpoint, move the bar, and stop when asked to."""
        step = engine.state.iteration
        self.watch.trained(int(engine.state.output))
        start = time.monotonic()
        group = self.stepper.optimizer.param_groups[0]
        lr = group["lr"] / group["lr_ratio"]  # with warm-up, which the schedule's own lacks
        block = self._note(step, lr)
        if said := self.watch.line(step, lr, self._row.get("train/loss")):
            text = "\n".join([said.text, *block])
            (self.reporter.info if said.due else self.reporter.detail)(text)
        if self._row:
            self._write(step)
        if self._validated or self.stepper.save:  # after the row: a killed run has both or neither
            self._save(step)
            self._validated = False
        if start - self._shown >= SHOW_SECONDS:
            self._shown = start
            if journal := self.task.journal:
                self._bar.advance(1, **journal.bar(lr))
            else:
                self._bar.advance(1, **self.watch.bar_fields(self.window.components(), lr))
        else:
            self._bar.advance(1)
        self.watch.stopwatch.claim(WRITING, start)
        if self._stopping or self._exhausted:
            engine.terminate()

    def _note(self, step: int, lr: float) -> list[str]:
        """Let the journal write about a step; returns its lines about the epoch."""
        journal = self.task.journal
        if journal is None:
            return []
        length = self.task.epoch_length
        stage = self.stepper.stage
        journal.close(
            step,
            epoch=-(-step // length),
            at_end=step % length == 0,
            lr=lr,
            warmup=stage.schedule.warming(step - stage.first),
            grad_norm=float(self.stepper.gradient_norm),
        )
        return journal.block(lr, self.watch.improved)

    def _write(self, step: int) -> None:
        """Write the row, and draw the figure now and then."""
        if self.log is not None:
            epoch = -(-step // self.task.epoch_length)
            self.log.write(step, epoch, self._row, stage=self.stepper.stage.name)
            self.trackers.log(step, self._row)
            if self.figure.due:
                start = time.monotonic()
                self.redraw()
                self.figure.drawn(start)
        self._row = {}

    def _log_losses(self, engine: Engine) -> None:
        """Put the mean training loss since the last log into the row."""
        self.stepper.check()
        if components := self.window.components():  # nothing where no step had a label
            self._row["train/loss"] = sum(components.values())
            self._row |= {f"train/{name}_loss": value for name, value in components.items()}
        self._row |= self.task.loss.weights()
        for i, group in enumerate(self.stepper.optimizer.param_groups):
            self._row[f"lr_{i}"] = group["lr"]
        self.window.reset()

    def _log_errors(self, engine: Engine) -> None:
        """Put the training errors of the epoch into the row, as each step saw them."""
        self.errors.reduce(self.world)
        self._row |= {f"train/{name}": value for name, value in self.errors.compute().items()}
        self.errors = self.task.new_metrics()

    def _validate(self, engine: Engine) -> None:
        """Measure on the whole validation set and keep the best."""
        self.stepper.check()
        start = time.monotonic()
        step = engine.state.iteration
        with explained(lambda: explain_validation(self.task, self.device, self.checkpoints.last)):
            loss, metrics = evaluate(self.task, self._measured, self.device, self.world)
        self._validated = True
        if self.task.journal:
            self.task.journal.validated(metrics)
        finite = math.isfinite(loss)
        if not finite and self.task.journal:  # a gate keeps its energies from the weights
            self.reporter.warning(
                f"the excess of the validation after step {step} is not finite: this flow is not "
                "kept"
            )
        elif not finite:
            raise NumericalError(
                f"the validation loss is {loss} after step {step}",
                remedy=f"look at labels and geometries of the validation {self.task.samples}, or "
                f"lower the learning rate; the last good state is {self.checkpoints.last}",
            )
        for name, value in metrics.items():
            if finite or math.isfinite(value):
                self._row[f"val/{name}"] = value
        if self._moved:  # skipped batches are no failure of the learning rate
            self.stepper.schedule.after_validation(metrics)
            self.patience.after_validation(metrics)
        self._moved = False
        if finite:
            self._offer(step, loss, metrics)
        self.watch.stopwatch.claim(VALIDATION, start)

    def _measure_start(self) -> None:
        """Validate what is trained before its first step: what training must improve on."""
        start = time.monotonic()
        with explained(lambda: explain_validation(self.task, self.device, self.checkpoints.last)):
            loss, metrics = evaluate(self.task, self._measured, self.device, self.world)
        shown = ", ".join(self.watch.figures(metrics))
        self.reporter.info(f"before the first step: {shown}")
        self._row = {f"val/{n}": value for n, value in metrics.items() if math.isfinite(value)}
        self._write(0)
        if math.isfinite(loss):
            self._offer(0, loss, metrics)
        self.task.model.train()
        self.watch.stopwatch.claim(VALIDATION, start)
        self._save(0)

    def _offer(self, step: int, loss: float, metrics: dict[str, float]) -> None:
        """Take note of a validation, and keep the model if it is among the best."""
        self.watch.validated(step, loss, metrics)
        if self.world.main:
            self.checkpoints.offer(_on_host(self._measured), step, loss, metrics)


def _on_host(model: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu() for k, v in model.state_dict().items()}
