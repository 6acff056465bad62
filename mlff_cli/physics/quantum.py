"""Labelling engines: a method's name becomes a function from geometry to labels.

    E, F, q, s = method(x, Z, Q, M)
        x (N, 3) angstrom    nuclei           E ()      eV             total energy
        Z (N,)               atomic numbers   F (N, 3)  eV/angstrom    -dE/dx
        Q e                  total charge     q (N,)    e              partial charges, sum Q
        M                    2S + 1           s (N,)    e              spin charges, sum M - 1

| method                  | engine | labels                                 |
|-------------------------|--------|----------------------------------------|
| gfn2-xtb, gfn1-xtb      | tblite | energy, forces, charges                |
| pyscf:XC/BASIS          | PySCF  | energy, forces, charges, spin_charges  |
| ase:MODULE:CLASS        | ASE    | energy, and what the calculator offers |

Every engine returns float64 arrays; none prints. The packages are imported when an engine is made.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from mlff_cli.core import artifacts, units
from mlff_cli.core.errors import DataError, NumericalError, UsageError
from mlff_cli.core.runtime import require

Labels = dict[str, np.ndarray]
Evaluate = Callable[[np.ndarray, np.ndarray, int, int], Labels]

XTB_ACCURACY = 0.1  # of tblite's default thresholds: forces then agree with differences of energies
XTB_METHODS = MappingProxyType({"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"})
GRID_LEVEL = 3  # PySCF's own default
ENERGY_TOLERANCE = 1e-9  # hartree, between two SCF iterations


@dataclasses.dataclass(frozen=True)
class Engine:
    """A method that is ready to label.

    Attributes:
        method: the string that names it.
        level_of_theory: what to write into files.
        labels: the labels it gives, in the vocabulary's names.
        settings: what else decides the numbers (grid, thresholds, ...), plain values.
        packages: distributions whose versions decide the numbers.
        evaluate: the bare calculation.
    """

    method: str
    level_of_theory: str
    labels: tuple[str, ...]
    settings: Mapping[str, Any]
    packages: tuple[str, ...]
    evaluate: Evaluate

    @property
    def versions(self) -> dict[str, str]:
        """Installed version of each package."""
        return {name: artifacts.version(name) for name in self.packages}

    def __call__(self, coord: np.ndarray, numbers: np.ndarray, charge: int, mult: int) -> Labels:
        """Label one molecule.

        Args:
            coord: positions (N, 3), angstrom.
            numbers: atomic numbers (N,).
            charge: total charge, e.
            mult: spin multiplicity 2S+1.

        Returns:
            label -> float64 array in eV, eV/angstrom, e.

        Raises:
            DataError: charge and multiplicity do not fit the electrons.
            NumericalError: the calculation does not converge or gives a NaN.
        """
        check_electrons(numbers, charge, mult)
        found = self.evaluate(np.asarray(coord, float), np.asarray(numbers, int), charge, mult)
        labels = {name: np.asarray(found[name], dtype="float64") for name in self.labels}
        for name, values in labels.items():
            if not np.isfinite(values).all():
                raise NumericalError(f"{self.method} gives a {name!r} that is not finite")
        return labels


def make_engine(method: str) -> Engine:
    """The engine of a method's name, as in the table above.

    Raises:
        UsageError: no such method, functional, basis or calculator.
        MissingDependencyError: its package is not installed.
    """
    kind, _, rest = method.partition(":")
    builder = _BUILDERS.get(kind.lower())
    if builder is None:
        raise UsageError(
            f"unknown method {method!r}",
            remedy="use gfn2-xtb, gfn1-xtb, pyscf:XC/BASIS (as pyscf:pbe/def2-svp) or "
            "ase:MODULE:CLASS (as ase:ase.calculators.emt:EMT)",
        )
    return builder(method, rest)


def check_electrons(numbers: np.ndarray, charge: int, mult: int) -> None:
    """Refuse a multiplicity that the number of electrons does not allow.

    n = sum Z - Q electrons, of which M - 1 are unpaired: n >= M - 1 and both odd or both even.

    Raises:
        DataError: they do not fit.
    """
    electrons = int(np.sum(numbers)) - charge
    if mult < 1 or electrons < max(mult - 1, 1) or (electrons - mult + 1) % 2:
        raise DataError(
            f"{electrons} electrons (charge {charge:+d}) cannot have multiplicity {mult}",
            remedy="give the molecule's charge and multiplicity (`charge` and `mult` in the file)",
        )


def _tblite(method: str, rest: str) -> Engine:
    if rest:
        raise UsageError(f"{method!r}: xTB methods take nothing after a colon")
    name = method.lower()
    interface = require("tblite.interface", "label")

    def evaluate(coord: np.ndarray, numbers: np.ndarray, charge: int, mult: int) -> Labels:
        try:
            calculator = interface.Calculator(
                XTB_METHODS[name], numbers, coord / units.BOHR, float(charge), mult - 1
            )
            calculator.set("verbosity", 0)
            calculator.set("accuracy", XTB_ACCURACY)
            result = calculator.singlepoint()
        except RuntimeError as error:  # the base of tblite's errors
            raise NumericalError(f"{name}: {' '.join(str(error).split())}") from error
        return {
            "energy": np.asarray(result.get("energy") * units.HARTREE),
            "forces": -result.get("gradient") * (units.HARTREE / units.BOHR),
            "charges": result.get("charges"),
        }

    labels = ("energy", "forces", "charges")
    return Engine(method, name, labels, {"accuracy": XTB_ACCURACY}, ("tblite",), evaluate)


def _pyscf(method: str, rest: str) -> Engine:
    xc, slash, basis = rest.partition("/")
    if not (xc and slash and basis):
        raise UsageError(f"{method!r} must read pyscf:XC/BASIS", remedy="as in pyscf:pbe/def2-svp")
    gto, dft = require("pyscf.gto", "label"), require("pyscf.dft", "label")
    lib = require("pyscf.lib", "label")
    try:
        dft.libxc.parse_xc(xc)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{method!r}: PySCF knows no functional {xc!r}") from error
    try:
        gto.basis.load(basis, "H")
    except Exception as error:  # PySCF raises several kinds, none of them public
        raise UsageError(f"{method!r}: PySCF knows no basis {basis!r} for H") from error

    def evaluate(coord: np.ndarray, numbers: np.ndarray, charge: int, mult: int) -> Labels:
        lib.num_threads(1)  # the workers are the parallelism
        try:
            return _kohn_sham(gto, dft, xc, basis, coord, numbers, charge, mult)
        except NumericalError as error:
            raise NumericalError(f"{method}: {error.message}") from error
        except Exception as error:  # one odd molecule must not end a run over thousands
            raise NumericalError(f"{method}: {type(error).__name__}: {error}") from error

    settings = {
        "xc": xc,
        "basis": basis,
        "density_fitting": "PySCF's default auxiliary basis",
        "grid_level": GRID_LEVEL,
        "conv_tol": ENERGY_TOLERANCE,
        "charges": "Mulliken",
    }
    level = f"{xc}/{basis}".lower()
    labels = ("energy", "forces", "charges", "spin_charges")
    return Engine(method, level, labels, settings, ("pyscf",), evaluate)


def _kohn_sham(
    gto: Any,
    dft: Any,
    xc: str,
    basis: str,
    coord: np.ndarray,
    numbers: np.ndarray,
    charge: int,
    mult: int,
) -> Labels:
    """RKS for singlets, UKS for the rest, with density fitting."""
    atoms = [(int(z), tuple(x)) for z, x in zip(numbers, coord / units.BOHR, strict=True)]
    mol = gto.M(atom=atoms, unit="Bohr", basis=basis, charge=charge, spin=mult - 1, verbose=0)
    field = (dft.RKS if mult == 1 else dft.UKS)(mol, xc=xc).density_fit()
    field.grids.level = GRID_LEVEL
    field.conv_tol = ENERGY_TOLERANCE
    scratch = field._chkfile  # an open file; PySCF leaves closing it to the garbage collector
    try:
        return _solve(field, numbers, restricted=mult == 1)
    finally:
        if scratch is not None:
            scratch.close()


def _solve(field: Any, numbers: np.ndarray, *, restricted: bool) -> Labels:
    """Converge a PySCF mean field and read off the labels."""
    energy = field.kernel()
    if not field.converged:
        field = field.newton()  # second order: slower, and converges where DIIS swings
        energy = field.kernel()
    if not field.converged:
        raise NumericalError(f"the SCF did not converge, last energy {energy} hartree")
    gradient = field.nuc_grad_method()
    gradient.grid_response = True  # exact derivative on a finite grid: forces sum to zero
    density = field.make_rdm1()  # [K, K], or [2, K, K] for alpha and beta
    spin = np.zeros(len(numbers))
    if not restricted:
        alpha, beta = (_populations(field.mol, d) for d in density)
        density, spin = density[0] + density[1], alpha - beta
    return {
        "energy": np.asarray(energy * units.HARTREE),
        "forces": -gradient.kernel() * (units.HARTREE / units.BOHR),
        "charges": numbers - _populations(field.mol, density),
        "spin_charges": spin,
    }


def _populations(mol: Any, density: np.ndarray) -> np.ndarray:
    """Mulliken's electrons per atom: n_A = sum_(mu in A) (D S)_(mu mu)."""
    per_orbital = np.einsum("ij,ji->i", density, mol.intor_symmetric("int1e_ovlp"))
    return np.array([per_orbital[a:b].sum() for _, _, a, b in mol.aoslice_by_atom()])


