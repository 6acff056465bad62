"""Learning rate range test: which learning rate a training can bear, before it is started.

    lr(t) = lr_min (lr_max / lr_min)^(t / (steps - 1))

The rate rises with every step until the loss diverges. Two rates are read off the curve of the loss
against log10 lr: where it falls most steeply, and a tenth of where it diverges. L. N. Smith,
Cyclical Learning Rates for Training Neural Networks, WACV 2017 (arXiv:1506.01186), section 3.3,
with the exponential rise and the steepest descent of the fastai course (2017). Good rates are not
far below divergence (Y. Bengio, arXiv:1206.5533, section 3.1), and the steepest descent comes early
where a decade lasts few steps. So a tenth of the divergence is suggested, if there is a descent at
all, and the steepest descent where nothing diverged.

Batches differ more than a few steps can change the loss. So every batch is computed with the
initial weights, too, and the curve is y(t) = L(w_t, batch_t) / L(w_0, batch_t), or where a loss is
0, 1 + (L(w_t) - L(w_0)) / <L(w_0)>. What scatter remains decides whether a descent counts: the
slope of a straight line through a decade must be SIGNIFICANT times its standard error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter
from mlff_cli.training.distributed import World
from mlff_cli.training.precision import mixed
from mlff_cli.training.prefetch import ahead
from mlff_cli.training.schedules import Schedule
from mlff_cli.training.settings import TrainerSection
from mlff_cli.training.settings_schedules import SchedulerSection
from mlff_cli.training.stages import Stage
from mlff_cli.training.step import Stepper
from mlff_cli.training.task import Batch, Task

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
FEWEST = 20  # steps below which no slope means anything
NARROWEST = 7  # points of a line
SIGNIFICANT = 6.0  # standard errors; scatter alone passes in less than one test in a hundred
DISTINCT = 3.0  # the same of the steepest line, once it is clear that the loss falls at all
SETTLED = 5  # losses whose median is compared with the best
DIVERGED = 3.0  # divergence: above the best by so many times the best, or the descent to it
MARGIN = 10.0  # between the suggestion and divergence


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        rates: learning rate of each step, of groups whose ratio is 1.
        losses: the training loss before each step's update.
        relative: the same by the loss of the initial weights on the same batch.
        smoothed: the median of `relative` over a decade around each step.
        steepest: the rate of the steepest descent; None where there is none.
        diverged: the rate at which the loss diverged; None where it did not.
        suggestion: None where nothing can be said.
        verdict: all of that in a sentence.
    """

    rates: list[float]
    losses: list[float]
    relative: list[float]
    smoothed: list[float]
    steepest: float | None
    diverged: float | None
    suggestion: float | None
    verdict: str

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def find_learning_rate(
    task: Task,
    optimizer: torch.optim.Optimizer,
    settings: TrainerSection,
    world: World,
    *,
    steps: int = STEPS,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    workers: int = 0,
    reporter: Reporter | None = None,
) -> RangeTest:
    """Make the range test; every process must call it. Weights and optimizer are as before.

    Args:
        task: what to train, batches accumulated where they are to be.
        optimizer: of its parameters; groups keep their ratios.
        settings: `trainer` of the configuration.
        world: the processes that train together.
        steps: how many, at least 20.
        lowest: learning rate of the first.
        highest: of the last, at least a hundred times as high.
        workers: threads that make batches ahead.
        reporter: who is told.

    Raises:
        UsageError: too few steps or too narrow a range.
        NumericalError: the loss is not finite at the first step, before any weight has changed.
    """
    if steps < FEWEST:
        raise UsageError(f"a range test needs at least {FEWEST} steps, found {steps}")
    if not 0 < lowest <= highest / 100 < math.inf:
        raise UsageError(
            f"a range test needs two decades of learning rates, found {lowest:g} to {highest:g}",
            remedy=f"leave them at {LOWEST:g} to {HIGHEST:g}",
        )
    gamma = (highest / lowest) ** (1 / (steps - 1))
    section = SchedulerSection.model_validate(
        {"class": "ExponentialLR", "kwargs": {"gamma": gamma}, "interval": "iteration"}
    )
    rates: list[float] = []
    losses: list[float] = []
    initial: list[float] = []
    diverged = False
    start = copy.deepcopy(task.model).train()
    with _restored(task, optimizer):
        plain = settings.model_copy(update={"ema_decay": None})
        schedule = Schedule(optimizer, section, lowest, steps, 1)
        frozen = [n for n, p in task.model.named_parameters() if not p.requires_grad]
        stage = Stage("", 0, steps, optimizer, schedule, frozenset(frozen))
        stepper = Stepper(task, [stage], plain, world)
        batches = ahead(task.train_batch, 0, steps, workers)
        task.model.train()
        talk = reporter or NullReporter()
        with batches, talk.progress(steps, "range test", "steps") as bar:
            for step, parts in enumerate(batches):
                before = _loss_of(start, task, parts, stepper, settings)
                rates.append(gamma**step * lowest)
                try:
                    sums, counts = stepper(step, parts)
                    stepper.check()
                except NumericalError:
                    if step == 0:  # no weight has changed: it is not the learning rate
                        raise
                    diverged = True
                    break
                losses.append(float(task.loss.parts(sums, counts).sum()))
                initial.append(before)
                bar.advance(1, loss=f"{losses[-1]:.4g}", lr=f"{rates[-1]:.2g}")
                diverged = divergence(_relative(losses, initial)) is not None
                if diverged:
                    break
    steps_per_decade = (steps - 1) / math.log10(highest / lowest)
    return judge(rates, losses, _relative(losses, initial), diverged, steps_per_decade)


