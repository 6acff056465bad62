"""Two ensembles along one collective variable, or over the plane of two.

Free energies are of all frames. Divergences are of as many independent frames of both, g frames
apart, g the statistical inefficiency of the slower one of the variables shown: once of single
frames, and once of blocks of `SAMPLES` g, of which both ensembles give as many frames per g.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles import free_energy as energies
from mlff_cli.physics.ensembles.collective_variables import Variable
from mlff_cli.physics.ensembles.decorrelation import (
    decorrelated,
    independent_blocks,
    statistical_inefficiency,
)
from mlff_cli.physics.ensembles.divergence import Comparison, compare
from mlff_cli.physics.ensembles.histograms import Axis, counted, grid_cells

SAMPLES = 5  # independent samples in a block: its ends correlate with its neighbours'
BLOCKS = 8  # at least, to tell a spread from
PER_SAMPLE = 50  # frames of a sample, at most: more tell nothing new


@dataclass(frozen=True)
class Values:
    """Collective variables of an ensemble, series after series.

    Attributes:
        values: (N, m).
        lengths: frames of each series, N in all.
        inefficiencies: (m,) statistical inefficiency of each variable, in frames.
    """

    values: np.ndarray
    lengths: tuple[int, ...]
    inefficiencies: np.ndarray

    @classmethod
    def of(
        cls, values: np.ndarray, lengths: Sequence[int], variables: Sequence[Variable]
    ) -> Values:
        """With its inefficiencies.

        Raises:
            DataError: lengths that are not those of the values.
        """
        if sum(lengths) != len(values) or values.shape[1] != len(variables):
            raise DataError(
                f"series of {sum(lengths)} frames and {len(variables)} variables need as many "
                f"values, found {values.shape}"
            )
        ends = np.cumsum(lengths)[:-1]
        g = [
            statistical_inefficiency(np.split(v.columns(values[:, k]), ends))
            for k, v in enumerate(variables)
        ]
        return cls(values, tuple(lengths), np.array(g))

    def joined(self, other: Values) -> Values:
        """These and further variables of the same frames."""
        return Values(
            np.concatenate([self.values, other.values], axis=1),
            self.lengths,
            np.concatenate([self.inefficiencies, other.inefficiencies]),
        )


@dataclass(frozen=True)
class Landscape:
    """One or two variables of a reference and a simulation.

    Attributes:
        variables: one or two.
        axes: of each.
        reference: frames in every cell.
        simulation: frames in every cell.
        inefficiency: of the reference and of the simulation, in frames.
        uncertainties: standard errors of `free_energies`, kcal/mol.
        kt: kcal/mol.
        comparison: of blocks; None where there are too few.
        independent: of single independent frames; None where there are too few.
        why: there is no comparison.
    """

    variables: tuple[Variable, ...]
    axes: tuple[Axis, ...]
    reference: np.ndarray
    simulation: np.ndarray
    inefficiency: tuple[float, float]
    uncertainties: tuple[np.ndarray, np.ndarray]
    kt: float
    comparison: Comparison | None
    independent: Comparison | None
    why: str | None = None

    @property
    def name(self) -> str:
        """Of the variables."""
        return ", ".join(v.name for v in self.variables)

    @property
    def free_energies(self) -> tuple[np.ndarray, np.ndarray]:
        """Of reference and simulation, kcal/mol."""
        return (
            energies.free_energy(self.reference, self.kt),
            energies.free_energy(self.simulation, self.kt),
        )

    @property
    def difference(self) -> tuple[np.ndarray, float]:
        """Of the free energies, simulation less reference, and its weighted root mean square."""
        return energies.difference(self.reference, self.simulation, self.kt)


def landscape(
    columns: Sequence[int],
    variables: Sequence[Variable],
    reference: Values,
    simulation: Values,
    *,
    bins: int,
    kt: float,
    seed: int = 0,
) -> Landscape:
    """Compare two ensembles along one or two variables.

    Args:
        columns: which variables.
        variables: all of them, as columns of the values.
        reference: the ensemble that is right.
        simulation: the other one.
        bins: of each axis.
        kt: kcal/mol.
        seed: of the frames that are drawn.
    """
    chosen = tuple(variables[c] for c in columns)
    axes = tuple(
        v.axis([reference.values[:, c], simulation.values[:, c]], bins)
        for v, c in zip(chosen, columns, strict=True)
    )
    cells = [grid_cells([e.values[:, c] for c in columns], axes) for e in (reference, simulation)]
    g = [float(e.inefficiencies[list(columns)].max()) for e in (reference, simulation)]
    lengths = [e.lengths for e in (reference, simulation)]
    n_cells = int(np.prod([x.bins for x in axes]))
    single = [decorrelated(n, x) for n, x in zip(lengths, g, strict=True)]
    per_sample = max(1, min(PER_SAMPLE, int(min(g))))
    samples = min(_fitting(n, x) for n, x in zip(lengths, g, strict=True))
    blocks = [
        independent_blocks(n, x, per_sample=per_sample, samples=samples)
        for n, x in zip(lengths, g, strict=True)
    ]
    found: list[Comparison | None] = []
    why = None
    for rows, block in ((single, 1), (blocks, per_sample * samples)):
        a, b = (c[r] for c, r in zip(cells, rows, strict=True))
        try:
            found.append(compare(a, b, n_cells, block=block, seed=seed))
        except DataError as error:
            found.append(None)
            why = error.message
    counts = [counted(c, axes) for c in cells]
    errors = [
        _uncertainty(c, e.lengths, x, samples, count, kt)
        for c, e, x, count in zip(cells, (reference, simulation), g, counts, strict=True)
    ]
    return Landscape(
        variables=chosen,
        axes=axes,
        reference=counts[0],
        simulation=counts[1],
        inefficiency=(g[0], g[1]),
        uncertainties=(errors[0], errors[1]),
        kt=kt,
        comparison=found[1],
        independent=found[0],
        why=why,
    )


def _fitting(lengths: Sequence[int], g: float) -> int:
    """Samples of a block that most series hold."""
    return int(np.clip(np.median(lengths) / g, 1, SAMPLES))


def _uncertainty(
    cells: np.ndarray, lengths: Sequence[int], g: float, samples: int, counts: np.ndarray, kt: float
) -> np.ndarray:
    """Standard errors of the free energies, of the shape of the counts."""
    size = int(np.ceil(samples * g))
    ends = np.cumsum(lengths)[:-1]
    whole = [s[: len(s) // size * size].reshape(-1, size) for s in np.split(cells, ends)]
    blocks = np.concatenate(whole)
    if len(blocks) < BLOCKS:
        return energies.uncertainty(counts, kt, counts.sum() / g)
    each = np.stack([np.bincount(b, minlength=counts.size) for b in blocks])
    return energies.uncertainty_of_blocks(each, kt).reshape(counts.shape)
