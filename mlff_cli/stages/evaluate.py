"""`mlff evaluate`: how far a model is from labels, per fidelity, with a parity figure of each.

Energies are compared relative to the sum of atomic energies, which is the same on both sides: an
R2 of total energies would only say that the compositions differ. Where an artifact adds dispersion
that the labels lack, its dispersion is taken off before the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import atomic_path, check_writable, provenance, write_json
from mlff_cli.core.errors import DataError, NumericalError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.deploy.labelled import LabelledMolecules
from mlff_cli.deploy.predictor import Model, Predictor
from mlff_cli.physics.dispersion_parameters import contains_dispersion
from mlff_cli.report.parity import Panel, write_parity
from mlff_cli.report.statistics import Errors

FORMAT = "mlff-evaluation-1"
UNITS = {"kcal/mol": KCAL_MOL, "eV": 1.0}  # what one is worth in eV


@dataclass(frozen=True)
class Quantity:
    """One compared quantity: its name in tables and figures, and how its unit is made."""

    title: str
    symbol: str
    unit: str  # "{E}" is the energy unit
    scaled: bool  # whether values are energies, to be converted


QUANTITIES = {
    "energy": Quantity("Energy", "E - SAE", "{E}", True),
    "energy_per_atom": Quantity("Energy per atom", "(E - SAE)/N", "{E}/atom", True),
    "forces": Quantity("Forces", "force component", "{E}/A", True),
    "charges": Quantity("Charges", "q", "e", False),
    "spin_charges": Quantity("Spin charges", "s", "e", False),
}
IN_FIGURE = ("energy", "forces", "charges", "spin_charges")


@dataclass(frozen=True)
class Options:
    """What `mlff evaluate` can be told.

    Attributes:
        units: of energies and forces in the results: kcal/mol or eV.
        device: auto, cpu, cuda or cuda:N.
        figures: draw parity figures beside the JSON file.
        force: replace existing outputs.
        dry_run: check everything, compute nothing.
    """

    units: str = "kcal/mol"
    device: str = "auto"
    figures: bool = True
    force: bool = False
    dry_run: bool = False


def run(
    model: Path | str,
    data: Sequence[str | Path],
    output: Path | str = "evaluation.json",
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Evaluate, write metrics and figures.

    Args:
        model: `.jpt` artifact, model file or checkpoint.
        data: labelled files; with a multi-fidelity model file they stand for fidelities 0, 1, ...
            in order, or each as `K=FILE`.
        output: JSON file; figures are named after it.
        options: see `Options`.
        reporter: who listens.

    Raises:
        UsageError: an option is unknown, a fidelity does not exist, an output exists.
        DataError: a file is damaged, has no labels, or holds an element the model does not know.
        NumericalError: a prediction is not finite.
    """
    reporter = reporter or NullReporter()
    if options.units not in UNITS:
        raise UsageError(f"--units is one of {', '.join(UNITS)}, found {options.units!r}")
    opened = Model(model, options.device)
    pairs = _assign(data, opened)
    output = Path(output)
    targets = _figure_paths(output, [k for k, _ in pairs]) if options.figures else []
    for target in (output, *targets):
        check_writable(target, force=options.force, inputs=[model, *(f for _, f in pairs)])
    if options.dry_run:
        lines = [f"would evaluate fidelity {k} of {model} on {file}" for k, file in pairs]
        return Summary({"output": str(output), "data": [str(f) for _, f in pairs]}, lines=lines)

    results, compared = [], []
    for i, (k, file) in enumerate(pairs):
        predictor = opened.predictor(k)
        with LabelledMolecules(file) as molecules:
            notes = _notes(predictor, molecules)
            for note in notes:
                reporter.warning(note)
            columns = _compare(predictor, molecules, reporter)
            columns = _convert(columns, options.units)
            results.append(
                {
                    "fidelity": k,
                    "level_of_theory": predictor.level_of_theory,
                    "data": str(file),
                    "data_level_of_theory": molecules.level_of_theory,
                    "molecules": molecules.n_molecules,
                    "dispersion_removed": _lacks_dispersion(predictor, molecules),
                    "notes": notes,
                    "errors": _errors(columns, options.units, str(file)),
                    "figure": targets[i].name if targets else None,
                }
            )
        compared.append(columns)
    command = ["mlff", "evaluate", str(model), *map(str, data), "--units", options.units]
    content = {
        "format": FORMAT,
        "model": str(model),
        "units": {"energy": options.units, "length": "A", "charge": "e"},
        "results": results,
        "provenance": provenance(command, [model, *(f for _, f in pairs)], packages=["torch"]),
    }
    with ExitStack() as together:  # all outputs appear, or none
        for target, columns, result in zip(targets, compared, results, strict=False):
            temporary = together.enter_context(atomic_path(target, force=options.force))
            _draw(temporary, columns, options, result)
        write_json(output, content, force=options.force)
    return _summary(content, output, targets)


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


