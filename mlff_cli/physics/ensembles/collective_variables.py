"""The numbers that a conformation of a molecule is described by.

| name                       | unit   | what                                              |
|----------------------------|--------|---------------------------------------------------|
| phi, psi, omega or gamma   | radian | of every residue (`backbone`)                     |
| RMSD                       | A      | from the native structure, of all sites           |
| Rg                         | A      | radius of gyration                                |
| Q                          |        | fraction of native contacts, where there are any  |
| end to end                 | A      | first to last residue, of five residues or more   |
| TIC 1, TIC 2               |        | slowest modes of the reference (`slow_modes`)     |

Slow modes are of `features`: cosine and sine of the dihedrals, and distances of residues three or
more apart, at most `MOST` of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.backbone import Sites, backbone_dihedrals, ramachandran_pairs, trace
from mlff_cli.physics.ensembles.contacts import APART, NativeContacts
from mlff_cli.physics.ensembles.histograms import Axis, circle
from mlff_cli.physics.ensembles.superposition import radius_of_gyration, rmsd
from mlff_cli.physics.internal_coordinates import dihedrals, distances

MOST = 200  # distances among the features
FAR = 3  # residues apart, of these distances
LONG = 5  # residues of a chain whose ends are looked at


@dataclass(frozen=True)
class Variable:
    """One collective variable.

    Attributes:
        name: as "phi ALA2".
        kind: "dihedral", "length", "share" or "mode".
        unit: "degree", "A" or "". Values of dihedrals are radian; people read degrees.
    """

    name: str
    kind: str
    unit: str

    @property
    def periodic(self) -> bool:
        """Whether its values lie on a circle."""
        return self.kind == "dihedral"

    def axis(self, values: Sequence[np.ndarray], bins: int) -> Axis:
        """Cells over the values of all ensembles together."""
        if self.periodic:
            return circle(bins)
        return Axis(0.0, 1.0, bins) if self.kind == "share" else Axis.of(_joined(values), bins)

    def columns(self, values: np.ndarray) -> np.ndarray:
        """(T, 1 or 2) of values (T,): what `decorrelation` takes."""
        if self.periodic:
            return np.stack([np.cos(values), np.sin(values)], axis=1)
        return np.asarray(values)[:, None]


MODES = (Variable("TIC 1", "mode", ""), Variable("TIC 2", "mode", ""))


class CollectiveVariables:
    """The collective variables of one molecule; slow modes aside, which need an ensemble.

    Args:
        sites: of the molecule.
        native: (n, 3) angstrom, the structure that RMSD and contacts refer to.
        masses: (n,) for the radius of gyration; equal unless told.

    Attributes:
        variables: in the order of the columns of `values`.
        surfaces: pairs of columns that make a plane worth a look.

    Raises:
        DataError: the native structure has other sites.
    """

    def __init__(self, sites: Sites, native: np.ndarray, masses: np.ndarray | None = None) -> None:
        native = np.asarray(native, np.float64)
        if native.shape != (len(sites.names), 3):
            raise DataError(
                f"the native structure needs the {len(sites.names)} sites of the molecule, found "
                f"coordinates of shape {native.shape}"
            )
        self.native, self.masses = native, masses
        self._dihedrals = backbone_dihedrals(sites)
        self._rows = np.array([d.sites for d in self._dihedrals], np.int64).reshape(-1, 4)
        self._trace = trace(sites)
        i, j = np.triu_indices(len(self._trace), 1)
        residue = sites.residue_of[self._trace]
        apart = residue[j] - residue[i]
        other = sites.chains[self._trace[i]] != sites.chains[self._trace[j]]
        pairs = np.stack([self._trace[i], self._trace[j]], axis=1)
        self.contacts = NativeContacts.of(native, pairs[other | (apart >= APART)])
        far = pairs[other | (apart >= FAR)]
        self._pairs = far[np.linspace(0, len(far) - 1, min(MOST, len(far))).astype(int)]
        named = [Variable(d.name, "dihedral", "degree") for d in self._dihedrals]
        named += [Variable("RMSD", "length", "A"), Variable("Rg", "length", "A")]
        named += [Variable("Q", "share", "")] * bool(len(self.contacts.pairs))
        named += [Variable("end to end", "length", "A")] * (len(self._trace) >= LONG)
        self.variables: tuple[Variable, ...] = tuple(named)

    @cached_property
    def surfaces(self) -> tuple[tuple[int, int], ...]:
        """Ramachandran planes, RMSD against Rg, Q against Rg."""
        at = {v.name: k for k, v in enumerate(self.variables)}
        pairs = [*ramachandran_pairs(self._dihedrals), (at["RMSD"], at["Rg"])]
        return tuple([*pairs, (at["Q"], at["Rg"])] if "Q" in at else pairs)

    @property
    def n_features(self) -> int:
        """Features of the slow modes."""
        return 2 * len(self._rows) + len(self._pairs)

    def values(self, x: np.ndarray) -> np.ndarray:
        """(T, m) float32 of coordinates (T, n, 3) in angstrom: radian, angstrom, shares."""
        x = np.asarray(x, np.float64)
        parts = [
            dihedrals(x, self._rows),
            rmsd(x, self.native)[:, None],
            radius_of_gyration(x, self.masses)[:, None],
        ]
        if len(self.contacts.pairs):
            parts.append(self.contacts.fraction(x)[:, None])
        if len(self._trace) >= LONG:
            parts.append(distances(x, self._trace[None, [0, -1]]))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def features(self, x: np.ndarray) -> np.ndarray:
        """(T, f) float32 of coordinates (T, n, 3) in angstrom."""
        x = np.asarray(x, np.float64)
        phi = dihedrals(x, self._rows)
        parts = [np.cos(phi), np.sin(phi), distances(x, self._pairs)]
        return np.concatenate(parts, axis=1).astype(np.float32)


def _joined(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(v).ravel() for v in values])
