"""The page of `mlff gate-report`: a section per run, and one that compares several."""

from __future__ import annotations

from collections.abc import Sequence

from mlff_cli.report.gate_figures import comparison_figure, gate_figure, png
from mlff_cli.report.gate_rules import RULES, Judgement, verdict_of
from mlff_cli.report.gate_run import GateRun
from mlff_cli.report.gate_tables import Judged, comparison_rows, totals_of
from mlff_cli.report.gate_verdicts import SEVERITY, Verdict, percent
from mlff_cli.report.html import Block, Cards, DataTable, Image, Mark, Section, Text, page

LOOKS: dict[Verdict, str] = {
    "healthy": "good",
    "warning": "doubtful",
    "failed": "bad",
    "not judged": "",
}


def gate_page(judged: Sequence[Judged], title: str = "Energy gate") -> str:
    """The whole page.

    Args:
        judged: runs with their judgements, at least one.
        title: of the page.
    """
    sections = [gate_section(run, judgements) for run, judgements in judged]
    if len(judged) > 1:
        sections.insert(0, _comparison(judged))
    sections.append(_rules())
    told = [f"{run.name}: {verdict_of(list(judgements))}" for run, judgements in judged]
    return page(title, ", ".join(told), sections)


def gate_section(run: GateRun, judgements: Sequence[Judgement]) -> Section:
    """A run: its verdict, what happened, every rule, and the panels."""
    verdict = verdict_of(list(judgements))
    section = Section(f"Energy gate: {run.name}", f"verdict: {verdict}")
    section.blocks += gate_blocks(run, judgements)
    return section


def gate_blocks(run: GateRun, judgements: Sequence[Judgement]) -> list[Block]:
    """Counts, every rule, and the panels."""
    told = totals_of(run)
    cards = [
        ("epochs", f"{told['epochs']:,}", f"of {run.planned:,}" if run.planned else ""),
        ("mode", told["mode"] or "-", ""),
        ("E_cut", _number(told["E_cut"]), "kJ/mol"),
        ("E_max at the end", _number(told["E_max"]), "kJ/mol"),
        ("skipped batches", _share(told["skip_rate"]), _of(told["skipped"], told["batches"])),
        (
            "regularized samples",
            _share(told["regularized_share"]),
            _of(told["regularized"], told["samples"]),
        ),
        ("clamped samples", _share(told["clamped_share"]), _of(told["clamped"], told["samples"])),
    ]
    if told["last_excess_nats"] is not None:
        cards.append(("excess at the end", f"{told['last_excess_nats']:.3g}", "nats"))
    rows = [
        [j.rule.name, Mark(j.verdict, LOOKS[j.verdict]), j.finding.figure, j.remedy or ""]
        for j in judgements
    ]
    return [
        Cards(cards),
        DataTable(["rule", "verdict", "figure", "remedy"], rows, wrap=True),
        Image(png(gate_figure(run, judgements)), f"What each rule watches: {run.name}"),
    ]


def _comparison(judged: Sequence[Judged]) -> Section:
    section = Section("Comparison", f"{len(judged)} runs")
    rows = [
        [name, *(Mark(c, LOOKS[c]) if c in SEVERITY else c for c in cells)]
        for name, *cells in comparison_rows(judged)
    ]
    runs = [run for run, _ in judged]
    figure = comparison_figure(runs, [judgements for _, judgements in judged])
    section.blocks += [
        DataTable(["", *(run.name for run in runs)], rows),
        Image(png(figure), "What each rule watches, all runs"),
    ]
    return section


def _rules() -> Section:
    rows = [[r.name, r.healthy, r.warning, r.failed] for r in RULES]
    section = Section("Rules")
    section.blocks += [
        Text(
            "Epochs are those of a run of 1500 and scale with the run; windows hold at least 20 "
            "epochs. Early is the first 7 %, late begins at 67 %. A rule whose key the log does "
            "not hold is not judged."
        ),
        DataTable(["rule", "healthy", "warning", "failed"], rows, wrap=True),
    ]
    return section


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if value >= 1e6 else f"{value:g}"


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _of(part: int | None, whole: int | None) -> str:
    return "" if part is None or whole is None else f"{part:,} of {whole:,}"
