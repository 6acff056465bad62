"""What people see of a run: the bar's fields, a line per epoch, the beginning and the end.

    improvement = 1 - val/loss / (the first val/loss of the run)

Nothing here reads or writes: the loop asks, and tells a reporter. Lines of every epoch go into
`train.log`; the terminal has those that `due` names, fewer and fewer as a run grows old.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlff_cli.core.reporting import Table, duration
from mlff_cli.training.clocks import DATA, STEPS, Stopwatch
from mlff_cli.training.settings_logging import LogFrequency
from mlff_cli.training.verdicts import RELATIVE, bounds, conclusions, in_words
from mlff_cli.training.wording import counted, number, ordinal, percent


@dataclass(frozen=True)
class Said:
    """A line about the state of a run.

    Attributes:
        text: the line.
        due: whether it belongs on the terminal, not only into the file.
    """

    text: str
    due: bool


@dataclass(frozen=True)
class Validation:
    """A validation: after which step, its loss and all metrics by name."""

    step: int
    loss: float
    metrics: dict[str, float]


class Watch:
    """Keeps what the numbers are compared with, and words them.

    Args:
        frequency: `log_frequency` of the configuration.
        units: unit of every metric.
        names: metrics to show, as `fid0/E_rmse`, the weightiest first.
        epochs: of the whole run.
        epoch_length: steps of an epoch.
        samples: what a batch holds.
        stages: name of each stage and the steps done at its end; none where there is only one.
        noise_bound: error that noise of the labels makes at most, by metric.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        frequency: LogFrequency,
        units: Mapping[str, str],
        names: Sequence[str],
        epochs: int,
        epoch_length: int,
        *,
        samples: str = "molecules",
        stages: Sequence[tuple[str, int]] = (),
        noise_bound: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = sorted(frequency.console.items())
        self._units = dict(units)
        self._names = list(names)
        self._epochs = epochs
        self._length = epoch_length
        self._samples = samples
        self._stages = list(stages)
        self._noise = dict(noise_bound or {})
        self.stopwatch = Stopwatch(clock)
        self._seen = 0
        self._first: Validation | None = None
        self._best: Validation | None = None
        self._last: Validation | None = None
        self._train: tuple[int, float] | None = None  # step, loss
        self._components: dict[str, float] = {}

    # -- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Plain values to continue from."""
        known = {"first": self._first, "best": self._best, "last": self._last}
        plain = {k: None if v is None else dataclasses.asdict(v) for k, v in known.items()}
        return {"validations": plain, "train": self._train}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        plain = state["validations"]
        known = {k: None if v is None else Validation(**v) for k, v in plain.items()}
        self._first, self._best, self._last = known["first"], known["best"], known["last"]
        self._train = None if state["train"] is None else (state["train"][0], state["train"][1])

    # -- what happens -----------------------------------------------------------------------------

    def trained(self, samples: int) -> None:
        """Count the samples of a step, of all processes."""
        self._seen += samples

    def validated(self, step: int, loss: float, metrics: Mapping[str, float]) -> bool:
        """Take note of a validation; returns whether it is the best so far."""
        self._last = Validation(step, loss, dict(metrics))
        self._first = self._first or self._last
        if self._best is None or loss < self._best.loss:
            self._best = self._last
        return self._best is self._last

    def improvement(self, loss: float) -> float | None:
        """Share by which a validation loss is below the first one; None where that was not > 0."""
        if self._first is None or self._first.loss <= 0.0:
            return None
        return 1.0 - loss / self._first.loss

    @property
    def begun(self) -> bool:
        """Whether there was a validation."""
        return self._first is not None

    @property
    def best_step(self) -> int | None:
        """Steps before the best validation."""
        return self._best.step if self._best else None

    def figures(self, metrics: Mapping[str, float]) -> list[str]:
        """Watched metrics in words."""
        return self._errors(Validation(0, 0.0, dict(metrics)))

    @property
    def improved(self) -> float | None:
        """Improvement of the last validation; None where it is the first, or none was made."""
        first, last = self._first, self._last
        if first is None or last is None or first.step == last.step:
            return None
        return self.improvement(last.loss)

    # -- the bar ----------------------------------------------------------------------------------

    def bar_fields(self, components: Mapping[str, float], lr: float) -> dict[str, str]:
        """What stands beside the bar, the weightiest first.

        Args:
            components: of the training loss since the last log, by name; their sum is the loss.
            lr: learning rate.
        """
        self._components = dict(components) or self._components  # none yet: the last ones stay
        parts = self._components
        fields = {"loss": number(sum(parts.values()))} if parts else {}
        fields["lr"] = number(lr, 3)
        if rate := self._rate():
            fields[f"{self._samples}/s"] = f"{rate:.0f}"
        errors = self._last.metrics if self._last else {}
        fields |= {name: _cell(name, errors[name], 3) for name in self._names if name in errors}
        if len(parts) > 1:
            fields |= {f"{name}_loss": number(p, 3) for name, p in parts.items() if p}
        return fields

    def _rate(self) -> float:
        """Samples per second of steps and waiting for data."""
        seconds = self.stopwatch.seconds()
        busy = seconds[STEPS] + seconds[DATA]
        return self._seen / busy if busy > 0 else 0.0

    # -- lines ------------------------------------------------------------------------------------

    def banner(self, first: int, log_every: int, validate_every: int) -> list[str]:
        """How the run goes on from step `first`, for its beginning."""
        total = self._epochs * self._length
        lines = []
        if first:
            epoch = self._epoch(first)
            lines.append(f"continuing at step {first} of {total}, epoch {epoch} of {self._epochs}")
        lines.append(
            f"{counted(self._epochs, 'epoch')} of {counted(self._length, 'step')}: training loss "
            f"logged {self._often(log_every)}, validation {self._often(validate_every)}"
        )
        if self._stages:
            ends = (f"{name} to epoch {self._epoch(end)}" for name, end in self._stages)
            lines.append(f"stages: {', '.join(ends)}")
        for name, noise in self._noise.items():
            if "/" not in name:
                unit = self._units.get(name, "")
                lines.append(f"noise in {name}: at most {number(noise, 3)} {unit}".rstrip())
        if self._epochs > 1:
            lines.append(f"a line here for {self._shown()}; train.log has all of them")
        return lines

    def line(self, step: int, lr: float, train: float | None = None) -> Said | None:
        """The line of a step at which an epoch ended or a validation was made; else None.

        An epoch's line holds the last numbers of that epoch, whenever they were taken.

        Args:
            step: steps done.
            lr: learning rate.
            train: mean training loss since the last log, where it is logged at this step.
        """
        if train is not None:
            self._train = step, train
        at_end = step % self._length == 0
        validation = self._last
        if validation and validation.step != step and not at_end:
            validation = None
        if not (at_end or validation):
            return None
        epoch = self._epoch(step)
        begun = (epoch - 1) * self._length
        parts = []
        if self._train and self._train[0] > begun:
            parts.append(f"train {number(self._train[1])}")
        first = False
        if validation and validation.step > begun:
            first = bool(self._first and validation.step == self._first.step)
            parts += self._validation(validation, step, first)
        parts += [f"lr {number(lr, 3)}", duration(self.stopwatch.elapsed)]
        at = f"epoch {epoch}/{self._epochs}" + ("" if at_end else f" step {step}")
        at = f"{at} {self.stage(step)}".rstrip()
        last = step == self._epochs * self._length
        return Said(f"{at}: {', '.join(parts)}", last or first or (at_end and self._due(epoch)))

    def _validation(self, validation: Validation, step: int, first: bool) -> list[str]:
        """A validation in words, after `step` steps; the first has nothing to compare with."""
        words = [f"val {number(validation.loss)}"]
        if self._best and validation.step == self._best.step:
            words.append("(best)")
        if validation.step != step:
            words.append(f"at step {validation.step}")
        parts = [" ".join(words), *self._errors(validation)]
        share = None if first else self.improvement(validation.loss)
        return parts if share is None else [*parts, f"improvement {percent(share)}"]

    def stage(self, step: int) -> str:
        """Name of the stage that made the last of `step` steps; "" where there are none."""
        return next((name for name, end in self._stages if step <= end), "")

    def _errors(self, validation: Validation) -> list[str]:
        """Watched metrics; those of the fidelities together, as `E_rmse fid0 3.2 fid1 4.1 eV`."""
        groups: dict[str, list[str]] = {}
        noise = bounds(validation.metrics, self._noise)
        for name in self._names:
            if name in validation.metrics:
                fidelity, _, metric = name.rpartition("/")
                value = in_words(name, validation.metrics[name], noise.get(name))
                groups.setdefault(metric, []).append(f"{fidelity} {value}".strip())
        # some fidelities lack a label, and their metric of it a unit
        unit = {n.rpartition("/")[2]: u for n in self._names if (u := self._units.get(n))}
        return [f"{m} {' '.join(values)} {unit.get(m, '')}".strip() for m, values in groups.items()]

    def _epoch(self, step: int) -> int:
        return -(-step // self._length)

    def _due(self, epoch: int) -> bool:
        every = [n for start, n in self._every if start <= epoch]
        return bool(every) and epoch % every[-1] == 0

    def _often(self, every: int) -> str:
        """`every` steps in words."""
        epochs, rest = divmod(every, self._length)
        if rest:
            return f"every {every} steps"
        return "every epoch" if epochs == 1 else f"every {epochs} epochs"

    def _shown(self) -> str:
        """The epochs that get a line, in words."""
        words = []
        for start, n in self._every:
            if start <= self._epochs:
                often = "every epoch" if n == 1 else f"every {ordinal(n)}"
                words.append(often if start == 1 else f"{often} from {start} on")
        return ", ".join(words or ["the first and the last epoch"])

    # -- the end ----------------------------------------------------------------------------------

    def summary(self, step: int) -> list[tuple[str, str]]:
        """Rows (name, value) about a run that ended after `step` steps."""
        rows = [("steps", f"{step} ({self._epoch(step)} of {self._epochs} epochs)")]
        if self._best:
            at = f"epoch {self._epoch(self._best.step)}, step {self._best.step}"
            at = at if self._best.step else "before the first step"
            rows.append(("best validation loss", f"{number(self._best.loss)} ({at})"))
            share = self.improvement(self._best.loss)
            if share:
                of = "first" if self._first and self._first.step else "start"
                rows.append((f"improvement from the {of}", percent(share)))
            rows += conclusions(self._best.metrics, self._units, self._noise)
        seconds = self.stopwatch.seconds()
        total = sum(seconds.values())
        rows.append(("time of this session", duration(total)))
        if total > 0:
            rows += [(f"  {k}", f"{100 * s / total:.1f} %") for k, s in seconds.items()]
        if rate := self._rate():
            rows.append((f"{self._samples} per second of training", f"{rate:.0f}"))
        return rows

    def summary_data(self) -> dict[str, Any]:
        """The same as plain values."""
        best = self._best
        return {
            "best_step": best.step if best else None,
            "best_epoch": self._epoch(best.step) if best else None,
            "best_loss": best.loss if best else None,
            "improvement": self.improvement(best.loss) if best else None,
            f"{self._samples}_per_second": self._rate(),
            **({"noise_bound": self._noise} if self._noise else {}),
            "seconds": self.stopwatch.seconds(),
        }

    @property
    def last_metrics(self) -> dict[str, float]:
        """Metrics of the last validation."""
        return dict(self._last.metrics) if self._last else {}

    @property
    def best_metrics(self) -> dict[str, float]:
        """Metrics of the best validation so far."""
        return dict(self._best.metrics) if self._best else {}


def _cell(name: str, error: float, digits: int = 4) -> str:
    return percent(error) if name.endswith(RELATIVE) else number(error, digits)


def error_table(title: str, metrics: Mapping[str, float], units: Mapping[str, str]) -> Table:
    """Validation errors, a row per error and a column per fidelity.

    What is zero everywhere (spin charges of closed shells) was not learned and has no row.

    Args:
        title: of the table.
        metrics: by name, as `E_rmse`, `fid0/E_rmse`, `energy_loss`.
        units: unit by name.
    """
    rows: dict[str, dict[str, float]] = {}
    unit: dict[str, str] = {}
    for name, value in metrics.items():
        of, _, error = name.rpartition("/")
        if error.endswith(("loss", "_mae", "_rmse", RELATIVE)):
            rows.setdefault(error, {})[of] = value
            unit[error] = units.get(name, "")
    wheres = list(dict.fromkeys(of for row in rows.values() for of in row))
    return Table(
        title,
        ["", "unit", *(of or "all" for of in wheres)],
        [
            [error, unit[error], *(_cell(error, row[of]) if of in row else "" for of in wheres)]
            for error, row in rows.items()
            if any(row.values())
        ],
    )
