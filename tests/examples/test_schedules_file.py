"""Every shipped schedule against a formula, over the whole course of two runs of other lengths."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from mlff_cli.core.config import read_yaml
from mlff_cli.training.schedules import course
from mlff_cli.training.settings_schedules import SchedulerSection, named_schedule
from tests.closed_forms import (
    cosine,
    cycle,
    line,
    one_cycle,
    plateau,
    polygon,
    triangle,
    warm,
)

FOLDER = Path(__file__).parents[2] / "examples" / "multifidelity"
FILE = FOLDER / "schedules.yaml"
LR = 1e-3


class Run:
    """A run of so many epochs of so many iterations."""

    def __init__(self, epochs: int, batches: int) -> None:
        self.epochs, self.batches, self.n = epochs, batches, epochs * batches
        self.losses = [1 / (1 + e) for e in range(epochs // 4)]
        self.losses += [self.losses[-1]] * (epochs - len(self.losses))

    def share(self, percent: float) -> int:
        return max(1, round(self.n * percent / 100))

    def epoch_share(self, percent: float) -> int:
        return max(1, round(self.epochs * percent / 100))

    def epoch(self, s: int) -> int:
        return s // self.batches

    def plateau(self, s: int, factor: float, patience: int) -> float:
        return plateau(self.losses, LR, factor, patience)[self.epoch(s)]


def forces(r: Run, s: int) -> float:
    """A plateau whose counting pauses for 4 validations after a reduction."""
    rate, best, waited, pause = LR, float("inf"), 0, 0
    for value in r.losses[: r.epoch(s)]:
        waited = 0 if value < best * (1 - 1e-3) else waited + 1
        best = min(best, value) if waited == 0 else best
        if pause:
            pause, waited = pause - 1, 0
        if waited > 8:
            rate, waited, pause = max(rate * 0.5, 1e-6), 0, 4
    return rate * warm(s, r.batches)


def restarts(r: Run, s: int) -> float:
    _, t, size = cycle(s, r.share(6.8), 2.0)
    return cosine(t, LR, LR / 100, size)


def fading(r: Run, s: int) -> float:
    k, t = divmod(s, r.share(20))
    return 0.5**k * cosine(t, 1e-3, 1e-5, r.share(20))


def soft_restarts(r: Run, s: int) -> float:
    down, up = r.share(25), r.share(12.5)
    t = s % (down + up)
    return cosine(t, 1e-3, 1e-5, down) if t <= down else line(t - down, 1e-5, 1e-3, up)


def warm_restarts(r: Run, s: int) -> float:
    _, t, size = cycle(s, r.share(14.5), 2)
    return cosine(t, LR, 1e-6, size)


def triangular2(r: Run, s: int) -> float:
    size = 2 * r.share(10)
    return 1e-4 + triangle(s, 0.0, 9e-4, size) * 0.5 ** (s // size)


def exploring(r: Run, s: int) -> float:
    first, rest = r.share(30), r.n - r.share(30)
    if s < first:
        return cosine(s % r.share(10), 1e-3, 1e-4, r.share(10))
    return cosine(s - first, 5e-4, 1e-6, rest)


def transfer(r: Run, s: int) -> float:
    first = r.share(10)
    if s < first:
        return line(s, 1e-6, 2e-4, first)
    return cosine(s - first, 2e-4, 1e-6, r.n - first)


def sequence(r: Run, s: int) -> float:
    e, first = r.epoch(s), r.epoch_share(5)
    if e < first:
        return LR * line(e, 0.1, 1.0, first)
    return cosine(e - first, LR, 1e-6, r.epochs - first)


def down(r: Run, s: int) -> float:
    return line(s, 1e-3, 1e-5, r.n) * warm(s, r.share(2))


def trapezoid(r: Run, s: int) -> float:
    return polygon(s, [(r.share(80), 1e-3), (r.n, 1e-5)]) * warm(s, r.share(5))


def milestones(r: Run, s: int) -> float:
    e = r.epoch(s)
    return LR * 0.1 ** ((e >= r.epoch_share(50)) + (e >= r.epoch_share(75)))


def damped(r: Run, s: int) -> float:
    e = r.epoch(s)
    return LR * 0.99**e * 0.3 ** ((e >= r.epoch_share(50)) + (e >= r.epoch_share(80)))


FORMULAS: dict[str, Callable[[Run, int], float]] = {
    "constant": lambda r, s: LR,
    "cosine": lambda r, s: cosine(s, LR, LR / 100, r.n),
    "warmup_cosine": lambda r, s: cosine(s, LR, LR / 100, r.n) * warm(s, r.share(5)),
    "plateau": lambda r, s: r.plateau(s, 0.5, 10),
    "plateau_gentle": lambda r, s: r.plateau(s, 0.9, 2),
    "plateau_forces": forces,
    "cosine_restarts": restarts,
    "cosine_fading": fading,
    "cosine_soft_restarts": soft_restarts,
    "warm_restarts": warm_restarts,
    "triangular": lambda r, s: triangle(s, 1e-4, 1e-3, r.share(25)),
    "sawtooth": lambda r, s: line(s % r.share(25), 1e-3, 1e-5, r.share(25)),
    "triangular2": triangular2,
    "one_cycle": lambda r, s: one_cycle(s, 2e-3, r.n),
    "linear": down,
    "trapezoid": trapezoid,
    "milestones": milestones,
    "staircase": lambda r, s: LR * 0.8 ** (r.epoch(s) // r.epoch_share(5)),
    "exponential": lambda r, s: LR * 0.98 ** r.epoch(s) * warm(s, r.batches),
    "polynomial": lambda r, s: LR * (1 - r.epoch(s) / r.epochs) ** 2,
    "transfer": transfer,
    "explore_then_settle": exploring,
    "linear_warmup_then_decay": sequence,
    "damped_steps": damped,
}
ENDS = {"plateau": 1e-6, "plateau_gentle": 1e-7, "exponential": 1e-6}  # by terminate_on_low_lr


def section(name: str) -> SchedulerSection:
    return SchedulerSection.model_validate(named_schedule(f"{FILE}:{name}"))


def test_the_file_and_the_formulas_name_the_same() -> None:
    assert list(read_yaml(FILE)) == list(FORMULAS)
    assert len(FORMULAS) >= 15


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("run", [Run(100, 20), Run(40, 25)], ids=["100 x 20", "40 x 25"])
def test_a_shipped_schedule_follows_its_formula_to_the_end(name: str, run: Run) -> None:
    validation = {(e + 1) * run.batches: loss for e, loss in enumerate(run.losses)}
    found = course(section(name), LR, run.n, run.batches, validation)
    assert len(found) == run.n  # none ends these runs early
    expected = [FORMULAS[name](run, s) for s in range(run.n)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-16)


@pytest.mark.parametrize("name", ENDS)
def test_a_schedule_that_may_end_a_run_does_so(name: str) -> None:
    run = Run(2000, 1)
    validation = {(e + 1) * run.batches: loss for e, loss in enumerate(run.losses)}
    found = course(section(name), LR, run.n, run.batches, validation)
    low = [s for s in range(run.n) if FORMULAS[name](run, s) < ENDS[name]]
    watched = section(name).kind.interval == "validation"  # learns of it before the step
    assert len(found) == low[0] + (0 if watched else 1)


@pytest.mark.parametrize("name", FORMULAS)
def test_no_shipped_schedule_ends_high(name: str) -> None:
    if name in ("constant", "exponential") or name.startswith("plateau"):
        pytest.skip("does not know the run's length")
    for run in (Run(100, 20), Run(15, 100)):
        rates = course(section(name), LR, run.n, run.batches)
        assert rates[-1] <= 0.15 * max(rates)


def test_the_figure_is_drawn_from_the_file(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("plot", FOLDER / "plot_schedules.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.courses(FILE, LR, 20, 5)
    assert list(found) == list(FORMULAS)
    assert found["cosine"] == pytest.approx([cosine(s, LR, LR / 100, 100) for s in range(100)])
    few = {name: found[name] for name in ("cosine", "plateau")}
    script.plot_schedules(tmp_path / "a.png", few, 5)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
