"""A transport model as the map of `mlff sample --flow`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mlff_cli.families.transport_model import load_transport
from mlff_cli.physics.mapped_exchange import MappedExchange
from mlff_cli.sampling.flow_exchange import FlowMap

DTYPE = torch.float64


def flow_exchange(
    path: Path, temperatures: np.ndarray, forcefield: Sequence[str], device: str = "cpu"
) -> tuple[MappedExchange, str | None]:
    """Swaps through the flow of a model file.

    Args:
        path: model file or checkpoint.
        temperatures: (K,) K of the ladder, ascending.
        forcefield: of the ladder, as OpenMM takes it.
        device: where the flow computes.

    Returns:
        The swaps, and a warning where the flow was trained on another force field.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is no transport model.
        UsageError: the flow's temperatures are no neighbours in the ladder.
    """
    model = load_transport(path, device, DTYPE)
    flow = FlowMap(model.flow, *model.temperatures, model.molecule, model.forcefield, str(path))
    mapped = MappedExchange(flow, temperatures, model.molecule.bonds)
    return mapped, flow.doubt(forcefield)
