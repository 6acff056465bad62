"""Forces of a coarse-grained model beside those of a set, frame by frame in blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.cg_temperatures import rows_of_temperature
from mlff_cli.data.beads.force_map_report import noise_bound
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.deploy.beads.errors import BeadErrors, Labels
from mlff_cli.deploy.beads.forces import Forces
from mlff_cli.deploy.beads.molecules import molecules_of
from mlff_cli.potentials.bead_topology import BeadTopology, find_molecule

SAMPLE = 40_000  # components of force that are kept for a figure


@dataclass(frozen=True)
class ForceComparison:
    """What was found in one set.

    Attributes:
        errors: of all modes.
        topologies: of the molecules, by their numbers.
        kelvin: temperature of the frames; None where the set does not say.
        noise_bound: RMSE that the noise of the reference alone makes, at most, kcal/mol/angstrom;
            None where it is not known of every molecule.
        reference: (p,) sample of the reference's components.
        predicted: the same of every mode.
        notes: what a user must be told.
    """

    errors: BeadErrors
    topologies: dict[int, BeadTopology]
    kelvin: float | None
    noise_bound: float | None
    reference: np.ndarray
    predicted: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)


def chosen_rows(
    cg: CGSet, kelvin: float | None, molecule: str | None, only: np.ndarray | None = None
) -> tuple[np.ndarray, float | None, dict[int, BeadTopology], list[str]]:
    """Rows of one temperature sorted by molecule, that temperature, the molecules, and notes.

    Args:
        cg: the opened set.
        kelvin: K; None: the only one there is.
        molecule: name of the one that is looked at; None: all.
        only: rows that are looked at, as those held out; None: all.

    Raises:
        UsageError: there are several temperatures, or no frame has the wanted one.
        DataError: no molecule has the name, or no frame is left.
    """
    molecules = molecules_of(cg)
    notes = [*cg.notes, *molecules.notes]
    known = bool(Temperatures.of(cg.per_frame("temperature")).kelvin)
    rows, found = np.arange(cg.n_frames), kelvin
    if known:
        ensemble = rows_of_temperature(cg, kelvin)
        rows, found = ensemble.rows, ensemble.kelvin
        notes += [f"{cg.path}: {ensemble.left_out}"] if ensemble.left_out else []
    rows = rows if only is None else rows[np.isin(rows, only)]
    if not len(rows):
        raise DataError(
            "no frame is left to compare",
            where=str(cg.path),
            remedy="look at the temperature, and whether the split is of this set",
        )
    of = cg.per_frame("molecule")
    topologies = {int(k): molecules[int(k)] for k in np.unique(of[rows])}
    if molecule is not None:
        one = find_molecule(list(topologies.values()), molecule, str(cg.path))
        topologies = {k: t for k, t in topologies.items() if t is one}
        rows = rows[np.isin(of[rows], list(topologies))]
    return rows[np.argsort(of[rows], kind="stable")], found, topologies, notes


def compare_forces(
    cg: CGSet,
    forces_of: Callable[[BeadTopology], Forces],
    *,
    kelvin: float | None,
    molecule: str | None,
    only: np.ndarray | None = None,
    advance: Callable[[int], None],
) -> ForceComparison:
    """Compute and compare.

    Args:
        cg: the opened set, with forces.
        forces_of: makes a molecule's forces by mode; the same modes for all molecules.
        kelvin: see `chosen_rows`.
        molecule: see `chosen_rows`.
        only: see `chosen_rows`.
        advance: told how many frames were compared since it was last called.

    Raises:
        UsageError: see `chosen_rows`.
        DataError: the model does not know a type, or the set is damaged.
        NumericalError: a predicted force is not finite.
    """
    cg.verify()
    rows, found, topologies, notes = chosen_rows(cg, kelvin, molecule, only)
    labels = {k: Labels(t.types, t.residue_names, t.bead_names) for k, t in topologies.items()}
    of = cg.per_frame("molecule")[rows]
    components = 3 * sum(int((of == k).sum()) * t.n_beads for k, t in topologies.items())
    share = min(1.0, SAMPLE / components)
    rng = np.random.default_rng(0)
    errors: BeadErrors | None = None
    current: tuple[int, Forces] | None = None
    kept: list[np.ndarray] = []
    drawn: dict[str, list[np.ndarray]] = {}
    for block in cg.blocks(rows):
        assert block.F is not None
        if current is None or current[0] != block.molecule:  # one molecule's terms at a time
            current = block.molecule, forces_of(topologies[block.molecule])
        predicted = current[1](block.R)
        errors = errors or BeadErrors(labels, list(predicted))
        first, last = block.rows[[0, -1]] if block.rows is not None else (0, 0)
        errors.add(block.molecule, block.F, predicted, f"{cg.path}, frames {first} to {last}")
        mask = rng.random(block.F.shape) < share
        kept.append(block.F[mask])
        for mode, f in predicted.items():
            drawn.setdefault(mode, []).append(f[mask])
        advance(len(block.R))
    assert errors is not None
    return ForceComparison(
        errors,
        topologies,
        found,
        _floor(cg, {k: errors.frames(k) * t.n_beads for k, t in topologies.items()}),
        np.concatenate(kept),
        {mode: np.concatenate(parts) for mode, parts in drawn.items()},
        notes,
    )


def _floor(cg: CGSet, weights: Mapping[int, int]) -> float | None:
    """RMSE of the noise of the force maps, at most, over molecules by their beads and frames."""
    bounds = [noise_bound(cg.metadata, k) for k in weights]
    known = [b for b in bounds if b is not None]
    if not known or len(known) < len(bounds):
        return None
    return float(np.sqrt(np.average(known, weights=list(weights.values()))))
