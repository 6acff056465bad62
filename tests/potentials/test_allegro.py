"""The adapter of Allegro: nequip's own numbers, symmetries, and nothing left behind."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mlff_cli.core.errors import ConfigError, MissingDependencyError
from mlff_cli.potentials.allegro import SIZES, Allegro, AllegroSpec
from mlff_cli.potentials.bead_edges import edges_of
from tests.potentials.bead_model_cases import tiny_allegro, tiny_spec, type_numbers
from tests.potentials.prior_cases import SPECIES, chain, chain_types

N = 10


@pytest.fixture(scope="module")
def allegro():
    return tiny_allegro()


@pytest.fixture(scope="module")
def beads(allegro):
    x = chain(N)
    return x, type_numbers(chain_types(N)), edges_of(x, torch.zeros(N, dtype=int), 12.0)


def rotation(seed=0):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    return torch.from_numpy(q)


def forces(model, x, types, edges):
    x = x.detach().requires_grad_()
    energy = model(x, types, edges)
    return energy.detach(), -torch.autograd.grad(energy.sum(), x)[0]


def test_it_is_the_model_that_nequip_builds():
    """Our arguments reach nequip: its own AllegroModel with forces, written out in its words."""
    from mlff_cli.potentials.nequip_state import nequip_state

    spec = tiny_spec(chiral=False, num_layers=1, cutoff=9.0, avg_num_neighbors=4.0, seed=7)
    ours = Allegro(spec, torch.float64)
    with nequip_state():
        from allegro.model import AllegroModel

        theirs = AllegroModel(
            seed=7,
            model_dtype="float64",
            type_names=list(SPECIES),
            r_max=9.0,
            l_max=1,
            parity=True,
            radial_chemical_embed={
                "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
                "num_bessels": 8,
            },
            scalar_embed_mlp_hidden_layers_width=8,
            num_layers=1,
            num_scalar_features=8,
            num_tensor_features=4,
            allegro_mlp_hidden_layers_width=8,
            readout_mlp_hidden_layers_width=4,
            avg_num_neighbors=4.0,
            per_type_energy_scales=5.0,
        )
    x, types = chain(N), type_numbers(chain_types(N))
    edges = edges_of(x, torch.zeros(N, dtype=int), 9.0)
    energy, f = forces(ours, x, types, edges)
    out = theirs({"pos": x, "atom_types": types, "edge_index": edges})
    assert energy.dtype == f.dtype == torch.float64
    assert energy.abs().max() > 1e-3
    torch.testing.assert_close(energy, out["atomic_energy"][:, 0].detach(), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(f, out["forces"].detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("changes", [{}, {"l_max": 2}, {"chiral": False}, {"l_max": 0}])
def test_its_tensor_product_is_that_of_nequip(changes, beads):
    """Energies and forces of the plain network, with the same weights under the same names."""
    ours = tiny_allegro(**changes)
    plain = ours.plain_network()
    assert {k: v.shape for k, v in ours.network.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }

    def theirs(x, types, edges):
        return plain({"pos": x, "atom_types": types, "edge_index": edges})["atomic_energy"][:, 0]

    torch.testing.assert_close(forces(ours, *beads), forces(theirs, *beads), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("chiral", [True, False])
def test_rotated_translated_reordered_beads_have_rotated_forces(chiral, beads):
    model = tiny_allegro(chiral=chiral, l_max=2)
    x, types, edges = beads
    energy, f = forces(model, x, types, edges)
    assert f.abs().max() > 1e-2
    torch.testing.assert_close(f.sum(0), torch.zeros(3, dtype=f.dtype), atol=1e-10, rtol=0)

    q = rotation()
    moved, turned = forces(model, x @ q.T + torch.tensor([5.0, -3.0, 40.0]), types, edges)
    torch.testing.assert_close(moved, energy, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(turned, f @ q.T, atol=1e-9, rtol=1e-9)

    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    new_edges = edges_of(x[order], torch.zeros(N, dtype=int), 12.0)
    moved, turned = forces(model, x[order], types[order], new_edges)
    torch.testing.assert_close(moved, energy[order], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(turned, f[order], atol=1e-10, rtol=1e-10)


def test_a_chiral_model_tells_mirror_images_apart_and_another_does_not(beads):
    x, types, edges = beads
    for chiral, layers, differ in ((True, 2, True), (True, 1, False), (False, 2, False)):
        model = tiny_allegro(chiral=chiral, num_layers=layers)
        difference = (model(x, types, edges) - model(-x, types, edges)).abs().max()
        assert (difference > 1e-4) == differ, (chiral, layers, difference)


def test_forces_are_the_gradient_of_the_energy(allegro, beads):
    x, types, edges = beads
    assert torch.autograd.gradcheck(lambda y: allegro(y, types, edges).sum(), x.requires_grad_())
    assert torch.autograd.gradgradcheck(
        lambda y: allegro(y, types, edges).sum(), x.requires_grad_(), atol=1e-5
    )


def test_edges_beyond_the_cutoff_add_nothing(allegro, beads):
    """A list with a skin can be used for many steps, and padded to one length."""
    x, types, edges = beads
    x = x * 1.5
    near = edges_of(x, torch.zeros(N, dtype=int), 12.0)
    every = edges_of(x, torch.zeros(N, dtype=int), 1e3)
    assert near.shape[1] < every.shape[1]
    for mine, theirs in zip(
        forces(allegro, x, types, near), forces(allegro, x, types, every), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)


def test_energy_goes_smoothly_to_zero_at_the_cutoff(allegro):
    """The envelope takes value and two derivatives to zero: at 1 % inside, below 1e-4 of inside."""
    types = torch.tensor([0, 1])
    edges = torch.tensor([[0, 1], [1, 0]])

    def of(r):
        x = torch.tensor([[0.0, 0.0, 0.0], [r, 0.0, 0.0]], dtype=torch.float64)
        energy, f = forces(allegro, x, types, edges)
        return energy.sum().abs(), f.abs().max()

    for inside, edge, beyond in zip(of(6.0), of(11.99), of(12.0), strict=True):
        assert edge < 1e-4 * inside
        assert beyond == 0.0


def test_a_lonely_bead_has_no_energy(allegro):
    x = torch.zeros(3, 3, dtype=torch.float64)
    types, none = torch.tensor([0, 1, 2]), torch.zeros(2, 0, dtype=int)
    energy, f = forces(allegro, x, types, none)
    assert (energy == 0).all()
    assert (f == 0).all()


def test_float32_is_near_float64(allegro, beads):
    single = tiny_allegro(torch.float32)
    single.load_state_dict(allegro.state_dict())
    for mine, theirs in zip(forces(single, *beads), forces(allegro, *beads), strict=True):
        assert mine.dtype == torch.float64
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_its_dtype_stays_when_it_is_moved(beads):
    model = tiny_allegro(torch.float32)
    before = model(*beads).detach()
    assert torch.equal(model.to(torch.float64).to("cpu").half()(*beads), before)


@pytest.mark.parametrize("calls", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_torchscript_gives_the_same(allegro, beads, calls):
    """In its later calls it runs code that it optimised, which takes it seconds to write."""
    script = torch.jit.script(allegro)
    for _ in range(calls):
        energy, f = forces(script, *beads)
    expected = forces(allegro, *beads)
    torch.testing.assert_close((energy, f), expected, atol=1e-12, rtol=1e-12)


def test_building_leaves_no_trace():
    """Default dtype, generators and environment are as before, in a fresh process, too."""
    code = """
