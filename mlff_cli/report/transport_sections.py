"""What the evaluation of a flow between temperatures looks like on a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlff_cli.report.html import Cards, DataTable, Fold, Image, Section, Text

FLOW = "flow"
FIGURES = {
    "ramachandran": "Backbone: source, transported, target",
    "energies": "Energies: sampled and transported",
    "works": "Reduced works of both directions",
}


def transport_evaluation_section(
    name: str, content: Mapping[str, Any], figures: Mapping[str, bytes]
) -> Section:
    """Acceptance and weights beside the baselines, free energies, backbone, energies.

    Args:
        name: of the evaluation.
        content: of its file (`report.evaluation.read_evaluation`).
        figures: PNG by kind, of `FIGURES`; what is not there is not shown.
    """
    kelvin, frames = content["temperatures"], content["frames"]
    section = Section(
        f"Evaluation: {name}",
        f"{content['model']}, {kelvin['source']:g} K to {kelvin['target']:g} K",
    )
    flow = content["maps"][FLOW]
    ess = flow["ess"]
    cards = [
        ("acceptance of swaps", _number(flow["acceptance"]["value"]), ""),
        ("excess", _number(flow["excess_nats"]["value"]), "nats"),
        ("ESS forward", _number(_percent(ess["forward"])), "%"),
        ("ESS reverse", _number(_percent(ess["reverse"])), "%"),
    ]
    heads = ["map", "acceptance", "excess (nats)", "ESS forward", "ESS reverse", "dF, BAR (kT)"]
    rows = [
        [
            word,
            _estimate(m["acceptance"]),
            _estimate(m["excess_nats"]),
            m["ess"]["forward"],
            m["ess"]["reverse"],
            _estimate(m["free_energy"]["bar"]),
        ]
        for word, m in content["maps"].items()
    ]
    caption = f"Maps, {frames['source']:,} and {frames['target']:,} frames"
    section.blocks += [Cards(cards), *(Text(note) for note in content.get("notes", []))]
    section.blocks.append(DataTable(heads, rows, caption))
    if content["ramachandran"]:
        section.blocks.append(_planes(content["ramachandran"]))
    section.blocks += [_energies(content["energies"]), _flips(content["flips"])]
    section.blocks += [Image(figures[k], text) for k, text in FIGURES.items() if k in figures]
    if content.get("provenance"):
        section.blocks.append(Fold("Provenance", json.dumps(content["provenance"], indent=2)))
    return section


def _planes(planes: list[Mapping[str, Any]]) -> DataTable:
    """Divergences of Ramachandran planes beside what two halves of the target differ by."""
    rows = []
    for plane in planes:
        found = plane.get("blocks") or plane.get("independent") or {}
        rows.append(
            [
                f"{plane['what']} at {plane['temperature']:g} K",
                ", ".join(plane["variables"]),
                found.get("divergence"),
                found.get("floor"),
                found.get("ratio"),
                (plane.get("independent") or {}).get("frames"),
            ]
        )
    heads = ["backbone", "angles", "JSD (nat)", "split-half floor", "ratio", "independent frames"]
    return DataTable(heads, rows, "Ramachandran planes")


def _energies(energies: Mapping[str, Mapping[str, Any]]) -> DataTable:
    keys = ("before", "behind", "reweighted", "sampled", "sampled_std")
    rows = [[side, *(e.get(k) for k in keys)] for side, e in energies.items()]
    heads = ["flow", "before", "behind", "reweighted", "sampled", "its spread"]
    return DataTable(heads, rows, "Mean energies (kJ/mol)")


def _flips(flips: Mapping[str, Mapping[str, Any]]) -> DataTable:
    rows = [
        [side, f["frames"], f["hands_changed"], f["isomers_changed"]] for side, f in flips.items()
    ]
    heads = ["flow", "frames", "chirality changed", "peptide bonds changed"]
    return DataTable(heads, rows, "Frames whose stereochemistry the flow changed")


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _estimate(estimate: Mapping[str, float | None] | None) -> str | None:
    if not estimate or estimate["value"] is None:
        return None
    error = estimate.get("error")
    return f"{estimate['value']:.4g}" + ("" if error is None else f" +- {error:.1g}")
