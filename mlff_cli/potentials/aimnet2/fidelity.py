"""What belongs to a fidelity: one of them out of several, and several out of one.

    part               parameters                                  blocks along the first axis
    backbone           mlps, conv_a, conv_q                        none: every fidelity shares them
    embeddings         afv.weight                                  one per fidelity
    readouts.charges   charge_readouts                             one per readout
    readouts.energy    outputs.energy_mlp                          one per readout
    readouts.shifts    outputs.atomic_shift                        one per readout

A block of a table of elements has N_ROWS rows, row 0 for padding, whatever the offset of the
numbers at the interface is. There is one readout per fidelity, or one that all share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mlff_cli.core.errors import UsageError
from mlff_cli.potentials.aimnet2.model import N_ROWS, AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec

# Parameters with one row per element and fidelity, [k * N_ROWS + z, ...]
EMBEDDING = "afv.weight"
SHIFTS = "outputs.atomic_shift.shifts.weight"
BACKBONE = "backbone"
_PARTS = (
    ("embeddings", re.compile(re.escape(EMBEDDING))),
    ("readouts.charges", re.compile(r"charge_readouts\.")),
    ("readouts.energy", re.compile(r"outputs\.energy_mlp\.")),
    ("readouts.shifts", re.compile(re.escape(SHIFTS))),
)


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to.

    >>> part_of("mlps.0.out.weight"), part_of("charge_readouts.1.bias")
    ('backbone', 'readouts.charges')
    """
    return next((part for part, names in _PARTS if names.match(name)), BACKBONE)


def blocks_of(name: str, spec: AIMNet2Spec) -> int | None:
    """How many blocks the parameter has along its first axis; None where fidelities share it."""
    part = part_of(name)
    if part == BACKBONE:
        return None
    return spec.num_fidelities if part == "embeddings" else readouts_of(spec)


def readouts_of(spec: AIMNet2Spec) -> int:
    """Number of readouts: one per fidelity, or one."""
    return spec.num_fidelities if spec.use_fidelity_readouts else 1


def equal_readouts(state: Mapping[str, Tensor], spec: AIMNet2Spec) -> bool:
    """Whether all readouts of a state dict are the same."""
    n = readouts_of(spec)
    stacked = [v.chunk(n) for name, v in state.items() if part_of(name).startswith("readouts")]
    return all(torch.equal(block, blocks[0]) for blocks in stacked for block in blocks)


def add_shifts(shifts: Tensor, readout: int, energies: Mapping[int, float]) -> Tensor:
    """The table of atomic shifts with energies added to one readout's block.

    Args:
        shifts: (R * N_ROWS, 1) eV.
        readout: which block.
        energies: {atomic number: eV}.
    """
    total = shifts.double()
    if energies:
        rows = torch.tensor([readout * N_ROWS + z for z in energies], device=shifts.device)
        added = torch.tensor(list(energies.values()), dtype=torch.float64, device=shifts.device)
        total = total.index_add(0, rows, added.unsqueeze(1))
    return total.to(shifts.dtype)


def extract_fidelity(model: AIMNet2, k: int) -> AIMNet2:
    """The model of fidelity `k` alone: its input are atomic numbers without an offset.

    Raises:
        UsageError: the model has no fidelity `k`.
    """
    n = model.num_fidelities
    if not 0 <= k < n:
        raise UsageError(f"fidelity must be in 0..{n - 1}, found {k}")
    spec, state = model.spec(), {}
    for name, value in model.state_dict().items():
        blocks = blocks_of(name, spec) or 1
        state[name] = value.chunk(blocks)[k if blocks > 1 else 0].clone()
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
    spec = model.spec().model_copy(update={"num_fidelities": num_fidelities})
    state = {}
    for name, value in model.state_dict().items():
        state[name] = torch.cat([value] * (blocks_of(name, spec) or 1))
    return _rebuilt(model, num_fidelities, state)


def _rebuilt(model: AIMNet2, num_fidelities: int, state: dict[str, Tensor]) -> AIMNet2:
    spec = model.spec().model_copy(update={"num_fidelities": num_fidelities})
    # initial values are overwritten: the caller's random numbers must not depend on them
    with torch.random.fork_rng(devices=[]):
        new = AIMNet2(spec)
    weight = model.afv.weight
    new = new.to(device=weight.device, dtype=weight.dtype)
    new.load_state_dict(state)
    return new.train(model.training)
