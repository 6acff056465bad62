"""Predictions beside labels of one fidelity, quantity by quantity, in eV, angstrom and e.

Energies are compared relative to the sum of atomic energies, which is the same on both sides: an
R2 of total energies would only say that the compositions differ. Where an artifact adds dispersion
that the labels lack, its dispersion is taken off before the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.core.reporting import Reporter
from mlff_cli.deploy.labelled import LabelledMolecules
from mlff_cli.deploy.predictor import Predictor
from mlff_cli.physics.dispersion_parameters import contains_dispersion

Columns = dict[str, tuple[np.ndarray, np.ndarray]]  # labels and predictions of a quantity, flat


@dataclass(frozen=True)
class Quantity:
    """One compared quantity: its name in tables and figures, and how its unit is made."""

    title: str
    symbol: str
    unit: str  # "{E}" is the energy unit
    scaled: bool  # whether values are energies, to be converted


QUANTITIES = {
    "energy": Quantity("Energy", "E - SAE", "{E}", True),
    "energy_per_atom": Quantity("Energy per atom", "(E - SAE)/N", "{E}/atom", True),
    "forces": Quantity("Forces", "force component", "{E}/A", True),
    "charges": Quantity("Charges", "q", "e", False),
    "spin_charges": Quantity("Spin charges", "s", "e", False),
}


def lacks_dispersion(predictor: Predictor, molecules: LabelledMolecules) -> bool:
    """Whether the predictor adds dispersion to labels that are known to have none."""
    level = molecules.level_of_theory
    return predictor.dispersion is not None and level is not None and not contains_dispersion(level)


def doubts(predictor: Predictor, molecules: LabelledMolecules) -> list[str]:
    """What a user must be told of the comparison."""
    notes = list(molecules.notes)
    level, trained = molecules.level_of_theory, predictor.level_of_theory
    if level and trained and level != trained:
        notes.append(f"{molecules.path} holds {level}, the model was trained on {trained}")
    if lacks_dispersion(predictor, molecules):
        notes.append(
            f"{level} holds no dispersion: the artifact's is taken off before the comparison"
        )
    elif predictor.dispersion is not None and level is None:
        notes.append(
            f"{molecules.path} names no level of theory: the artifact's dispersion stays in"
        )
    return notes


def compare(predictor: Predictor, molecules: LabelledMolecules, reporter: Reporter) -> Columns:
    """Labels and predictions of every quantity, flat, where the label exists; eV and e.

    Raises:
        DataError: a file is damaged, has no labels, or holds an unknown element.
        NumericalError: a prediction is not finite.
    """
    where = str(molecules.path)
    subtract = lacks_dispersion(predictor, molecules)
    pieces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in QUANTITIES}
    with reporter.progress(molecules.n_molecules, "evaluate", "molecules") as bar:
        for batch, place in molecules.batches():
            out = predictor(batch, place)
            if subtract:
                part = predictor.dispersion_part(batch)
                out = {n: v - part[n] if n in part else v for n, v in out.items()}
            n_atoms = batch["numbers"].shape[1]
            offset = predictor.atomic_energies(batch["numbers"])  # (n,) eV
            for name in molecules.labels:
                label = batch[name].astype(np.float64)
                have = np.isfinite(label).reshape(len(label), -1).all(axis=1)
                seen, wanted = out[name][have], label[have]
                if name == "energy":
                    seen, wanted = seen - offset[have], wanted - offset[have]
                    pieces["energy_per_atom"].append((wanted / n_atoms, seen / n_atoms))
                pieces[name].append((wanted.ravel(), seen.ravel()))
            bar.advance(len(batch["coord"]))
    columns = {
        name: (np.concatenate([r for r, _ in parts]), np.concatenate([p for _, p in parts]))
        for name, parts in pieces.items()
        if parts
    }
    columns = {name: pair for name, pair in columns.items() if pair[0].size}
    if not columns:
        raise DataError(
            f"every label is missing ({', '.join(molecules.labels)} are all NaN)",
            where=where,
            remedy="label the molecules first, as with `mlff label`",
        )
    return columns
