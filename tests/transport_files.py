"""A short replica exchange of ACE-ALA-NME, and flows of it that need no training, as files."""

from __future__ import annotations

from pathlib import Path

import torch

from mlff_cli.core.artifacts import sha256
from mlff_cli.data.model_file import ModelFile
from mlff_cli.families.transport_data import Recorded, read_frames
from mlff_cli.families.transport_model import FAMILY, UNITS, architecture_of
from mlff_cli.families.transport_settings import TransportSettings
from mlff_cli.flows.build import build_flow
from mlff_cli.flows.spec import FlowSpec, Kind
from mlff_cli.physics.forcefield.recorded import system_of
from mlff_cli.stages.sample import Options, run

KELVIN = (300.0, 450.0)


def sample(path: Path) -> Path:
    """A hundred frames of 300 K and of 450 K, after a picosecond: two seconds of work."""
    options = Options(
        temperatures=KELVIN,
        peptide="ACE-ALA-NME",
        time=2.0,
        equilibration=1.0,
        interval=0.02,
        exchange_interval=0.1,
        platform="CPU",
    )
    run(None, path, options)
    return path


def untrained(path: Path, trajectory: Path, kind: Kind = "linear") -> Path:
    """A model file of the linear map with exactly sqrt(T2/T1), or of the identity."""
    recorded = _recorded(trajectory)
    spec = FlowSpec(kind=kind, scaling="temperature")
    system = system_of(recorded.topology_pdb, recorded.forcefield).system
    flow = build_flow(spec, recorded.molecule, torch.float64)
    x, y = (torch.from_numpy(e.positions) for e in (recorded.source, recorded.target))
    flow.fit(x, y, KELVIN[1] / KELVIN[0])
    ModelFile(
        weights=flow.state_dict(),
        architecture=architecture_of(spec, recorded, system),
        family=FAMILY,
        config={},
        species=[1, 6, 7, 8],
        fidelities=[],
        sae={},
        provenance={"inputs": {str(trajectory): sha256(trajectory)}},
        units=UNITS,
    ).save(path)
    return path


def _recorded(trajectory: Path) -> Recorded:
    settings = TransportSettings(
        data={"files": [str(trajectory)]},  # type: ignore[arg-type]
        temperatures={"source": KELVIN[0], "target": KELVIN[1]},  # type: ignore[arg-type]
    )
    return read_frames(settings)