def _loss_of(
    model: nn.Module,
    task: Task,
    parts: Sequence[Batch],
    stepper: Stepper,
    settings: TrainerSection,
) -> float:
    """Loss of a model on a batch of all processes, without a step."""
    sums = torch.zeros(2, len(task.loss.names), dtype=torch.float64, device=stepper.device)
    with torch.no_grad(), mixed(settings.precision, stepper.device):
        for part in parts:
            batch = part.to(stepper.device)
            value = task.loss(task.predict(model, batch, False), batch.tensors)
            sums += torch.stack([value.sums, value.counts.to(torch.float64)])
    stepper.world.sum_(sums)
    return float(task.loss.parts(sums[0], sums[1]).sum())


def _relative(losses: Sequence[float], initial: Sequence[float]) -> list[float]:
    """Losses by those of the initial weights on the same batches."""
    pairs = list(zip(losses, initial, strict=True))
    if all(value > 0 for pair in pairs for value in pair):
        return [now / then for now, then in pairs]
    scale = sum(initial) / len(initial) or 1.0
    return [1 + (now - then) / scale for now, then in pairs]


@contextmanager
def _restored(task: Task, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Give back weights, also learned ones of the loss, optimizer, mode and random numbers."""
    model = task.model
    states = [(m, copy.deepcopy(m.state_dict())) for m in (model, task.loss)]
    state, training = copy.deepcopy(optimizer.state_dict()), model.training
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for module, values in states:
                module.load_state_dict(values)
            model.train(training)
            optimizer.zero_grad(set_to_none=True)
            optimizer.load_state_dict(state)


def divergence(curve: Sequence[float]) -> int | None:
    """Step at which the loss left its best for good; None where it did not.

    The median of the last values must be far above the best such median, by the standard of the
    descent so far, and above everything before, by that of the scatter. The step is the first that
    was so far above after the best.
    """
    if len(curve) < 2 * SETTLED:
        return None
    medians = np.median(np.lib.stride_tricks.sliding_window_view(curve, SETTLED), axis=1)  # [t]
    if not medians[-1] > max(_far(medians), *curve[:-SETTLED]):
        return None
    best = int(medians.argmin())
    return next(t for t in range(best, len(curve)) if curve[t] > _far(medians))


def _far(medians: np.ndarray) -> float:
    """What is far above the best of medians: by DIVERGED times itself, or the way down to it."""
    best = float(medians.min())
    return best + DIVERGED * max(abs(best), float(medians[0]) - best)


def judge(
    rates: Sequence[float],
    losses: Sequence[float],
    relative: Sequence[float],
    diverged: bool,
    steps_per_decade: float,
) -> RangeTest:
    """Read a suggestion off a range test's curve.

    Args:
        rates: rising learning rates; one more than losses where the last loss was not finite.
        losses: the loss at each.
        relative: the same by the loss of the initial weights.
        diverged: whether the loss diverged at the end.
        steps_per_decade: which sets the length of the lines.
    """
    n = len(relative)
    limit = None
    if diverged:
        at = divergence(relative)
        limit = rates[n if at is None else at]
    width = max(NARROWEST, round(steps_per_decade))

    def result(smooth: Sequence[float], steepest: float | None, verdict: str) -> RangeTest:
        return RangeTest(
            list(rates[:n]),
            list(losses),
            list(relative),
            list(smooth),
            steepest,
            limit,
            None if steepest is None else _suggest(steepest, limit),
            verdict,
        )

    if n < max(FEWEST, width):
        end = f"diverged at {limit:.2g}" if limit else "ended"
        text = f"the loss {end} after {n} steps, too few to see a descent before: begin lower"
        return result(relative, None, text)
    x, y = np.log10(rates[:n]), np.asarray(relative)  # [t]
    smoothed = _medians(y, width | 1).tolist()
    settled = _medians(y, SETTLED)
    ceiling = 2 * settled[0] - settled.min()  # as far above the start as the best is below it
    slopes, errors = _lines(x, np.minimum(y, ceiling), width)  # [line]
    if not (slopes < -SIGNIFICANT * errors).any():
        end = f"diverges at {limit:.2g}" if limit else f"is still stable at {rates[-1]:.2g}"
        text = (
            f"no descent stands out from the scatter of the batches, and the loss {end}: take "
            "larger batches (batch_size, trainer.accumulate), or trust what trained such a model "
            "before"
        )
        return result(smoothed, None, text)
    first = int(np.argmin(np.where(slopes < -DISTINCT * errors, slopes, np.inf)))
    steepest = float(10 ** x[first : first + width].mean())
    end = f"it diverges at {limit:.2g}" if limit else f"it is stable up to {rates[-1]:.2g}"
    text = f"the loss falls most steeply at {steepest:.2g}, {end}: try {_suggest(steepest, limit)}"
    return result(smoothed, steepest, text)


def _suggest(steepest: float, diverged: float | None) -> float:
    """A rate in two digits: the test knows no more."""
    return float(f"{diverged / MARGIN if diverged else steepest:.1e}")


def _medians(y: np.ndarray, width: int) -> np.ndarray:
    """Median (t,) of every value's `width` neighbours, itself among them; fewer at the ends."""
    half = width // 2
    return np.array([np.median(y[max(0, t - half) : t + half + 1]) for t in range(len(y))])


def _lines(x: np.ndarray, y: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Slope, and its standard error, of least squares lines through every `width` neighbours.

    b = sum (x - <x>)(y - <y>) / sum (x - <x>)^2,    err(b)^2 = sum r^2 / (n - 2) / sum (x - <x>)^2
    """
    window = np.lib.stride_tricks.sliding_window_view
    u, v = window(x, width), window(y, width)  # [line, point]
    du, dv = u - u.mean(1, keepdims=True), v - v.mean(1, keepdims=True)
    spread = (du**2).sum(1)  # [line]
    slope = (du * dv).sum(1) / spread
    residual = dv - slope[:, None] * du
    return slope, np.sqrt((residual**2).sum(1) / (width - 2) / spread)
