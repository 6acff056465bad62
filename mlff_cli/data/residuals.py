"""Residual energies of some molecules: do the self-atomic energies belong to these labels?

    e_m = E_m - sum_i SAE(Z_i)

Self-atomic energies of the labels' own method leave errors of a least-squares fit, some eV. Those
of isolated atoms leave atomization energies, 3 to 6 eV per atom. Those of another method may leave
thousands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlff_cli.core.elements import MAX_Z
from mlff_cli.data.dataset import FidelityDataset

SAMPLE = 5_000  # molecules that are looked at, evenly over the data set
HUGE = 10.0  # eV per atom; atoms bind by less
RIVAL = 3.0  # times: another fidelity's energies fit so much better


@dataclass(frozen=True)
class Residuals:
    """Residual energies in eV per molecule.

    Attributes:
        molecules: that were looked at.
        mean: of them.
        std: their standard deviation.
        rms: their root mean square.
        per_atom: root mean square of e_m / N_m.
        fitted: root mean square that a least-squares fit to these molecules would leave.
        rivals: root mean square under other fidelities' energies that cover the elements.
    """

    molecules: int
    mean: float
    std: float
    rms: float
    per_atom: float
    fitted: float
    rivals: dict[int, float]

    @property
    def huge(self) -> bool:
        """Whether no binding of atoms explains them."""
        return self.per_atom > HUGE

    @property
    def better(self) -> int | None:
        """The fidelity whose energies fit these labels much better, if there is one."""
        best = min(self.rivals, key=lambda k: self.rivals[k], default=None)
        if best is None or self.rivals[best] * RIVAL > self.rms:
            return None
        return best


def residuals(
    dataset: FidelityDataset,
    sae: Mapping[int, float],
    others: Mapping[int, Mapping[int, float]],
    sample: int = SAMPLE,
) -> Residuals | None:
    """Residual energies of molecules spread evenly over a data set.

    Args:
        dataset: energies of one fidelity.
        sae: its self-atomic energies {Z: eV}, for all of its elements.
        others: those of other fidelities.
        sample: molecules to look at.

    Returns:
        None where no molecule has an energy.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(sample, len(dataset))).astype("int64"))
    groups, rows = dataset.locate(chosen)
    energies, compositions = [], []
    for g in np.unique(groups):
        group = dataset.groups[int(g)]
        if "energy" not in group.fields:
            continue
        here = rows[groups == g]
        numbers = group.read("numbers", here)
        energies.append(group.read("energy", here))
        compositions.append(np.stack([(numbers == z).sum(axis=1) for z in dataset.species], axis=1))
    if not energies:
        return None
    energy, counts = np.concatenate(energies), np.concatenate(compositions).astype("float64")
    present = np.isfinite(energy)
    if not present.any():
        return None
    energy, counts = energy[present], counts[present]  # (m,) eV, (m, K)

    def left(table: Mapping[int, float]) -> np.ndarray:
        values = np.full(MAX_Z + 1, np.nan)
        for z, e in table.items():
            values[z] = e
        residual: np.ndarray = energy - counts @ values[dataset.species]
        return residual

    own = left(sae)
    fit, *_ = np.linalg.lstsq(counts, own, rcond=None)
    rivals = {
        k: _rms(left(table)) for k, table in others.items() if set(dataset.species) <= set(table)
    }
    return Residuals(
        molecules=len(own),
        mean=float(own.mean()),
        std=float(own.std()),
        rms=_rms(own),
        per_atom=_rms(own / counts.sum(axis=1)),
        fitted=_rms(own - counts @ fit),
        rivals=rivals,
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values * values)))
