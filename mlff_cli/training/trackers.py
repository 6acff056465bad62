"""TensorBoard and Weights & Biases, for those who want them: views of the rows of the run log.

A tracker is built from the rows that a resumed run kept, so that it never shows a step twice and
lacks none. It is opt-in: its package is asked for before training begins, and one that fails later
(a network, a full disk) is dropped with one warning while the training goes on.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from mlff_cli.core.artifacts import write_text
from mlff_cli.core.errors import MissingDependencyError
from mlff_cli.core.reporting import Reporter
from mlff_cli.core.runtime import require
from mlff_cli.training.run_log import ITERATION
from mlff_cli.training.settings import TrainingSettings

EXTRA = "track"
TENSORBOARD = "tensorboard"  # folder inside the run folder
WANDB_ID = "wandb_id.txt"  # in the run folder: a resumed run goes on under its name
SUPERSEDED = "superseded"  # folder of offline runs that a later one holds as well
HISTOGRAM_BINS = 64
WANDB_START = 60.0  # seconds that the server may take
WANDB_FINISH = 60.0  # seconds to upload what is left; `wandb sync` sends the rest
# wandb's own messages and reports of its errors; what the user has set stays
WANDB_QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


class Tracker(Protocol):
    """Shows the numbers of a run somewhere."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; steps grow."""

    def close(self) -> None:
        """Send what is left."""


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run.

    Attributes:
        folder: the run folder.
        config: the resolved configuration, as plain values.
        model: what is trained.
        units: unit by name of a number.
        resumed: whether the run began in an earlier session.
        rows: those that a resumed run kept.
    """

    folder: Path
    config: Mapping[str, Any]
    model: nn.Module
    units: Mapping[str, str]
    resumed: bool = False
    rows: Sequence[Mapping[str, Any]] = ()


class TensorBoard:
    """Event files in `tensorboard/` of the run folder, written anew when a run is resumed."""

    def __init__(self, tracked: Tracked) -> None:
        writer = require("torch.utils.tensorboard", EXTRA).SummaryWriter
        folder = tracked.folder / TENSORBOARD
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        first = int(tracked.rows[0]["step"]) if tracked.rows else 0
        # purge_step: a TensorBoard that is open now forgets what the old files said
        self._writer = writer(str(folder), purge_step=first)
        if tracked.units:
            lines = [f"| {name} | {unit} |" for name, unit in tracked.units.items()]
            text = "\n".join(["| number | unit |", "|---|---|", *lines])
            self._writer.add_text("units", text, first)
        for row in tracked.rows:
            self._add(row["step"], numbers(row))
        self._writer.flush()

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        at = int(values.get(ITERATION, step))  # iterations before the first step have no step
        for name, value in values.items():
            self._writer.add_scalar(name, value, at)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; on the disk when this returns."""
        self._add(step, values)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases.

    Online a resumed run goes on under the same id and is sent the rows that the server lacks.
    Offline every session writes a folder of its own, and the newest one holds the whole run.
    `watch_model` logs histograms with the rows instead of hooking into the model as wandb.watch
    does, whose errors would be the training's.
    """

    def __init__(self, tracked: Tracked, settings: TrainingSettings) -> None:
        section = settings.wandb
        self._offline = section.init.mode == "offline"
        self._watch = section.watch_model
        self._model = tracked.model
        self._watched_at = -math.inf
        name = run_id(tracked.folder, new=not tracked.resumed)
        if self._offline:
            set_aside(tracked.folder / "wandb", name)
        config = {**tracked.config, "units": dict(tracked.units)}
        if self._watch and self._watch.log_graph:
            config["modules"] = str(tracked.model)
        self._hooks = sys.exit, sys.excepthook  # wandb replaces them and never puts them back
        with quiet():
            self._wandb: Any = require("wandb", EXTRA)
            try:
                self._run = self._wandb.init(
                    mode=section.init.mode,
                    dir=str(tracked.folder),
                    id=name,
                    resume=None if self._offline else "allow",
                    name=section.init.name or settings.run_name,
                    project=section.init.project or settings.project_name,
                    config=config,
                    **section.init.model_dump(include={"entity", "group", "notes", "tags"}),
                    settings=self._wandb.Settings(
                        console="off",  # the terminal is ours
                        disable_git=True,
                        save_code=False,
                        init_timeout=WANDB_START,
                        finish_timeout=WANDB_FINISH,
                    ),
                )
            except BaseException:
                self._leave()
                raise
        sent = 0 if self._offline else self._run.starting_step
        for row in tracked.rows:
            if row["step"] >= sent and ITERATION not in row:  # its steps grow
                self._run.log(numbers(row), step=row["step"])

    @property
    def place(self) -> str:
        """Where to look."""
        if self._offline:
            return f"wandb sync {Path(self._run.dir).parent}"
        return str(self._run.url)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; another process sends it. Iterations before the first step are not shown."""
        if ITERATION in values:
            return
        row: dict[str, Any] = dict(values)
        if self._watch and self._watch.log and step - self._watched_at >= self._watch.log_freq:
            self._watched_at = step
            for name, parameter in self._model.named_parameters():
                if self._watch.log in ("all", "parameters"):
                    row[f"parameters/{name}"] = self._histogram(parameter)
                if self._watch.log in ("all", "gradients") and parameter.grad is not None:
                    row[f"gradients/{name}"] = self._histogram(parameter.grad)
        self._run.log(row, step=step)

    def _histogram(self, tensor: Tensor) -> Any:
        values = tensor.detach().float().flatten().cpu().numpy()
        return self._wandb.Histogram(np_histogram=np.histogram(values, bins=HISTOGRAM_BINS))

    def close(self) -> None:
        """Send what is left, for at most WANDB_FINISH seconds, and end wandb's processes."""
        with quiet():
            try:
                self._run.finish(exit_code=0)
            finally:
                self._leave()

    def _leave(self) -> None:
        # wandb ends the program where its service ended badly: that is not for it to decide
        with contextlib.suppress(Exception, SystemExit):
            self._wandb.teardown()
        sys.exit, sys.excepthook = self._hooks


