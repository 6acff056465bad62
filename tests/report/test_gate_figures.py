"""Figures of the energy gate hold what the rules watched."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.report.gate_figures import _running_mean, comparison_figure, gate_figure
from mlff_cli.report.gate_rules import RULES, judge
from mlff_cli.report.gate_run import GateRun
from mlff_cli.report.gate_tables import sparkline
from tests.report.gate_logs import CASES, edit, healthy, without


def judged(records, name="run"):
    run = GateRun(name, records)
    return run, judge(run)


def line(axis, label):
    return next(one for one in axis.get_lines() if one.get_label() == label)


def test_a_panel_per_rule_with_its_verdict():
    run, judgements = judged(CASES["energies", "failed"]())
    axes = gate_figure(run, judgements).axes
    assert len(axes) == len(RULES) + 1
    for axis, judgement in zip(axes, judgements, strict=False):
        assert axis.get_title("left").lower().startswith(judgement.rule.name)
        assert axis.get_title("right") == judgement.verdict
    medians = [r.fwd.q50 for r in run.records]
    drawn = line(axes[3], "forward").get_ydata()
    assert drawn.min() >= min(medians)
    assert drawn.max() == pytest.approx(max(medians))
    assert axes[3].get_yscale() == "log"


def test_runs_lie_over_each_other_under_their_names():
    one, other = judged(healthy(60), "gated"), judged(edit(healthy(60), skipped=4), "ungated")
    axes = comparison_figure([one[0], other[0]], [one[1], other[1]]).axes
    np.testing.assert_array_equal(line(axes[1], "gated").get_ydata(), 0.0)
    np.testing.assert_array_equal(line(axes[1], "ungated").get_ydata(), 100.0)


def test_a_log_without_keys_is_drawn_as_not_logged():
    figure = gate_figure(*judged(without(healthy(30), "fwd.q50")))
    assert "not judged" in figure.axes[3].get_title("right")
    empty = gate_figure(*judged(without(without(healthy(30), "loss"), "E_max")))
    assert [t.get_text() for t in empty.axes[2].texts] == ["not logged"]
    assert [t.get_text() for t in empty.axes[-1].texts] == ["not logged"]


def test_running_means_are_those_of_what_is_known():
    y = np.array([1.0, np.nan, 3.0, 5.0, np.nan, np.nan])
    expected = [np.nanmean(y[max(0, i - 1) : i + 1]) if i < 5 else np.nan for i in range(6)]
    np.testing.assert_allclose(_running_mean(y, 2), expected)
    np.testing.assert_allclose(_running_mean(y[:1], 20), [1.0])


def test_a_sparkline_of_many_decades_is_logarithmic():
    assert sparkline(10.0 ** np.arange(8)) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.full(5, 3.0)) == "▁▁▁▁▁"
    assert sparkline(np.full(3, np.nan)) == ""
    assert len(sparkline(np.arange(1000.0))) == 24
