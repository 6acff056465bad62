"""Findings about a coarse-grained set: what `mlff check` says of it.

Typical forces of one bead per residue, in kcal/mol/angstrom: mean |F| 15 to 30, largest 50 to 100,
root mean square of a component 10 to 20. Projections of least noise and other mappings may lie
outside; a factor of 4.184 or 10 beyond speaks of units.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlff_cli.coarse.set_survey import LIMITS, MoleculeFindings, SetFindings, survey_set
from mlff_cli.core.checks import Check
from mlff_cli.core.errors import CheckFailedError
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.force_map_report import force_map_report
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.data.trajectories.frame_survey import repeats

MEAN, LARGEST, RMS = (15.0, 30.0), (50.0, 100.0), (10.0, 20.0)  # kcal/mol/angstrom, typical
ROOM = 3.0  # times the typical range that other mappings and force maps are given
OUTLIER = 8.0  # times the root mean square of |F|: no thermal force is so large
CONSISTENT = 1e-8  # of W M^T - 1
SHOWN = 5


def check_set(data: CGSet, advance: Callable[[int], None]) -> list[Check]:
    """All findings about a set.

    Args:
        data: the set.
        advance: told how many frames were read since it was last called.

    Raises:
        DataError: the file is damaged.
    """
    found = survey_set(data, advance)
    checks = [_contents(data), _species(data, found), _finite(data, found)]
    checks += _forces(data, found)
    for one in found.molecules:
        checks += [*_bonds(one), *_overlaps(one)]
    return [*checks, _repeated(found), _temperatures(data), *_maps(data)]


def _contents(data: CGSet) -> Check:
    sizes = sorted({len(layout.columns) for layout in data.layouts})
    span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    many = len(data.layouts)
    what = f"{data.n_frames} frames of {many} molecule{'s' * (many > 1)}, {span} beads"
    forces = "with forces" if data.has_forces else "without forces"
    note = f"; {data.notes[0]}" if data.notes else ""
    return Check("contents", f"{what}, {forces}{note}")


def _species(data: CGSet, found: SetFindings) -> Check:
    table = data.species_table
    if not table:
        return Check(
            "species",
            f"no table of names; numbers {', '.join(map(str, sorted(found.species)))} occur",
            "warning",
            "make the set with `mlff cg-map`, which writes the table",
        )
    strange = sorted(s for s in found.species if not 0 <= s < len(table))
    if strange:
        return _failed(
            "species",
            f"the table has numbers 0 to {len(table) - 1}, beads have {strange[:SHOWN]}",
            "make the set again",
        )
    present = [table[s] for s in sorted(found.species)]
    return Check("species", f"{len(present)} of {len(table)} occur: {', '.join(present)}")


def _finite(data: CGSet, found: SetFindings) -> Check:
    if not found.infinite:
        return Check("finite", f"positions{' and forces' * data.has_forces} of all frames")
    rows = ", ".join(map(str, sorted(found.infinite)[:SHOWN]))
    more = ", ..." if len(found.infinite) > SHOWN else ""
    return _failed(
        "finite",
        f"{len(found.infinite)} frames hold values that are not finite: rows {rows}{more}",
        "leave these frames out, or make the set again",
    )


def _forces(data: CGSet, found: SetFindings) -> list[Check]:
    f = found.forces
    if not data.has_forces or not f.n:
        return []
    rows, beads = np.concatenate(found.rows), np.concatenate(f.bead)
    largest, net = np.concatenate(f.largest), np.concatenate(f.net)
    worst = int(largest.argmax())
    told = (
        f"mean |F| {f.mean:.3g} ({_span(MEAN)}), largest {largest[worst]:.4g} ({_span(LARGEST)}; "
        f"frame {rows[worst]}, bead {beads[worst]}), RMS per component {f.rms_component:.3g} "
        f"({_span(RMS)}) kcal/mol/A; in brackets what is usual of one bead per residue"
    )
    checks = [Check("forces", told)]
    if f.rms_component == 0.0:
        checks = [_failed("forces", "every force is zero", "project forces: `mlff project-forces`")]
    elif not RMS[0] / ROOM <= f.rms_component <= RMS[1] * ROOM:
        checks = [
            Check(
                "forces",
                told,
                "warning",
                "make sure of the unit: kJ/mol/nm are 41.84 times, eV/A 0.0434 times these numbers",
            )
        ]
    limit = OUTLIER * np.sqrt(3) * f.rms_component
    far = int((largest > limit).sum())
    if far:
        checks.append(
            Check(
                "outliers",
                f"{far} of {len(largest)} frames have a force above {limit:.4g} kcal/mol/A, "
                f"{OUTLIER:g} times the root mean square of |F|",
                "warning",
                f"look at frame {rows[worst]}; leave such frames out if the dynamics broke there",
            )
        )
    else:
        checks.append(Check("outliers", f"no force above {limit:.4g} kcal/mol/A"))
    checks.append(
        Check(
            "net force",
            f"root mean square {np.sqrt((net * net).mean()):.3g} kcal/mol/A; a projection need "
            "not conserve it",
        )
    )
    return checks


def _span(typical: tuple[float, float]) -> str:
    return f"{typical[0]:g} to {typical[1]:g}"


def _bonds(one: MoleculeFindings) -> list[Check]:
    bonds = one.bonds
    if bonds is None or bonds.worst is None:
        return []
    name, usual = f"{one.name}: bonds", bonds.usual
    far = bonds.broken or bonds.worst
    i, j = far.beads
    told = (
        f"{len(usual)} bonds, medians {usual.min():.2f} to {usual.max():.2f} A; farthest from its "
        f"median: beads {i} and {j} in frame {far.row}, {far.length:.2f} instead of "
        f"{far.usual:.2f} A"
    )
    if one.guessed:
        told += " (consecutive beads: the file names no bonds)"
    if bonds.n_broken and not one.guessed:
        remedy = "make the molecules whole (`mlff cg-map` does), or leave these frames out"
        return [_failed(name, f"{bonds.n_broken} frames with broken bonds; {told}", remedy)]
    if bonds.n_broken:
        return [Check(name, told, "warning", "a chain may end between them")]
    if bonds.n_odd:
        odd = f"{bonds.n_odd} frames with bonds {LIMITS.soft:g} times off their median"
        remedy = f"look at frame {far.row}: beads of many atoms may swing so far, a chain may not"
        return [Check(name, f"{odd}; {told}", "warning", remedy)]
    return [Check(name, told)]


def _overlaps(one: MoleculeFindings) -> list[Check]:
    if one.overlaps is None or one.overlaps.worst is None:
        return []
    worst, limit = one.overlaps.worst, one.overlaps.limit
    i, j = worst.beads
    sample = "" if one.looked == one.n_frames else f" in {one.looked} of {one.n_frames} frames"
    told = (
        f"closest beads without a bond{sample}: {worst.value:.2f} A, {i} and {j}, frame {worst.row}"
    )
    if not worst.count:
        return [Check(f"{one.name}: overlaps", told)]
    return [
        _failed(
            f"{one.name}: overlaps",
            f"{worst.count} frames with beads nearer than {limit:g} A; {told}",
            "leave these frames out; look whether the mapping puts two beads in one place",
        )
    ]


def _repeated(found: SetFindings) -> Check:
    count, first = repeats(found.digests)
    if first is None:
        return Check("repeated frames", "none")
    return Check(
        "repeated frames",
        f"{count} of {len(found.digests)} frames repeat an earlier one, first {first[1]} is "
        f"{first[0]} again",
        "warning",
        "give each trajectory once: repeated frames tie training and validation together",
    )


def _temperatures(data: CGSet) -> Check:
    found = Temperatures.of(data.per_frame("temperature"))
    if not found.kelvin:
        return Check("temperature", "not recorded", "warning", "say it where it is asked for")
    if len(found.kelvin) > 1:
        return Check(
            "temperature",
            f"frames of {len(found.kelvin)} temperatures: {found} K",
            "warning",
            "a potential of mean force belongs to one: `mlff cg-map --temperature`",
        )
    if found.n_unknown:
        return Check(
            "temperature",
            f"{found} K, and {found.n_unknown} of {data.n_frames} frames have none recorded",
            "warning",
            "frames are chosen by temperature, and those without one are left out",
        )
    return Check("temperature", f"{found} K")


def _maps(data: CGSet) -> list[Check]:
    checks = []
    for k in range(len(data.molecules)):
        noisy = bool((force_map_report(data.metadata, k) or {}).get("noise"))
        one = data.molecules[k]
        if one.mapping is None or one.force_map is None:
            continue
        error = float(np.abs(one.force_map @ one.mapping.T - np.eye(one.n_beads)).max())
        told = f"W M^T differs from 1 by {error:.1e}"
        if error <= CONSISTENT or noisy:
            checks.append(Check(f"{one.name}: force map", told + "; noise-augmented" * noisy))
        else:
            remedy = "project the forces again: these are not mean forces of these beads"
            checks.append(_failed(f"{one.name}: force map", told, remedy))
    return checks


def _failed(name: str, finding: str, remedy: str) -> Check:
    return Check(name, finding, "failed", remedy, CheckFailedError(finding, remedy=remedy))
