"""`mlff report`: runs, evaluations and artifacts on one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import check_writable, write_text
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.data.model_file import load_model_file
from mlff_cli.deploy.artifact import read_metadata
from mlff_cli.report.bead_sections import bead_evaluation_section
from mlff_cli.report.evaluation import COARSE, TRANSPORT, read_evaluation
from mlff_cli.report.gate_files import LOG, read_gate_run
from mlff_cli.report.gate_page import gate_blocks
from mlff_cli.report.gate_rules import judge
from mlff_cli.report.html import Block, Section, page
from mlff_cli.report.sections import artifact_section, evaluation_section, run_section
from mlff_cli.report.transport_sections import FIGURES, transport_evaluation_section
from mlff_cli.training.run_log import read_rows


@dataclass(frozen=True)
class Options:
    """What `mlff report` can be told.

    Attributes:
        title: of the page.
        force: replace an existing page.
        dry_run: read everything, write nothing.
    """

    title: str = "mlff report"
    force: bool = False
    dry_run: bool = False


def run(
    sources: Sequence[Path | str],
    output: Path | str = "report.html",
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Write the page.

    Args:
        sources: each a run folder, a model file (its run folder is beside it), an evaluation JSON,
            or a compiled artifact.
        output: HTML file.
        options: see `Options`.
        reporter: who listens.

    Raises:
        StorageError: a source is missing.
        DataError: a source is none of these.
        UsageError: the page exists.
    """
    reporter = reporter or NullReporter()
    check_writable(output, force=options.force, inputs=sources)
    sections = [_section(path) for source in sources for path in _members(Path(source))]
    titles = [section.title for section in sections]
    if options.dry_run:
        return Summary({"sections": titles}, lines=[f"would write {output}: {', '.join(titles)}"])
    subtitle = f"{len(sections)} {'source' if len(sections) == 1 else 'sources'}"
    write_text(output, page(options.title, subtitle, sections), force=options.force)
    return Summary({"output": str(output), "sections": titles}, lines=[str(output)])


def _members(source: Path) -> list[Path]:
    """The run folders of an ensemble, or what it is."""
    if (source / "ensemble.json").is_file():
        return sorted(source.glob("seed_*"))
    return [source]


def _section(source: Path) -> Section:
    if not source.exists():
        raise StorageError("the source does not exist", where=str(source), remedy="check the path")
    if source.is_dir():
        return _run(source, source.with_suffix(".pt"))
    reader = READERS.get(source.suffix)
    if reader is None:
        raise DataError(
            f"a report is made of run folders, {', '.join(READERS)} files, found {source.name!r}",
            where=str(source),
            remedy="pass a run folder, or the JSON that `mlff evaluate` wrote",
        )
    return reader(source)


def _run(folder: Path, model: Path) -> Section:
    """A run folder, with what its model file says where it is finished."""
    log = folder / "metrics.jsonl"
    if not log.is_file():
        raise DataError(
            "no metrics.jsonl: not a run folder",
            where=str(folder),
            remedy="pass the <model>.run folder that `mlff train` made",
        )
    file = load_model_file(model) if model.is_file() else None
    curves, config = folder / "loss_curves.png", folder / "config.yaml"
    section = run_section(
        folder.stem,
        read_rows(log),
        _units(log),
        curves=curves.read_bytes() if curves.is_file() else None,
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
        provenance=file.provenance if file else None,
        fidelities=file.fidelities if file else (),
    )
    section.blocks += _gate(folder)
    return section


def _units(log: Path) -> dict[str, str]:
    """The first line of metrics.jsonl gives units by name."""
    with log.open(encoding="utf-8") as stream:
        try:
            first = json.loads(stream.readline() or "{}")
        except ValueError:
            return {}
    if not isinstance(first, dict):
        return {}
    return {k: v for k, v in first.items() if k != "kind"} if first.get("kind") == "units" else {}


def _evaluation(path: Path) -> Section:
    content = read_evaluation(path)
    if content.get("family") == TRANSPORT:
        return _transport(path, content)
    names = [str(result["figure"]) for result in content["results"] if result.get("figure")]
    names += (content.get("ensembles") or {}).get("figures", [])
    beside = {name: path.with_name(name) for name in names}
    figures = {name: file.read_bytes() for name, file in beside.items() if file.is_file()}
    section = bead_evaluation_section if content.get("family") == COARSE else evaluation_section
    return section(path.stem, content, figures)


def _transport(path: Path, content: dict[str, Any]) -> Section:
    beside = {kind: path.with_name(f"{path.stem}_{kind}.png") for kind in FIGURES}
    figures = {kind: file.read_bytes() for kind, file in beside.items() if file.is_file()}
    return transport_evaluation_section(path.stem, content, figures)


def _gate(folder: Path) -> list[Block]:
    """What the energy gate says of a transport training."""
    log = folder / LOG
    if not log.is_file():
        return []
    run = read_gate_run(log, folder.stem)
    return gate_blocks(run, judge(run))


READERS: dict[str, Callable[[Path], Section]] = {
    ".pt": lambda path: _run(path.with_suffix(".run"), path),
    ".json": _evaluation,
    ".jpt": lambda path: artifact_section(path.name, read_metadata(path)),
}
