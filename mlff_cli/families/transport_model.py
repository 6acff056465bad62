"""A transport model as its file keeps it, and what it predicts of a batch while training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.data.model_file import ModelFile, load_model_file
from mlff_cli.families.transport_data import Recorded
from mlff_cli.flows.build import build_flow
from mlff_cli.flows.flow import Flow
from mlff_cli.flows.molecule import FlowMolecule
from mlff_cli.flows.objective import transport
from mlff_cli.flows.spec import FlowSpec
from mlff_cli.training.task import Batch
from mlff_cli.training.transport import SOURCE, TARGET, tensors_of

if TYPE_CHECKING:
    import openmm

    from mlff_cli.physics.energies import EnergyEngine

FAMILY = "transport"
UNITS = {"energy": "kJ/mol", "length": "nm"}
NEEDED = ("flow", "molecule", "source", "target", "topology_pdb", "forcefield", "system")


@dataclass(frozen=True)
class TransportModel:
    """A trained flow and the system that it is for.

    Attributes:
        flow: from source to target.
        spec: of the flow.
        molecule: as the flow sees it.
        temperatures: of source and target, K.
        system: OpenMM's, without constraints.
        topology_pdb: PDB text.
        forcefield: names or files, as OpenMM takes them.
        file: the model file itself.
    """

    flow: Flow
    spec: FlowSpec
    molecule: FlowMolecule
    temperatures: tuple[float, float]
    system: openmm.System
    topology_pdb: str
    forcefield: tuple[str, ...]
    file: ModelFile


def load_transport(
    path: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TransportModel:
    """Read a transport model.

    Args:
        path: a model file or checkpoint.
        device: where the flow goes.
        dtype: of the flow.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is no transport model, or of units that are not ours.
        MissingDependencyError: the flow needs a package that is not installed.
    """
    import openmm

    file = load_model_file(path)
    if file.family != FAMILY:
        raise DataError(
            f"a transport model is needed, this one is of the family {file.family!r}",
            where=str(path),
            remedy="train one with `mlff train --preset ic_300_450`",
        )
    if dict(file.units) != UNITS:
        raise DataError(
            f"a transport model is in {UNITS}, this one says {dict(file.units)}", where=str(path)
        )
    known = file.architecture
    if missing := [name for name in NEEDED if name not in known]:
        raise DataError(
            f"the model file lacks {', '.join(missing)}",
            where=str(path),
            remedy="it was made by another program; train the model again",
        )
    flow = flow_of(known).to(dtype)
    try:
        flow.load_state_dict(file.weights)
    except RuntimeError as error:
        raise DataError(
            f"weights and architecture do not fit: {str(error).splitlines()[0]}", where=str(path)
        ) from error
    flow = flow.to(device).eval().requires_grad_(False)
    return TransportModel(
        flow,
        FlowSpec.model_validate(known["flow"]),
        FlowMolecule.from_plain(known["molecule"]),
        (float(known["source"]), float(known["target"])),
        openmm.XmlSerializer.deserialize(known["system"]),
        str(known["topology_pdb"]),
        tuple(known["forcefield"]),
        file,
    )


def load_weights(flow: Flow, path: Path, architecture: Mapping[str, Any]) -> None:
    """Start from the weights of another transport model; its statistics are taken over, too.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is no transport model.
        ConfigError: its flow or molecule is another.
    """
    source = load_transport(path)
    known = source.file.architecture
    wrong = [name for name in ("flow", "molecule") if not _same(known[name], architecture[name])]
    if wrong:
        raise ConfigError(
            f"--load: {' and '.join(wrong)} of the model are not those of the configuration",
            where=str(path),
            remedy="train a flow of the same kind and sizes, or leave --load out",
        )
    flow.load_state_dict(source.file.weights)


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two plain mappings say the same, names and seeds aside."""
    own, other = ({k: v for k, v in m.items() if k not in ("name", "seed")} for m in (a, b))
    return own == other


def flow_of(architecture: Mapping[str, Any]) -> Flow:
    """The flow of a model file's architecture, with weights and statistics yet to be loaded."""
    spec = FlowSpec.model_validate(architecture["flow"])
    return build_flow(spec, FlowMolecule.from_plain(architecture["molecule"]))


def architecture_of(spec: FlowSpec, recorded: Recorded, system: openmm.System) -> dict[str, Any]:
    """Plain values of a model file that rebuild flow and system."""
    import openmm

    return {
        "flow": spec.model_dump(mode="json"),
        "molecule": recorded.molecule.plain(),
        "source": recorded.source.kelvin,
        "target": recorded.target.kelvin,
        "topology_pdb": recorded.topology_pdb,
        "forcefield": list(recorded.forcefield),
        "system": openmm.XmlSerializer.serialize(system),
    }


@dataclass(frozen=True)
class Transporter:
    """What a flow predicts of a batch: energies behind the map and log-dets, of both directions.

    Attributes:
        engine: computes energies.
    """

    engine: EnergyEngine

    def __call__(self, model: nn.Module, batch: Batch, training: bool) -> Mapping[str, Tensor]:
        """Both directions, as `training.transport.tensors_of` has them."""
        assert isinstance(model, Flow)
        t = batch.tensors
        fwd = transport(model.forward, t[SOURCE], self._energy)
        inv = transport(model.inverse, t[TARGET], self._energy)
        return tensors_of(fwd, inv)

    def _energy(self, positions: Tensor) -> Tensor:
        # here, because its force field imports OpenMM, and other families do without it
        from mlff_cli.physics.energies import energy_of

        return energy_of(self.engine, positions)
