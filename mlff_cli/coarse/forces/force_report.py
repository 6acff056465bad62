"""What is known of a force map: plain values for the file, tables for the terminal.

Mean squared forces are E|F|^2 per component in (kcal/mol/angstrom)^2, averaged over beads and
frames; a bead's |F|^2 is three times its own. A map that minimises them on the frames it was fitted
on is judged by the held-out ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlff_cli.coarse.forces.force_fit import Fit
from mlff_cli.coarse.forces.force_map import FEWEST, ForceMap, mean_square
from mlff_cli.coarse.forces.force_split import Split
from mlff_cli.core.reporting import Table

UNITS = "(kcal/mol/angstrom)^2"
OVERFITTED = 1.5  # times the fitted mean squared force: more on held-out frames is warned of
TINY = float(np.finfo(float).tiny)
MOST_SHOWN = 6  # molecules on the terminal; the file has them all
DIGITS = 6  # significant ones of a bead's mean squared force in the file


def fit_report(fit: Fit, split: Split) -> dict[str, Any]:
    """Plain values of one molecule's force map."""
    chosen = fit.chosen
    maps = {"basic": fit.basic, "optimal": fit.optimal, chosen.method: chosen}
    report: dict[str, Any] = {
        "map": chosen.method,
        "frames": {
            "training": split.n_training,
            "held_out": split.n_held_out,
            "blocks": split.n_blocks,
        },
        "weights": fit.training.n_groups,
        "consistency": chosen.consistency,
        "condition": chosen.condition,
        "l2": chosen.l2,
        "l2_of_aggforce": fit.aggforce_l2,
        "mean_square_force": {
            name: _scores(force_map, fit) for name, force_map in maps.items() if force_map
        },
    }
    if chosen.sigma is not None:
        report["noise"] = {"sigma": chosen.sigma, "temperature": chosen.temperature}
    if fit.validation is not None:
        report["cross_validation"] = {
            **{n: _plain(getattr(fit.validation, n)) for n in ("grid", "training", "held_out")},
            "at_edge": fit.validation.at_edge,
        }
    if fit.difference is not None:
        report["difference_from_native"] = fit.difference
    return report


def judgement(report: Mapping[str, Any]) -> list[str]:
    """What a user must be told of one molecule's map."""
    scores = report["mean_square_force"]
    chosen, basic = scores[report["map"]], scores["basic"]
    notes = []
    if report.get("cross_validation", {}).get("at_edge"):
        notes.append(
            f"cross-validation chose the largest l2 that it tried, {report['l2']:g}: an even "
            "larger one may do better; the data hardly determine the map, use more frames"
        )
    if report["map"] == "basic":
        return notes
    n = report["frames"]["training"]
    can_validate = n >= FEWEST and "cross_validation" not in report
    remedy = "use more frames" + (", or --l2 cv" if can_validate else "")
    held_out, fitted = chosen["held_out"], chosen["training"]
    if held_out is not None and held_out > basic["held_out"]:
        notes.append(
            f"the {report['map']} map is worse than the basic one on held-out frames "
            f"({held_out:.4g} against {basic['held_out']:.4g} {UNITS}): it fits the noise of too "
            f"few frames; {remedy}, or --method basic"
        )
    elif held_out is not None and held_out > OVERFITTED * fitted:
        notes.append(
            f"held-out frames have {held_out / max(fitted, TINY):.3g} times the mean squared force "
            f"of those fitted on ({held_out:.4g} against {fitted:.4g} {UNITS}): the map fits noise "
            f"of the frames that it has seen, whose forces in the file are too small; {remedy}"
        )
    elif held_out is None and 3 * n < report["weights"]:
        notes.append(
            f"the map fits {report['weights']} weights to fewer components of force, 3 x {n}, and "
            f"no frame is held out to judge it on; {remedy}"
        )
    return notes


