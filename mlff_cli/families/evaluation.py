"""What a family gives to `mlff evaluate`: a plan that is checked first, and then carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlff_cli.core.reporting import Reporter, Table
from mlff_cli.data.model_file import load_model_file
from mlff_cli.deploy.artifact import read_metadata
from mlff_cli.deploy.predictor import ARTIFACT_SUFFIX

Draw = Callable[[Path], None]  # writes a figure, or other arrays, to a path


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        content: plain values of the JSON file, beside format, model and provenance.
        figures: path -> what writes it.
        tables: for the terminal.
        packages: whose versions count.
        command: for the provenance.
    """

    content: dict[str, Any]
    figures: Mapping[Path, Draw]
    tables: list[Table]
    packages: Sequence[str] = ("torch",)
    command: Sequence[str] = field(default_factory=tuple)


class Evaluation(Protocol):
    """An evaluation whose model was opened, and that has computed nothing yet.

    Attributes:
        inputs: files that it reads, the model not among them.
        figures: files that it will write beside the JSON file.
        plan: sentences for `--dry-run`.
    """

    inputs: list[Path]
    figures: list[Path]
    plan: list[str]

    def check(self) -> None:
        """Look at the inputs as `--dry-run` does."""

    def carry_out(self, reporter: Reporter) -> Evaluated:
        """Compute; nothing is written."""


def family_of(model: Path | str) -> str:
    """The family of a model file, checkpoint or artifact.

    Raises:
        StorageError: the file is missing.
        DataError: it is none of these.
    """
    if Path(model).suffix == ARTIFACT_SUFFIX:
        # artifacts that name no family were made before there was another
        return str(read_metadata(model).get("family", "multifidelity"))
    return load_model_file(model).family
