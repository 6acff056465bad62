"""The vocabulary of the files: name, shape, unit and meaning of every array, declared once.

Shapes are of ONE molecule, in symbols: N atoms. A stored group prepends the number of molecules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Field:
    """One named array.

    Attributes:
        name: key in files and batches.
        dims: shape of one molecule; "N" is the number of atoms.
        dtype: NumPy type it is stored and computed in.
        unit: "" when it has none.
        doc: what it is.
        role: "input" must be finite, "label" may be missing (NaN), "id" identifies.
    """

    name: str
    dims: tuple[str | int, ...]
    dtype: str
    unit: str
    doc: str
    role: Literal["input", "label", "id"]

    def shape(self, n_atoms: int) -> tuple[int, ...]:
        """Shape of one molecule with `n_atoms` atoms."""
        return tuple(n_atoms if d == "N" else int(d) for d in self.dims)


_ORIGIN = "about the origin of coord"  # charged molecules have no moment but about an origin
_ALL = (
    Field("coord", ("N", 3), "float32", "angstrom", "positions of the nuclei", "input"),
    Field("numbers", ("N",), "int32", "", "atomic numbers 1..118", "input"),
    Field("charge", (), "float32", "e", "total charge", "input"),
    Field("mult", (), "float32", "", "spin multiplicity 2S+1", "input"),
    Field("energy", (), "float64", "eV", "total energy", "label"),
    Field("forces", ("N", 3), "float32", "eV/angstrom", "minus the energy gradient", "label"),
    Field("charges", ("N",), "float32", "e", "partial charges", "label"),
    Field("spin_charges", ("N",), "float32", "e", "alpha minus beta population", "label"),
    Field("dipole", (3,), "float32", "e*angstrom", f"dipole moment {_ORIGIN}", "label"),
    Field(
        "quadrupole",
        (6,),
        "float32",
        "e*angstrom^2",
        f"traceless quadrupole xx yy zz xy yz zx {_ORIGIN}; see physics.multipoles",
        "label",
    ),
    Field("molecule", (), "str", "", "name shared by all conformers of a molecule", "id"),
)
FIELDS: dict[str, Field] = {f.name: f for f in _ALL}
INPUTS: tuple[str, ...] = tuple(f.name for f in _ALL if f.role == "input")
LABELS: tuple[str, ...] = tuple(f.name for f in _ALL if f.role == "label")