def _lacks_dispersion(predictor: Predictor, molecules: LabelledMolecules) -> bool:
    """Whether the predictor adds dispersion to labels that are known to have none."""
    level = molecules.level_of_theory
    return predictor.dispersion is not None and level is not None and not contains_dispersion(level)


def _notes(predictor: Predictor, molecules: LabelledMolecules) -> list[str]:
    notes = list(molecules.notes)
    level, trained = molecules.level_of_theory, predictor.level_of_theory
    if level and trained and level != trained:
        notes.append(f"{molecules.path} holds {level}, the model was trained on {trained}")
    if _lacks_dispersion(predictor, molecules):
        notes.append(
            f"{level} holds no dispersion: the artifact's is taken off before the comparison"
        )
    elif predictor.dispersion is not None and level is None:
        notes.append(
            f"{molecules.path} names no level of theory: the artifact's dispersion stays in"
        )
    return notes


def _compare(
    predictor: Predictor, molecules: LabelledMolecules, reporter: Reporter
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels and predictions of every quantity, flat, where the label exists; eV and e."""
    where = str(molecules.path)
    subtract = _lacks_dispersion(predictor, molecules)
    pieces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in QUANTITIES}
    with reporter.progress(molecules.n_molecules, "evaluate", "molecules") as bar:
        for batch, place in molecules.batches():
            out = predictor(batch, place)
            if subtract:
                part = predictor.dispersion_part(batch)
                out = {n: v - part[n] if n in part else v for n, v in out.items()}
            n_atoms = batch["numbers"].shape[1]
            offset = predictor.atomic_energies(batch["numbers"])  # (n,) eV
            for name in molecules.labels:
                label = batch[name].astype(np.float64)
                have = np.isfinite(label).reshape(len(label), -1).all(axis=1)
                seen, wanted = out[name][have], label[have]
                if name == "energy":
                    seen, wanted = seen - offset[have], wanted - offset[have]
                    pieces["energy_per_atom"].append((wanted / n_atoms, seen / n_atoms))
                pieces[name].append((wanted.ravel(), seen.ravel()))
            bar.advance(len(batch["coord"]))
    columns = {
        name: (np.concatenate([r for r, _ in parts]), np.concatenate([p for _, p in parts]))
        for name, parts in pieces.items()
        if parts
    }
    columns = {name: pair for name, pair in columns.items() if pair[0].size}
    if not columns:
        raise DataError(
            f"every label is missing ({', '.join(molecules.labels)} are all NaN)",
            where=where,
            remedy="label the molecules first, as with `mlff label`",
        )
    return columns


def _convert(
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    scale = {name: UNITS[unit] if QUANTITIES[name].scaled else 1.0 for name in columns}
    return {name: (r / scale[name], p / scale[name]) for name, (r, p) in columns.items()}


def _unit(name: str, unit: str) -> str:
    return QUANTITIES[name].unit.format(E=unit)


def _errors(
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str, where: str
) -> dict[str, Any]:
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


def _draw(
    temporary: Path,
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]],
    options: Options,
    result: Mapping[str, Any],
) -> None:
    def panel(name: str) -> Panel:
        q = QUANTITIES[name]
        return Panel(q.title, q.symbol, _unit(name, options.units), *columns[name])

    level = result["data_level_of_theory"] or result["level_of_theory"]
    title = f"Fidelity {result['fidelity']}" + (f": {level}" if level else "")
    write_parity(temporary, [panel(n) for n in IN_FIGURE if n in columns], title)


def _summary(content: Mapping[str, Any], output: Path, figures: Iterable[Path]) -> Summary:
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
        for result in content["results"]
        for name, e in result["errors"].items()
    ]
    table = Table(f"Errors of {content['model']} (energies in {content['units']['energy']})",
                  columns, rows)  # fmt: skip
    return Summary(dict(content), tables=[table], lines=[str(output), *map(str, figures)])
