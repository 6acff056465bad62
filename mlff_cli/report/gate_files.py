"""A run of the energy gate from its files: the log, and how long the run was to be."""

from __future__ import annotations

from pathlib import Path

import yaml

from mlff_cli.data.gate_log import epochs_of, read_gate_log
from mlff_cli.report.gate_run import GateRun

LOG = "gate.jsonl"


def read_gate_run(log: Path, name: str) -> GateRun:
    """The epochs of a log.

    Args:
        log: `gate.jsonl` of a run folder, or such a file elsewhere.
        name: of the run.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is empty, cut off, or holds what is no record; the line is named.
    """
    return GateRun(name, epochs_of(read_gate_log(log)), planned_epochs(log))


def planned_epochs(log: Path) -> int | None:
    """Epochs that the run was to have, where its folder says so and it is not finished.

    A run that ended early by its own rule is whole: its model file is there.
    """
    config = log.parent / "config.yaml"
    if log.name != LOG or not config.is_file() or log.parent.with_suffix(".pt").is_file():
        return None
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    for section in ("training", "trainer"):
        part = values.get(section) if isinstance(values, dict) else None
        epochs = part.get("epochs") if isinstance(part, dict) else None
        if isinstance(epochs, int) and not isinstance(epochs, bool) and epochs > 0:
            return epochs
    return None
