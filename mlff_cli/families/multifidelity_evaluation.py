"""Evaluation of multi-fidelity models: errors per fidelity, with a parity figure of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.core.reporting import Reporter, Table
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.deploy.label_comparison import (
    QUANTITIES,
    Columns,
    compare,
    doubts,
    lacks_dispersion,
)
from mlff_cli.deploy.labelled import LabelledMolecules
from mlff_cli.deploy.predictor import Model
from mlff_cli.families.evaluation import Draw, Evaluated
from mlff_cli.report.parity import Panel, write_parity
from mlff_cli.report.statistics import Errors

UNITS = {"kcal/mol": KCAL_MOL, "eV": 1.0}  # what one is worth in eV
IN_FIGURE = ("energy", "forces", "charges", "spin_charges")


class FidelityEvaluation:
    """Evaluate a model on labelled molecules (see `families.evaluation.Evaluation`).

    Args:
        model: `.jpt` artifact, model file or checkpoint.
        data: labelled files; with a multi-fidelity model file they stand for fidelities 0, 1, ...
            in order, or each as `K=FILE`.
        output: the JSON file, after which figures are named.
        units: of energies and forces in the results: kcal/mol or eV.
        device: auto, cpu, cuda or cuda:N.
        figures: draw them.

    Raises:
        UsageError: an option is unknown, or a fidelity does not exist.
        DataError: the model is damaged.
    """

    def __init__(
        self,
        model: Path | str,
        data: Sequence[str | Path],
        output: Path,
        *,
        units: str,
        device: str,
        figures: bool,
    ) -> None:
        if units not in UNITS:
            raise UsageError(f"--units is one of {', '.join(UNITS)}, found {units!r}")
        self._model, self._units = Model(model, device), units
        self._pairs = _assign(data, self._model)
        self.inputs = [file for _, file in self._pairs]
        self.figures = _figure_paths(output, [k for k, _ in self._pairs]) if figures else []
        self.plan = [f"would evaluate fidelity {k} of {model} on {f}" for k, f in self._pairs]
        self._command = ["mlff", "evaluate", str(model), *map(str, data), "--units", units]

    def check(self) -> None:
        """See `Evaluation`."""

    def carry_out(self, reporter: Reporter) -> Evaluated:
        """See `Evaluation`.

        Raises:
            DataError: a file is damaged, has no labels, or holds an unknown element.
            NumericalError: a prediction is not finite.
        """
        results, drawn = [], dict[Path, Draw]()
        for i, (k, file) in enumerate(self._pairs):
            figure = self.figures[i] if self.figures else None
            result, columns = self._result(k, file, reporter)
            results.append({**result, "figure": figure.name if figure else None})
            if figure:
                drawn[figure] = partial(_draw, columns=columns, unit=self._units, result=result)
        content = {
            "units": {"energy": self._units, "length": "A", "charge": "e"},
            "results": results,
        }
        table = _table(results, f"Errors of {self._model.path} (energies in {self._units})")
        return Evaluated(content, drawn, [table], command=self._command)

    def _result(self, k: int, file: Path, reporter: Reporter) -> tuple[dict[str, Any], Columns]:
        """Errors of one fidelity on one file."""
        predictor = self._model.predictor(k)
        with LabelledMolecules(file) as molecules:
            notes = doubts(predictor, molecules)
            for note in notes:
                reporter.warning(note)
            columns = _convert(compare(predictor, molecules, reporter), self._units)
            result = {
                "fidelity": k,
                "level_of_theory": predictor.level_of_theory,
                "data": str(file),
                "data_level_of_theory": molecules.level_of_theory,
                "molecules": molecules.n_molecules,
                "dispersion_removed": lacks_dispersion(predictor, molecules),
                "notes": notes,
                "errors": _errors(columns, self._units, str(file)),
            }
        return result, columns


def _assign(data: Sequence[str | Path], model: Model) -> list[tuple[int, Path]]:
    """Which file stands for which fidelity."""
    named = [re.match(r"(\d+)=(.+)", str(item)) for item in data]
    if not data:
        raise UsageError("no labelled data given", remedy="mlff evaluate MODEL DATA.h5")
    if any(named) and not all(named):
        raise UsageError(
            "either every file is written K=FILE, or none",
            remedy="write 0=first.h5 1=second.h5",
        )
    if all(named):
        return [(int(m[1]), Path(m[2])) for m in named if m]
    if len(model.fidelities) == 1:
        return [(model.fidelities[0], Path(item)) for item in data]
    if len(data) > len(model.fidelities):
        raise UsageError(
            f"{len(data)} files for {len(model.fidelities)} fidelities",
            where=str(model.path),
            remedy="say which is which: K=FILE",
        )
    return [(k, Path(item)) for k, item in zip(model.fidelities, data, strict=False)]


def _figure_paths(output: Path, fidelities: Sequence[int]) -> list[Path]:
    """evaluation_parity.png, or one per file with fidelity, and number where that is not enough."""
    stem = f"{output.stem}_parity"
    if len(fidelities) == 1:
        return [output.with_name(f"{stem}.png")]
    unique = len(set(fidelities)) == len(fidelities)
    return [
        output.with_name(f"{stem}_fid{k}{'' if unique else f'_{i}'}.png")
        for i, k in enumerate(fidelities)
    ]


def _convert(columns: Columns, unit: str) -> Columns:
    scale = {name: UNITS[unit] if QUANTITIES[name].scaled else 1.0 for name in columns}
    return {name: (r / scale[name], p / scale[name]) for name, (r, p) in columns.items()}


def _unit(name: str, unit: str) -> str:
    return QUANTITIES[name].unit.format(E=unit)


def _errors(columns: Columns, unit: str, where: str) -> dict[str, Any]:
    errors = {}
    for name, (r, p) in columns.items():
        with np.errstate(over="ignore", invalid="ignore"):  # told below, with the file's name
            found = asdict(Errors.of(r, p))
        if not all(v is None or np.isfinite(v) for v in found.values()):
            raise NumericalError(
                f"the errors of {name} overflow; the largest label is {np.abs(r).max():.3g} "
                f"{_unit(name, unit)}",
                where=where,
                remedy="look for a damaged label",
            )
        errors[name] = {"unit": _unit(name, unit), **found}
    return errors


def _draw(temporary: Path, columns: Columns, unit: str, result: Mapping[str, Any]) -> None:
    def panel(name: str) -> Panel:
        q = QUANTITIES[name]
        return Panel(q.title, q.symbol, _unit(name, unit), *columns[name])

    level = result["data_level_of_theory"] or result["level_of_theory"]
    title = f"Fidelity {result['fidelity']}" + (f": {level}" if level else "")
    write_parity(temporary, [panel(n) for n in IN_FIGURE if n in columns], title)


def _table(results: Sequence[Mapping[str, Any]], title: str) -> Table:
    columns = ["fidelity", "quantity", "unit", "n", "MAE", "RMSE", "R2"]
    rows = [
        [
            result["fidelity"],
            QUANTITIES[name].title,
            e["unit"],
            e["n"],
            f"{e['mae']:.4g}",
            f"{e['rmse']:.4g}",
            "-" if e["r2"] is None else f"{e['r2']:.4f}",
        ]
        for result in results
        for name, e in result["errors"].items()
    ]
    return Table(title, columns, rows)
