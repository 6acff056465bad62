"""The four panels of a transport training."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.data.gate_log import Direction, EpochRecord
from mlff_cli.report.transport_curves import (
    MAX_POINTS,
    course_of,
    draw_transport_curves,
    thinned,
    transport_figure,
)


def run(n=60, skipped=()):
    records = []
    for e in range(1, n + 1):
        d = Direction(samples=8, energy=20.0 + 100.0 / e, logdet=11.0 * (1 - 1 / e))
        off = e in skipped
        records.append(
            EpochRecord(
                epoch=e,
                batches=1,
                skipped=int(off),
                loss=None if off else 2 * (d.energy - d.logdet),
                fwd=d,
                inv=Direction(samples=8, energy=18.0 + 90.0 / e, logdet=-10.9 * (1 - 1 / e)),
            )
        )
    return records


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines()}


def test_every_panel_holds_what_it_says():
    records = run()
    total, directions, energies, logdets = transport_figure(records).axes[:4]
    np.testing.assert_allclose(lines(total)["training"].get_ydata(), [r.loss for r in records])
    forward = [r.fwd.energy - r.fwd.logdet for r in records]
    np.testing.assert_allclose(lines(directions)["forward"].get_ydata(), forward)
    inverse = [r.inv.energy for r in records]
    np.testing.assert_allclose(lines(energies)["inverse"].get_ydata(), inverse)
    forward = [r.fwd.logdet for r in records]
    np.testing.assert_allclose(lines(logdets)["forward"].get_ydata(), forward)


@pytest.mark.parametrize(("n", "scale"), [(8, "linear"), (20, "log")])
def test_excess_nats_have_their_own_scale(n, scale):
    """Logarithmic where it spans more than a decade: a shorter one has no ticks to read."""
    records = [EpochRecord(epoch=e, loss=-60.0, excess_nats=1.0 / e) for e in range(1, n + 1)]
    figure = transport_figure(records)
    beside = figure.axes[4]
    np.testing.assert_allclose(beside.get_lines()[0].get_ydata(), [1 / e for e in range(1, n + 1)])
    assert beside.get_yscale() == scale
    figure.draw_without_rendering()
    ticks = [*beside.get_yticklabels(), *beside.get_yticklabels(minor=True)]
    assert sum(bool(t.get_text()) for t in ticks) >= 3


def test_a_skipped_epoch_is_a_gap_in_every_line_and_never_zero():
    skipped = {20, 21, 40}
    for axis in transport_figure(run(skipped=skipped)).axes:
        found = lines(axis)
        for label in {"training", "forward", "inverse"} & found.keys():
            x, y = found[label].get_data()
            assert {int(e) for e in x[np.isnan(y)]} == skipped
        assert {int(e) for e in found["skipped: 3"].get_xdata()} == skipped


def test_what_was_not_logged_is_said():
    records = [EpochRecord(epoch=1), EpochRecord(epoch=2)]
    for axis in transport_figure(records).axes:
        assert [t.get_text() for t in axis.texts] == ["not logged"]
    assert len(transport_figure([]).axes) == 4


def test_means_of_neighbours_keep_a_gap():
    x = np.arange(10.0 * MAX_POINTS)
    y = np.ones_like(x)
    y[5000:5100] = np.nan
    some_x, some_y = thinned(x, y)
    assert len(some_x) == MAX_POINTS
    gone = np.isnan(some_y)
    assert 8 <= gone.sum() <= 10
    assert np.all((some_x[gone] >= 4990) & (some_x[gone] < 5100))
    assert np.all(some_y[~gone] == 1.0)


@pytest.mark.parametrize(("high", "low", "scale"), [(1e13, 2.0, "log"), (1e13, -40.0, "symlog")])
def test_a_scale_that_shows_start_and_end(high, low, scale):
    records = [EpochRecord(epoch=e, loss=v) for e, v in enumerate((high, low), 1)]
    assert transport_figure(records).axes[0].get_yscale() == scale
    assert transport_figure(run()).axes[0].get_yscale() == "linear"


def test_not_finite_is_absent():
    records = [EpochRecord(epoch=e, loss=v) for e, v in enumerate((float("nan"), 1.0, None), 1)]
    assert np.isnan(course_of(records, lambda r: r.loss)).tolist() == [True, False, True]


def test_the_same_records_give_the_same_bytes(tmp_path):
    first, second = tmp_path / "a" / "curves.png", tmp_path / "curves.png"
    for path in (first, second):
        draw_transport_curves(run(skipped={7}), path)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