import os, random, warnings
warnings.simplefilter("error")
import numpy as np, torch
from mlff_cli.potentials.allegro import Allegro, AllegroSpec
random.seed(1); np.random.seed(2); torch.manual_seed(3)
def state():
    return (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
            torch.get_default_dtype(), dict(os.environ),
            torch.multiprocessing.get_sharing_strategy(),
            torch.are_deterministic_algorithms_enabled(), torch.get_num_threads())
before = state()
for _ in range(2):
    Allegro(AllegroSpec.of("small", ["A"], seed=5))
    assert state() == before
from torch._dynamo import config
assert not config.capture_scalar_outputs
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_seed_gives_one_model():
    def weights(seed):
        torch.manual_seed(os.getpid() + random.randrange(1000))
        return torch.cat([p.flatten() for p in tiny_allegro(seed=seed).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_built_from_what_they_write(size):
    spec = AllegroSpec.of(size, SPECIES, cutoff=10.0)
    assert AllegroSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert spec.cutoff == 10.0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="no Allegro has size 'huge'.*\n.*small, default, large"):
        AllegroSpec.of("huge", SPECIES)
    with pytest.raises(ValidationError, match="must differ"):
        AllegroSpec(type_names=("A", "A"))
    with pytest.raises(ValidationError, match="one word, found 'A B'"):
        AllegroSpec(type_names=("A B",))
    with pytest.raises(ConfigError, match="float32 or float64, not in torch.float16"):
        Allegro(tiny_spec(), torch.float16)


def test_without_nequip_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "allegro.model", None)
    before = torch.get_default_dtype()
    with pytest.raises(MissingDependencyError, match=r"mlff-cli\[coarse\]"):
        tiny_allegro()
    assert torch.get_default_dtype() == before
