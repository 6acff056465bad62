"""What an evaluation of a coarse-grained model found, as plain values, arrays and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.reporting import Table
from mlff_cli.deploy.beads.ensembles import Compared
from mlff_cli.deploy.beads.errors import BeadErrors, ForceErrors
from mlff_cli.deploy.beads.force_comparison import ForceComparison
from mlff_cli.physics.ensembles.divergence import Comparison
from mlff_cli.physics.ensembles.landscapes import Landscape

ORDER = ("full", "prior", "ml", "zero")
NAMES = {"full": "full model", "prior": "prior alone", "ml": "Allegro alone", "zero": "no force"}
MOST_ROWS = 24  # of landscapes on the terminal; the file has them all
UNIT = "kcal/mol/A"


def modes_of(errors: BeadErrors) -> list[str]:
    """Modes in the order in which they are shown."""
    return [m for m in ORDER if m in errors.modes]


def force_content(found: ForceComparison) -> dict[str, Any]:
    """Errors of forces as plain values."""
    errors = found.errors
    modes = modes_of(errors)
    grouped = {
        key: {
            name: {mode: errors.by(what, mode)[name].plain() for mode in modes}
            for name in errors.by(what, modes[0])
        }
        for key, what in (("by_type", "types"), ("by_residue", "residues"))
    }
    return {
        "frames": sum(errors.frames(k) for k in errors.molecules),
        "temperature": found.kelvin,
        "noise_bound": found.noise_bound,
        "errors": {mode: errors.overall(mode).plain() for mode in modes},
        **grouped,
        "molecules": [_molecule(found, k, modes) for k in errors.molecules],
        "notes": found.notes,
    }


def _molecule(found: ForceComparison, k: int, modes: list[str]) -> dict[str, Any]:
    """One molecule, bead by bead."""
    topology, errors = found.topologies[k], found.errors
    beads = {mode: errors.of_beads(mode, k) for mode in modes}
    return {
        "name": topology.name,
        "frames": errors.frames(k),
        "errors": {mode: errors.of_molecule(mode, k).plain() for mode in modes},
        "beads": [
            {
                "bead": i,
                "name": topology.bead_names[i],
                "residue": f"{topology.residue_names[i]}{int(topology.residues[i])}",
                "type": topology.types[i],
                "rmse": {mode: beads[mode][i].rmse for mode in modes},
                "relative": {mode: beads[mode][i].relative for mode in modes},
                "cosine": {mode: beads[mode][i].cosine for mode in modes},
            }
            for i in range(topology.n_beads)
        ],
    }


def force_table(found: ForceComparison, title: str) -> Table:
    """A row per mode."""
    rows = []
    for mode in modes_of(found.errors):
        e = found.errors.overall(mode)
        told = e.plain()
        rows.append(
            [
                NAMES[mode],
                f"{e.rmse:.4g}",
                "-" if e.relative is None else f"{100 * e.relative:.1f} %",
                told.get("verdict", "-") if mode != "zero" else "-",
                "-" if e.cosine is None else f"{e.cosine:.4f}",
                f"{e.n:,}",
            ]
        )
    notes = []
    if found.noise_bound is not None:
        notes.append(
            f"noise of the reference forces: at most {found.noise_bound:.4g} {UNIT}, which no "
            "model of these beads can predict"
        )
    notes += _worst(found)
    columns = ["model", f"RMSE, {UNIT}", "relative", "verdict", "cosine", "components"]
    return Table(f"Forces of {title}", columns, rows, notes)


def _worst(found: ForceComparison) -> list[str]:
    by_type = found.errors.by("types", "full")
    if len(by_type) < 2:
        return []
    name = max(by_type, key=lambda n: by_type[n].rmse)
    return [f"largest of all types: {name}, {by_type[name].rmse:.4g} {UNIT}; the file has them all"]


def told(errors: ForceErrors) -> list[str]:
    """Lines beside a parity panel."""
    lines = [f"RMSE {errors.rmse:.3g} kcal/mol/\N{LATIN CAPITAL LETTER A WITH RING ABOVE}"]
    if errors.relative is not None:
        lines.append(f"relative {100 * errors.relative:.1f} %")
    if errors.cosine is not None:
        lines.append(f"cosine {errors.cosine:.3f}")
    return [*lines, f"n = {errors.n:,}"]


def landscape_content(compared: Compared) -> dict[str, Any]:
    """Free energies' comparison as plain values; the landscapes themselves are arrays."""
    return {
        "temperature": compared.kelvin,
        "frames": dict(zip(("reference", "simulation"), compared.frames, strict=True)),
        "series": dict(zip(("reference", "simulation"), compared.series, strict=True)),
        "timescales": [t if np.isfinite(t) else None for t in compared.timescales],
        "planes": [_landscape(one) for one in compared.planes],
        "profiles": [_landscape(one) for one in compared.profiles],
        "notes": compared.notes,
    }


