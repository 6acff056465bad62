"""Frames of two temperatures as a flow is trained on them: nm, kJ/mol, split in time.

The last frames of each temperature are validated on: frames that lie between trained ones would
flatter the flow. A batch is a function of the seed and the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.core.units import KJ_PER_KCAL
from mlff_cli.data.sources import expand, refuse_repeated
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.data.trajectories.frame_choice import frame_temperatures
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.families.transport_settings import TransportDataSection, TransportSettings
from mlff_cli.flows.molecule import FlowMolecule
from mlff_cli.training.memory import TensorBatch
from mlff_cli.training.transport import E_MAX, SOURCE, TARGET

NM = 0.1  # per angstrom
Rows = np.ndarray | slice
FEWEST = 20  # frames of a temperature, below which nothing is learned or measured


@dataclass(frozen=True)
class Ensemble:
    """Frames of one temperature, in the order of time.

    Attributes:
        kelvin: their temperature.
        positions: (n, N, 3) nm, float64.
        energy: (n,) kJ/mol, as recorded.
    """

    kelvin: float
    positions: np.ndarray
    energy: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)

    def of(self, rows: np.ndarray | slice) -> Ensemble:
        """Some frames."""
        return Ensemble(self.kelvin, self.positions[rows], self.energy[rows])

    def split(self, fraction: float, most: int | None) -> tuple[Ensemble, Ensemble]:
        """Frames to train on and to validate on."""
        n = max(1, round(fraction * len(self)))
        validation = np.arange(len(self) - n, len(self))
        if most is not None and n > most:
            validation = validation[np.linspace(0, n - 1, most).round().astype(int)]
        return self.of(slice(0, len(self) - n)), self.of(validation)


@dataclass(frozen=True)
class Recorded:
    """What the trajectories say beside their frames.

    Attributes:
        paths: the files.
        molecule: as the flow sees it.
        topology_pdb: PDB text.
        forcefield: names or files, as OpenMM takes them.
        source: frames.
        target: frames.
    """

    paths: tuple[Path, ...]
    molecule: FlowMolecule
    topology_pdb: str
    forcefield: tuple[str, ...]
    source: Ensemble
    target: Ensemble


def chosen_files(settings: TransportSettings) -> list[Path]:
    """The trajectories to train on.

    Raises:
        ConfigError: none is named, one twice, or a pattern that no file matches.
    """
    if not settings.data.files:
        raise ConfigError("no trajectory is named to train on", remedy="say which, as data=remd.h5")
    paths = expand("data", settings.data.files)
    refuse_repeated({"data": paths})
    return paths


def read_frames(settings: TransportSettings) -> Recorded:
    """Frames of both temperatures, in memory.

    Raises:
        ConfigError: no files are named.
        DataError: a file was sampled with constraints, tells no energies or no bonds, is of another
            molecule or force field than the first, or there are no frames of a temperature.
    """
    paths = chosen_files(settings)
    kelvin = settings.temperatures
    found: dict[float, list[Ensemble]] = {kelvin.source: [], kelvin.target: []}
    first: _File | None = None
    seen: dict[float, None] = {}
    for path in paths:
        with H5MDTrajectory(path) as trajectory:
            file = _File.of(trajectory)
            first = first or file
            file.agrees(first)
            temperatures = Temperatures.of(frame_temperatures(trajectory))
            seen |= dict.fromkeys(temperatures.kelvin)
            for wanted, ensembles in found.items():
                rows = temperatures.rows(wanted)
                if len(rows):
                    ensembles.append(_frames(trajectory, rows, wanted, settings.data))
    assert first is not None
    joined = []
    for key, wanted in (("source", kelvin.source), ("target", kelvin.target)):
        parts = found[wanted]
        n = sum(map(len, parts))
        if n < FEWEST:
            told = ", ".join(f"{t:g}" for t in sorted(seen)) or "none"
            raise DataError(
                f"temperatures.{key}={wanted:g} K needs at least {FEWEST} frames, found {n}; "
                f"temperatures in the data: {told} K",
                where=", ".join(map(str, paths)),
                remedy=f"sample it with `mlff sample --temperature {kelvin.source:g},"
                f"{kelvin.target:g}`, or set temperatures.{key}",
            )
        joined.append(_in_turn(parts))
    return Recorded(
        tuple(paths), first.molecule, first.topology_pdb, first.forcefield, joined[0], joined[1]
    )


@dataclass(frozen=True)
class _File:
    """What one file says of its molecule."""

    path: Path
    molecule: FlowMolecule
    topology_pdb: str
    forcefield: tuple[str, ...]

    @classmethod
    def of(cls, trajectory: H5MDTrajectory) -> _File:
        where = str(trajectory.path)
        facts: dict[str, Any] = trajectory.facts
        constraints = facts.get("constraints")
        if constraints != "none":
            told = "does not say" if constraints is None else f"used {constraints!r}"
            raise DataError(
                "transport needs frames that were sampled without constraints, the file "
                f"{told}: the energy does not hold constrained bonds together, and a flow would "
                "tear them apart",
                where=where,
                remedy="sample again with `mlff sample --constraints none`",
            )
        if trajectory.numbers is None or trajectory.bonds is None:
            raise DataError(
                "a flow needs elements and bonds, the file has none",
                where=where,
                remedy="take a trajectory that `mlff sample` wrote",
            )
        with h5py.File(trajectory.path, "r") as file:
            pdb = file.attrs.get("topology_pdb")
        forcefield = facts.get("forcefield")
        if pdb is None or not forcefield:
            raise DataError(
                "a flow is trained on the energy that was sampled with: the file must name "
                "topology_pdb and forcefield",
                where=where,
                remedy="take a trajectory that `mlff sample` wrote",
            )
        names = (forcefield,) if isinstance(forcefield, str) else tuple(map(str, forcefield))
        text = pdb.decode() if isinstance(pdb, bytes) else str(pdb)
        molecule = FlowMolecule(trajectory.numbers, trajectory.bonds, _name(trajectory))
        return cls(trajectory.path, molecule, text, names)

    def agrees(self, first: _File) -> None:
        """Refuse another molecule or force field than the first file's."""
        same = {
            "atoms": np.array_equal(self.molecule.numbers, first.molecule.numbers),
            "bonds": np.array_equal(
                np.sort(self.molecule.bonds, 1), np.sort(first.molecule.bonds, 1)
            ),
            "force field": self.forcefield == first.forcefield,
        }
        wrong = [name for name, equal in same.items() if not equal]
        if wrong:
            raise DataError(
                f"all trajectories must be of one molecule and force field; {' and '.join(wrong)} "
                f"differ from those of {first.path}",
                where=str(self.path),
                remedy="train on them one by one",
            )


