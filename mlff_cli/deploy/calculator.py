"""ASE calculator on a compiled artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.deploy import torchscript
from mlff_cli.deploy.artifact import read_metadata

STATE = ("charge", "mult")  # what a molecule is beside its geometry


class MLFFCalculator(Calculator):  # type: ignore[misc]
    """Energy, forces and charges of molecules from a `.jpt` artifact.

    Args:
        model: the artifact.
        charge: total charge, e; None takes `atoms.info["charge"]`, 0 when absent.
        mult: spin multiplicity; None takes `atoms.info["mult"]`, 1 when absent.
        device: where to compute, as "cpu" or "cuda".
        **kwargs: passed to ASE's Calculator.

    Raises:
        StorageError: the file is missing.
        DataError: it is no artifact of mlff.
        UsageError: it is of a coarse-grained model.
    """

    implemented_properties = ["energy", "free_energy", "forces", "charges", "magmoms"]  # noqa: RUF012

    def __init__(
        self,
        model: Path | str,
        charge: float | None = None,
        mult: float | None = None,
        device: str = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.metadata = read_metadata(model)
        if self.metadata.get("family") == "coarse-grained":
            raise UsageError(
                "a coarse-grained model computes beads, not atoms",
                where=str(model),
                remedy="use mlff_cli.deploy.BeadCalculator",
            )
        self.device = device
        self._given = {"charge": charge, "mult": mult}
        self._model = torchscript.load(model, device)
        self._computed_for: dict[str, float] = {}

    def state(self, atoms: Atoms) -> dict[str, float]:
        """Charge and multiplicity that `atoms` is computed with."""
        defaults = {"charge": 0.0, "mult": 1.0}
        return {
            name: float(atoms.info.get(name, defaults[name]) if given is None else given)
            for name, given in self._given.items()
        }

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation; ASE itself does not look at `atoms.info`."""
        changes = list(super().check_state(atoms, tol=tol))
        state = self.state(atoms)
        return changes + [n for n in STATE if self._computed_for.get(n) != state[n]]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute every property at once.

        Raises:
            UsageError: periodic boundary conditions, or an element the model does not know.
            NumericalError: the energy or a force is not finite, as when two atoms coincide.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        atoms = self.atoms
        if atoms.pbc.any():
            raise UsageError(
                f"the model is for molecules in vacuum, found pbc = {atoms.pbc.tolist()}",
                remedy="set atoms.pbc = False",
            )
        unknown = sorted(set(atoms.numbers.tolist()) - set(self.metadata["species"]))
        if unknown:
            raise UsageError(
                f"element Z = {unknown[0]} is not supported",
                remedy=f"the model knows Z = {self.metadata['species']}",
            )
        state = self.state(atoms)
        out = self._model(
            {
                "coord": torch.tensor(atoms.positions, device=self.device).unsqueeze(0),
                "numbers": torch.tensor(atoms.numbers, device=self.device).unsqueeze(0),
                **{n: torch.tensor([v], device=self.device) for n, v in state.items()},
            }
        )
        self._computed_for = state
        arrays = {n: v[0].cpu().numpy().astype(np.float64) for n, v in out.items()}
        energy = float(arrays["energy"])
        if not np.isfinite([energy, *arrays["forces"].ravel()]).all():
            raise NumericalError(
                f"the energy ({energy} eV) or a force is not finite",
                remedy="look at the geometry: two atoms coincide, or a position is not finite",
            )
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": arrays["forces"],
            "charges": arrays["charges"],
            "magmoms": arrays["spin_charges"],
        }