def _landscape(one: Landscape) -> dict[str, Any]:
    rms = one.difference[1]
    found: dict[str, Any] = {
        "variables": [v.name for v in one.variables],
        "inefficiency": dict(zip(("reference", "simulation"), one.inefficiency, strict=True)),
        "rms_difference": rms if np.isfinite(rms) else None,
    }
    if one.why is not None:
        found["why"] = one.why
    return {**found, **_comparison(one.comparison), "independent": _comparison(one.independent)}


def _comparison(c: Comparison | None) -> dict[str, Any]:
    if c is None:
        return {"divergence": None}
    return {
        "divergence": c.divergence.mean,
        "divergence_std": c.divergence.std,
        "floor": c.floor.mean,
        "floor_std": c.floor.std,
        "floor_in_order": c.in_order,
        "ratio": c.ratio if np.isfinite(c.ratio) else None,
        "frames": c.frames,
        "block": c.block,
    }


def landscape_table(compared: Compared) -> Table:
    """A row per plane and profile, planes first."""
    made = [*compared.planes, *compared.profiles]
    rows = []
    for one in made[:MOST_ROWS]:
        c, single, rms = one.comparison, one.independent, one.difference[1]
        numbers = ["-"] * 4
        if c is not None:
            numbers = [
                f"{c.divergence.mean:.3g} +- {c.divergence.std:.1g}",
                f"{c.floor.mean:.3g} +- {c.floor.std:.1g}",
                f"{c.ratio:.2f}" if c.tells else f"({c.ratio:.2f})",
                f"{c.frames} in {c.frames // c.block}",
            ]
        alone = "-"
        if single is not None:
            alone = f"{single.ratio:.2f}" if single.tells else f"({single.ratio:.2f})"
        rows.append([one.name, *numbers, alone, f"{rms:.2f}" if np.isfinite(rms) else "-"])
    notes = [
        "JSD: Jensen-Shannon divergence (nat) of equal numbers of frames in independent blocks; "
        "floor: of two halves of the reference with as many; ratio: of both",
        "single: the ratio where only independent frames are taken, without those between; a ratio "
        "in brackets says nothing, as three times its floor is more than any divergence",
    ]
    if len(made) > MOST_ROWS:
        notes.append(f"and {len(made) - MOST_ROWS} more: see the file")
    frames = f"{compared.frames[1]} frames against {compared.frames[0]}"
    columns = ["along", "JSD", "floor", "ratio", "frames in blocks", "single", "RMS dF, kcal/mol"]
    return Table(f"Free energies at {compared.kelvin:g} K, {frames}", columns, rows, notes)


def landscape_arrays(compared: Compared) -> dict[str, np.ndarray]:
    """Arrays of an NPZ file: frames in every cell and its borders, per landscape k.

    `index` is JSON: {variables, units} of every k. Dihedrals are radian, lengths angstrom.
    """
    made = [*compared.planes, *compared.profiles]
    units = {"dihedral": "radian", "length": "angstrom"}
    index = [
        {
            "variables": [v.name for v in one.variables],
            "units": [units.get(v.kind, "") for v in one.variables],
        }
        for one in made
    ]
    arrays: dict[str, np.ndarray] = {
        "index": np.array(json.dumps(index)),
        "kt": np.array(made[0].kt),
    }
    for k, one in enumerate(made):
        arrays[f"reference_{k}"], arrays[f"simulation_{k}"] = one.reference, one.simulation
        arrays |= {f"edges_{k}_{axis}": a.edges for axis, a in enumerate(one.axes)}
    return arrays


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as NPZ; nothing atomic happens here."""
    with path.open("wb") as stream:  # a path would be given the suffix .npz once more
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
