"""What runs, evaluations and artifacts look like on a page: plain values in, sections out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlff_cli.report.evaluation import COARSE
from mlff_cli.report.html import Block, Cards, DataTable, Fold, Image, Section, Text

_FIDELITY = re.compile(r"val/fid(\d+)/(\w+)$")
_OVERALL = re.compile(r"val/(\w+)$")
TRANSPORT_CARDS = {
    "val/excess_nats": "excess",
    "val/acceptance": "acceptance",
    "val/ess_fwd": "ESS forward",
    "val/ess_inv": "ESS reverse",
}
ERROR_COLUMNS = ("unit", "n", "mae", "rmse", "r2", "bias", "largest")


def run_section(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    units: Mapping[str, str],
    *,
    curves: bytes | None = None,
    config: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    fidelities: Sequence[Mapping[str, Any]] = (),
) -> Section:
    """A training run.

    Args:
        name: title.
        rows: of metrics.jsonl.
        units: unit by name of a number.
        curves: PNG of the loss curves.
        config: resolved configuration, as YAML.
        provenance: of the model file.
        fidelities: of the model file.
    """
    section = Section(f"Training: {name}")
    validated = [row for row in rows if "val/loss" in row]
    if validated:
        best = min(validated, key=lambda row: row["val/loss"])
        section.subtitle = f"best validation loss at step {best['step']:,}"
        section.blocks.append(
            Cards(
                [
                    ("steps", f"{rows[-1]['step']:,}", ""),
                    ("epochs", f"{rows[-1]['epoch']:,}", ""),
                    ("best validation loss", f"{best['val/loss']:.4g}", ""),
                    *(
                        (f"validation {key.removeprefix('val/')}", f"{best[key]:.4g}", units[key])
                        for key in ("val/E_rmse", "val/F_rmse")
                        if key in best and key in units
                    ),
                    *(
                        (f"validation {word}", f"{best[key]:.4g}", units.get(key, ""))
                        for key, word in TRANSPORT_CARDS.items()
                        if key in best
                    ),
                ]
            )
        )
        section.blocks += _errors_by_fidelity(best, units)
    else:
        section.blocks.append(Text("No validation was logged."))
    if curves is not None:
        section.blocks.append(Image(curves, "Loss and validation errors over the run"))
    if fidelities:
        section.blocks.append(_fidelities(fidelities))
    section.blocks += _folds({"Configuration": config, "Provenance": provenance})
    return section


def _errors_by_fidelity(row: Mapping[str, Any], units: Mapping[str, str]) -> list[Block]:
    """Validation errors: a row per fidelity, a column per error."""
    table: dict[str, dict[str, float]] = {}
    unit_of: dict[str, str] = {}
    for key, value in row.items():
        of_one, of_all = _FIDELITY.match(key), _OVERALL.match(key)
        if of_one:
            who, metric = f"fidelity {of_one[1]}", of_one[2]
        elif of_all:
            who, metric = "all", of_all[1]
        else:
            continue
        if metric.endswith(("_mae", "_rmse")):
            table.setdefault(who, {})[metric] = value
            unit_of.setdefault(metric, units.get(key, ""))
    if not table:
        return []
    # what is zero everywhere (spin charges of closed shells) was not learned
    metrics = list(dict.fromkeys(m for values in table.values() for m, v in values.items() if v))
    columns = [f"{m} ({unit_of[m]})" if unit_of[m] else m for m in metrics]
    rows = [[who, *(table[who].get(m) for m in metrics)] for who in sorted(table)]
    return [DataTable(["", *columns], rows, "Validation errors of the best checkpoint")]


def _fidelities(entries: Sequence[Mapping[str, Any]]) -> DataTable:
    rows = [
        [int(e["index"]), e.get("level_of_theory") or "unknown", e.get("dataset") or ""]
        for e in entries
    ]
    return DataTable(["fidelity", "level of theory", "data"], rows, "Fidelities")


def evaluation_section(
    name: str, content: Mapping[str, Any], figures: Mapping[str, bytes]
) -> Section:
    """Errors and parity figures of an evaluation file."""
    energy = content["units"]["energy"]
    section = Section(f"Evaluation: {name}", f"{content['model']}, energies in {energy}")
    for result in content["results"]:
        level = result.get("data_level_of_theory") or "level of theory unknown"
        caption = (
            f"Fidelity {result['fidelity']}: {result['molecules']:,} molecules of "
            f"{result['data']} ({level})"
        )
        rows = [
            [quantity.replace("_", " "), *(errors.get(c) for c in ERROR_COLUMNS)]
            for quantity, errors in result["errors"].items()
        ]
        heads = ["quantity", "unit", "n", "MAE", "RMSE", "R2", "bias", "largest"]
        section.blocks.append(DataTable(heads, rows, caption))
        section.blocks += [Text(f"Note: {note}") for note in result.get("notes", [])]
        png = figures.get(str(result.get("figure")))
        if png is not None:
            section.blocks.append(Image(png, f"Parity, fidelity {result['fidelity']} ({level})"))
    section.blocks += _folds({"Provenance": content.get("provenance")})
    return section


def artifact_section(name: str, metadata: Mapping[str, Any]) -> Section:
    """What a compiled artifact is and how its verification went."""
    beads = metadata.get("family") == COARSE
    section = (_bead_artifact if beads else _fidelity_artifact)(name, metadata)
    verification = metadata.get("verification")
    if verification:
        rows = [
            [c["name"], f"{c['largest']:.1e}", f"{c['tolerance']:.0e}", c["unit"], c["passed"]]
            for c in verification["checks"]
        ]
        on = verification["molecules"]
        caption = f"Verification on {', '.join(on) if beads else f'{len(on)} molecules'}"
        heads = ["compared", "largest deviation", "allowed", "unit", "passed"]
        section.blocks.append(DataTable(heads, rows, caption))
    section.blocks += _folds({"Provenance": metadata.get("provenance")})
    return section


def _bead_artifact(name: str, metadata: Mapping[str, Any]) -> Section:
    """Title and numbers of an artifact of a coarse-grained molecule."""
    molecule, allegro = metadata["molecule"], metadata.get("allegro")
    prior, n = metadata.get("prior"), int(metadata["members"])
    section = Section(
        f"Artifact: {name}", f"coarse-grained model of {molecule['name']}, energies in kcal/mol"
    )
    section.blocks.append(
        Cards(
            [
                ("beads", str(len(molecule["types"])), ""),
                ("types of beads", str(len(set(molecule["types"]))), ""),
                ("Allegro", "none" if allegro is None else f"cutoff {allegro['cutoff']:g} A", ""),
                ("prior", ", ".join(prior["terms"]) if prior else "none", ""),
                ("members", str(n), ""),
                ("network precision", str(metadata.get("dtype", "")), ""),
            ]
        )
    )
    return section


def _fidelity_artifact(name: str, metadata: Mapping[str, Any]) -> Section:
    """Title and numbers of an artifact of one fidelity."""
    fidelity = metadata["fidelity"]
    d = metadata.get("dispersion")
    dispersion = "none"
    if d:
        dispersion = f"{d['method']} ({d['functional'] or 'given parameters'})"
    level = fidelity.get("level_of_theory") or "level of theory unknown"
    section = Section(f"Artifact: {name}", f"fidelity {fidelity['index']}, {level}")
    section.blocks.append(
        Cards(
            [
                ("fidelity", str(fidelity["index"]), ""),
                ("elements", str(len(metadata["species"])), ""),
                ("dispersion", dispersion, ""),
                ("network precision", str(metadata.get("dtype", "")), ""),
            ]
        )
    )
    return section


def _folds(texts: Mapping[str, Any]) -> list[Block]:
    """A fold for each value that is there; mappings as JSON."""
    return [
        Fold(title, text if isinstance(text, str) else json.dumps(text, indent=2, default=str))
        for title, text in texts.items()
        if text
    ]
