"""`mlff train`: data and configuration in, model file and run folder out.

`--save a/model.pt` makes `a/model.run/` at once and `a/model.pt` at the end. A run that was stopped
continues when the same command is given again.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from omegaconf import OmegaConf

from mlff_cli.core.artifacts import check_writable, write_text
from mlff_cli.core.config import MISSING, load_config, merge, parse_override, read_yaml
from mlff_cli.core.errors import (
    ConfigError,
    InterruptedRunError,
    UsageError,
)
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.core.runtime import interruptible
from mlff_cli.core.workers import available_cores
from mlff_cli.data.model_file import load_plain
from mlff_cli.deploy.predictor import resolve_device
from mlff_cli.families.base import Family, Inputs, Prepared
from mlff_cli.families.multifidelity import MultiFidelity
from mlff_cli.report.curves import plot_curves
from mlff_cli.training.checkpoints import Checkpoints
from mlff_cli.training.loop import FitResult, Loop
from mlff_cli.training.optimizers import build_optimizer, freeze
from mlff_cli.training.run_log import FileReporter, RunLog
from mlff_cli.training.schedules import Schedule
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.transfer import load_weights

FAMILIES: dict[str, Family] = {"multifidelity": MultiFidelity()}
PRESETS = ("default", "small")
RUN_SUFFIX = ".run"  # of the folder beside the model file
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


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


def run(options: Options, reporter: Reporter | None = None) -> Summary:
    """Train a model.

    Raises:
        ConfigError: the configuration is wrong, or an unfinished run was started differently.
        UsageError: the model file exists and `force` is off, or there are several processes.
        MissingDependencyError: the device is absent.
        DataError: a data file holds something it must not.
        NumericalError: the loss is not finite.
        InterruptedRunError: stopped on request; the same call continues.
    """
    reporter = reporter or NullReporter()
    refuse_several_processes()
    check_writable(options.save, force=options.force)
    if options.save.suffix == RUN_SUFFIX:
        raise UsageError(
            f"{RUN_SUFFIX!r} is the suffix of run folders",
            where=str(options.save),
            remedy="call the model file .pt",
        )
    device, dtype = torch.device(resolve_device(options.device)), choose_dtype(options.dtype)
    family, settings = configure(options)
    with threads():
        inputs = Inputs(options.model, options.load, device, dtype, command_of(options))
        prepared = family.prepare(settings, inputs, reporter)
        read = [p for p in prepared.fingerprint["inputs"] if p != str(options.load)]
        check_writable(options.save, force=options.force, inputs=read)
        for warning in prepared.warnings:
            reporter.warning(warning)
        loaded = start_from(options.load, prepared)
        table = Table("training", ["", ""], [[a, b] for a, b in prepared.description + loaded])
        optimizer = build_optimizer_for(prepared, settings)
        schedule = Schedule(
            optimizer,
            settings.scheduler,
            settings.optimizer.kwargs.lr,
            settings.trainer.epochs * prepared.task.epoch_length,
            prepared.task.epoch_length,
        )
        if options.dry_run:
            plain = settings.model_dump(mode="json", by_alias=True)
            plan = {"plan": dict(prepared.description + loaded), "config": plain}
            return Summary(plan, [table], [yaml.safe_dump(plain, sort_keys=False).rstrip()])
        for name, value in prepared.description + loaded:
            reporter.info(f"{name}: {value}")
        return _train(options, settings, prepared, optimizer, schedule, reporter)


def _train(
    options: Options,
    settings: TrainingSettings,
    prepared: Prepared,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    reporter: Reporter,
) -> Summary:
    """Run the loop in its folder and write the results."""
    task = prepared.task
    folder = options.save.with_suffix(RUN_SUFFIX)
    fingerprint = {**prepared.fingerprint, "dtype": options.dtype}
    checkpoints = Checkpoints(folder, settings.checkpoint, prepared.snapshot, fingerprint)
    again = options.resume == "auto"
    checkpoint = checkpoints.resume(replace=options.force) if again else None
    if checkpoint is None:
        checkpoints.clear()
    plain = settings.model_dump(mode="json", by_alias=True)
    write_text(folder / "config.yaml", yaml.safe_dump(plain, sort_keys=False), force=True)
    first = int(checkpoint.training["step"]) if checkpoint else 0
    columns, units = columns_of(prepared, optimizer)
    log = RunLog(folder, columns, units, resume_after=first if checkpoint else None)
    told = FileReporter(reporter, folder / "train.log", append=checkpoint is not None)
    with interruptible() as stop, torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        loop = Loop(
            task, settings, optimizer, schedule, checkpoints, log, told, stop, prepared.workers
        )
        if checkpoint:
            loop.restore(checkpoint)
            told.info(f"continuing at step {first} of {loop.total}")
        result = loop.run(first)
    plot_curves(folder / "loss_curves.png", log.rows, units)
    if result.interrupted:
        raise InterruptedRunError(
            f"stopped at step {result.steps} of {loop.total}; the checkpoint is {checkpoints.last}",
            remedy="give the same command again to continue",
        )
    finish(options, checkpoints)
    return summarise(options, folder, result, units)


def finish(options: Options, checkpoints: Checkpoints) -> None:
    """Write the model file from the best checkpoint."""
    model = checkpoints.result()
    model.training = {k: v for k, v in model.training.items() if k in ("step", "val_loss")}
    model.save(options.save, force=options.force)


def summarise(options: Options, folder: Path, result: FitResult, units: dict[str, str]) -> Summary:
    """What the user reads at the end."""
    metrics = {k: v for k, v in result.metrics.items() if k.endswith(("loss", "_mae", "_rmse"))}
    rows = [[k, f"{v:.5g}", units.get(f"val/{k}", "")] for k, v in metrics.items()]
    return Summary(
        {
            "model": str(options.save),
            "run": str(folder),
            "steps": result.steps,
            "metrics": result.metrics,
            "units": {k: units[f"val/{k}"] for k in metrics if units.get(f"val/{k}")},
        },
        [Table("last validation", ["metric", "value", "unit"], rows)],
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
    return shlex.join([*words, *options.overrides])


# -- configuration --------------------------------------------------------------------------------


def configure(options: Options) -> tuple[Family, Any]:
    """The family and its validated settings.

    Raises:
        ConfigError: see `core.config.load_config`; unknown preset or family.
    """
    if options.preset not in PRESETS:
        raise ConfigError(f"--preset is one of {', '.join(PRESETS)}, found {options.preset!r}")
    layers: list[dict[Any, Any]] = [{"run_name": options.save.stem, "project_name": "mlff"}]
    layers += [_preset(name) for name in dict.fromkeys(("default", options.preset))]
    overrides = [*options.overrides]
    if options.seed is not None:
        overrides.append(f"seed={options.seed}")
    merged: dict[Any, Any] = {}
    for layer in (*layers, *(read_yaml(file) for file in options.configs)):
        merged = merge(merged, layer)
    for override in overrides:
        path, value = parse_override(override)
        if len(path) == 1:
            merged[path[0]] = value
    for name in ("run_name", "project_name"):
        if merged[name] == MISSING:  # aimnet2mult's files leave these for the command line
            overrides.append(f"{name}={layers[0][name]}")
    if not isinstance(merged["family"], str) or merged["family"] not in FAMILIES:
        raise ConfigError(f"family is one of {', '.join(FAMILIES)}, found {merged['family']!r}")
    family = FAMILIES[merged["family"]]
    loaded = load_config(options.configs, overrides, family.schema, defaults=layers)
    return family, loaded.model


def _preset(name: str) -> dict[Any, Any]:
    file = resources.files("mlff_cli.families") / "presets" / f"{name}.yaml"
    values = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
    if not isinstance(values, dict):
        raise TypeError(f"the packaged preset {name} is not a mapping")
    return dict(values)


def refuse_several_processes() -> None:
    """Refuse torchrun and srun, whose processes would all train and write the same files.

    Raises:
        UsageError: this is one of several processes.
    """
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        found = os.environ.get(name, "")
        if found.isdecimal() and int(found) > 1:
            raise UsageError(
                f"distributed training comes in a later version of mlff, found {name}={found}",
                remedy="start one process: `mlff train` without torchrun, srun with --ntasks=1",
            )


def choose_dtype(name: str) -> torch.dtype:
    """The type that `--dtype` names.

    Raises:
        UsageError: unknown name.
    """
    if name not in _DTYPES:
        raise UsageError(f"--dtype is one of {', '.join(_DTYPES)}, found {name!r}")
    return _DTYPES[name]


@contextlib.contextmanager
def threads() -> Iterator[None]:
    """Use every core that this process may, unless OMP_NUM_THREADS says otherwise."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- parts ----------------------------------------------------------------------------------------


