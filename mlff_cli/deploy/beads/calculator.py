"""ASE calculator of a coarse-grained model: beads to energy in eV and forces in eV/angstrom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from mlff_cli.core.errors import DataError, NumericalError, UsageError
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.deploy.beads.artifact import load_bead_potential
from mlff_cli.deploy.beads.potential import BeadPotential

BEAD = "X"  # chemical symbol: beads are no elements


class BeadCalculator(Calculator):  # type: ignore[misc]
    """Energy and forces of the beads of one molecule, in their order.

    Of an ensemble `results` also holds energy_std (eV) and forces_std (n,) (eV/angstrom).

    Args:
        model: a `.jpt` artifact of a coarse-grained model, or a potential.
        device: where to compute, of an artifact.
        mode: full, prior or ml, of an artifact.
        **kwargs: passed to ASE's Calculator.

    Attributes:
        potential: what computes.

    Raises:
        StorageError: the file is missing.
        DataError: it is no artifact of a coarse-grained model.
        UsageError: a mode whose part the model lacks.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(
        self,
        model: Path | str | BeadPotential,
        device: str = "cpu",
        mode: str = "full",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.potential = (
            model if isinstance(model, BeadPotential) else load_bead_potential(model, device, mode)
        )

    def molecule(self) -> Atoms:
        """The molecule at the frame that it starts from, with masses and this calculator.

        Raises:
            DataError: the model keeps no frame of it.
        """
        topology = self.potential.topology
        if topology.start is None:
            raise DataError(
                f"the model keeps no frame of {topology.name!r}",
                remedy="make ase.Atoms of n beads, with their positions and masses, by yourself",
            )
        return Atoms(
            [BEAD] * topology.n_beads, topology.start, masses=topology.masses, calculator=self
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute every property at once.

        Raises:
            UsageError: periodic boundary conditions, or another number of beads.
            NumericalError: the energy or a force is not finite.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        atoms, n = self.atoms, self.potential.n_beads
        if atoms.pbc.any():
            raise UsageError(
                f"the model is for molecules without a box, found pbc = {atoms.pbc.tolist()}",
                remedy="set atoms.pbc = False",
            )
        if len(atoms) != n:
            raise UsageError(
                f"the model is of {self.potential.topology.name!r} with {n} beads, found "
                f"{len(atoms)} atoms",
                remedy="pass its beads in their order, as `BeadCalculator.molecule` gives them",
            )
        x = torch.tensor(atoms.positions, device=self.potential.device)
        out = {k: v[0].cpu().numpy() for k, v in self.potential.compute(x.unsqueeze(0)).items()}
        results = {k: v.astype(np.float64) * KCAL_MOL for k, v in out.items()}
        energy, forces = float(results["energy"]), results["forces"]
        if not np.isfinite([energy, *forces.ravel()]).all():
            raise NumericalError(
                f"the energy ({energy} eV) or a force is not finite",
                remedy="look at the positions: one of them is not finite, or the chain is broken",
            )
        self.results = {**results, "energy": energy, "free_energy": energy}
