"""`mlff gate-report`: whether a transport training is healthy, by the log of its energy gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import atomic_path, check_writable, provenance, write_json, write_text
from mlff_cli.core.errors import CheckFailedError, DataError, StorageError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.report.gate_files import LOG, read_gate_run
from mlff_cli.report.gate_rules import judge, verdict_of
from mlff_cli.report.gate_tables import Judged, comparison_table, totals_of, verdict_table
from mlff_cli.report.gate_verdicts import worst


@dataclass(frozen=True)
class Options:
    """What `mlff gate-report` can be told.

    Attributes:
        strict: end with exit code 6 when a rule failed.
        strict_warnings: or warned.
        force: replace an existing report.
        dry_run: read and judge, write nothing and do not fail.
    """

    strict: bool = False
    strict_warnings: bool = False
    force: bool = False
    dry_run: bool = False


def run(
    inputs: Sequence[Path | str],
    output: Path | str | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Judge runs, and compare them when there are several.

    Args:
        inputs: each a run folder, a model file (its run folder is beside it), or a gate log.
        output: `.html`, `.json` or `.png`; None writes nothing.
        options: see `Options`.
        reporter: who listens.

    Returns:
        A table per run with remedies; `failure` is set as `options` say.

    Raises:
        UsageError: no run was named, the output exists or is of an unknown kind.
        StorageError: an input is missing.
        DataError: a log is empty, cut off, or holds what is no record; the line is named.
    """
    reporter = reporter or NullReporter()
    if not inputs:
        raise UsageError("nothing to judge", remedy="name a run folder or a gate.jsonl")
    logs = [log for path in inputs for log in _logs(Path(path))]
    if output is not None:
        _writer(Path(output))
        check_writable(output, force=options.force, inputs=logs)
    judged: list[Judged] = []
    for log, name in zip(logs, _names(logs), strict=True):
        gate = read_gate_run(log, name)
        reporter.detail(f"{log}: {len(gate.records):,} epochs")
        judged.append((gate, judge(gate)))
    data = _plain(judged, logs)
    tables = [verdict_table(*one) for one in judged]
    if len(judged) > 1:
        tables.append(comparison_table(judged))
    lines = []
    if output is not None and options.dry_run:
        lines.append(f"would write {output}")
    elif output is not None:
        _writer(Path(output))(Path(output), judged, data, options.force)
        lines.append(str(output))
        data = {"output": str(output), **data}
    lines.append(f"verdict: {data['verdict']}{_unjudged(judged)}")
    for (_, judgements), log in zip(judged, logs, strict=True):
        if verdict_of(list(judgements)) == "not judged":
            reporter.warning(
                f"{log}: none of the {len(judgements)} rules could be judged, so that nothing is "
                "passed: the log is too short, or holds too few keys"
            )
    failure = None if options.dry_run else _failure(judged, logs, options)
    return Summary(data, tables, lines, failure=failure)


def _logs(source: Path) -> list[Path]:
    """Gate logs of a source: those of all members of an ensemble."""
    if not source.exists():
        raise StorageError("the source does not exist", where=str(source), remedy="check the path")
    if source.suffix == ".pt":
        source = source.with_suffix(".run")
    if not source.is_dir():
        if source.exists():
            return [source]
        raise StorageError(
            "the model file has no run folder beside it",
            where=str(source),
            remedy=f"name the {LOG} itself",
        )
    folders = [source]
    if (source / "ensemble.json").is_file():
        folders = sorted(source.glob("seed_*"))
    logs = [folder / LOG for folder in folders]
    absent = [log for log in logs if not log.is_file()]
    if absent or not logs:
        raise DataError(
            f"no {LOG}: not the run folder of a transport training",
            where=str(absent[0].parent if absent else source),
            remedy="pass the <model>.run folder that `mlff train` made, or the log itself",
        )
    return logs


def _names(logs: Sequence[Path]) -> list[str]:
    """Short names of runs; whole paths where short ones are the same."""
    short = [log.parent.stem if log.name == LOG and log.parent.stem else log.stem for log in logs]
    return [s if short.count(s) == 1 else str(log) for s, log in zip(short, logs, strict=True)]


def _plain(judged: Sequence[Judged], logs: Sequence[Path]) -> dict[str, Any]:
    runs = [
        {
            "name": gate.name,
            "log": str(log),
            "verdict": verdict_of(list(judgements)),
            "totals": totals_of(gate),
            "rules": [j.plain() for j in judgements],
        }
        for (gate, judgements), log in zip(judged, logs, strict=True)
    ]
    return {"verdict": worst([verdict_of(list(j)) for _, j in judged]), "runs": runs}


def _failure(
    judged: Sequence[Judged], logs: Sequence[Path], options: Options
) -> CheckFailedError | None:
    grave = {"failed"} if options.strict or options.strict_warnings else set()
    grave |= {"warning"} if options.strict_warnings else set()
    found = [
        (log, j) for (_, judgements), log in zip(judged, logs, strict=True) for j in judgements
    ]
    bad = [(log, j) for log, j in found if j.verdict in grave]
    if not bad:
        return None
    told = ", ".join(dict.fromkeys(f"{j.rule.name} ({j.verdict})" for _, j in bad))
    return CheckFailedError(
        f"the training is not healthy: {told}",
        where=", ".join(dict.fromkeys(str(log) for log, _ in bad)),
        remedy="the remedies stand below the table",
    )


def _write_page(path: Path, judged: Sequence[Judged], data: dict[str, Any], force: bool) -> None:
    from mlff_cli.report.gate_page import gate_page  # matplotlib takes a second to import

    write_text(path, gate_page(judged), force=force)


def _write_json(path: Path, judged: Sequence[Judged], data: dict[str, Any], force: bool) -> None:
    logs = [one["log"] for one in data["runs"]]
    command = ["mlff", "gate-report", *logs]
    write_json(path, {**data, "provenance": provenance(command, logs)}, force=force)


def _write_figure(path: Path, judged: Sequence[Judged], data: dict[str, Any], force: bool) -> None:
    from mlff_cli.report.gate_figures import comparison_figure, gate_figure, png

    if len(judged) == 1:
        figure = gate_figure(*judged[0])
    else:
        figure = comparison_figure([run for run, _ in judged], [list(j) for _, j in judged])
    with atomic_path(path, force=force) as temporary:
        temporary.write_bytes(png(figure))


_Write = Callable[[Path, Sequence[Judged], dict[str, Any], bool], None]
WRITERS: dict[str, _Write] = {".html": _write_page, ".json": _write_json, ".png": _write_figure}


def _unjudged(judged: Sequence[Judged]) -> str:
    """How many rules say nothing, where there are such."""
    verdicts = [j.verdict for _, judgements in judged for j in judgements]
    n = verdicts.count("not judged")
    if n == len(verdicts):
        return f": none of the {n} rules could look at it, nothing is passed"
    return f" ({n} of {len(verdicts)} rules not judged)" if n else ""


def _writer(output: Path) -> _Write:
    writer = WRITERS.get(output.suffix.lower())
    if writer is None:
        raise UsageError(
            f"a gate report is written as {', '.join(WRITERS)}, found {output.name!r}",
            remedy=f"name it {output.stem or 'report'}.html",
        )
    return writer
