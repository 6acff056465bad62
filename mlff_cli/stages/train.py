"""`mlff train`: data and configuration in, model file and run folder out.

`--save a/model.pt` makes `a/model.run/` at once and `a/model.pt` at the end. A run that was stopped
continues when the same command is given again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from mlff_cli.core.artifacts import check_writable, write_text
from mlff_cli.core.checks import check_table, first_error
from mlff_cli.core.errors import InterruptedRunError, MLFFError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.data.gate_log import epochs_of, read_gate_log
from mlff_cli.deploy.predictor import resolve_device
from mlff_cli.families.base import Family, Inputs, Prepared
from mlff_cli.families.checklist import checklist
from mlff_cli.families.configure import configure
from mlff_cli.report.curves import plot_curves
from mlff_cli.report.lr_curve import plot_range_test
from mlff_cli.report.transport_curves import draw_transport_curves
from mlff_cli.training.checkpoints import LAST, Checkpoints
from mlff_cli.training.distributed import World, join
from mlff_cli.training.ensemble import Member, best, member_settings, statistics_of
from mlff_cli.training.fit import Fitted, Run, build_stepper, fit
from mlff_cli.training.gate_journal import GATE_LOG
from mlff_cli.training.gate_words import merit_table
from mlff_cli.training.lr_find import find_learning_rate
from mlff_cli.training.precision import check_precision, choose_dtype, matrix_products, threads
from mlff_cli.training.trackers import check_trackers
from mlff_cli.training.watch import error_table

RUN_SUFFIX = ".run"  # of the folder beside the model file
TRANSFER_FILE = "transfer.json"  # of the run folder: what became of --load's weights
SPLIT_FILE = "split.npz"  # of the run folder: for `data.split_file` of other runs
KEPT = ("step", "val_loss", "metrics")  # of a checkpoint's training, in the model file


@dataclass(frozen=True)
class Options:
    """What `mlff train` can be told.

    Attributes:
        save: the model file to write.
        configs: YAML files, later ones win.
        overrides: `dotted.key=value`, which win over files.
        preset: packaged configuration under the files: default or small.
        model: architecture file, instead of the preset's architecture.
        load: model file, checkpoint or bare weights to start from.
        resume: auto continues an unfinished run, never starts anew.
        force: replace an existing model file, and a run that is finished or was started
            differently; an unfinished one continues all the same.
        seed: in place of the configuration's.
        device: auto, cpu, cuda or cuda:N.
        dtype: of the weights: float32 or float64.
        dry_run: check everything and say what would be done, touch nothing.
        compile: trace and compile the training step.
        ensemble: how many models to train, from as many seeds; the best one is saved.
        lr_find: look for a learning rate instead of training.
    """

    save: Path = Path("model.pt")
    configs: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    preset: str = "default"
    model: Path | None = None
    load: Path | None = None
    resume: Literal["auto", "never"] = "auto"
    force: bool = False
    seed: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    dry_run: bool = False
    compile: bool = False
    ensemble: int = 1
    lr_find: bool = False


def run(options: Options, reporter: Reporter | None = None) -> Summary:
    """Train a model, or an ensemble of them.

    Raises:
        ConfigError: the configuration is wrong, or an unfinished run was started differently.
        UsageError: the model file exists and `force` is off, or the processes of a distributed run
            contradict each other.
        MissingDependencyError: the device is absent.
        DataError: a data file holds something it must not.
        NumericalError: the loss is not finite.
        InterruptedRunError: stopped on request; the same call continues.
    """
    reporter = reporter or NullReporter()
    with join(options.device, reporter.info, reporter.warning) as world, threads(world.cores):
        job = configured(options, world, reporter if world.main else NullReporter())
        if options.dry_run:
            summary = job.plan()
        elif options.lr_find:
            summary = job.find_learning_rate()
        else:
            with _resumable(options):
                summary = job.train_ensemble() if job.options.ensemble > 1 else job.train()
    return dataclasses.replace(summary, told=not world.main)


@contextlib.contextmanager
def _resumable(options: Options) -> Iterator[None]:
    """Tell an interrupt outside the steps, as while data is read, from one that leaves nothing."""
    folder = options.save.with_suffix(RUN_SUFFIX)
    try:
        yield
    except KeyboardInterrupt:
        if options.resume == "never" or next(folder.rglob(LAST), None) is None:
            raise
        raise InterruptedRunError(
            f"interrupted between steps; what was done before is in {folder}",
            remedy="give the same command again to continue",
        ) from None


def configured(options: Options, world: World, reporter: Reporter) -> Job:
    """Check what was asked for, before any data is read.

    Raises:
        ConfigError: the configuration is wrong.
        UsageError: the model file exists and `force` is off, or an option is wrong.
        MissingDependencyError: a tracker's package is absent.
    """
    if not options.lr_find:
        check_writable(options.save, force=options.force)
    if options.save.suffix == RUN_SUFFIX:
        raise UsageError(
            f"{RUN_SUFFIX!r} is the suffix of run folders",
            where=str(options.save),
            remedy="call the model file .pt",
        )
    if options.lr_find and options.ensemble > 1:
        raise UsageError(
            f"--lr-find tests one model, found --ensemble {options.ensemble}",
            remedy="look for the learning rate first, then train the ensemble with it",
        )
    dtype = choose_dtype(options.dtype)
    overrides = [*options.overrides]
    if options.seed is not None:
        overrides.append(f"seed={options.seed}")
    if options.compile:
        overrides.append("trainer.compile=true")
    family, settings = configure(options.preset, options.configs, overrides, options.save.stem)
    if not options.lr_find:
        members = max(options.ensemble, settings.members)
        options = dataclasses.replace(options, ensemble=members)
    check_trackers(settings)
    check_precision(settings.trainer.precision, dtype)
    return Job(options, family, settings, dtype, world, reporter)


@dataclass(frozen=True)
class Job:
    """One call of `mlff train`.

    Attributes:
        options: what the user asked for.
        family: the recipe.
        settings: the configuration.
        dtype: of the weights.
        world: the processes that train together.
        reporter: who is told.
    """

    options: Options
    family: Family
    settings: Any
    dtype: torch.dtype
    world: World
    reporter: Reporter

    def prepare(self, settings: Any) -> Prepared:
        """Data, model and starting weights."""
        options = self.options
        command = command_of(options)
        inputs = Inputs(
            options.model,
            options.load,
            torch.device(resolve_device(self.world.device)),
            self.dtype,
            command,
            self.world,
            split_seed=self.settings.seed,
        )
        prepared = self.family.prepare(settings, inputs, self.reporter)
        read = [p for p in prepared.fingerprint["inputs"] if p != str(options.load)]
        check_writable(options.save, force=options.force or options.lr_find, inputs=read)
        for warning in prepared.warnings:
            self.reporter.warning(warning)
        return prepared

    def plan(self) -> Summary:
        """Look at everything, and say what would be done or what stands in the way."""
        plain = self.settings.model_dump(mode="json", by_alias=True)
        try:
            prepared = self.prepare(self.settings)
            stepper = build_stepper(prepared.task, self.settings, self.world)
        except MLFFError as error:
            checks = self.family.diagnose(self.settings, error)
            found: dict[str, Any] = {"checks": [c.plain() for c in checks], "config": plain}
            return Summary(found, [check_table("checklist", checks)], failure=error)
        with contextlib.closing(prepared):
            checks = checklist(prepared, stepper, self.settings)
        description, transfer = prepared.description, prepared.transfer
        tables = [Table("training", ["", ""], [[a, b] for a, b in description])]
        tables += [transfer.table()] if transfer else []
        found = {
            "plan": dict(description),
            **({"transfer": transfer.to_json()} if transfer else {}),
        }
        found |= {"checks": [c.plain() for c in checks], "config": plain}
        # settings that nobody gave a value, as arguments of other optimizers, would hide the rest
        shown = self.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        return Summary(
            found,
            [*tables, check_table("checklist", checks)],
            [yaml.safe_dump(shown, sort_keys=False).rstrip()],
            failure=first_error(checks),
        )

    def find_learning_rate(self) -> Summary:
        """Make the range test instead of training."""
        prepared = self.prepare(self.settings)
        for name, value in prepared.description:
            self.reporter.info(f"{name}: {value}")
        stepper = build_stepper(prepared.task, self.settings, self.world)
        products = matrix_products(self.settings.trainer.precision, stepper.device)
        with contextlib.closing(prepared), products:
            test = find_learning_rate(
                stepper.task,
                stepper.optimizer,
                self.settings.trainer,
                self.world,
                workers=prepared.workers,
                reporter=self.reporter,
            )
        folder = self.options.save.with_suffix(RUN_SUFFIX)
        figure, numbers = folder / "lr_find.png", folder / "lr_find.json"
        if self.world.main:
            marks = {n: getattr(test, n) for n in ("steepest", "diverged", "suggestion")}
            plot_range_test(figure, test.rates, test.relative, test.smoothed, **marks)
            write_text(numbers, json.dumps(test.plain()) + "\n", force=True)
        outputs = [f"figure: {figure}", f"numbers: {numbers}"]
        return Summary({**test.plain(), "figure": str(figure)}, [], [test.verdict, *outputs])

    def train(self) -> Summary:
        """Train one model."""
        folder = self.options.save.with_suffix(RUN_SUFFIX)
        fitted = self.fit(self.settings, folder)
        if self.world.main:
            finish(self.options.save, fitted.checkpoints, force=self.options.force)
        return summarise(self.options, folder, fitted)

    def train_ensemble(self) -> Summary:
        """Train from several seeds on one split and keep the best model."""
        options, settings = self.options, self.settings
        folder = options.save.with_suffix(RUN_SUFFIX)
        report = folder / "ensemble.json"
        again = self.world.any(report.exists())  # an ensemble that came to its end
        if again and self.world.main:  # else every continuation would begin its members anew
            report.unlink()
        members, kept = [], {}
        for seed in range(settings.seed, settings.seed + options.ensemble):
            self.reporter.info(f"member {seed - settings.seed + 1} of {options.ensemble}")
            own = member_settings(settings, seed)
            fitted = self.fit(own, folder / f"seed_{seed}", again=again)
            if not self.world.main:  # rank 0 alone keeps checkpoints, and chooses
                continue
            model = fitted.checkpoints.result()
            metrics = fitted.metrics
            members.append(Member(seed, metrics["loss"], model.training["step"], metrics))
            kept[seed] = fitted
        if not self.world.main:
            return summarise(options, folder, fitted)
        chosen = best(members)
        summary = summarise(options, folder, kept[chosen.seed])
        for seed, fitted in kept.items():
            if settings.save_all_models:
                finish(folder / f"seed_{seed}" / "model.pt", fitted.checkpoints, force=True)
        finish(options.save, kept[chosen.seed].checkpoints, force=options.force)
        found = statistics_of(members) | {"units": summary.data["units"]}
        for entry in found["members"] if settings.save_all_models else ():
            entry["model"] = f"seed_{entry['seed']}/model.pt"  # beside ensemble.json
        write_text(report, json.dumps(found, indent=2) + "\n", force=True)
        for seed, fitted in kept.items():
            if seed != chosen.seed and not settings.save_all_models:
                fitted.checkpoints.remove()
        rows = [[m.seed, f"{m.loss:.5g}", m.step, "best" * (m is chosen)] for m in members]
        losses = found["loss"]
        note = f"{losses['mean']:.5g} +- {losses['std']:.2g} (mean and standard deviation)"
        table = Table("ensemble", ["seed", "validation loss", "step", ""], rows, [note])
        lines = [*summary.lines, f"ensemble: {report}", *self._told_members(list(kept), folder)]
        return Summary({**summary.data, "ensemble": found}, [table, *summary.tables], lines)

    def _told_members(self, seeds: Sequence[int], folder: Path) -> list[str]:
        """Where the members of an ensemble are, and what is done with them."""
        if not self.settings.save_all_models:
            return [f"{self.options.save} is the best member; the others are not kept"]
        paths = [folder / f"seed_{seed}" / "model.pt" for seed in seeds]
        told = [f"members: {', '.join(map(str, paths))}; {self.options.save} is the best of them"]
        if self.settings.family == "coarse-grained":  # others are compiled one at a time
            words = ["mlff", "compile"]
            for path in paths:
                words += ["--weights", str(path)]
            words += ["--output", str(self.options.save.with_suffix(""))]
            told.append(f"all in one artifact: {shlex.join(words)}")
        return told

    def fit(self, settings: Any, folder: Path, *, again: bool = True) -> Fitted:
        """Train in a run folder; a finished run is begun anew with --force, if `again`."""
        prepared = self.prepare(settings)
        for name, value in prepared.description:
            self.reporter.info(f"{name}: {value}")
        options = self.options
        documents: dict[str, Callable[[Path], None]] = {}
        if transfer := prepared.transfer:
            report = json.dumps(transfer.to_json(), indent=2) + "\n"
            documents[TRANSFER_FILE] = lambda path: write_text(path, report, force=True)
        if prepared.save_split:
            documents[SPLIT_FILE] = prepared.save_split
        run = Run(
            folder=folder,
            task=prepared.task,
            settings=settings,
            snapshot=prepared.snapshot,
            fingerprint={**prepared.fingerprint, "dtype": options.dtype},
            workers=prepared.workers,
            world=self.world,
            documents=documents,
        )
        with contextlib.closing(prepared):
            return fit(
                run,
                self.reporter,
                plot_transport if settings.family == "transport" else plot_curves,
                resume=options.resume == "auto",
                replace=options.force,
                again=again,
            )


def plot_transport(path: Path, *_: object) -> None:
    """Draw the four panels of a transport training from the gate's log beside the figure."""
    log = path.parent / GATE_LOG
    if log.exists() and (records := epochs_of(read_gate_log(log, torn=True))):
        draw_transport_curves(records, path)


