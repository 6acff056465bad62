"""Whether a transport training is healthy, by the log of its energy gate: the table of rules.

Every rule looks at a few keys of the log and gives a verdict, the figure it stands on, and a
remedy. A rule whose key is missing is not judged, and never passed. `gate_run` says what windows
and parts of a run are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mlff_cli.report.gate_energies import judge_balance, judge_energies
from mlff_cli.report.gate_loss import judge_loss
from mlff_cli.report.gate_run import SMALLEST_WINDOW, GateRun
from mlff_cli.report.gate_shares import judge_regularized, judge_skips
from mlff_cli.report.gate_verdicts import Finding, Verdict, plain_number, worst
from mlff_cli.report.gate_volume import judge_logdet, judge_saturation


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    Attributes:
        name: of the rule.
        keys: of the log that it needs; those of directions stand for both.
        judge: looks at a run.
        healthy: what it should see.
        warning: what is doubtful.
        failed: what must not be.
        remedy: what to do where it is not healthy.
    """

    name: str
    keys: tuple[str, ...]
    judge: Callable[[GateRun], Finding]
    healthy: str
    warning: str
    failed: str
    remedy: str


RULES = (
    Rule(
        "regularized share",
        ("samples", "regularized", "clamped"),
        judge_regularized,
        "early to 10 %, middle to 3 %, late < 0.5 %",
        "> 20 % in the last two thirds",
        "-",
        "more capacity: a larger preset; learning rate 1e-4; a longer warm-up",
    ),
    Rule(
        "skip rate",
        ("batches", "skipped"),
        judge_skips,
        "< 5 % before E_max falls, < 10 % while it falls, < 5 % after",
        "> 10 % after 7 % of the run; rising over time (p < 0.01)",
        "100 % over 20 epochs",
        "raise E_max (20000, 500000, 1e6); gate_warmup_epochs 500; learning rate 1e-4; "
        "`mlff check` on the data; a larger preset",
    ),
    Rule(
        "loss",
        ("loss",),
        judge_loss,
        "falling",
        "rising after 7 % of the run; above 1000 after a third; begins above 1e15",
        "0 or absent for > 20 epochs; NaN",
        "learning rate 1e-4; the standard preset; check that the learning rate warms up",
    ),
    Rule(
        "energies",
        ("q50", "q95"),
        judge_energies,
        "median and q95 fall",
        "rising over the last third",
        "explosion by > 1000 within 100 epochs",
        "divergence: E_max 5000, E_cut 300, learning rate 1e-4, warm-up",
    ),
    Rule(
        "direction balance",
        ("samples", "nonfinite", "q50", "logdet"),
        judge_balance,
        "the gap narrows, log-dets symmetric within 10 %",
        "one direction rises by > 2x while the other falls",
        "one direction not finite",
        "more capacity: a larger preset",
    ),
    Rule(
        "log-det",
        ("logdet", "batches", "skipped"),
        judge_logdet,
        "moves",
        "spread < 1e-3 over 50 epochs after warm-up, batches not skipped",
        "the same over 200 epochs",
        "the gate is too strict (raise E_max) or the learning rate too low",
    ),
    Rule(
        "saturation",
        ("samples", "clamped", "logdet"),
        judge_saturation,
        "few samples clamped",
        "> 20 % clamped while the summed log-det grows by > 0.1 nats an epoch",
        "> 50 % clamped",
        "gate mode `safe`; start from identity; an improper target (sample with "
        "`--constraints none`)",
    ),
)


@dataclass(frozen=True)
class Judgement:
    """A rule and what it found in one run."""

    rule: Rule
    finding: Finding

    @property
    def verdict(self) -> Verdict:
        """Of the finding."""
        return self.finding.verdict

    @property
    def remedy(self) -> str | None:
        """What to do, where there is something to do."""
        return self.rule.remedy if self.verdict in ("warning", "failed") else None

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "rule": self.rule.name,
            "verdict": self.verdict,
            "figure": self.finding.figure,
            "numbers": {k: plain_number(v) for k, v in self.finding.numbers.items()},
            "remedy": self.remedy,
        }


def judge(run: GateRun) -> list[Judgement]:
    """Look at a run by every rule, in the order of the table."""
    return [Judgement(rule, _look(rule, run)) for rule in RULES]


def verdict_of(judgements: list[Judgement]) -> Verdict:
    """The gravest verdict of a run."""
    return worst([j.verdict for j in judgements])


def _look(rule: Rule, run: GateRun) -> Finding:
    missing = run.missing(rule.keys)
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        return Finding("not judged", f"the log does not hold {names}")
    finding = rule.judge(run)
    if finding.verdict == "healthy" and len(run.records) < SMALLEST_WINDOW:
        figure = f"{finding.figure}; fewer than {SMALLEST_WINDOW} epochs"
        return replace(finding, verdict="not judged", figure=figure)
    return finding
