"""Where H5MD keeps what (de Buyl et al., Comput. Phys. Commun. 185, 1546, 2014), as we write it.

    /particles/all/position/value            (T, N, 3)  nm
    /particles/all/force/value               (T, N, 3)  kJ mol-1 nm-1
    /particles/all/box/edges/value           (T, 3, 3)  nm, edge vectors in rows
    /particles/all/species                   (N,)       atomic numbers
    /connectivity/bonds                      (b, 2)     bonded atoms
    /observables/potential_energy/value      (T,)       kJ mol-1
    /observables/temperature/value           (T,)       K, of the replica's thermostat
    /observables/replica/value               (T,)       which replica was at that temperature
    /parameters/...                                     tables beside the frames

`step` and `time` (ps) of all elements are one array. Several temperatures lie in the same group,
ordered by step, then temperature. Root attributes say how the frames were made: `topology_pdb`,
`forcefield`, `constraints`, `forces`, `provenance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

FORMAT = "mlff-h5md-1"
TABLES = "parameters"  # the group of arrays that are not frames
COUNTED = "frames counted from 0: the inputs tell no times"  # root attribute `time`


@dataclass(frozen=True)
class Element:
    """A time-dependent array of the file.

    Attributes:
        group: where it lies.
        dims: beside the frames; "N" is the number of atoms.
        dtype: stored type; None: as the writer is told.
        unit: as H5MD writes it, "" for none.
    """

    group: str
    dims: tuple[int | str, ...]
    dtype: str | None
    unit: str

    def shape(self, n_atoms: int) -> tuple[int, ...]:
        """Shape of one frame."""
        return tuple(n_atoms if d == "N" else int(d) for d in self.dims)

    def type(self, dtype: str) -> str:
        """Stored type, where positions and forces are `dtype`."""
        return self.dtype or dtype


ELEMENTS: Mapping[str, Element] = MappingProxyType(
    {
        "step": Element("", (), "int64", ""),
        "time": Element("", (), "float64", "ps"),
        "position": Element("particles/all/position", ("N", 3), None, "nm"),
        "force": Element("particles/all/force", ("N", 3), None, "kJ mol-1 nm-1"),
        "edges": Element("particles/all/box/edges", (3, 3), "float64", "nm"),
        "potential_energy": Element("observables/potential_energy", (), "float64", "kJ mol-1"),
        "temperature": Element("observables/temperature", (), "float64", "K"),
        "replica": Element("observables/replica", (), "int32", ""),
    }
)