def tables(reports: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Tables of several molecules' reports, as `stages.project_forces` completes them."""
    shown = reports[:MOST_SHOWN]
    rest = len(reports) - len(shown)
    more = [f"and {rest} more molecules: see the file's metadata"] if rest else []
    return [_constraint_table(shown, more), _force_table(shown, more), _map_table(shown, more)]


def _constraint_table(reports: Sequence[Mapping[str, Any]], more: list[str]) -> Table:
    rows = [
        [
            r["molecule"],
            r["atoms"],
            c["groups"],
            c["atoms"],
            *("-" if c[k] is None else c[k] for k in ("from_topology", "from_trajectory")),
        ]
        for r in reports
        for c in [r["constraints"]]
    ]
    notes = [f"{r['molecule']}: {r['constraints']['relied_on']}" for r in reports]
    columns = ["molecule", "atoms", "rigid groups", "atoms in them", "pairs by topology"]
    return Table("constraints", [*columns, "pairs by trajectory"], rows, [*notes, *more])


def _force_table(reports: Sequence[Mapping[str, Any]], more: list[str]) -> Table:
    rows = []
    for r in reports:
        for name, score in r["mean_square_force"].items():
            judged = "held_out" if score["held_out"] is not None else "training"
            beads = score[f"{judged}_of_beads"]
            worst = int(np.argmax(beads))
            rows.append(
                [
                    r["molecule"],
                    name + (" (used)" if name == r["map"] else ""),
                    f"{score['training']:.4g}",
                    "-" if score["held_out"] is None else f"{score['held_out']:.4g}",
                    f"{3 * score[judged]:.4g}",
                    f"{3 * beads[worst]:.4g} (bead {worst})",
                ]
            )
    columns = ["molecule", "map", "fitted", "held out", "|F|^2 of a bead", "of the worst"]
    return Table(f"mean squared CG force, {UNITS} per component", columns, rows, [*more])


def _map_table(reports: Sequence[Mapping[str, Any]], more: list[str]) -> Table:
    rows: list[list[Any]] = [
        ["map", *(f"{r['map']}, {r['beads']} x {r['atoms']}" for r in reports)],
        ["frames fitted on", *(r["frames"]["training"] for r in reports)],
        ["frames held out", *(r["frames"]["held_out"] for r in reports)],
        ["largest |W M^T - 1|", *(f"{r['consistency']:.1e}" for r in reports)],
        ["condition of the Gram matrix", *(_number(r["condition"], ".1e") for r in reports)],
        [f"l2, {UNITS}", *(f"{r['l2']:g}" for r in reports)],
        ["the same l2 for aggforce", *(f"{r['l2_of_aggforce']:g}" for r in reports)],
    ]
    bounds = [r.get("unlearnable") or {} for r in reports]
    if any(bounds):
        rows += [
            ["variance no CG model learns, at most", *(_bound(b) for b in bounds)],
            ["from so many frames", *(_frames(b) for b in bounds)],
            ["as near as, A", *(_number(b.get("distance"), ".2g") for b in bounds)],
        ]
    notes = [
        f"{r['molecule']}: noise of {r['noise']['sigma']:g} A at {r['noise']['temperature']:g} K, "
        "for which W M^T need not be 1"
        for r in reports
        if "noise" in r
    ]
    notes += [
        f"{r['molecule']}: no bound on the variance, {b['why']}"
        for r, b in zip(reports, bounds, strict=True)
        if "why" in b
    ]
    columns = ["force map", *(r["molecule"] for r in reports)]
    return Table("force map", columns, rows, [*notes, *more])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _bound(found: Mapping[str, Any]) -> str:
    if found.get("bound") is None:
        return "-"
    error = found["error"]
    return f"{found['bound']:.4g}" + ("" if error is None else f" +- {error:.2g}")


def _frames(found: Mapping[str, Any]) -> str:
    return f"{found['frames']} of {found['of']}" if "of" in found else "-"


def _scores(force_map: ForceMap, fit: Fit) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, gram in (("training", fit.training), ("held_out", fit.held_out)):
        beads = None if gram is None else mean_square(force_map, gram)
        found[name] = None if beads is None else float(beads.mean())
        found[f"{name}_of_beads"] = (
            None if beads is None else [float(f"{b:.{DIGITS}g}") for b in beads]
        )
    return found


def _plain(values: np.ndarray) -> list[float | None]:
    """Values for JSON, which has no NaN."""
    return [float(v) if np.isfinite(v) else None for v in values]