def _name(trajectory: H5MDTrajectory) -> str:
    """Residues of a molecule, as ACE-ALA-NME."""
    topology = trajectory.topology
    if topology is None:
        return ""
    names = [residue.name for residue in topology.residues]
    return "-".join(names) if len(names) <= 12 else f"{len(names)} residues"


def _frames(
    trajectory: H5MDTrajectory, rows: np.ndarray, kelvin: float, data: TransportDataSection
) -> Ensemble:
    frames = trajectory.read(rows)
    if frames.energy is None:
        raise DataError(
            "a flow is judged by the energies of its frames, the file has none",
            where=str(trajectory.path),
            remedy="take a trajectory that `mlff sample` wrote",
        )
    assert frames.positions is not None
    keep = np.ones(len(rows), bool)
    if data.discard > 0:
        if frames.time is None:
            raise ConfigError(
                f"data.discard={data.discard:g} ps: the file tells no times",
                where=str(trajectory.path),
                remedy="leave data.discard out",
            )
        keep = frames.time - frames.time.min() >= data.discard
    positions = np.asarray(frames.positions[keep], np.float64) * NM
    return Ensemble(kelvin, positions, np.asarray(frames.energy[keep], np.float64) * KJ_PER_KCAL)


def _in_turn(parts: Sequence[Ensemble]) -> Ensemble:
    """Frames of several files by their place in the run, so that a split takes the end of each."""
    place = np.concatenate([np.arange(len(p)) / len(p) for p in parts])
    order = np.argsort(place, kind="stable")
    positions = np.concatenate([p.positions for p in parts])[order]
    return Ensemble(parts[0].kelvin, positions, np.concatenate([p.energy for p in parts])[order])


