"""What a data file is, in words and as plain values: `mlff info` of everything but models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.elements import SYMBOLS
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.force_map_report import force_map_report
from mlff_cli.data.beads.prior_file import read_prior
from mlff_cli.data.grouped_hdf5 import GroupedHDF5, label_names
from mlff_cli.data.sae import read_sae
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.data.trajectories.opening import holds_beads, open_trajectory


@dataclass(frozen=True)
class Description:
    """What a file is.

    Attributes:
        kind: in words.
        facts: what a person reads first.
        data: everything, as plain values.
        provenance: inputs, command, versions; empty when the file records none.
    """

    kind: str
    facts: dict[str, str]
    data: dict[str, Any]
    provenance: Mapping[str, Any]


def describe_grouped(path: Path) -> Description:
    """Labelled molecules."""
    with GroupedHDF5(path) as file:
        sizes = [group.n_atoms for group in file.groups]
        labels = label_names(file)
        recorded = file.attrs.get("provenance")
        origin = _recorded(recorded)
        facts = {
            "molecules": f"{file.n_molecules:,}",
            "atoms per molecule": f"{min(sizes)} to {max(sizes)}",
            "labels": ", ".join(labels) or "none",
            "level of theory": file.level_of_theory or "not recorded",
        }
        groups = {str(g.n_atoms): g.n_molecules for g in file.groups}
    data = {
        "molecules": groups,
        "labels": list(labels),
        "level_of_theory": facts["level of theory"],
    }
    return Description("grouped HDF5 data set", facts, data, origin)


def describe_sae(path: Path) -> Description:
    """Atomic energies."""
    energies = read_sae(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    mark = "provenance: "
    recorded = [line.removeprefix(mark) for line in comments if line.startswith(mark)]
    facts = {f"{SYMBOLS[z]}": f"{energy:.6f} eV" for z, energy in energies.items()}
    facts |= {f"note {i + 1}": c for i, c in enumerate(comments) if not c.startswith(mark)}
    data = {"sae": {str(z): energy for z, energy in energies.items()}}
    origin = _recorded(recorded[0] if recorded else None)
    return Description("atomic energies (SAE)", facts, data, origin)


def _recorded(text: Any) -> dict[str, Any]:
    """A provenance record, or its JSON; other programs write other things there, which are left."""
    try:
        found = text if isinstance(text, dict) else json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("inputs", {}), dict) else {}


def describe_set(path: Path) -> Description:
    """A coarse-grained set."""
    with CGSet(path) as cg:
        meta = cg.metadata
        each = meta.get("molecules", [meta] * len(cg.molecules))
        facts = {
            "frames": f"{cg.n_frames:,}",
            "molecules": str(len(cg.layouts)),
            "beads": _span([len(layout.columns) for layout in cg.layouts]),
            "forces": "yes" if cg.has_forces else "no: `mlff project-forces` adds them",
            "species": _species(cg),
            "temperatures": _temperatures(cg.per_frame("temperature")),
        }
        for k, (molecule, told) in enumerate(zip(cg.molecules, each, strict=False)):
            name = molecule.name
            facts[f"mapping of {name}"] = str(told.get("mapping", "not recorded"))
            if cg.has_forces:
                facts[f"forces of {name}"] = _force_map(force_map_report(meta, k))
        data = {"metadata": meta, "sources": cg.sources, "species_table": cg.species_table}
    made_of = {str(s.get("path")): str(s.get("sha256")) for s in cg.sources}
    origin = dict(meta.get("provenance") or {})
    return Description(
        "coarse-grained set", facts, data, {**origin, "inputs": origin.get("inputs") or made_of}
    )


def _species(cg: CGSet) -> str:
    """Those that occur; the table holds all of the scheme."""
    table = cg.species_table
    if not table or not cg.molecules:
        return ", ".join(table) or "numbers without names"
    met = sorted({int(s) for molecule in cg.molecules for s in molecule.species})
    return f"{len(met)} of {len(table)} occur: {', '.join(table[s] for s in met)}"


def _force_map(report: Mapping[str, Any] | None) -> str:
    """A line on a force map's report."""
    if report is None:
        return "not projected by mlff"
    words = [f"{report.get('map', 'unknown')} map"]
    if isinstance(noise := report.get("noise"), Mapping):
        words.append(f"noise of {noise['sigma']:g} A at {noise['temperature']:g} K")
    words += [f"l2 {report['l2']:g}"] if isinstance(report.get("l2"), int | float) else []
    return ", ".join(words)


def describe_trajectory(path: Path) -> Description:
    """A trajectory of atoms, or of the beads that `mlff simulate` moved."""
    with open_trajectory(path, either=True) as file:
        beads = holds_beads(file)
        facts = {
            "format": file.format,
            "frames": f"{file.n_frames:,}",
            "beads" if beads else "atoms": str(file.n_atoms),
            "forces": "yes" if file.has_forces else "no",
            "topology": "inside" if file.topology is not None else "in another file",
        }
        plain = {k: v for k, v in file.facts.items() if k not in ("provenance", "checked")}
        if file.has_forces and isinstance(plain.get("forces"), str):
            facts["forces"] = f"yes: {plain['forces']}"
        told = {k: _plain(v) for k, v in plain.items() if isinstance(v, str | int | float | list)}
        facts = {**told, **facts}
        origin = _recorded(file.facts.get("provenance"))
        if beads:
            facts["types of beads"] = ", ".join(sorted(set(map(str, file.facts["beads"]))))
            facts.pop("masses_amu", None)  # a number per bead; --json has them
            digest = dict(origin.get("inputs", {})).get(facts.get("model", ""))
            facts |= {"SHA-256 of the model": str(digest)} if digest else {}
    return Description(
        "trajectory of beads" if beads else "trajectory",
        facts,
        {"facts": json.loads(json.dumps(plain, default=str))},
        origin,
    )


def _plain(value: Any) -> str:
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def describe_prior(path: Path) -> Description:
    """A prior."""
    prior = read_prior(path)
    facts = {
        "form": prior.form,
        "mapping": prior.mapping or "not recorded",
        "temperature": "not recorded" if prior.temperature is None else f"{prior.temperature:g} K",
        "species": ", ".join(prior.species),
    }
    for name, term in prior.terms.items():
        n = len(term.entries)
        facts[name] = f"{n} entr{'y' if n == 1 else 'ies'}, weight {term.weight:g}"
    terms = {name: len(term.entries) for name, term in prior.terms.items()}
    return Description("prior", facts, {"terms": terms}, dict(prior.provenance))


def elements(species: list[int]) -> str:
    """Symbols of atomic numbers."""
    return " ".join(SYMBOLS[int(z)] for z in species)


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _temperatures(values: np.ndarray) -> str:
    found = Temperatures.of(values)
    if not found.kelvin:
        return "not recorded"
    return f"{found} K" + (
        f"; of {found.n_unknown:,} frames not recorded" if found.n_unknown else ""
    )
