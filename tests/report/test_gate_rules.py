"""The rules of the gate on made-up logs: every rule in every verdict, and their bounds."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mlff_cli.report.gate_energies import _explosion
from mlff_cli.report.gate_rules import RULES, judge, verdict_of
from mlff_cli.report.gate_run import GateRun
from mlff_cli.report.gate_volume import _smallest_spread
from tests.report.gate_logs import CASES, SAMPLES, edit, healthy, without


def found(records, planned=None):
    return {j.rule.name: j for j in judge(GateRun("run", records, planned))}


def verdicts(records, planned=None):
    return {name: j.verdict for name, j in found(records, planned).items()}


@pytest.mark.parametrize("n", [1500, 300, 3000])
def test_a_healthy_run_is_healthy_by_every_rule(n):
    judgements = judge(GateRun("run", healthy(n)))
    assert {
        j.rule.name: (j.verdict, j.finding.figure) for j in judgements if j.verdict != "healthy"
    } == {}
    assert verdict_of(judgements) == "healthy"
    assert all(j.remedy is None for j in judgements)


@pytest.mark.parametrize(("rule", "verdict"), CASES)
def test_each_rule_gives_each_of_its_verdicts(rule, verdict):
    judgement = found(CASES[rule, verdict]())[rule]
    assert judgement.verdict == verdict, judgement.finding.figure
    assert judgement.remedy == next(r.remedy for r in RULES if r.name == rule)


def test_the_table_has_a_log_for_each_verdict_of_each_rule():
    stated = {
        (rule.name, verdict)
        for rule in RULES
        for verdict, text in (("warning", rule.warning), ("failed", rule.failed))
        if text != "-"
    }
    assert set(CASES) == stated


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_whose_key_is_missing_is_not_judged(rule):
    own = {"loss", "batches", "skipped"}
    for key in rule.keys:
        for name in [key] if key in own else [f"fwd.{key}", f"inv.{key}"]:
            judgement = found(without(healthy(60), name))[rule.name]
            assert judgement.verdict == "not judged"
            assert name in judgement.finding.figure
            assert judgement.remedy is None


def test_a_rule_without_its_key_does_not_even_fail():
    records = without(CASES["energies", "failed"](), "inv.q95")
    assert verdicts(records)["energies"] == "not judged"


def test_too_few_epochs_are_not_judged_and_never_passed():
    seen = verdicts(healthy(12))
    assert {"loss", "energies", "log-det", "saturation", "direction balance"} <= {
        rule for rule, verdict in seen.items() if verdict == "not judged"
    }


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.0, "healthy"), (0.10, "healthy"), (0.20, "healthy"), (0.21, "warning")],
)
def test_regularized_share_warns_strictly_above_a_fifth(share, verdict):
    records = edit(healthy(), both={"samples": 100, "regularized": round(100 * share)})
    assert verdicts(records)["regularized share"] == verdict


def test_regularized_share_counts_clamped_samples_and_only_the_last_two_thirds():
    both = {"samples": 100, "regularized": 11, "clamped": 10}
    assert verdicts(edit(healthy(), both=both))["regularized share"] == "warning"
    assert verdicts(edit(healthy(), last=500, both=both))["regularized share"] == "healthy"
    # a run that goes wrong at its end has a low mean
    assert verdicts(edit(healthy(), first=1290, both=both))["regularized share"] == "warning"


@pytest.mark.parametrize(
    ("epochs", "rule", "verdict"),
    [
        (19, "skip rate", "healthy"),
        (20, "skip rate", "failed"),
        (20, "loss", "healthy"),
        (21, "loss", "failed"),
    ],
)
def test_how_long_skipping_may_last(epochs, rule, verdict):
    records = edit(healthy(), first=700, last=699 + epochs, skipped=4, loss=None)
    assert verdicts(records)[rule] == verdict


def test_a_loss_of_exactly_0_is_no_success():
    assert verdicts(edit(healthy(), first=700, last=719, loss=0.0))["loss"] == "healthy"
    assert verdicts(edit(healthy(), first=700, last=720, loss=0.0))["loss"] == "failed"


@pytest.mark.parametrize(("tenths", "verdict"), [(1, "healthy"), (2, "warning")])
def test_skip_rate_warns_strictly_above_a_tenth(tenths, verdict):
    skipped = lambda r: tenths if r.epoch % 2 else 0  # noqa: E731
    records = edit(healthy(), first=106, batches=5, skipped=skipped)
    assert verdicts(records)["skip rate"] == verdict


def test_skips_that_grow_more_frequent_are_told_from_those_that_come_evenly():
    rng = np.random.default_rng(3)
    even = edit(healthy(), skipped=lambda r: int(rng.random() < 0.08))
    rising = edit(healthy(), skipped=lambda r: int(rng.random() < 0.16 * r.epoch / 1500))
    assert verdicts(even)["skip rate"] == "healthy"
    assert verdicts(rising)["skip rate"] == "warning"
    assert "rising" in found(rising)["skip rate"].finding.figure


def test_a_falling_limit_alone_is_no_trend():
    # few skips while E_max is high, more while it falls, few again: what the schedule does
    rng = np.random.default_rng(4)
    rate = lambda r: 0.0 if r.epoch < 50 else 0.3 if r.epoch < 300 else 0.08  # noqa: E731
    records = edit(healthy(), skipped=lambda r: int(rng.random() < rate(r)))
    assert verdicts(records)["skip rate"] == "healthy"


def test_null_while_batches_made_steps_was_nan():
    judgement = found(edit(healthy(), first=5, last=5, loss=None))["loss"]
    assert judgement.verdict == "failed"
    assert "epoch 5" in judgement.finding.figure
    records = edit(healthy(), first=5, last=5, loss=None, skipped=4)
    assert verdicts(records)["loss"] == "healthy"


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        (lambda r: 999.0, "healthy"),  # flat
        (lambda r: 1001.0, "warning"),  # stuck
        (lambda r: 1e4 if r.epoch < 900 else 900.0, "healthy"),
        (lambda r: 1e15 if r.epoch == 1 else 10.0, "healthy"),
        (lambda r: 2e15 if r.epoch == 1 else 10.0, "warning"),
        (lambda r: -60.0 - 10.0 * math.exp(-r.epoch / 300), "warning"),  # -70 to -60
        (lambda r: -60.0 + 10.0 * math.exp(-r.epoch / 300), "healthy"),
        (lambda r: 5.0 + abs(r.epoch - 900) / 100, "warning"),  # falls, then rises
        (lambda r: 5.0 + 0.2 * (-1) ** r.epoch, "healthy"),
    ],
)
def test_bounds_of_the_loss(loss, verdict):
    assert verdicts(edit(healthy(), loss=loss))["loss"] == verdict


def test_noise_is_no_rise():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        records = edit(
            healthy(400),
            loss=lambda r: 5.0 + 3.0 * rng.standard_normal(),  # noqa: B023
            both={
                "q50": lambda r: 40.0 + 30.0 * rng.standard_normal(),  # noqa: B023
                "q95": lambda r: 90.0 + 60.0 * rng.standard_t(2),  # noqa: B023
            },
        )
        seen = verdicts(records)
        assert (seen["loss"], seen["energies"], seen["direction balance"]) == ("healthy",) * 3


def test_one_bad_epoch_is_no_explosion_and_a_slow_rise_neither():
    spike = edit(healthy(), first=700, last=701, both={"q50": 1e9, "q95": 1e12})
    assert verdicts(spike)["energies"] == "healthy"
    slow = edit(healthy(), fwd={"q50": lambda r: 1e3 * 1e4 ** (r.epoch / 1500)})
    assert verdicts(slow)["energies"] == "warning"


def test_an_explosion_that_went_back_is_a_warning():
    judgement = found(edit(healthy(), first=600, last=680, fwd={"q50": 7.5e8}))["energies"]
    assert judgement.verdict == "warning"
    assert "recovered" in judgement.finding.figure


@pytest.mark.parametrize("w", [1, 2, 5, 20, 21])
def test_explosions_are_those_of_a_plain_search(w):
    rng = np.random.default_rng(w)
    y = np.exp(np.cumsum(rng.standard_normal(200)) * 1.5 + 8)
    smooth = np.array([np.median(y[i : i + 5]) for i in range(len(y) - 4)])
    base = np.maximum(smooth, 100.0)
    ratios = [smooth[i] / base[max(0, i - w + 1) : i + 1].min() for i in range(len(smooth))]
    seen = _explosion(y, w)
    if max(ratios) <= 1e3:
        assert seen is None
    else:
        at, before, after, _ = seen
        assert after / max(before, 100.0) == pytest.approx(max(ratios))
        assert at == int(np.argmax(ratios)) + 4


@pytest.mark.parametrize(
    ("rise", "fall", "verdict"),
    [
        ((100.0, 320.0), (500.0, 300.0), "warning"),
        ((150.0, 450.0), (450.0, 250.0), "warning"),
        ((100.0, 400.0), (1000.0, 700.0), "warning"),
        ((200.0, 390.0), (500.0, 300.0), "healthy"),  # less than twice
        ((100.0, 250.0), (300.0, 320.0), "healthy"),  # the other does not fall
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_one_direction_that_doubles_while_the_other_falls_is_a_warning(
    rise, fall, verdict, swapped
):
    def course(ends):
        low, high = ends
        return {"q50": lambda r: low + (high - low) * (1 - math.exp(-r.epoch / 200))}

    up, down = ("inv", "fwd") if swapped else ("fwd", "inv")
    records = edit(healthy(), **{up: course(rise), down: course(fall)})
    assert verdicts(records)["direction balance"] == verdict


def test_energies_of_one_direction_alone_are_not_judged():
    records = edit(healthy(), fwd={"q50": None, "q95": None})
    assert verdicts(records)["energies"] == "not judged"


def test_heating_one_direction_by_what_cools_the_other_is_transport():
    records = edit(
        healthy(),
        fwd={"q50": lambda r: -50 + 175 * (1 - math.exp(-r.epoch / 200))},
        inv={"q50": lambda r: 125 - 175 * (1 - math.exp(-r.epoch / 200))},
    )
    assert verdicts(records)["direction balance"] == "healthy"


def test_a_null_median_with_samples_is_a_direction_that_is_not_finite():
    both = {"q50": None, "q95": None, "energy": None}
    judgement = found(edit(healthy(), first=1400, fwd=both))["direction balance"]
    assert judgement.verdict == "failed"
    assert "forward" in judgement.finding.figure
    once = edit(healthy(), first=1400, last=1405, fwd=both)
    assert verdicts(once)["direction balance"] == "healthy"


def test_a_log_det_may_stand_still_while_nothing_is_learned():
    still = {"logdet": 0.0}
    assert verdicts(edit(healthy(), last=50, both=still))["log-det"] == "healthy"  # warm-up
    stopped = edit(healthy(), first=600, last=850, both=still, skipped=4, loss=None)
    assert verdicts(stopped)["log-det"] == "healthy"


@pytest.mark.parametrize("w", [1, 2, 7, 20])
def test_spreads_are_those_of_a_plain_search(w):
    rng = np.random.default_rng(w)
    courses, free = rng.standard_normal((2, 60)), rng.random(60) < 0.8
    kept = courses[:, free]
    windows = [np.ptp(kept[:, i : i + w], axis=1).max() for i in range(kept.shape[1] - w + 1)]
    assert _smallest_spread(tuple(courses), free, w) == pytest.approx(min(windows))


@pytest.mark.parametrize(
    ("clamped", "growth", "verdict"),
    [(0.3, 0.0, "healthy"), (0.3, 0.2, "warning"), (0.1, 0.2, "healthy"), (0.6, 0.0, "failed")],
)
def test_clamped_samples_with_a_growing_volume(clamped, growth, verdict):
    both = {"regularized": 0, "clamped": round(clamped * SAMPLES)}
    records = edit(healthy(), both=both, fwd={"logdet": lambda r: growth * r.epoch})
    assert verdicts(records)["saturation"] == verdict


def test_growth_counts_epochs_where_the_log_holds_every_tenth():
    both = {"regularized": 0, "clamped": 77}
    some = edit(healthy(), both=both, fwd={"logdet": lambda r: 0.05 * r.epoch})[::10]
    assert verdicts(some)["saturation"] == "healthy"  # 0.5 a record
    some = edit(healthy(), both=both, fwd={"logdet": lambda r: 0.3 * r.epoch})[::10]
    assert verdicts(some)["saturation"] == "warning"


def test_parts_of_a_run_are_those_of_the_run_that_was_planned():
    start = healthy(1500)[:400]
    both = {"samples": 100, "regularized": 25}
    assert verdicts(edit(start, both=both))["regularized share"] == "warning"
    # of 3000 epochs these are the first 13 %
    assert verdicts(edit(start, both=both), planned=3000)["regularized share"] == "healthy"


def test_windows_scale_with_the_run():
    assert [GateRun("", healthy(1500)).window(k) for k in (20, 50, 100, 200)] == [20, 50, 100, 200]
    assert [GateRun("", healthy(300)).window(k) for k in (20, 50, 100, 200)] == [20, 20, 20, 40]
    assert GateRun("", healthy(150), planned=1500).window(200) == 200


@pytest.mark.parametrize("n", [1, 2, 3, 19, 20, 41])
def test_every_judgement_is_plain_json_however_short_the_log(n):
    broken = edit(
        healthy(n), first=2, loss=math.nan, both={"q50": None, "samples": 0, "clamped": 0}
    )
    for records in (healthy(n), broken, without(healthy(n), "fwd")):
        for j in judge(GateRun("run", records)):
            assert json.loads(json.dumps(j.plain(), allow_nan=False))["rule"] == j.rule.name