def start_from(load: Path | None, prepared: Prepared) -> list[tuple[str, str]]:
    """Load `--load` into the model; returns what to tell the user."""
    if load is None:
        return []
    payload = load_plain(load)
    weights = payload.get("weights", payload.get("model"))
    if not isinstance(weights, dict):
        raise ConfigError("neither a model file of mlff nor a dict with 'model'", where=str(load))
    try:
        weights = prepared.adopt(weights)
    except ConfigError as error:
        error.where = error.where or str(load)
        raise
    done = load_weights(prepared.task.model, weights, str(load))
    text = f"{load}: {len(done.copied)} tensors copied, {len(done.repeated)} repeated per fidelity"
    return [("start from", text)]


def build_optimizer_for(prepared: Prepared, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Freeze what is to be frozen and build the optimizer of the rest."""
    freeze(prepared.task.model, settings.optimizer)
    return build_optimizer(prepared.task.model, settings.optimizer)


def columns_of(
    prepared: Prepared, optimizer: torch.optim.Optimizer
) -> tuple[list[str], dict[str, str]]:
    """Names of all logged numbers, and units of those that have one."""
    losses = ["loss", *(f"{name}_loss" for name in prepared.task.loss.names)]
    units = {f"val/{k}": u for k, u in prepared.task.new_metrics().units.items()}
    columns = [f"train/{name}" for name in losses]
    columns += [f"lr_{i}" for i in range(len(optimizer.param_groups))]
    columns += [f"val/{name}" for name in losses]
    return [*columns, *units], units
