"""A run in its folder: optimizer, schedule, checkpoints and logs around the loop."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from mlff_cli.core.artifacts import alone_in, write_text
from mlff_cli.core.errors import InterruptedRunError, NumericalError
from mlff_cli.core.reporting import Reporter
from mlff_cli.core.runtime import interruptible
from mlff_cli.data.model_file import ModelFile
from mlff_cli.training.checkpoints import Checkpoints, Snapshot
from mlff_cli.training.compiled import CompiledBackward
from mlff_cli.training.distributed import World
from mlff_cli.training.early_stopping import Patience
from mlff_cli.training.loop import FitResult, Loop
from mlff_cli.training.precision import check_tf32, matrix_products
from mlff_cli.training.pretraining import COLUMNS
from mlff_cli.training.run_log import FileReporter, RunLog, run_columns
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.stages import build_stages, group_names
from mlff_cli.training.step import Stepper
from mlff_cli.training.task import Task, accumulated
from mlff_cli.training.trackers import Tracked, Trackers, start_trackers
from mlff_cli.training.watch import Watch
from mlff_cli.training.wording import counted

Rows = Sequence[Mapping[str, Any]]
Names = Mapping[str, str]
# draws logged rows into a file, given units, the learning rates' names, and noise at most by name
Draw = Callable[[Path, Rows, Names, Names, Mapping[str, float]], None]


@dataclass(frozen=True)
class Run:
    """A training that is ready to begin or to continue.

    Attributes:
        folder: the run folder.
        task: what to train.
        settings: how.
        snapshot: makes model files.
        fingerprint: plain values that must be the same when the run is resumed.
        workers: threads that make training batches.
        world: the processes that train together.
        documents: further files of the run folder, {name: what writes it}.
    """

    folder: Path
    task: Task
    settings: TrainingSettings
    snapshot: Snapshot
    fingerprint: Mapping[str, Any]
    workers: int
    world: World
    documents: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """A run that came to its end.

    Attributes:
        result: how it went.
        checkpoints: where its models are.
        metrics: of the model that is the result.
        units: unit of every logged number that has one.
    """

    result: FitResult
    checkpoints: Checkpoints
    metrics: dict[str, float]
    units: dict[str, str]


def build_stepper(task: Task, settings: TrainingSettings, world: World) -> Stepper:
    """Accumulate batches; build every stage's optimizer and schedule, and enter the first.

    Raises:
        ConfigError: optimizer, groups or schedule are wrong.
        MissingDependencyError: the step is to be compiled, and there is no compiler; the device
            cannot compute in the precision.
    """
    task = accumulated(task, settings.trainer.accumulate)
    stages = build_stages(task, settings)
    known = ["loss", *(f"{name}_loss" for name in task.loss.names), *task.measured]
    for stage in stages:
        stage.schedule.check_metrics(known)
    Patience(settings.trainer.early_stopping).check_metrics(known)
    trainer = settings.trainer
    backward = CompiledBackward(task, trainer.precision) if trainer.compile else None
    stepper = Stepper(task, stages, trainer, world, backward)
    if trainer.precision == "tf32":
        check_tf32(stepper.device)
    return stepper


def fit(
    run: Run,
    reporter: Reporter,
    draw: Draw,
    *,
    resume: bool,
    replace: bool = False,
    again: bool = True,
) -> Fitted:
    """Train to the end; every process must call it.

    Args:
        run: what and where.
        reporter: who is told.
        draw: makes the figure of the losses.
        resume: continue an unfinished run.
        replace: begin anew where an unfinished run was started differently.
        again: with `replace`, begin a finished run anew, too.

    Raises:
        ConfigError: the settings are wrong, or an unfinished run was started differently.
        NumericalError: the loss is not finite.
        InterruptedRunError: stopped on request; the same call continues.
        UsageError: another process trains in the same folder.
    """
    run.world.agree("the run's inputs", run.fingerprint)
    stepper = build_stepper(run.task, run.settings, run.world)
    with alone_in(run.folder, "mlff train") if run.world.main else contextlib.nullcontext():
        return _fit(run, stepper, reporter, draw, resume=resume, replace=replace, again=again)


def _fit(
    run: Run,
    stepper: Stepper,
    reporter: Reporter,
    draw: Draw,
    *,
    resume: bool,
    replace: bool,
    again: bool,
) -> Fitted:
    """What `fit` does where no other process does it."""
    settings, world, folder = run.settings, run.world, run.folder
    checkpoints = Checkpoints(folder, settings.checkpoint, run.snapshot, run.fingerprint)
    checkpoint = checkpoints.resume(replace=replace, again=again) if resume else None
    first = int(checkpoint.training["step"]) if checkpoint else 0
    # ranks on different file systems would mix the gradients of different steps
    world.agree("the checkpoint to continue from", {"step": first})
    names = group_names(stepper.stages)
    noise = {f"val/{name}": value for name, value in run.task.noise_bound.items()}
    columns, units = columns_of(stepper.task, len(names))
    log = None
    told = reporter
    trackers = Trackers({}, reporter)
    if world.main:
        if checkpoint is None:
            checkpoints.clear()
        plain = settings.model_dump(mode="json", by_alias=True)
        write_text(folder / "config.yaml", yaml.safe_dump(plain, sort_keys=False), force=True)
        for name, write in run.documents.items():
            write(folder / name)
        resumed = checkpoint is not None
        log = RunLog(
            folder,
            columns,
            units,
            names=names,
            resume_after=first if resumed else None,
            iteration=_iterations(checkpoint),
            facts={"noise_bound": noise},
        )
        if journal := run.task.journal:
            journal.open(folder, first if resumed else None)
        told = FileReporter(reporter, folder / "train.log", append=resumed)
        tracked = Tracked(folder, plain, run.task.model, units, resumed, log.rows)
        trackers = start_trackers(settings, tracked, told)

    still = [p.numel() for p in run.task.model.parameters() if not p.requires_grad]
    if still:
        total = sum(p.numel() for p in run.task.model.parameters())
        told.info(f"frozen: {sum(still)} of {total} parameters")
    if settings.trainer.compile:
        told.info(
            "the first step of every set of labels compiles, which takes a minute or more; "
            "torch keeps the result for the next start"
        )

    def redraw() -> None:
        if log is None:
            return
        try:
            draw(folder / "loss_curves.png", log.rows, units, names, noise)
        except Exception as error:  # a figure is no reason to end a run
            told.warning(f"no figure of the losses: {error}")

    with contextlib.ExitStack() as stack:
        stack.callback(trackers.close)
        stop = stack.enter_context(interruptible())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(matrix_products(settings.trainer.precision, stepper.device))
        torch.manual_seed(settings.seed)
        loop = Loop(stepper, settings, checkpoints, log, told, stop, redraw, trackers, run.workers)
        if checkpoint:
            loop.restore(checkpoint)
        try:
            result = loop.run(first)
        finally:
            redraw()
            for name, value in run.task.journal.summary() if run.task.journal else ():
                told.info(f"{name}: {value}")
    world.barrier()  # a launcher may end all as soon as one has left: the files are written first
    if result.interrupted:
        where = f"at step {result.steps} of {loop.total}"
        if loop.minimiser and not loop.minimiser.finished:
            where = f"in the pre-training, after {counted(loop.minimiser.iteration, 'iteration')}"
        raise InterruptedRunError(
            f"stopped {where}; the checkpoint is {checkpoints.last}",
            remedy="give the same command again to continue",
        )
    watch = result.watch
    if run.task.journal:
        for text in run.task.journal.doubts():
            told.warning(text)
        if settings.checkpoint.save_best:
            _require_better(watch, checkpoints, told)
    metrics = watch.best_metrics if settings.checkpoint.save_best else watch.last_metrics
    return Fitted(result, checkpoints, metrics, units)


def _require_better(watch: Watch, checkpoints: Checkpoints, told: Reporter) -> None:
    """Say where training has not improved on its start, or refuse what was never finite."""
    if not watch.begun:
        raise NumericalError(
            "no validation of the run was finite: there is no flow to keep",
            where=str(checkpoints.last),
            remedy="look at the run with `mlff gate-report`; lower training.lr, leave the energy "
            "gate on, or sample more; the file named holds the last weights, for --load",
        )
    if watch.best_step == 0:
        told.warning(
            "no validation was better than the one before the first step: the model saved is the "
            "start; lower training.lr, or sample more"
        )


def columns_of(task: Task, groups: int) -> tuple[list[str], dict[str, str]]:
    """Names of the numbers that may be logged, in order, and units of those that have one."""
    columns, units = run_columns(task.loss.names, task.new_metrics().units, groups)
    before = COLUMNS if task.pretraining else ()
    return [*before, *columns, *task.loss.learned_names], units


def _iterations(checkpoint: ModelFile | None) -> float:
    """Iterations of the pre-training that a checkpoint knows of; all, where it was over."""
    state = checkpoint.training.get("pretraining") if checkpoint else None
    if not state or state["ended"]:
        return math.inf
    return float(state["iteration"]) if state["losses"] else -1.0