@dataclass(frozen=True)
class Frames:
    """Frames of both temperatures as tensors.

    Attributes:
        source: (n, N, 3) nm.
        target: (m, N, 3) nm.
        source_energy: (n,) kJ/mol, float64.
        target_energy: (m,) kJ/mol, float64.
    """

    source: Tensor
    target: Tensor
    source_energy: Tensor
    target_energy: Tensor

    @classmethod
    def of(cls, source: Ensemble, target: Ensemble, dtype: torch.dtype) -> Frames:
        """Tensors of two ensembles, positions in a type."""
        return cls(
            torch.from_numpy(source.positions).to(dtype),
            torch.from_numpy(target.positions).to(dtype),
            torch.from_numpy(source.energy),
            torch.from_numpy(target.energy),
        )

    def batch(self, a: Rows, b: Rows, **more: Tensor) -> TensorBatch:
        """Frames a of the source and b of the target, as many of either."""
        tensors = {
            SOURCE: self.source[a],
            TARGET: self.target[b],
            "source_energy": self.source_energy[a],
            "target_energy": self.target_energy[b],
            **more,
        }
        return TensorBatch(tensors, frozenset(), len(tensors[SOURCE]))


@dataclass(frozen=True)
class TransportBatches:
    """Batches of frames of both temperatures.

    Attributes:
        train: frames to train on.
        validation: frames to validate on, in pairs of one of each side.
        seed: of the choice.
        size: frames of each temperature in a batch.
        epoch_length: batches of an epoch.
        E_max_at: threshold in force in an epoch, kJ/mol.
        split: parts of a batch.
        rank: of this process.
        processes: how many there are.
    """

    train: Frames
    validation: Frames
    seed: int
    size: int
    epoch_length: int
    E_max_at: Callable[[int], float]
    split: int = 1
    rank: int = 0
    processes: int = 1

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames (size,) of source and target in a step's batch."""
        rng = np.random.default_rng([self.seed, step])
        chosen = []
        for energy in (self.train.source_energy, self.train.target_energy):
            n = len(energy)
            chosen.append(rng.choice(n, self.size, replace=n < self.size))
        return chosen[0], chosen[1]

    def training(self, step: int) -> list[TensorBatch]:
        """This process's share of a step's batch, in parts."""
        own = [rows[self.rank :: self.processes] for rows in self.rows(step)]
        E_max = float(self.E_max_at(step // self.epoch_length + 1))
        parts = -(-self.split // self.processes)
        batches = []
        for part in np.array_split(np.arange(len(own[0])), min(parts, max(1, len(own[0])))):
            if not len(part):
                continue
            threshold = torch.full((len(part),), E_max, dtype=torch.float64)
            batches.append(self.train.batch(own[0][part], own[1][part], **{E_MAX: threshold}))
        return batches

    @property
    def n_validation(self) -> int:
        """Batches of pairs of validation frames."""
        return -(-self._pairs // self.size)

    @property
    def _pairs(self) -> int:
        return min(len(self.validation.source), len(self.validation.target))

    def validating(self, i: int) -> TensorBatch:
        """A validation batch."""
        rows = slice(i * self.size, min((i + 1) * self.size, self._pairs))
        return self.validation.batch(rows, rows)

    def name_frames(self, step: int) -> str:
        """The frames of a step's batch in words."""
        a, b = self.rows(step)
        shown = ", ".join(map(str, sorted(a.tolist())[:4]))
        other = ", ".join(map(str, sorted(b.tolist())[:4]))
        return f"training frames {shown}, ... of the source and {other}, ... of the target"
