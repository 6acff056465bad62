"""Several fidelities in one model: what is shared, what is not, and taking them apart."""

import pytest
import torch

from mlff_cli.core.errors import UsageError
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.fidelity import expand_fidelities, extract_fidelity
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
