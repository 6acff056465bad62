"""Minimisation of a few parameters over the whole training set, before the first stage: L-BFGS.

    x_{i+1} = x_i + t_i d_i,   d_i = -H_i grad L(x_i),   L(x_i + t_i d_i) < L(x_i)

H_i is built from the last differences of gradients (Liu, Nocedal, Math. Program. 45, 503, 1989),
t_i satisfies the strong Wolfe conditions: torch.optim.LBFGS. The loss falls in every iteration; one
that lowers it by less than the tolerance is the last. L is divided by its first value, since
torch's thresholds are absolute.

x is one vector in float64 on the CPU, whatever the parameters are, and counts each of them in units
of its tensor's root mean square at the start: force constants of hundreds and lengths of some
angstrom weigh alike. The units are powers of two, so that they round nothing. Every process
evaluates its share of L, the shares are summed in the order of the ranks, and all make the same
steps.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.reporting import Reporter
from mlff_cli.training.distributed import World
from mlff_cli.training.run_log import ITERATION
from mlff_cli.training.task import Pretraining
from mlff_cli.training.wording import counted, number

HISTORY = 20  # differences of gradients that H is built from
LINE_SEARCH = 25  # evaluations of one, at most
NOT_FINITE = 1e3  # stands for L(x) / L(x_0) where that is not finite: the search turns back
COLUMNS = (ITERATION, *(f"pretraining/{n}" for n in ("loss", "gradient", "evaluations")))


class Stopped(Exception):
    """Somebody was asked to stop during an iteration, which is given up."""


class Minimiser:
    """Minimises one objective, an iteration at a time, and continues exactly.

    Args:
        pretraining: what is minimised.
        model: whose other parameters rest meanwhile.
        world: the processes that share the work.
        stop: whether this process was asked to stop.

    Attributes:
        iteration: iterations done.
        losses: L at the start and after each iteration.
        evaluations: of L and its gradient so far.
        ended: why it is over; "" where it is not.
    """

    def __init__(
        self,
        pretraining: Pretraining,
        model: nn.Module,
        world: World,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pretraining = pretraining
        self._parameters = list(pretraining.parameters)
        self._model = model
        self._world = world
        self._stop = stop
        with torch.no_grad():
            flat = [p.detach().reshape(-1).double().cpu() for p in self._parameters]
            self._unit = torch.cat([torch.full_like(v, _unit(v)) for v in flat])
            self._x = nn.Parameter(torch.cat(flat) / self._unit)
        self._optimizer = self._new_optimizer()
        self._gradient = torch.zeros_like(self._x.data)  # of L at x
        self._known: list[tuple[Tensor, float, Tensor]] = []  # x, L, gradient of this iteration
        self.iteration = 0
        self.losses: list[float] = []
        self.evaluations = 0
        self.ended = ""

    def _new_optimizer(self) -> torch.optim.LBFGS:
        return torch.optim.LBFGS(
            [self._x],
            lr=1.0,
            max_iter=1,
            max_eval=LINE_SEARCH + 1,
            tolerance_grad=0.0,
            tolerance_change=1e-14,
            history_size=HISTORY,
            line_search_fn="strong_wolfe",
        )

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return bool(self.ended)

    def state(self) -> dict[str, Any]:
        """Plain values and tensors to continue from."""
        done = self.finished
        return {
            "iteration": self.iteration,
            "losses": list(self.losses),
            "gradient": self._gradient.clone(),
            "evaluations": self.evaluations,
            "ended": self.ended,
            "unit": self._unit,
            "x": None if done else self._x.detach().clone(),
            "lbfgs": None if done else copy.deepcopy(self._optimizer.state_dict()),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; parameters of what is over stay as they are."""
        self.iteration, self.evaluations = int(state["iteration"]), int(state["evaluations"])
        self.losses, self.ended = [float(loss) for loss in state["losses"]], str(state["ended"])
        self._gradient = state["gradient"].clone()
        if not self.finished:
            self._unit = state["unit"]
            self._x.data.copy_(state["x"])
            self._optimizer = self._new_optimizer()
            self._optimizer.load_state_dict(state["lbfgs"])
            self._set(self._x)

    def row(self) -> dict[str, float]:
        """Where the minimisation stands, for the run's log."""
        largest = float(self._gradient.abs().max())
        values = (self.iteration, self.losses[-1], largest, self.evaluations)
        return dict(zip(COLUMNS, values, strict=True))

    def run(self, reporter: Reporter, keep: Callable[[Mapping[str, float] | None], None]) -> bool:
        """Minimise to the end; every process must call it.

        Args:
            reporter: who is told.
            keep: writes the row of an iteration, and what is needed to continue; where the
                minimisation was stopped there is no row.

        Returns:
            Whether it came to its end.

        Raises:
            NumericalError: the objective is not finite where it begins.
        """
        if not self.finished and not self._run(reporter, keep):
            return False
        self._pretraining.then()
        return True

    def _run(self, reporter: Reporter, keep: Callable[[Mapping[str, float] | None], None]) -> bool:
        name = self._pretraining.name
        try:
            with reporter.progress(self._pretraining.steps, name, "iterations") as bar:
                bar.skip(self.iteration)
                while not self.finished:
                    begun = bool(self.losses)
                    (self.step if begun else self.start)()
                    bar.advance(int(begun), loss=number(self.losses[-1], 6))
                    keep(self.row())
        except Stopped:
            keep(None)
            return False
        reporter.info(
            f"{name}: loss {number(self.losses[0], 6)} -> {number(self.losses[-1], 6)} in "
            f"{counted(self.iteration, 'iteration')} ({self.evaluations} evaluations): {self.ended}"
        )
        for row, value in self._pretraining.report():
            reporter.info(f"{row}: {value}")
        return True

    def start(self) -> None:
        """Evaluate the objective where it begins; every process must call it.

        Raises:
            NumericalError: it is not finite there.
            Stopped: some process was asked to stop.
        """
        with self._alone():
            loss, gradient = self._evaluate(self._x.detach())
        if not (math.isfinite(loss) and bool(torch.isfinite(gradient).all())):
            raise NumericalError(
                f"the loss of the pre-training {self._pretraining.name!r} is {loss} at its start, "
                "or its gradient is not finite",
                remedy="look at the parameters that it begins with, and at forces and geometries "
                "of the training set",
            )
        self.losses, self._gradient = [loss], gradient
        self._judge()

    def step(self) -> None:
        """Make one iteration; every process must call it. One that is stopped leaves no trace.

        Raises:
            Stopped: some process was asked to stop; the same step can be made again.
        """
        before = self.state()
        self._known = [(self._x.detach().clone(), self.losses[-1], self._gradient)]
        try:
            with self._alone():
                self._optimizer.step(self._closure)  # type: ignore[no-untyped-call]
                loss, gradient = self._evaluate(self._x.detach())
        except Stopped:
            self.load(before)
            raise
        if loss < self.losses[-1]:
            self._gradient = gradient
        else:  # rounding: the line search found nothing below
            loss = self.losses[-1]
            self._x.data.copy_(before["x"])
        self._set(self._x)
        self.iteration += 1
        self.losses.append(loss)
        self._judge()

    def _judge(self) -> None:
        """Say why it is over, if it is."""
        limits = self._pretraining
        fell = self.losses[-2] - self.losses[-1] if len(self.losses) > 1 else math.inf
        if not self._gradient.any():
            self.ended = "the gradient is zero"
        elif fell <= limits.tolerance * abs(self.losses[-1]):
            self.ended = f"the loss falls by less than {limits.tolerance:g} of itself"
        elif self.iteration >= limits.steps:
            self.ended = f"{limits.steps} iterations are done"

    def _closure(self) -> float:
        loss, gradient = self._evaluate(self._x.detach())
        scale = self.losses[0] or 1.0
        if not (math.isfinite(loss) and bool(torch.isfinite(gradient).all())):
            self._x.grad = torch.zeros_like(self._x)
            return NOT_FINITE
        self._x.grad = gradient / abs(scale)
        return loss / abs(scale)

    def _evaluate(self, x: Tensor) -> tuple[float, Tensor]:
        """L and its gradient at x (P,), over all processes; known points are not computed again."""
        for known, loss, gradient in self._known:
            if torch.equal(known, x):
                return loss, gradient.clone()
        self._set(x)
        for parameter in self._parameters:
            parameter.grad = None
        with torch.enable_grad():
            share = self._pretraining.objective()
        gradients = [
            (torch.zeros_like(p) if p.grad is None else p.grad).detach().reshape(-1).double().cpu()
            for p in self._parameters
        ]
        head = torch.tensor([float(share), float(self._stop())], dtype=torch.float64)
        total = self._world.sum_(torch.cat([head, *gradients]))  # [L, stop, gradient...]
        if total[1]:
            raise Stopped
        self.evaluations += 1
        loss, gradient = float(total[0]), total[2:] * self._unit
        self._known.append((x.clone(), loss, gradient))
        return loss, gradient.clone()

    @torch.no_grad()
    def _set(self, x: Tensor) -> None:
        """Give the parameters their values."""
        parts = torch.split(x.detach() * self._unit, [p.numel() for p in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let the minimised parameters alone have gradients, and leave none behind."""
        everything = {id(p): p for p in (*self._model.parameters(), *self._parameters)}
        flags = {key: p.requires_grad for key, p in everything.items()}
        own = {id(p) for p in self._parameters}
        try:
            for key, parameter in everything.items():
                parameter.requires_grad_(key in own)
            yield
        finally:
            for key, parameter in everything.items():
                parameter.grad = None
                parameter.requires_grad_(flags[key])


def _unit(values: Tensor) -> float:
    """The power of two next to the root mean square of values; 1 where all are zero."""
    size = float(values.square().mean().sqrt())
    return 2.0 ** round(math.log2(size)) if size > 0.0 and math.isfinite(size) else 1.0
