"""Laws of the total potential, as an eager module and as TorchScript."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlff_cli.core.errors import DataError
from mlff_cli.core.units import HARTREE
from mlff_cli.deploy.torchscript import script
from mlff_cli.physics.dispersion_parameters import functional_parameters
from mlff_cli.potentials.total import TotalPotential
from tests.tiny import SAE, SPECIES, WATER, molecules, tiny_network, tiny_potential

PBE = functional_parameters("pbe")
OUTPUTS = ("energy", "forces", "charges", "spin_charges")


@pytest.fixture(scope="module", params=["eager", "script"])
def potential(request: pytest.FixtureRequest) -> nn.Module:
    total = tiny_potential(PBE)
    return total if request.param == "eager" else script(total)


def test_forces_are_finite_differences(potential: nn.Module) -> None:
    data = molecules(2)
    forces = potential(data)["forces"]
    step = 1e-4
    for atom, axis in ((0, 0), (3, 2)):
        energies = []
        for sign in (-1, 1):
            moved = data["coord"].clone()
            moved[:, atom, axis] += sign * step
            energies.append(potential({**data, "coord": moved})["energy"])
        slope = (energies[1] - energies[0]) / (2 * step)
        torch.testing.assert_close(forces[:, atom, axis], -slope, rtol=1e-5, atol=1e-6)


def test_forces_add_up_to_nothing(potential: nn.Module) -> None:
    total = potential(molecules())["forces"].sum(dim=1)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-9)


def test_charges_add_up(potential: nn.Module) -> None:
    data = molecules()
    out = potential(data)
    # not closer: the formula divides by sum f + 1e-6, and f of these random weights is small
    torch.testing.assert_close(out["charges"].sum(1), data["charge"], rtol=0, atol=1e-4)
    torch.testing.assert_close(out["spin_charges"].sum(1), data["mult"] - 1, rtol=0, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(where=st.lists(st.integers(0, 5), min_size=1, max_size=4), junk=st.sampled_from(
    [0.0, 1e6, float("nan"), float("inf")]))  # fmt: skip
def test_padding_changes_nothing(where: list[int], junk: float) -> None:
    """Zeros anywhere, with anything in their coordinates, and whatever else is in the batch."""
    potential, data = tiny_potential(PBE), molecules(2)
    expected = potential(data)
    rows = torch.arange(5).tolist()
    for place in where:
        rows.insert(min(place, len(rows)), -1)
    index = torch.tensor(rows)
    real = index >= 0
    padded = {
        **data,
        "numbers": torch.where(real, data["numbers"][:, index.clamp(0)], 0),
        "coord": torch.where(real[:, None], data["coord"][:, index.clamp(0)], junk),
    }
    out = potential(padded)
    torch.testing.assert_close(out["energy"], expected["energy"], rtol=1e-12, atol=0)
    for name in ("forces", "charges", "spin_charges"):
        torch.testing.assert_close(out[name][:, real], expected[name], rtol=1e-9, atol=1e-11)
        assert not out[name][:, ~real].any()


def test_batch_is_its_molecules(potential: nn.Module) -> None:
    data = molecules()
    together = potential(data)
    for b in range(4):
        alone = potential({name: values[b : b + 1] for name, values in data.items()})
        for name in OUTPUTS:
            torch.testing.assert_close(alone[name][0], together[name][b], rtol=1e-10, atol=1e-11)


def test_permutation_and_rotation(potential: nn.Module) -> None:
    data = molecules()
    out = potential(data)
    order = torch.tensor([3, 0, 4, 1, 2])
    q, r = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn = torch.tensor(q * np.sign(np.diag(r)))
    moved = potential(
        {**data, "numbers": data["numbers"][:, order], "coord": data["coord"][:, order] @ turn + 7}
    )
    torch.testing.assert_close(moved["energy"], out["energy"], rtol=1e-10, atol=0)
    torch.testing.assert_close(moved["forces"], out["forces"][:, order] @ turn, rtol=0, atol=1e-9)


def test_one_molecule_without_batch_axis(potential: nn.Module) -> None:
    data = molecules(1)
    batch = potential(data)
    single = potential({name: values[0] for name, values in data.items()})
    for name in OUTPUTS:
        assert torch.equal(single[name], batch[name][0])


def test_missing_mult_is_one_and_missing_charge_zero(potential: nn.Module) -> None:
    data = molecules()
    plain = {**data, "charge": torch.zeros(4), "mult": torch.ones(4)}
    bare = {"coord": data["coord"], "numbers": data["numbers"]}
    assert torch.equal(potential(bare)["energy"], potential(plain)["energy"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_input_is_left_alone_and_decides_the_type_of_forces(
    potential: nn.Module, dtype: torch.dtype
) -> None:
    data = {**molecules(), "coord": molecules()["coord"].to(dtype)}
    before = {name: values.clone() for name, values in data.items()}
    out = potential(data)
    assert data.keys() == before.keys()
    assert all(torch.equal(data[name], before[name]) for name in before)
    assert not data["coord"].requires_grad
    assert out["energy"].dtype == torch.float64
    assert out["forces"].dtype == dtype


def test_grad_modes(potential: nn.Module) -> None:
    data = molecules()
    expected = potential(data)["forces"]
    with torch.no_grad():
        assert torch.equal(potential(data)["forces"], expected)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    with torch.inference_mode(), pytest.raises(Exception, match="use torch.no_grad"):
        potential(data)
    assert torch.is_grad_enabled()
    with torch.inference_mode():
        made_there = {name: values.clone() for name, values in data.items()}
    assert torch.equal(potential(made_there)["forces"], expected)


def test_hessian_where_coord_requires_a_gradient(potential: nn.Module) -> None:
    data = molecules(1)
    coord = data["coord"].clone().requires_grad_(True)
    for _ in range(3):  # TorchScript rewrites its graph after the first calls
        out = potential({**data, "coord": coord})
        row = -torch.autograd.grad(out["forces"][0, 1, 2], coord)[0]
    step = 1e-4
    moved = data["coord"].clone()
    moved[0, 1, 2] += step
    forward = potential({**data, "coord": moved})["forces"]
    moved[0, 1, 2] -= 2 * step
    backward = potential({**data, "coord": moved})["forces"]
    torch.testing.assert_close(row, -(forward - backward) / (2 * step), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("z", [9, 119, 206, -1])
def test_unsupported_element_is_named(potential: nn.Module, z: int) -> None:
    data = molecules(1)
    data["numbers"][0, 2] = z
    with pytest.raises(Exception, match=rf"Z = {z} is not supported.*1, 6, 7, 8"):
        potential(data)
    assert torch.is_grad_enabled()


def test_wrong_shapes_are_refused(potential: nn.Module) -> None:
    data = molecules()
    with pytest.raises(Exception, match=r"found \[4, 5, 3\] and \[4, 4\]"):
        potential({**data, "numbers": data["numbers"][:, :4]})
    with pytest.raises(Exception, match="one value per molecule"):
        potential({**data, "charge": torch.zeros(3)})


@pytest.mark.parametrize("scale", [1e4, 1e5, 1e6])
def test_atomic_energies_are_exact_in_float64(scale: float) -> None:
    """Scripted, cast to float32 and back: not a bit of the atomic energies is lost."""
    network = tiny_network()
    sae = {z: -scale * (1 + z / 7) for z in SPECIES}
    zero = tiny_potential().double()
    total = TotalPotential(network.double(), sae, SPECIES)
    data = molecules()
    wanted = torch.stack([row.sum() for row in torch.tensor(
        [[sae[int(z)] for z in row] for row in data["numbers"]], dtype=torch.float64)])  # fmt: skip
    residual = TotalPotential(network, dict.fromkeys(SPECIES, 0.0))(data)["energy"]
    for module in (total, script(total), script(total).float().double()):
        numbers = data["numbers"]
        assert torch.equal(module.atomic_energies(numbers), wanted)
    energy = script(TotalPotential(tiny_network().double(), sae, SPECIES))(data)["energy"]
    torch.testing.assert_close(energy - wanted, residual, rtol=0, atol=4e-16 * 5 * scale * 3)
    assert zero(data)["energy"].dtype == torch.float64


def test_dispersion_is_what_dftd3_says() -> None:
    from dftd3.interface import DispersionModel, RationalDampingParam

    from mlff_cli.core.units import BOHR

    data = molecules()
    added = tiny_potential(PBE)(data)["energy"] - tiny_potential()(data)["energy"]
    damping = RationalDampingParam(s6=PBE.s6, s8=PBE.s8, a1=PBE.a1, a2=PBE.a2, s9=PBE.s9, alp=14.0)
    for b in range(4):
        model = DispersionModel(data["numbers"][b].numpy(), data["coord"][b].numpy() / BOHR)
        wanted = model.get_dispersion(damping, grad=False)["energy"]
        assert added[b].item() / HARTREE == pytest.approx(wanted, abs=1e-8)


def test_an_element_without_atomic_energy_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(SAE\) for Z = 9"):
        TotalPotential(tiny_network(), SAE, (1, 9))


def test_the_seeds_inference_example_in_eager_form() -> None:
    data = {"coord": torch.tensor([WATER]), "numbers": torch.tensor([[8, 1, 1]])}
    data |= {"charge": torch.tensor([0.0]), "mult": torch.tensor([1.0])}
    out = tiny_potential(dtype=torch.float32)(data)
    assert out["energy"].item() == pytest.approx(SAE[8] + 2 * SAE[1], abs=50)
    assert out["forces"].shape == (1, 3, 3)
