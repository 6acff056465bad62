"""What the evaluation of a coarse-grained model looks like on a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlff_cli.report.bead_parity import NAMES
from mlff_cli.report.html import Cards, DataTable, Fold, Image, Section, Text

UNIT = "kcal/mol/A"


def bead_evaluation_section(
    name: str, content: Mapping[str, Any], figures: Mapping[str, bytes]
) -> Section:
    """Errors of forces, and free energies of simulations.

    Args:
        name: of the evaluation.
        content: of its file (`report.evaluation.read_evaluation`).
        figures: PNG by file name; what is not there is not shown.
    """
    section = Section(f"Evaluation: {name}", f"{content['model']}, forces in {UNIT}")
    for result in content["results"]:
        _forces(section, result, figures)
    if content["ensembles"]:
        _ensembles(section, content["ensembles"], figures)
    if content.get("provenance"):
        section.blocks.append(Fold("Provenance", json.dumps(content["provenance"], indent=2)))
    return section


def _forces(section: Section, result: Mapping[str, Any], figures: Mapping[str, bytes]) -> None:
    modes = list(result["errors"])
    full = result["errors"]["full"]
    bound = result["noise_bound"]
    cards = [("force RMSE", f"{full['rmse']:.3g}", UNIT)]
    if full.get("relative") is not None:
        cards.append((f"relative error: {full['verdict']}", f"{100 * full['relative']:.1f}", "%"))
    cards += [("noise, at most", f"{bound:.3g}", UNIT)] if bound is not None else []
    section.blocks.append(Cards(cards))
    heads = ["model", f"RMSE ({UNIT})", "relative", "cosine", "components"]
    rows = [
        [NAMES.get(mode, mode), e["rmse"], e.get("relative"), e["cosine"], e["n"]]
        for mode, e in result["errors"].items()
    ]
    caption = f"Forces of {result['frames']:,} frames of {result['data']}"
    section.blocks.append(DataTable(heads, rows, caption))
    heads = ["type", *(f"{NAMES.get(m, m)} ({UNIT})" for m in modes)]
    by_type = result["by_type"]
    rows = [[kind, *(by_type[kind][m]["rmse"] for m in modes)] for kind in by_type]
    section.blocks.append(
        DataTable(heads, rows, "RMSE by type of bead; no force: RMS of the labels")
    )
    section.blocks += [Text(f"Note: {note}") for note in result.get("notes", [])]
    png = figures.get(str(result.get("figure")))
    if png is not None:
        section.blocks.append(Image(png, f"Forces of {result['data']}"))


def _ensembles(section: Section, found: Mapping[str, Any], figures: Mapping[str, bytes]) -> None:
    rows = [
        [
            ", ".join(one["variables"]),
            *(one.get(key) for key in ("divergence", "floor", "ratio", "frames")),
            one.get("rms_difference"),
        ]
        for one in (*found["planes"], *found["profiles"])
    ]
    heads = ["along", "JSD (nat)", "floor (nat)", "ratio", "frames", "RMS dF (kcal/mol)"]
    caption = (
        f"Free energies of {found['molecule']} at {found['temperature']:g} K: Jensen-Shannon "
        "divergence of equal numbers of frames in independent blocks, beside that of two halves "
        "of the reference"
    )
    section.blocks.append(DataTable(heads, rows, caption))
    section.blocks += [Text(f"Note: {note}") for note in found.get("notes", [])]
    section.blocks += [
        Image(figures[name], f"Free energies of {found['molecule']}")
        for name in found["figures"]
        if name in figures
    ]
