"""Coarse-grained models to simulate with: a model file or an artifact, one interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlff_cli.core.errors import UsageError
from mlff_cli.data.model_file import ModelFile, load_model_file
from mlff_cli.deploy.beads.artifact import load_bead_potential
from mlff_cli.deploy.beads.compiled import CompiledPotential
from mlff_cli.deploy.beads.models import FAMILY, bead_model_from
from mlff_cli.deploy.beads.potential import DTYPES, BeadPotential, bead_potential_of
from mlff_cli.deploy.beads.start import Known
from mlff_cli.deploy.predictor import ARTIFACT_SUFFIX
from mlff_cli.physics.langevin import Potential
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.bound_bead_model import BoundBeadModel


@dataclass(frozen=True)
class OpenedModel:
    """A model that has not met its molecule yet.

    Attributes:
        known: molecules that it knows.
        path: its file.
        mode: full, prior or ml.
        device: where it computes.
        dtype: of a model file's network; None: as it was trained.
        kelvin: temperature of the frames that it was trained on; None: unknown.
        source: the model file, or an artifact's potential.
    """

    known: Known
    path: Path
    mode: str
    device: str
    dtype: str | None
    kelvin: float | None
    source: ModelFile | BeadPotential

    def potential(self, topology: BeadTopology) -> BeadPotential:
        """The potential of a molecule, which of an artifact is its own.

        Raises:
            UsageError: a mode whose part the model lacks.
            DataError: the model does not know a type or a term of the molecule.
            MissingDependencyError: nequip-allegro is needed and not installed.
        """
        if isinstance(self.source, BeadPotential):
            return self.source
        return bead_potential_of(
            self.source, topology, self.mode, self.device, dtype=self.dtype, where=str(self.path)
        )

    def compiled(self, topology: BeadTopology) -> Potential:
        """The same as machine code.

        Raises:
            UsageError: see `potential`, or the molecule is too large to gain from it.
            DataError: see `potential`.
            MissingDependencyError: see `potential`, or there is no compiler.
        """
        assert isinstance(self.source, ModelFile)
        dtype = None if self.dtype is None else DTYPES[self.dtype]
        model = bead_model_from(self.source, str(self.path), dtype)
        return CompiledPotential(BoundBeadModel([model], topology).to(self.device), self.mode)


def trained_at(file: ModelFile) -> float | None:
    """Temperature in K of the frames that a model was trained on; None: unknown."""
    kelvin = file.config.get("data", {}).get("temperature")
    return None if kelvin is None else float(kelvin)


def open_model(
    path: Path, *, mode: str, device: str, dtype: str | None, compiled: bool = False
) -> OpenedModel:
    """Open a model file or an artifact.

    Args:
        path: the file; by its suffix an artifact.
        mode: full, prior or ml.
        device: where to compute.
        dtype: of a model file's network.
        compiled: whether `OpenedModel.compiled` will be asked for.

    Raises:
        UsageError: another family, or what an artifact cannot do.
        StorageError: the file cannot be read.
        DataError: it is damaged.
    """
    if path.suffix == ARTIFACT_SUFFIX:
        for given, told in ((dtype is not None, "--dtype"), (compiled, "--compile")):
            if given:
                raise UsageError(
                    f"an artifact computes as it was compiled, {told} cannot change it",
                    where=str(path),
                    remedy="leave the option out, or simulate the model file",
                )
        potential = load_bead_potential(path, device, mode)
        known = Known(
            [potential.topology.plain()], str(path), True, potential.metadata.get("prior")
        )
        kelvin = potential.metadata.get("temperature")
        return OpenedModel(known, path, mode, device, dtype, kelvin, potential)
    file = load_model_file(path)
    if file.family != FAMILY:
        raise UsageError(
            f"coarse-grained models are simulated, this one is of the family {file.family!r}",
            where=str(path),
            remedy="compile it, and use the artifact with ASE or OpenMM",
        )
    known = Known(file.molecules, str(path), False, file.architecture.get("prior"))
    return OpenedModel(known, path, mode, device, dtype, trained_at(file), file)
