"""What every molecule's energy must obey, whatever the weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.potentials.aimnet2.charges import equilibrate
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import PRESETS, AIMNet2Spec
from tests.potentials.aimnet2_cases import make_batch, make_model, one, same

seeds = st.integers(0, 10**6)
channels = st.sampled_from([1, 2])
few = settings(max_examples=5, deadline=None)


@few
@given(seeds, channels, st.booleans())
def test_rotation_translation_and_reflection(seed, c, d2):
    model = make_model(seed, num_charge_channels=c, d2features=d2)
    batch = make_batch([7, 4], seed)
    rng = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))
    shift = 10.0 * torch.randn(2, 1, 3, generator=rng, dtype=torch.float64)
    before = energy_and_forces(model, batch)
    after = energy_and_forces(model, {**batch, "coord": batch["coord"] @ q.T + shift})
    same(after["energy"], before["energy"], 1e-10)
    same(after["charges"], before["charges"], 1e-10)
    same(after["forces"], before["forces"] @ q.T, 1e-9)


@few
@given(seeds, channels)
def test_permutation(seed, c):
    model = make_model(seed, num_charge_channels=c)
    batch = make_batch([8], seed)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    shuffled = {**batch, **{key: batch[key][:, order] for key in ("coord", "numbers")}}
    before, after = energy_and_forces(model, batch), energy_and_forces(model, shuffled)
    same(after["energy"], before["energy"], 1e-10)
    for name in ("charges", "spin_charges", "forces"):
        same(after[name], before[name][:, order], 1e-10)


@few
@given(seeds, channels, st.booleans())
def test_batching_and_padding_change_nothing(seed, c, d2):
    model = make_model(seed, num_charge_channels=c, d2features=d2, num_fidelities=3)
    batch = make_batch([6, 1, 9, 2], seed, fidelities=[2, 0, 1, 2])
    together = energy_and_forces(model, batch)
    for i in range(4):
        molecule = one(batch, i)
        n = molecule["numbers"].shape[1]
        alone = energy_and_forces(model, molecule)
        same(together["energy"][i], alone["energy"][0], 1e-10)
        for name in ("charges", "spin_charges", "forces"):
            same(together[name][i, :n], alone[name][0], 1e-10)
            assert not together[name][i, n:].any()


@pytest.mark.parametrize("filling", [0.0, 1e30, float("nan"), float("inf")])
def test_padding_may_hold_anything(filling):
    model = make_model()
    batch = make_batch([3, 6])
    expected = energy_and_forces(model, batch)
    padding = batch["numbers"] == 0
    batch["coord"][padding] = filling
    out = energy_and_forces(model, batch, create_graph=True)
    for name, value in expected.items():
        assert torch.equal(out[name].detach(), value)
    (out["energy"].sum() + out["forces"].square().sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@few
@given(seeds, channels)
def test_forces_are_the_slope_of_the_energy(seed, c):
    model = make_model(seed, num_charge_channels=c)
    batch = make_batch([6, 4], seed)
    forces = energy_and_forces(model, batch)["forces"]
    h = 1e-4
    with torch.no_grad():
        for i, atom, axis in [(0, 0, 0), (0, 5, 2), (1, 1, 1)]:
            energies = []
            for step in (-h, h):
                coord = batch["coord"].clone()
                coord[i, atom, axis] += step
                energies.append(model({**batch, "coord": coord})["energy"][i])
            slope = (energies[1] - energies[0]) / (2 * h)
            same(-slope, forces[i, atom, axis], 1e-6)


def test_forces_can_be_differentiated_again():
    model = make_model()
    batch = make_batch([4, 2])

    def forces(coord):
        energy = model({**batch, "coord": coord})["energy"].sum()
        return torch.autograd.grad(energy, coord, create_graph=True)[0]

    assert torch.autograd.gradcheck(
        forces, batch["coord"].requires_grad_(True), atol=1e-6, fast_mode=True
    )


@few
@given(seeds, channels)
def test_charges_add_up(seed, c):
    model = make_model(seed, num_charge_channels=c)
    with torch.no_grad():
        for readout in model.charge_readouts:
            # keeps sum f off zero, where the published 1e-6 in the denominator would show
            readout.bias[:, c:] += 2.0
    batch = make_batch([7, 5, 1], seed)
    out = model(batch)
    torch.testing.assert_close(out["charges"].sum(1), batch["charge"], atol=1e-5, rtol=0)
    unpaired = batch["mult"] - 1 if c == 2 else torch.zeros_like(batch["mult"])
    torch.testing.assert_close(out["spin_charges"].sum(1), unpaired, atol=1e-5, rtol=0)


@few
@given(seeds, channels)
def test_equilibrated_charges_miss_only_the_published_guard(seed, c):
    rng = torch.Generator().manual_seed(seed)
    q, f = torch.randn(2, 3, 6, c, generator=rng, dtype=torch.float64)
    target = torch.randn(3, c, generator=rng, dtype=torch.float64)
    real = torch.arange(6) < torch.tensor([[6], [2], [1]])
    found = equilibrate(q, f, target, real)
    missing = target - (q * real[..., None]).sum(1)
    weight = (f.square() * real[..., None]).sum(1)
    torch.testing.assert_close(target - found.sum(1), missing * 1e-6 / (weight + 1e-6))
    assert not found[~real].any()


def test_multiplicity_is_one_when_missing_or_zero():
    model = make_model()
    batch = make_batch([5, 4])
    singlet = model({**batch, "mult": torch.ones(2)})
    triplet = model({**batch, "mult": 3 * torch.ones(2)})
    without = {key: value for key, value in batch.items() if key != "mult"}
    for other in (without, {**batch, "mult": torch.zeros(2)}):
        assert torch.equal(model(other)["energy"], singlet["energy"])
    assert not torch.allclose(triplet["energy"], singlet["energy"])


def test_only_charges_reach_beyond_the_cutoff():
    batch = make_batch([4, 4])
    pair = {
        "coord": torch.cat([batch["coord"][0], batch["coord"][1] + 100.0])[None],
        "numbers": batch["numbers"].view(1, 8),
        "charge": torch.ones(1, dtype=torch.float64),
    }
    across = {
        coulomb: energy_and_forces(make_model(coulomb=coulomb), pair)["forces"][0, :4].sum(0)
        for coulomb in (None, "simple")
    }
    assert float(across[None].abs().max()) < 1e-10
    assert float(across["simple"].norm()) > 1e-8


@pytest.mark.parametrize("number", [119, 199, 600, 719])
def test_numbers_outside_the_tables_are_refused(number):
    model = make_model(num_fidelities=3)
    batch = make_batch([3])
    batch["numbers"][0, 1] = number
    with pytest.raises(IndexError):
        model(batch)


@pytest.mark.parametrize("options", [{}, {"num_charge_channels": 1}, {"d2features": False}])
@pytest.mark.parametrize("num_fidelities", [1, 3])
def test_torchscript_equals_eager(options, num_fidelities, tmp_path):
    model = make_model(num_fidelities=num_fidelities, **options)
    fidelities = [i % num_fidelities for i in range(4)]
    batch = make_batch([6, 4, 5, 1], fidelities=fidelities)
    torch.jit.script(model).save(str(tmp_path / "model.jpt"))
    scripted = torch.jit.load(str(tmp_path / "model.jpt"))
    expected = energy_and_forces(model, batch)
    for _ in range(3):  # the first runs profile, later ones are optimised
        found = energy_and_forces(scripted, batch)
        for name, value in expected.items():
            same(found[name], value, 1e-12)


def test_energy_is_float64_and_needs_no_gradient():
    model = make_model(dtype=torch.float32)
    batch = make_batch([5, 3], dtype=torch.float32)
    with torch.no_grad():
        out = model(batch)
        forces = energy_and_forces(model, batch)["forces"]
    assert out["energy"].dtype == torch.float64
    assert not out["energy"].requires_grad
    assert forces.dtype == torch.float32
    double = energy_and_forces(model.double(), batch)
    same(out["energy"], double["energy"], 1e-5)
    same(forces, double["forces"], 1e-4)


def test_the_callers_batch_is_left_alone():
    batch = make_batch([5, 3])
    copies = {key: value.clone() for key, value in batch.items()}
    energy_and_forces(make_model(), batch)
    assert batch.keys() == copies.keys()
    assert all(torch.equal(batch[key], copies[key]) for key in batch)
    assert not batch["coord"].requires_grad


def test_sizes_of_the_presets():
    counts = {}
    for name, preset in PRESETS.items():
        model = AIMNet2(AIMNet2Spec(**preset))
        # without the tables, of which an atom reads one row
        tables = ("afv.weight", "outputs.atomic_shift.shifts.weight")
        counts[name] = sum(p.numel() for n, p in model.named_parameters() if n not in tables)
    assert counts["default"] == pytest.approx(2.2e6, rel=0.02)
    assert 5 < counts["default"] / counts["small"] < 8


def test_initial_embedding_is_orthogonal_and_the_same_for_every_fidelity():
    model = AIMNet2(AIMNet2Spec(num_fidelities=3))
    blocks = model.afv.weight.detach().view(3, 119, 16, 16)
    assert torch.equal(blocks[0], blocks[1])
    assert torch.equal(blocks[0], blocks[2])
    assert torch.equal(blocks[..., :1].expand_as(blocks), blocks)
    columns = blocks[0, 1:, :, 0]
    torch.testing.assert_close(columns.T @ columns, torch.eye(16), atol=1e-5, rtol=0)
    assert not blocks[:, 0].any()
