"""Several fidelities in one model: what is shared, what is not, and taking them apart."""

import pytest
import torch

from mlff_cli.core.errors import UsageError
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.fidelity import (
    SHIFTS,
    add_shifts,
    blocks_of,
    equal_readouts,
    expand_fidelities,
    extract_fidelity,
    part_of,
)
from mlff_cli.potentials.aimnet2.model import AIMNet2
from tests.potentials.aimnet2_cases import make_batch, make_model, same


@pytest.mark.parametrize("own_readouts", [True, False])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_extracted_model_equals_its_fidelity(k, own_readouts):
    model = make_model(num_fidelities=3, use_fidelity_readouts=own_readouts)
    batch = make_batch([6, 4, 2], fidelities=[k] * 3)
    numbers = torch.where(batch["numbers"] > 0, batch["numbers"] - 200 * k, 0)
    expected = energy_and_forces(model, batch)
    found = energy_and_forces(extract_fidelity(model, k), {**batch, "numbers": numbers})
    for name, value in expected.items():
        same(found[name], value, 1e-12)


def test_fidelities_differ():
    model = make_model(num_fidelities=2)
    low, high = (model(make_batch([6], fidelities=[k]))["energy"].detach() for k in (0, 1))
    assert float((low - high).abs()) > 1e-3


@pytest.mark.parametrize("k", [-1, 2])
def test_a_fidelity_that_does_not_exist(k):
    with pytest.raises(UsageError, match=r"0\.\.1.*found"):
        extract_fidelity(make_model(num_fidelities=2), k)


def test_expanded_model_starts_as_its_source():
    single = make_model()
    batch = make_batch([6, 4])
    expected = single(batch)["energy"]
    model = expand_fidelities(single, 3)
    for k in range(3):
        numbers = torch.where(batch["numbers"] > 0, batch["numbers"] + 200 * k, 0)
        same(model({**batch, "numbers": numbers})["energy"], expected, 1e-12)
    with pytest.raises(UsageError, match="one fidelity"):
        expand_fidelities(model, 4)


def loss(model, batch):
    out = energy_and_forces(model, batch, create_graph=True)
    return sum(value.square().sum() for value in out.values())


def test_gradient_reaches_only_the_readout_of_the_batch():
    model = make_model(num_fidelities=3)
    loss(model, make_batch([5, 4], fidelities=[1, 1])).backward()
    for name, parameter in model.named_parameters():
        # all take part in every step, with a zero gradient if need be
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if name.startswith(("charge_readouts", "outputs")) or name == "afv.weight":
            blocks = parameter.grad.view(3, -1)
            assert not blocks[0].any(), name
            assert blocks[1].any(), name
            assert not blocks[2].any(), name
        else:
            assert parameter.grad.any(), name


def test_mixed_batch_has_the_gradient_of_its_parts():
    model = make_model(num_fidelities=3)
    batch = make_batch([5, 7, 2], fidelities=[2, 0, 1])
    names, parameters = zip(*model.named_parameters(), strict=True)
    together = torch.autograd.grad(loss(model, batch), parameters)
    apart = [torch.zeros_like(p) for p in parameters]
    for i in range(3):
        molecule = {key: value[i : i + 1] for key, value in batch.items()}
        for total, part in zip(
            apart, torch.autograd.grad(loss(model, molecule), parameters), strict=True
        ):
            total += part
    for name, found, expected in zip(names, together, apart, strict=True):
        scale = float(expected.abs().max()) + 1e-3
        assert float((found - expected).abs().max()) < 1e-10 * scale, name


def test_shared_readouts():
    model = make_model(num_fidelities=3, use_fidelity_readouts=False)
    assert len(model.outputs.energy_mlp.out.weight) == 1
    assert len(model.outputs.atomic_shift.shifts.weight) == 119
    loss(model, make_batch([5, 4], fidelities=[0, 2])).backward()
    embedding = model.afv.weight.grad.view(3, -1)
    assert [bool(block.any()) for block in embedding] == [True, False, True]
    assert all(p.grad.any() for n, p in model.named_parameters() if n != "afv.weight")


@pytest.mark.parametrize("own_readouts", [True, False])
def test_every_parameter_has_a_part_and_its_blocks(own_readouts):
    spec = make_model(num_fidelities=3, use_fidelity_readouts=own_readouts).spec()
    readouts = 3 if own_readouts else 1
    blocks = {"embeddings": 3, "backbone": None}
    for name, value in AIMNet2(spec).state_dict().items():
        expected = blocks.get(part_of(name), readouts)
        assert blocks_of(name, spec) == expected, name
        if expected:  # the start is the same for all fidelities: equal blocks
            assert all(torch.equal(b, value.chunk(expected)[0]) for b in value.chunk(expected))
    parts = {part_of(name) for name in AIMNet2(spec).state_dict()}
    assert parts == {
        "backbone", "embeddings", "readouts.charges", "readouts.energy", "readouts.shifts"
    }  # fmt: skip


def test_the_backbone_is_what_every_fidelity_trains():
    model = make_model(num_fidelities=2)
    loss(model, make_batch([5, 4], fidelities=[1, 1])).backward()
    for name, parameter in model.named_parameters():
        first = parameter.grad.chunk(blocks_of(name, model.spec()) or 1)[0]
        assert bool(first.any()) == (part_of(name) == "backbone"), name


def test_equal_readouts_are_told_from_different_ones():
    model = make_model(num_fidelities=3)
    assert not equal_readouts(model.state_dict(), model.spec())
    assert equal_readouts(expand_fidelities(make_model(), 3).state_dict(), model.spec())


@pytest.mark.parametrize("readout", [0, 1])
def test_shifts_move_the_energies_of_their_readout_alone(readout):
    model = make_model(num_fidelities=2)
    batch = make_batch([6, 3], fidelities=[0, 1])
    before = model(batch)["energy"].detach()
    z = int(batch["numbers"][readout, 0]) - 200 * readout
    count = (batch["numbers"] == z + 200 * readout).sum(dim=1)
    state = model.state_dict()
    state[SHIFTS] = add_shifts(state[SHIFTS], readout, {z: 0.5, 99: 3.0})
    model.load_state_dict(state)
    same(model(batch)["energy"], before + 0.5 * count, 1e-12)
    assert torch.equal(add_shifts(state[SHIFTS], readout, {}), state[SHIFTS])
