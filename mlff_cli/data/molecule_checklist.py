"""Findings about labelled molecules: what `mlff check` says of a grouped HDF5 file."""

from __future__ import annotations

from mlff_cli.core.checks import Check
from mlff_cli.core.errors import CheckFailedError
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.molecule_survey import survey_molecules

CLOSE = 0.6  # share of the sum of covalent radii: the shortest bond known, H2, has 1.2
TOUCHING = 0.3  # nuclei so near are a mistake of the file
FORCE = 50.0  # eV/angstrom: beyond it a geometry is far from anything that is sampled
NET = 0.5  # eV/angstrom per molecule: forces of an isolated molecule sum to zero


def check_molecules(file: GroupedHDF5) -> list[Check]:
    """All findings about a file.

    Raises:
        DataError: an input is not finite, or a number is not an element.
    """
    found = survey_molecules(file)
    sizes = [group.n_atoms for group in file.groups]
    told = f"{found.molecules} molecules of {min(sizes)} to {max(sizes)} atoms"
    checks = [Check("contents", f"{told}, level of theory {file.level_of_theory or 'not known'}")]
    checks += [Check("file", note, "warning") for note in file.notes]
    labels = ", ".join(f"{name} {n}" for name, n in found.labels.items() if n)
    checks.append(
        Check("labels", labels)
        if labels
        else Check("labels", "none", "warning", "label the molecules: `mlff label`")
    )
    infinite = ", ".join(f"{name} {n}" for name, n in found.infinite.items() if n)
    if infinite:
        finding = f"molecules with infinite labels: {infinite}"
        checks.append(_failed("infinite", finding, "remove them, or write NaN for 'not known'"))
    if found.contact:
        share, where = found.contact.value, found.contact.where
        finding = f"closest atoms: {share:.2f} times the sum of covalent radii ({where})"
        remedy = "look at that molecule; remove it if it is no geometry to learn"
        if share < TOUCHING:
            checks.append(_failed("contacts", finding, remedy))
        else:
            near = share < CLOSE
            checks.append(Check("contacts", finding, "warning" if near else "ok", remedy))
    if found.force:
        finding = f"largest |F| {found.force.value:.4g} eV/A ({found.force.where})"
        large = found.force.value > FORCE
        remedy = "look at that molecule; is the unit eV/A?"
        checks.append(Check("forces", finding, "warning" if large else "ok", remedy))
    if found.net_force:
        finding = f"largest sum {found.net_force.value:.3g} eV/A ({found.net_force.where})"
        large = found.net_force.value > NET
        remedy = "forces of an isolated molecule sum to zero: is this one converged?"
        checks.append(Check("net force", finding, "warning" if large else "ok", remedy))
    if found.repeated:
        finding = f"{found.repeated} molecules repeat an earlier geometry"
        remedy = "give each once: repeated ones tie training and validation together"
        checks.append(Check("repeated", finding, "warning", remedy))
    else:
        checks.append(Check("repeated", "no geometry occurs twice"))
    return checks


def _failed(name: str, finding: str, remedy: str) -> Check:
    return Check(name, finding, "failed", remedy, CheckFailedError(finding, remedy=remedy))
