"""The check that an artifact passes before it is kept.

The artifact is loaded from the bytes that were written and asked, in one padded batch, for
molecules that the eager potential computes one by one. That is done in the precision shipped and
again in float64, where logic errors cannot hide behind rounding. The dispersion part, what is left
of the artifact when network and atomic energies are subtracted, is compared with the package dftd3.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.collections import g2
from ase.data import covalent_radii
from dftd3.interface import DispersionModel, RationalDampingParam
from torch import Tensor

from mlff_cli.core.errors import CheckFailedError
from mlff_cli.core.units import BOHR, HARTREE
from mlff_cli.physics.dispersion_parameters import D3Parameters
from mlff_cli.potentials.total import TotalPotential

N_MOLECULES = 6  # built-in molecules at least, beside what elements need
MAX_ATOMS = 12  # of a built-in molecule
DISTORTION = 0.08  # angstrom, standard deviation
CALLS = 3  # TorchScript rewrites its graph after the first calls: the later ones count as well
STATES = ((0.0, 1.0), (1.0, 2.0), (-1.0, 2.0))  # charge and multiplicity, in turn

# Largest deviation allowed, relative to 1 or to the largest value, whichever is greater.
TOLERANCES = {
    torch.float64: {"energy": 1e-9, "forces": 1e-8, "charges": 1e-9, "spin_charges": 1e-9},
    torch.float32: {"energy": 1e-5, "forces": 1e-4, "charges": 1e-4, "spin_charges": 1e-4},
}
DISPERSION_ENERGY = 1e-8  # hartree, against dftd3
DISPERSION_FORCES = 1e-8  # hartree/bohr
UNITS = {"energy": "eV", "forces": "eV/angstrom", "charges": "e", "spin_charges": "e"}


@dataclass(frozen=True)
class Check:
    """One comparison: the largest deviation seen, and the one allowed."""

    name: str
    largest: float
    tolerance: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the tolerance; NaN is not."""
        return bool(self.largest <= self.tolerance)


