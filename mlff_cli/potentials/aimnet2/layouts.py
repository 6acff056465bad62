"""Whose layout a bare state dict is in, and the same weights in ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mlff_cli.potentials.aimnet2.fidelity import EMBEDDING
from mlff_cli.potentials.aimnet2.interop import BLOCK_ROWS, READOUT, import_state
from mlff_cli.potentials.aimnet2.model import N_ROWS
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec

_OURS = "charge_readouts.0.weight"  # no other layout has it


def own_layout(
    state: Mapping[str, Tensor], spec: AIMNet2Spec, offset: int
) -> tuple[Mapping[str, Tensor], AIMNet2Spec, list[str]]:
    """Weights of ours, of aimnet or of aimnet2mult in our layout, with the fidelities they have.

    Args:
        state: state dict.
        spec: sizes that it was trained with; its fidelities may be other ones.
        offset: distance of the fidelities in tables of aimnet2mult.

    Returns:
        The state dict, its spec, and what found no counterpart.

    Raises:
        ConfigError: unknown or missing key, a shape or constant that contradicts the spec.
    """
    if _OURS in state and EMBEDDING in state:
        n, readouts = max(1, len(state[EMBEDDING]) // N_ROWS), len(state[_OURS])
        own = {"num_fidelities": n, "use_fidelity_readouts": n == readouts}
        return state, spec.model_copy(update=own), []
    n, apart = fidelities_in(state, offset)
    foreign = spec.model_copy(
        update={"num_fidelities": n, "use_fidelity_readouts": apart, "fidelity_offset": offset}
    )
    with torch.random.fork_rng(devices=[]):
        model, report = import_state(state, foreign)
    notes = [f"created on import: {line}" for line in report.created]
    notes += [f"dropped on import: {line}" for line in report.dropped]
    return model.state_dict(), foreign, notes


def fidelities_in(state: Mapping[str, Tensor], offset: int) -> tuple[int, bool]:
    """How many fidelities a state of aimnet or aimnet2mult holds; whether each has a readout.

    Args:
        state: state dict.
        offset: distance of the fidelities in its tables, which it does not say itself.
    """
    readouts = {int(m[1]) for name in state if (m := READOUT.match(name))}
    if readouts:
        return len(readouts), True
    rows = len(state[EMBEDDING]) if EMBEDDING in state else 0
    beyond_one = rows - max(offset, BLOCK_ROWS)
    return (1 - (-beyond_one // offset), False) if beyond_one > 0 else (1, True)