def finish(save: Path, checkpoints: Checkpoints, *, force: bool) -> None:
    """Write the model file from the best checkpoint."""
    model = checkpoints.result()
    model.training = {k: v for k, v in model.training.items() if k in KEPT}
    model.save(save, force=force)


def summarise(options: Options, folder: Path, fitted: Fitted) -> Summary:
    """What the user reads at the end: the saved model's errors, and how the run went."""
    result, watch = fitted.result, fitted.result.watch
    metrics = fitted.metrics
    units = {name.removeprefix("val/"): u for name, u in fitted.units.items()}
    rows = [[name, value] for name, value in watch.summary(result.steps)]
    title = "validation of the saved model"
    return Summary(
        {
            "model": str(options.save),
            "run": str(folder),
            "steps": result.steps,
            "metrics": metrics,
            "units": {k: units[k] for k in metrics if units.get(k)},
            **watch.summary_data(),
        },
        [
            merit_table(title, metrics)
            if "excess_nats" in metrics
            else error_table(title, metrics, units),
            Table("training", ["", ""], rows),
        ],
        [f"model: {options.save}", f"run folder: {folder}"],
    )


def command_of(options: Options) -> str:
    """The command that makes these weights; where they go is no part of it."""
    words = ["mlff", "train"]
    for file in options.configs:
        words += ["--config", str(file)]
    for name in ("preset", "model", "load", "dtype", "seed"):
        value = getattr(options, name)
        if value is not None and value != getattr(Options, name):
            words += [f"--{name}", str(value)]
    words += ["--compile"] * options.compile
    words += ["--ensemble", str(options.ensemble)] * (options.ensemble > 1)
    return shlex.join([*words, *options.overrides])