@dataclass
class VerificationRecord:
    """What was compared and how it ended.

    Attributes:
        molecules: formulas of the structures compared.
        checks: the comparisons.
    """

    molecules: list[str]
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def require(self, elsewhere: str) -> None:
        """Refuse an artifact of which a check failed.

        Args:
            elsewhere: where the reason may lie if not in mlff.

        Raises:
            CheckFailedError: a deviation is larger than its tolerance; the message lists them.
        """
        if self.passed:
            return
        failed = [c for c in self.checks if not c.passed]
        detail = "; ".join(
            f"{c.name}: {c.largest:.1e} {c.unit}, allowed {c.tolerance:.1e}" for c in failed
        )
        raise CheckFailedError(
            f"the artifact does not reproduce its model ({detail})",
            remedy=f"nothing was kept; this is a bug in mlff or {elsewhere}",
        )

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON and YAML; deviations to two digits."""
        checks = [
            {**asdict(c), "largest": float(f"{c.largest:.1e}"), "passed": c.passed}
            for c in self.checks
        ]
        return {"passed": self.passed, "molecules": self.molecules, "checks": checks}


@dataclass(frozen=True)
class Molecule:
    """A structure to compare on."""

    coord: np.ndarray  # (N, 3) angstrom
    numbers: np.ndarray  # (N,)
    charge: float
    mult: float

    def tensors(self) -> dict[str, Tensor]:
        """Input of a potential, as a batch of one."""
        return {
            "coord": torch.tensor(self.coord, dtype=torch.float64).unsqueeze(0),
            "numbers": torch.tensor(self.numbers, dtype=torch.int64).unsqueeze(0),
            "charge": torch.tensor([self.charge], dtype=torch.float64),
            "mult": torch.tensor([self.mult], dtype=torch.float64),
        }


def molecules_of(species: Sequence[int], seed: int = 0) -> list[Molecule]:
    """Small molecules of these elements, as built and distorted.

    Molecules of the G2 set where it has them, homonuclear dimers for elements it lacks.

    Args:
        species: atomic numbers, each of which appears in at least one molecule.
        seed: of the distortions.
    """
    allowed = set(species)
    found = [g2[name] for name in sorted(g2.names)]
    found = [a for a in found if set(a.numbers) <= allowed and 1 < len(a) <= MAX_ATOMS]
    chosen: list[Atoms] = []
    for z in sorted(allowed):
        if any(z in a.numbers for a in chosen):
            continue
        holding = [a for a in found if z in a.numbers]
        # the richest in elements, then the largest: fewer molecules show more
        richest = sorted(holding, key=lambda a: (-len(set(a.numbers)), -len(a)))
        bond = 2.2 * covalent_radii[z]
        chosen.append(richest[0] if richest else Atoms([z, z], [[0, 0, 0], [0, 0, bond]]))
    for atoms in sorted(found, key=len, reverse=True):
        if len(chosen) >= N_MOLECULES:
            break
        if all(atoms is not other for other in chosen):
            chosen.append(atoms)
    rng = np.random.default_rng(seed)
    molecules = []
    for i, atoms in enumerate(chosen):
        for distortion in (0.0, DISTORTION):
            charge, mult = STATES[(i + (distortion > 0)) % len(STATES)]
            coord = atoms.positions + rng.normal(scale=1.0, size=(len(atoms), 3)) * distortion
            molecules.append(Molecule(coord, np.asarray(atoms.numbers), charge, mult))
    return molecules


def padded(molecules: Sequence[Molecule]) -> dict[str, Tensor]:
    """One batch of molecules of different sizes; padding gets coordinates that must not matter."""
    n = max(len(m.numbers) for m in molecules) + 1
    coord = torch.full((len(molecules), n, 3), 0.5, dtype=torch.float64)  # [b, i, xyz]
    numbers = torch.zeros(len(molecules), n, dtype=torch.int64)  # [b, i]
    for b, m in enumerate(molecules):
        coord[b, : len(m.numbers)] = torch.tensor(m.coord)
        numbers[b, : len(m.numbers)] = torch.tensor(m.numbers)
    return {
        "coord": coord,
        "numbers": numbers,
        "charge": torch.tensor([m.charge for m in molecules], dtype=torch.float64),
        "mult": torch.tensor([m.mult for m in molecules], dtype=torch.float64),
    }


def verify(
    artifact: torch.jit.ScriptModule,
    eager: TotalPotential,
    parameters: D3Parameters | None = None,
    seed: int = 0,
) -> VerificationRecord:
    """Compare a loaded artifact with the eager potential and with dftd3.

    Args:
        artifact: loaded from the file that was written; it is float64 afterwards.
        eager: what was compiled; it is not changed.
        parameters: of the dispersion inside, or None when there is none.
        seed: of the distortions.

    Returns:
        The record, when every check passed.

    Raises:
        CheckFailedError: a deviation is larger than its tolerance; the message lists them.
    """
    molecules = molecules_of(eager.species, seed)
    with one_thread():
        return _verify(artifact, eager, parameters, molecules)


def _verify(
    artifact: torch.jit.ScriptModule,
    eager: TotalPotential,
    parameters: D3Parameters | None,
    molecules: Sequence[Molecule],
) -> VerificationRecord:
    record = VerificationRecord(sorted({_formula(m) for m in molecules}))
    shipped = next(eager.network.parameters()).dtype
    record.checks += _against_eager(artifact, eager, molecules, shipped)
    artifact, exact = artifact.double(), copy.deepcopy(eager).double()
    if shipped != torch.float64:
        record.checks += _against_eager(artifact, exact, molecules, torch.float64)
    if parameters is not None:
        record.checks += _against_dftd3(artifact, exact, molecules, parameters)
    record.require("in the installed torch or dftd3")
    return record


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Molecules are too small for threads, and the record must not depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _against_eager(
    artifact: torch.jit.ScriptModule,
    eager: TotalPotential,
    molecules: Sequence[Molecule],
    dtype: torch.dtype,
) -> list[Check]:
    """One padded batch through the artifact, its molecules one by one through the eager one."""
    expected = [eager(m.tensors()) for m in molecules]
    sae = eager.atomic_energies(padded(molecules)["numbers"])  # [b] eV
    largest = dict.fromkeys(UNITS, 0.0)
    for _ in range(CALLS):
        out = artifact(padded(molecules))
        for b, (molecule, wanted) in enumerate(zip(molecules, expected, strict=True)):
            n = len(molecule.numbers)
            for name in UNITS:
                seen = _rows(out[name][b])  # [i] or [i, xyz]; energy has one entry
                value = _rows(wanted[name][0])
                offset = float(sae[b]) if name == "energy" else 0.0
                deviation = _largest(seen[:n] - value) / max(1.0, _largest(value - offset))
                largest[name] = _max(largest[name], deviation, _largest(seen[n:]))
    label = str(dtype).removeprefix("torch.")
    return [
        Check(
            f"{name} of the artifact and the eager model, {label}, relative",
            largest[name],
            TOLERANCES[dtype][name],
            UNITS[name],
        )
        for name in UNITS
    ]


def _against_dftd3(
    artifact: torch.jit.ScriptModule,
    eager: TotalPotential,
    molecules: Sequence[Molecule],
    parameters: D3Parameters,
) -> list[Check]:
    """What the artifact adds to network and atomic energies, against dftd3."""
    bare = copy.copy(eager)
    bare._modules = {**eager._modules, "dispersion": None}
    p = parameters
    damping = RationalDampingParam(s6=p.s6, s8=p.s8, s9=p.s9, a1=p.a1, a2=p.a2, alp=14.0)
    energy = forces = 0.0
    for molecule in molecules:
        out, rest = artifact(molecule.tensors()), bare(molecule.tensors())
        model = DispersionModel(molecule.numbers, molecule.coord / BOHR)
        reference = model.get_dispersion(damping, grad=True)
        e = (out["energy"] - rest["energy"])[0].item() / HARTREE
        f = (out["forces"] - rest["forces"])[0].numpy() / (HARTREE / BOHR)
        energy = _max(energy, abs(e - reference["energy"]))
        forces = _max(forces, float(np.abs(f + reference["gradient"]).max()))
    return [
        Check("dispersion energy of the artifact and dftd3", energy, DISPERSION_ENERGY, "hartree"),
        Check(
            "dispersion forces of the artifact and dftd3",
            forces,
            DISPERSION_FORCES,
            "hartree/bohr",
        ),
    ]


def _rows(values: Tensor) -> Tensor:
    """The values with at least one axis."""
    return values if values.dim() else values.unsqueeze(0)


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _max(*values: float) -> float:
    """The largest value; NaN when one is NaN, which the builtin may lose."""
    return float(np.max(values))


def _formula(molecule: Molecule) -> str:
    """Hill formula with the charge's sign."""
    text = str(Atoms(molecule.numbers).get_chemical_formula())
    return text + {0.0: "", 1.0: "+", -1.0: "-"}[molecule.charge]
