"""One fidelity out of a model of several, and several out of a model of one."""

from __future__ import annotations

import torch
from torch import Tensor

from mlff_cli.core.errors import UsageError
from mlff_cli.potentials.aimnet2.model import N_ROWS, AIMNet2

# Parameters with one row per element and fidelity, [k * N_ROWS + z, ...]
EMBEDDING = "afv.weight"
SHIFTS = "outputs.atomic_shift.shifts.weight"
# Prefixes of parameters stacked by readout, [r, ...]
STACKED = ("charge_readouts.", "outputs.energy_mlp.")


def extract_fidelity(model: AIMNet2, k: int) -> AIMNet2:
    """The model of fidelity `k` alone: its input are atomic numbers without an offset.

    Raises:
        UsageError: the model has no fidelity `k`.
    """
    n = model.num_fidelities
    if not 0 <= k < n:
        raise UsageError(f"fidelity must be in 0..{n - 1}, found {k}")
    readout = k if model.n_readouts > 1 else 0
    state = {name: _take(name, value, k, readout) for name, value in model.state_dict().items()}
    return _rebuilt(model, 1, state)


def expand_fidelities(model: AIMNet2, num_fidelities: int) -> AIMNet2:
    """A model of `num_fidelities` methods, each starting as a copy of a single-fidelity model.

    Raises:
        UsageError: `model` has several fidelities already.
    """
    if model.num_fidelities != 1:
        raise UsageError(
            f"only a model of one fidelity can be expanded, found {model.num_fidelities}",
            remedy="extract one fidelity first",
        )
    n_readouts = num_fidelities if model.spec().use_fidelity_readouts else 1
    state = {}
    for name, value in model.state_dict().items():
        copies = 1
        if name == EMBEDDING:
            copies = num_fidelities
        elif name == SHIFTS or name.startswith(STACKED):
            copies = n_readouts
        state[name] = torch.cat([value] * copies)
    return _rebuilt(model, num_fidelities, state)


def _take(name: str, value: Tensor, k: int, readout: int) -> Tensor:
    if name == EMBEDDING:
        return value[k * N_ROWS : (k + 1) * N_ROWS].clone()
    if name == SHIFTS:
        return value[readout * N_ROWS : (readout + 1) * N_ROWS].clone()
    if name.startswith(STACKED):
        return value[readout : readout + 1].clone()
    return value.clone()


def _rebuilt(model: AIMNet2, num_fidelities: int, state: dict[str, Tensor]) -> AIMNet2:
    spec = model.spec().model_copy(update={"num_fidelities": num_fidelities})
    # initial values are overwritten: the caller's random numbers must not depend on them
    with torch.random.fork_rng(devices=[]):
        new = AIMNet2(spec)
    weight = model.afv.weight
    new = new.to(device=weight.device, dtype=weight.dtype)
    new.load_state_dict(state)
    return new.train(model.training)
