"""Predictions of anything that predicts: a compiled artifact, or a fidelity of a model file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mlff_cli.core.errors import DataError, MissingDependencyError, NumericalError, UsageError
from mlff_cli.data.model_file import ModelFile, load_model_file
from mlff_cli.deploy import torchscript
from mlff_cli.deploy.artifact import read_metadata
from mlff_cli.deploy.potential import potential_of, sae_of, species_of
from mlff_cli.physics.dispersion import D3BJ
from mlff_cli.physics.dispersion_parameters import D3Parameters
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces

ARTIFACT_SUFFIX = ".jpt"


@dataclass(frozen=True)
class Predictor:
    """One fidelity, ready to predict.

    Attributes:
        module: the potential.
        fidelity: its index.
        level_of_theory: of the labels it was trained on.
        species: elements it knows.
        sae: atomic energies, eV.
        dispersion: parameters of what it adds, or None.
        device: where it computes.
    """

    module: nn.Module
    fidelity: int
    level_of_theory: str | None
    species: list[int]
    sae: Mapping[int, float]
    dispersion: D3Parameters | None
    device: str

    def __call__(
        self, inputs: Mapping[str, np.ndarray], place: Callable[[int], str]
    ) -> dict[str, np.ndarray]:
        """Predict molecules of one size.

        Args:
            inputs: coord (n, N, 3) angstrom, numbers (n, N), charge (n,), mult (n,).
            place: names the file and place of the i-th molecule, for messages.

        Returns:
            energy (n,) eV, forces (n, N, 3) eV/angstrom, charges and spin_charges (n, N) e.

        Raises:
            DataError: an element is not supported.
            NumericalError: a prediction is not finite.
        """
        unknown = ~np.isin(inputs["numbers"], self.species)  # (n, N)
        if unknown.any():
            raise DataError(
                f"element Z = {inputs['numbers'][unknown][0]} is not supported by the model, "
                f"which knows Z = {self.species}",
                where=place(int(unknown.any(axis=1).argmax())),
                remedy="leave these molecules out, or train on the element",
            )
        tensors = self.module(self._tensors(inputs))
        out = {name: values.detach().cpu().numpy() for name, values in tensors.items()}
        for name, values in out.items():
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if bad.any():
                raise NumericalError(
                    f"the predicted {name} is not finite",
                    where=place(int(bad.argmax())),
                    remedy="look for atoms at the same place; the weights may hold NaN, too",
                )
        return out

    def dispersion_part(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the dispersion contributes to energy and forces."""
        d3 = self._d3
        data = self._tensors(inputs)
        out = energy_and_forces(lambda d: {"energy": d3(d["coord"], d["numbers"])}, data)
        return {name: values.cpu().numpy() for name, values in out.items()}

    @cached_property
    def _d3(self) -> D3BJ:
        assert self.dispersion is not None
        return D3BJ(self.dispersion, self.species).to(self.device)

    def atomic_energies(self, numbers: np.ndarray) -> np.ndarray:
        """Sum of atomic energies (n,) eV of numbers (n, N)."""
        table = np.zeros(max(self.species) + 1)
        table[list(self.sae)] = [self.sae[z] for z in self.sae]
        total: np.ndarray = table[numbers].sum(axis=1)
        return total

    def _tensors(self, inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        types = {"numbers": torch.int64}
        return {
            name: torch.tensor(
                inputs[name], dtype=types.get(name, torch.float64), device=self.device
            )
            for name in ("coord", "numbers", "charge", "mult")
        }


class Model:
    """A file that predicts, opened once.

    Args:
        path: a `.jpt` artifact, a model file or a checkpoint.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        StorageError: the file is missing.
        DataError: it is neither.
        MissingDependencyError: the device is absent.
    """

    def __init__(self, path: Path | str, device: str = "auto") -> None:
        self.path = Path(path)
        self.device = resolve_device(device)
        self._metadata: dict[str, Any] | None = None
        self._file: ModelFile | None = None
        if self.path.suffix == ARTIFACT_SUFFIX:
            self._metadata = read_metadata(self.path)
            self.fidelities = [int(self._metadata["fidelity"]["index"])]
        else:
            self._file = load_model_file(self.path)
            self.fidelities = [int(entry["index"]) for entry in self._file.fidelities]

    def predictor(self, k: int) -> Predictor:
        """The potential of fidelity k.

        Raises:
            UsageError: there is no such fidelity.
        """
        if k not in self.fidelities:
            raise UsageError(
                f"fidelity {k} does not exist; found {', '.join(map(str, self.fidelities))}",
                where=str(self.path),
                remedy="write K=FILE with one of these",
            )
        if self._metadata is not None:
            return self._of_artifact(self._metadata)
        assert self._file is not None
        where = str(self.path)
        entry = next(e for e in self._file.fidelities if int(e["index"]) == k)
        return Predictor(
            module=potential_of(self._file, k, where).to(self.device),
            fidelity=k,
            level_of_theory=entry.get("level_of_theory"),
            species=species_of(self._file, k, where),
            sae={z: e for z, e in sae_of(self._file, k, where).items()
                 if z in species_of(self._file, k, where)},
            dispersion=None,
            device=self.device,
        )  # fmt: skip

    def _of_artifact(self, metadata: Mapping[str, Any]) -> Predictor:
        d = metadata["dispersion"]
        names = ("s6", "s8", "a1", "a2", "s9")
        return Predictor(
            module=torchscript.load(self.path, self.device),
            fidelity=int(metadata["fidelity"]["index"]),
            level_of_theory=metadata["fidelity"]["level_of_theory"],
            species=[int(z) for z in metadata["species"]],
            sae={int(z): float(e) for z, e in metadata["sae"].items()},
            dispersion=D3Parameters(**{n: d[n] for n in names}) if d else None,
            device=self.device,
        )


def resolve_device(device: str) -> str:
    """`auto` becomes cuda where there is one, else cpu.

    Raises:
        UsageError: not a device.
        MissingDependencyError: it is absent.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"--device is auto, cpu, cuda or cuda:N, found {device!r}")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise MissingDependencyError(
            f"the device {device!r} is absent, {torch.cuda.device_count()} GPUs were found",
            remedy="use --device cpu",
        )
    return device