def run_id(folder: Path, *, new: bool) -> str:
    """The run's id at Weights & Biases, kept in the run folder."""
    path = folder / WANDB_ID
    if not new and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    name = secrets.token_hex(4)  # not from the seed: ids are unique at the server
    write_text(path, f"{name}\n", force=True)
    return name


def set_aside(folder: Path, name: str) -> None:
    """Move a run's earlier folders out of `wandb sync`'s sight, for the next one holds all."""
    for old in folder.glob(f"offline-run-*-{name}"):
        (folder / SUPERSEDED).mkdir(exist_ok=True)
        old.rename(folder / SUPERSEDED / old.name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let wandb say nothing of its own; the environment is as before afterwards."""
    new = {k: v for k, v in WANDB_QUIET.items() if k not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


class Trackers:
    """All trackers of a run; those that fail are dropped with one warning each.

    Args:
        trackers: by name.
        reporter: hears the warnings.
    """

    def __init__(self, trackers: Mapping[str, Tracker], reporter: Reporter) -> None:
        self._trackers = dict(trackers)
        self._reporter = reporter

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Give every tracker a row."""
        if self._trackers:
            finite = numbers(values)
            self._each(lambda tracker: tracker.log(step, finite))

    def close(self) -> None:
        """Close every tracker."""
        self._each(lambda tracker: tracker.close())
        self._trackers = {}

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                do(tracker)
            except Exception as error:  # whatever a tracker may raise: the training goes on
                del self._trackers[name]
                with contextlib.suppress(Exception):
                    tracker.close()
                self._reporter.warning(f"{dropped(name, error)}; metrics.csv has everything")


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row, without where it stands."""
    return {
        k: float(v)
        for k, v in values.items()
        if k not in ("kind", "step", "epoch", "stage") and math.isfinite(v)
    }


def dropped(name: str, error: Exception) -> str:
    """One line about a tracker that failed."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{name} failed and is left out from here on: {text}"


def check_trackers(settings: TrainingSettings) -> None:
    """Refuse trackers that cannot work, before any data are read.

    Raises:
        MissingDependencyError: a package is absent, or wandb is online without a key.
    """
    if settings.tensorboard:
        require("tensorboard", EXTRA)
    mode = settings.wandb.init.mode
    if mode == "disabled":
        return
    with quiet():
        wandb = require("wandb", EXTRA)
        # prompt=False: a batch job must never wait for somebody to type a key
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise MissingDependencyError(
                "wandb.init.mode is online, and there is no key of Weights & Biases",
                remedy="run `wandb login`, set WANDB_API_KEY, or set wandb.init.mode=offline",
            )


def start_trackers(settings: TrainingSettings, tracked: Tracked, reporter: Reporter) -> Trackers:
    """The trackers that a configuration asks for.

    Args:
        settings: of the run.
        tracked: what they are told of it.
        reporter: hears where to look, and what fails.

    Raises:
        MissingDependencyError: one cannot be started and the run is new. A run that is resumed
            goes on without it.
    """
    kinds: dict[str, Callable[[], Tracker]] = {}
    if settings.tensorboard:
        kinds["tensorboard"] = lambda: TensorBoard(tracked)
    if settings.wandb.init.mode != "disabled":
        kinds["wandb"] = lambda: Wandb(tracked, settings)
    built: dict[str, Tracker] = {}
    for name, make in kinds.items():
        try:
            built[name] = make()
        except Exception as error:
            if tracked.resumed:
                reporter.warning(dropped(name, error))
                continue
            Trackers(built, reporter).close()
            raise MissingDependencyError(
                f"{name} could not be started: {' '.join(str(error).split())}",
                remedy=REMEDIES[name],
            ) from error
        place = getattr(built[name], "place", f"tensorboard --logdir {tracked.folder}")
        reporter.info(f"{name}: {place}")
    return Trackers(built, reporter)


REMEDIES = {
    "tensorboard": "set tensorboard=false",
    "wandb": "check the network and the key, or set wandb.init.mode=offline",
}
