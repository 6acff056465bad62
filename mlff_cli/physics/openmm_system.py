"""What OpenMM simulates: a structure, hydrogens and solvent added, and its force field.

| the force field's files            | solvent                                                    |
|------------------------------------|------------------------------------------------------------|
| name an implicit model (`implicit/obc2.xml`) | implicit, no cutoff                              |
| define water (`amber14/tip3pfb.xml`)         | explicit: a box of water and ions, PME           |
| neither                            | none: a molecule in vacuum, no cutoff                       |

Nothing removes the motion of the centre of mass: a Langevin thermostat keeps all 3N momenta at its
temperature, and the ensemble is canonical in all of them.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import openmm
from openmm import app, unit

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.physics.added_hydrogens import corrected
from mlff_cli.physics.openmm_structures import Molecule

Solvent = Literal["implicit", "explicit", "vacuum"]
CUTOFF = 1.0  # nm, of the explicit solvent's direct space
PADDING = 1.0  # nm of water around the solute
SOLVATED = 0.8  # g/cm3 above which a file's box is full; an X-ray cell of one protein is far below
DALTON_PER_NM3 = 1.66053906660e-3  # in g/cm3, CODATA 2018
WATER_MODELS = {3: "tip3p", 4: "tip4pew", 5: "tip5p"}  # starting geometries, by number of sites
_GB_FORCES = ("GBSAOBCForce", "CustomGBForce")
_NO_FORCE_FIELDS = ("hydrogens.xml", "residues.xml")


@dataclass(frozen=True)
class Simulated(Molecule):
    """What is simulated.

    Attributes:
        system: OpenMM's.
        solvent: which kind.
        hydrogens_added: how many.
        waters_added: how many.
    """

    system: openmm.System
    solvent: Solvent
    hydrogens_added: int
    waters_added: int

    @property
    def periodic(self) -> bool:
        """Whether there is a box."""
        return bool(self.system.usesPeriodicBoundaryConditions())

    @property
    def density(self) -> float | None:
        """In g/cm3; None without a box."""
        return density(self.system)

    @property
    def numbers(self) -> np.ndarray:
        """(N,) atomic numbers; 0 for sites without mass."""
        return np.array(
            [a.element.atomic_number if a.element else 0 for a in self.topology.atoms()]
        )

    @property
    def bonds(self) -> np.ndarray:
        """(b, 2) bonded atoms."""
        pairs = sorted(sorted((a.index, b.index)) for a, b in self.topology.bonds())
        return np.array(pairs, dtype="int32").reshape(-1, 2)


def load_force_field(names: Sequence[str]) -> app.ForceField:
    """OpenMM's force field of the given files.

    Raises:
        UsageError: a name is unknown; near ones are listed.
        DataError: a file is malformed.
    """
    known = force_field_names()
    for name in names:
        if name not in known and not Path(name).is_file():
            near = get_close_matches(name, known, n=4, cutoff=0.4)
            raise UsageError(
                f"--forcefield: OpenMM has no file {name!r}, and there is none here",
                remedy=f"did you mean {', '.join(near)}?" if near else f"one of {', '.join(known)}",
            )
    if not names:
        raise UsageError("--forcefield: at least one file is needed", remedy="amber14-all.xml")
    try:
        return app.ForceField(*names)
    except Exception as error:  # its parser raises whatever it meets
        reason = " ".join(str(error).split())
        raise DataError(
            f"the force field cannot be read: {reason}", where=", ".join(names)
        ) from error


def force_field_names() -> list[str]:
    """Force-field files that come with OpenMM."""
    data = Path(app.__file__).parent / "data"
    found = (str(path.relative_to(data)) for path in data.rglob("*.xml"))
    return sorted(name for name in found if not name.endswith(_NO_FORCE_FIELDS))


def build_system(
    molecule: Molecule,
    forcefield: Sequence[str],
    *,
    constraints: Literal["none", "hbonds"] = "none",
    ph: float = 7.0,
    padding: float = PADDING,
    seed: int = 0,
    where: str = "",
) -> Simulated:
    """Add what is missing and apply the force field.

    Args:
        molecule: the structure. Hydrogens are added where no template fits without.
        forcefield: OpenMM's names or files.
        constraints: "hbonds": bonds to hydrogen and water are rigid; "none": nothing is.
        ph: decides the protonation of added hydrogens.
        padding: nm of water around the solute, where explicit water is added: the force field
            defines it, and the structure is not in a full box already.
        seed: of the places where hydrogens and ions begin.
        where: names the structure in messages.

    Raises:
        UsageError: the force field is unknown, or the box is too narrow.
        DataError: a residue has no template.
    """
    field = load_force_field(forcefield)
    cpu = openmm.Platform.getPlatformByName("Reference")
    water = field._templates.get("HOH")
    implicit = any(name.startswith("implicit/") for name in forcefield)
    explicit = water is not None and not implicit
    modeller = app.Modeller(molecule.topology, molecule.positions * unit.nanometer)
    n_read = modeller.topology.getNumAtoms()
    waters = 0
    with _seeded(seed), _naming(where):
        if unmatched := field.getUnmatchedResidues(modeller.topology):
            _require_known(unmatched, field, forcefield, where)
            there = {(a.residue.index, a.name) for a in modeller.topology.atoms()}
            modeller.addHydrogens(field, pH=ph, platform=cpu)
            _correct_hydrogens(modeller, there)
        hydrogens = modeller.topology.getNumAtoms() - n_read
        if water is not None and explicit and _filled(modeller.topology) < SOLVATED:
            before = modeller.topology.getNumResidues()
            model = WATER_MODELS.get(len(water.atoms), "tip3p")
            modeller.addSolvent(field, model=model, padding=padding * unit.nanometer)
            waters = modeller.topology.getNumResidues() - before
        rigid = constraints == "hbonds"
        if explicit:
            _require_room(modeller.topology, where)
        else:
            modeller.topology.setPeriodicBoxVectors(None)
        system = field.createSystem(
            modeller.topology,
            nonbondedMethod=app.PME if explicit else app.NoCutoff,
            nonbondedCutoff=CUTOFF * unit.nanometer,
            constraints=app.HBonds if rigid else None,
            rigidWater=rigid,
            removeCMMotion=False,
        )
    positions = np.asarray(modeller.positions.value_in_unit(unit.nanometer), dtype="float64")
    born = any(type(force).__name__ in _GB_FORCES for force in system.getForces())
    solvent: Solvent = "explicit" if explicit else "implicit" if born else "vacuum"
    return Simulated(modeller.topology, positions, system, solvent, hydrogens, waters)


def _correct_hydrogens(modeller: app.Modeller, there: Collection[tuple[int, str]]) -> None:
    """Put hydrogens that were not there where they belong."""
    atoms = modeller.topology.atoms()
    added = [a.index for a in atoms if (a.residue.index, a.name) not in there]
    x = np.asarray(modeller.positions.value_in_unit(unit.nanometer), dtype="float64")
    x = corrected(modeller.topology, x, added)
    modeller.positions = [openmm.Vec3(*place) for place in x.tolist()] * unit.nanometer


def density(system: openmm.System) -> float | None:
    """Mass over the volume of the box, g/cm3; None without a box."""
    if not system.usesPeriodicBoundaryConditions():
        return None
    masses = (system.getParticleMass(i)._value for i in range(system.getNumParticles()))
    return _grams(sum(masses), system.getDefaultPeriodicBoxVectors())


def _filled(topology: app.Topology) -> float:
    """Density of the atoms in their box, g/cm3; 0 without a box."""
    edges = topology.getPeriodicBoxVectors()
    masses = (a.element.mass.value_in_unit(unit.dalton) for a in topology.atoms() if a.element)
    return 0.0 if edges is None else _grams(sum(masses), edges)


def _grams(mass: float, edges: Any) -> float:
    """A mass in dalton over the volume of a box, g/cm3."""
    volume = abs(np.linalg.det(np.array(unit.Quantity(edges).value_in_unit(unit.nanometer))))
    return float(mass * DALTON_PER_NM3 / volume)


def _require_known(
    unmatched: Sequence[Any], field: app.ForceField, names: Sequence[str], where: str
) -> None:
    """Refuse residues that nobody knows; the others may only lack hydrogens."""
    # the file, because OpenMM's own tables are empty until something has filled them
    hydrogens = ElementTree.parse(Path(app.__file__).parent / "data" / "hydrogens.xml")
    known = {*field._templates, *(r.attrib["name"] for r in hydrogens.iter("Residue"))}
    strange = [r for r in unmatched if r.name not in known]
    if strange:
        told = ", ".join(dict.fromkeys(f"{r.name} {r.id} (chain {r.chain.id})" for r in strange))
        raise DataError(
            f"the force field ({', '.join(names)}) has no template for the residues {told}",
            where=where,
            remedy="rename or remove them, or add a force-field file that defines them",
        )


def _require_room(topology: app.Topology, where: str) -> None:
    """Refuse a box in which an atom would see another one twice."""
    edges = np.array(topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    narrow = float(np.diag(edges).min())
    if narrow < 2 * CUTOFF:
        raise UsageError(
            f"the box must be {2 * CUTOFF:g} nm wide at least, twice the cutoff, "
            f"found {narrow:.3g} nm",
            where=where,
            remedy=f"take a larger --padding: {CUTOFF:g} nm is always enough where water is added",
        )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """OpenMM places hydrogens and ions by Python's global generator; it is left as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Turn OpenMM's words on residues into ours."""
    try:
        yield
    except (ValueError, KeyError, openmm.OpenMMException) as error:
        text = " ".join(str(error).split())
        residue = re.search(r"residue (\d+) \((\w+)\)", text)
        place = f", residue {residue[1]} ({residue[2]})" if residue else ""
        raise DataError(
            f"the force field does not fit the structure: {text}",
            where=f"{where}{place}",
            remedy="complete or rename the residue, remove it, or add a force-field file with it",
        ) from error