def _ase(method: str, rest: str) -> Engine:
    module, colon, name = rest.partition(":")
    if not (module and colon and name):
        raise UsageError(
            f"{method!r} must read ase:MODULE:CLASS", remedy="as in ase:ase.calculators.emt:EMT"
        )
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{method!r}: {error}", remedy="check module and class") from error
    offered = tuple(getattr(make, "implemented_properties", ()))
    if "energy" not in offered:
        raise UsageError(f"{method!r} is no ASE calculator that gives an energy")
    labels = tuple(n for n in ("energy", "forces", "charges") if n in offered)
    atoms_class = importlib.import_module("ase").Atoms

    def evaluate(coord: np.ndarray, numbers: np.ndarray, charge: int, mult: int) -> Labels:
        atoms = atoms_class(numbers=numbers, positions=coord)
        atoms.info.update(charge=charge, spin=mult, mult=mult)
        spread = np.zeros(len(numbers))
        spread[0] = charge  # many calculators take the sum of initial charges as the total
        atoms.set_initial_charges(spread)
        atoms.calc = make()
        try:
            return {n: np.asarray(atoms.calc.get_property(n, atoms)) for n in labels}
        except Exception as error:  # whatever the foreign calculator raises
            raise NumericalError(f"{method}: {type(error).__name__}: {error}") from error

    package = module.split(".")[0]
    return Engine(method, f"{module}:{name}", labels, {}, ("ase", package), evaluate)


_BUILDERS: Mapping[str, Callable[[str, str], Engine]] = MappingProxyType(
    {**dict.fromkeys(XTB_METHODS, _tblite), "pyscf": _pyscf, "ase": _ase}
)
