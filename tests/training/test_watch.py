"""What is said of a run, when, and that a resumed run says the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.verdicts import force_verdict
from mlff_cli.training.clocks import (
    DATA,
    FIGURE_SHARE,
    STEPS,
    VALIDATION,
    FigureClock,
    Stopwatch,
)
from mlff_cli.training.settings_logging import LogFrequency
from mlff_cli.training.verdicts import conclusions
from mlff_cli.training.watch import Watch, error_table
from mlff_cli.training.wording import number, percent

UNITS = {"E_rmse": "eV", "fid0/E_rmse": "eV", "fid1/E_rmse": "eV", "fid0/F_rmse": "eV/A"}
NAMES = ("fid0/E_rmse", "fid0/F_rmse", "fid1/E_rmse", "fid1/F_rmse")  # the last has no data
METRICS = {"loss": 1.0, "E_rmse": 0.3, "fid0/E_rmse": 0.2, "fid1/E_rmse": 0.45, "fid0/F_rmse": 1.5}


class Time:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def watch(epochs: int = 200, length: int = 10, **frequency: Any) -> tuple[Watch, Time]:
    time = Time()
    section = LogFrequency.model_validate(frequency)
    return Watch(section, UNITS, NAMES, epochs, length, clock=time), time


def shown_epochs(seen: Watch, epochs: int, length: int, validate_every: int) -> list[int]:
    """Steps whose line is for the terminal."""
    steps = []
    for step in range(1, epochs * length + 1):
        if step % validate_every == 0:
            seen.validated(step, 1.0 / step, METRICS)
        line = seen.line(step, 1e-3)
        if line and line.due:
            steps.append(step)
    return steps


def test_lines_grow_rare_as_the_run_grows_old() -> None:
    seen, _ = watch(epochs=450)
    steps = shown_epochs(seen, 450, 10, 10)
    assert steps == [10 * e for e in (*range(1, 11), *range(20, 101, 10), 200, 300, 400, 450)]


def test_frequent_validations_do_not_flood_the_terminal() -> None:
    seen, _ = watch(epochs=30, length=100)
    steps = shown_epochs(seen, 30, 100, 7)
    assert steps == [7, *(100 * e for e in (*range(1, 11), 20, 30))]


def test_rare_validations_leave_lines_of_the_training_loss() -> None:
    seen, _ = watch(epochs=4)
    lines = [seen.line(step, 1e-3, 0.25) for step in (10, 15)]
    assert lines[0] is not None
    assert lines[0].text.startswith("epoch 1/4: train 0.2500, lr 0.00100")
    assert lines[1] is None


@given(st.dictionaries(st.integers(1, 50), st.integers(1, 20), max_size=4), st.integers(1, 80))
def test_any_frequency_shows_the_first_and_the_last(console: dict[int, int], epochs: int) -> None:
    seen, _ = watch(epochs=epochs, length=3, console=console)
    steps = shown_epochs(seen, epochs, 3, 3)
    assert steps[0] == 3
    assert steps[-1] == 3 * epochs
    for step in steps[1:-1]:
        start = max(k for k in console if 3 * k <= step)
        assert step // 3 % console[start] == 0


def test_a_line_says_what_was_measured() -> None:
    seen, time = watch()
    assert seen.validated(10, 2.0, METRICS)
    first = seen.line(10, 1e-3, 3.5)
    time.now += 75.0
    assert seen.validated(15, 0.5, METRICS)
    assert not seen.validated(20, 1.0, METRICS)
    second = seen.line(20, 1e-3, 1.5)
    assert first is not None
    assert second is not None
    assert first.text == (
        "epoch 1/200: train 3.500, val 2.000 (best), E_rmse fid0 0.200 fid1 0.450 eV, "
        "F_rmse fid0 1.50 eV/A, lr 0.00100, 0:00"
    )
    assert second.text == (
        "epoch 2/200: train 1.500, val 1.000, E_rmse fid0 0.200 fid1 0.450 eV, "
        "F_rmse fid0 1.50 eV/A, improvement 50.0 %, lr 0.00100, 1:15"
    )


def test_a_resumed_run_says_what_an_uninterrupted_one_says() -> None:
    losses = [3.0, 2.0, 2.5, 1.0, 1.5, 0.25]
    whole, _ = watch(epochs=6)
    said = []
    for i, loss in enumerate(losses, 1):
        whole.validated(10 * i, loss, {**METRICS, "loss": loss})
        said.append(whole.line(10 * i, 1e-3))
    for cut in range(1, 6):
        part, _ = watch(epochs=6)
        for i, loss in enumerate(losses[:cut], 1):
            part.validated(10 * i, loss, {**METRICS, "loss": loss})
        resumed, _ = watch(epochs=6)
        resumed.load(part.state())
        assert resumed.bar_fields({}, 1e-3) == part.bar_fields({}, 1e-3)
        for i, loss in enumerate(losses[cut:], cut + 1):
            resumed.validated(10 * i, loss, {**METRICS, "loss": loss})
            assert resumed.line(10 * i, 1e-3) == said[i - 1]
        assert resumed.summary(60) == whole.summary(60)
        assert resumed.summary_data() == whole.summary_data()


def test_errors_have_their_verdict_whether_or_not_their_noise_is_bounded() -> None:
    errors = {"loss": 1.0, "F_rmse": 5.0, "F_relative": 0.6, "x/F_rmse": 4.0, "x/F_relative": 0.2}
    for noise, rmse, relative in (
        ({}, "F_rmse 5.00 x 4.00 kcal/mol/A", "F_relative 60.0 % (poor) x 20.0 % (good)"),
        (
            {"F_rmse": 4.0, "x/F_rmse": 3.0},
            "F_rmse 5.00 (noise at most 4.00) x 4.00 (noise at most 3.00) kcal/mol/A",
            "F_relative 60.0 % (poor; noise at most 48.0 %) x 20.0 % (good; noise at most 15.0 %)",
        ),
    ):
        seen = Watch(
            LogFrequency(),
            {"F_rmse": "kcal/mol/A"},
            list(errors)[1:],
            4,
            10,
            stages=[("first", 20), ("second", 40)],
            noise_bound=noise,
            samples="frames",
        )
        told = [line for line in seen.banner(0, 1, 1) if "noise" in line]
        assert told == (["noise in F_rmse: at most 4.00 kcal/mol/A"] if noise else [])
        seen.validated(20, 1.0, errors)
        line = seen.line(20, 1e-3)
        assert line is not None
        assert line.text.startswith("epoch 2/4 first: val 1.000")
        assert f"{rmse}, {relative}" in line.text
        assert [seen.stage(s) for s in (1, 20, 21, 40)] == ["first"] * 2 + ["second"] * 2
        rows = dict(seen.summary(20))
        assert rows["F error by the reference"].startswith("60.0 %: poor (<= 20 % good")
        assert ("not noise, at least" in rows) is bool(noise)
        if noise:  # sqrt(5^2 - 4^2) = 3, of a reference of 5 / 0.6; no verdict of a lower bound
            assert rows["noise in F_rmse, at most"] == "4.00 kcal/mol/A"
            assert rows["not noise, at least"] == "3.00 kcal/mol/A, 36.0 % of the reference"
            assert seen.summary_data()["noise_bound"] == noise
        assert "frames_per_second" in seen.summary_data()


def test_an_error_within_the_bound_on_noise_is_not_excused() -> None:
    rows = dict(
        conclusions({"F_rmse": 3.9, "F_relative": 0.97}, {"F_rmse": "eV/A"}, {"F_rmse": 4.0})
    )
    assert rows["F error by the reference"].startswith("97.0 %: poor")
    assert rows["how much is noise"].startswith("not known")
    assert "not noise, at least" not in rows


@given(st.floats(0.0, 2.0))
def test_verdicts_are_those_of_the_thresholds(relative: float) -> None:
    word = force_verdict(relative)
    assert (word == "good") == (relative <= 0.2)
    assert (word == "fair") == (0.2 < relative <= 0.3)
    assert (word == "poor") == (relative >= 0.5)


def test_the_banner_says_what_will_be_shown() -> None:
    seen, _ = watch(epochs=200, length=50)
    assert seen.banner(0, 500, 50) == [
        "200 epochs of 50 steps: training loss logged every 10 epochs, validation every epoch",
        "a line here for every epoch, every 10th from 11 on, every 100th from 101 on; "
        "train.log has all of them",
    ]
    assert seen.banner(120, 20, 50)[:2] == [
        "continuing at step 120 of 10000, epoch 3 of 200",
        "200 epochs of 50 steps: training loss logged every 20 steps, validation every epoch",
    ]


def test_a_loss_below_zero_has_no_percentage() -> None:
    seen, _ = watch()
    seen.validated(10, -1.0, METRICS)
    seen.validated(20, -2.0, METRICS)
    line = seen.line(20, 1e-3)
    assert line is not None
    assert "improvement" not in line.text
    assert seen.summary_data()["improvement"] is None


def test_an_epoch_ends_with_the_last_numbers_of_the_epoch() -> None:
    seen, _ = watch()
    seen.validated(7, 2.0, METRICS)
    seen.line(7, 1e-3, 3.0)
    seen.validated(14, 1.0, METRICS)
    within = seen.line(14, 1e-3, 1.5)
    resumed, _ = watch()
    resumed.load(seen.state())
    for one in (seen, resumed):
        assert one.line(19, 1e-3, 1.25) is None
        end = one.line(20, 1e-3)
        assert end is not None
        assert end.due
        assert end.text.startswith("epoch 2/200: train 1.250, val 1.000 (best) at step 14, E_rmse")
        third = one.line(30, 1e-3)
        assert third is not None
        assert third.text == "epoch 3/200: lr 0.00100, 0:00"
    assert within is not None
    assert not within.due
    assert within.text.startswith("epoch 2/200 step 14: train 1.500, val 1.000 (best), E_rmse")


def test_the_bar_names_the_weightiest_first() -> None:
    seen, time = watch()
    seen.validated(10, 1.0, METRICS)
    seen.trained(640)
    time.now += 4.0
    start = time.now
    time.now += 6.0
    seen.stopwatch.claim(VALIDATION, start)
    fields = seen.bar_fields({"energy": 0.5, "forces": 0.25}, 2e-3)
    assert list(fields) == [
        "loss", "lr", "molecules/s", *NAMES[:3], "energy_loss", "forces_loss",
    ]  # fmt: skip
    assert fields["loss"] == "0.7500"
    assert fields["molecules/s"] == "160"  # without the validation's time


@given(st.lists(st.tuples(st.sampled_from([DATA, VALIDATION]), st.floats(0, 50)), max_size=20))
def test_the_kinds_of_time_add_up(spans: list[tuple[str, float]]) -> None:
    time = Time()
    stopwatch = Stopwatch(time)
    for kind, seconds in spans:
        start = time.now
        time.now += seconds
        stopwatch.claim(kind, start)
        time.now += 1.0
    found = stopwatch.seconds()
    assert sum(found.values()) == pytest.approx(stopwatch.elapsed)
    assert found[STEPS] == pytest.approx(len(spans))
    assert found[DATA] == pytest.approx(sum(s for kind, s in spans if kind == DATA))


@given(cost=st.floats(0.0, 30.0), every=st.floats(0.5, 100.0))
def test_drawing_stays_below_its_share(cost: float, every: float) -> None:
    time = Time()
    figure = FigureClock(every, time)
    start, spent = time.now, 0.0
    while time.now < start + 5_000.0:
        time.now += 0.5
        if figure.due:
            began = time.now
            time.now += cost
            spent += cost
            figure.drawn(began)
    assert spent <= FIGURE_SHARE * (time.now - start) + cost


def test_the_table_has_a_column_per_fidelity_and_no_empty_rows() -> None:
    metrics = {**METRICS, "s_rmse": 0.0, "fid0/s_rmse": 0.0, "E_r2": 0.9, "spin_loss": 0.0}
    table = error_table("errors", metrics, UNITS)
    assert table.columns == ["", "unit", "all", "fid0", "fid1"]
    assert table.rows == [
        ["loss", "", "1.000", "", ""],
        ["E_rmse", "eV", "0.3000", "0.2000", "0.4500"],
        ["F_rmse", "eV/A", "", "1.500", ""],
    ]


@given(st.floats(1e-6, 1.0))
def test_a_percentage_never_rounds_to_a_hundred_before_it_is_there(rest: float) -> None:
    text = percent(1.0 - rest)
    assert math.isclose(
        float(text.removesuffix(" %")) / 100, 1.0 - rest, abs_tol=0.051 * rest + 5e-4
    )
    assert float(text.removesuffix(" %")) < 100.0


@given(st.floats(1e-9, 1e15))
def test_numbers_keep_their_digits(value: float) -> None:
    assert float(number(value)) == pytest.approx(value, rel=5.1e-4)
