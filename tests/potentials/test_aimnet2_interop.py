"""Weights to and from aimnet and aimnet2mult; parity with aimnet where it is installed."""

import pytest
import torch

from mlff_cli.core.errors import ConfigError, UsageError
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.interop import aimnet_state, import_state, seed_state
from mlff_cli.potentials.aimnet2.layouts import fidelities_in, own_layout
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from tests.potentials.aimnet2_cases import make_batch, make_model, same


def share_charge_readouts(model):
    """The same charge readout for every fidelity, as aimnet2mult has it."""
    with torch.no_grad():
        for readout in model.charge_readouts:
            for parameter in readout.parameters():
                parameter.copy_(parameter[:1].expand_as(parameter).clone())
    return model


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("own_readouts", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_round_trip_through_the_seeds_layout(k, own_readouts, wrapped):
    model = make_model(num_fidelities=k, use_fidelity_readouts=own_readouts, dtype=torch.float32)
    state = seed_state(share_charge_readouts(model))
    back, report = import_state({"model": state} if wrapped else state, model.spec())
    for name, value in model.state_dict().items():
        # rows of padding are read by nothing and stay zero
        rows = [i for i in range(len(value)) if not (value.ndim == 2 and i % 119 == 0)]
        rows = rows if name in ("afv.weight", "outputs.atomic_shift.shifts.weight") else slice(None)
        assert torch.equal(back.state_dict()[name][rows], value[rows]), name
    assert set(report.loaded) == set(state)
    batch = make_batch([5, 3], dtype=torch.float32, fidelities=[0, k - 1])
    assert torch.equal(back(batch)["energy"], model(batch)["energy"])


def test_seeds_layout_has_its_names():
    names = set(seed_state(share_charge_readouts(make_model(num_fidelities=2))))
    assert {
        "afv.weight",
        "aev.shifts_s",
        "conv_q.agh",
        "mlps.0.0.weight",
        "mlps.2.6.bias",
        "fidelity_readouts.1.energy_mlp.mlp.4.weight",
        "fidelity_readouts.1.atomic_shift.shifts.weight",
        "shared_readouts.lrcoulomb.rc",
    } <= names


def test_leftovers_of_the_seed_are_dropped_and_said():
    model = share_charge_readouts(make_model(num_fidelities=2, dtype=torch.float32))
    state = seed_state(model)
    for name, value in list(state.items()):
        if name.startswith("fidelity_readouts.0."):
            state[name.replace("fidelity_readouts.0", "outputs")] = value + 1
            state[name.replace("fidelity_readouts.0", "shared_readout")] = value + 1
    back, report = import_state(state, model.spec())
    assert len(report.dropped) == 2 * sum(n.startswith("fidelity_readouts.0.") for n in state)
    batch = make_batch([4], dtype=torch.float32)
    assert torch.equal(back(batch)["energy"], model(batch)["energy"])


def test_one_fidelity_serves_several():
    model = make_model(dtype=torch.float32)
    spec = model.spec().model_copy(update={"num_fidelities": 3})
    several, report = import_state(aimnet_state(model, 128), spec)
    assert report.created == ["fidelities 1..2: copies of 0"]
    model, several = model.double(), several.double()  # float32 sums differ with the fidelities
    batch = make_batch([5])
    expected = model(batch)["energy"]
    for k in range(3):
        shifted = {**batch, "numbers": batch["numbers"] + 200 * k}
        same(several(shifted)["energy"], expected, 1e-12)


def test_elements_that_aimnet_does_not_have_are_created():
    model = make_model(dtype=torch.float32)
    state = aimnet_state(model)
    state["afv.weight"][9] = float("nan")
    back, report = import_state(state, model.spec())
    assert "afv.weight: 56 elements from row 0" in report.created
    assert back.afv.weight.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"outputs.dftd3.c6ab": torch.zeros(1)}), "dftd3.c6ab"),
        (lambda s: s.pop("conv_a.agh"), "lack 'conv_a.agh'"),
        (lambda s: s.update({"conv_a.agh": torch.zeros(2, 2, 2)}), "conv_a.agh has shape"),
        (lambda s: s.update({"aev.rc_s": torch.tensor(6.0)}), "aev.rc_s is 6.0"),
        (lambda s: s.update({"outputs.lrcoulomb.rc": torch.tensor(4.0)}), "lrcoulomb.rc is 4.0"),
        (lambda s: s.pop("outputs.lrcoulomb.rc"), "absent from the weights"),
        (lambda s: s.update({"afv.weight": torch.zeros(64, 4)}), "4 columns"),
        (lambda s: s.update({"afv.weight": torch.zeros(400, 15)}), "use_fidelity_readouts"),
        (lambda s: s.pop("afv.weight"), "lack 'afv.weight'"),
    ],
)
def test_state_that_does_not_fit(change, message):
    model = make_model(dtype=torch.float32)
    state = aimnet_state(model)
    change(state)
    with pytest.raises(ConfigError, match=message):
        import_state(state, model.spec())


def test_wrong_number_of_fidelities():
    model = share_charge_readouts(make_model(num_fidelities=3))
    spec = model.spec().model_copy(update={"num_fidelities": 2})
    with pytest.raises(ConfigError, match=r"fidelities \[0, 1, 2\], the model has 2"):
        import_state(seed_state(model), spec)


@pytest.mark.parametrize("told", [150, 400])
def test_another_offset_than_the_tables_have_is_noticed(told):
    model = share_charge_readouts(make_model(num_fidelities=3))
    spec = model.spec().model_copy(update={"fidelity_offset": told})
    with pytest.raises(ConfigError, match=f"529 rows, which 3 fidelities with offset {told}"):
        import_state(seed_state(model), spec)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("own_readouts", [True, False])
@pytest.mark.parametrize("offset", [119, 128, 129, 200, 300])
def test_fidelities_are_counted_in_foreign_weights(k, own_readouts, offset):
    options = {"use_fidelity_readouts": own_readouts, "fidelity_offset": offset}
    model = share_charge_readouts(make_model(num_fidelities=k, **options))
    n, apart = fidelities_in(seed_state(model), offset)
    assert n == k
    assert apart == (own_readouts or k == 1)


@pytest.mark.parametrize("own_readouts", [True, False])
def test_bare_weights_of_any_layout_become_ours_with_their_own_fidelities(own_readouts):
    options = {"use_fidelity_readouts": own_readouts, "fidelity_offset": 150}
    model = share_charge_readouts(make_model(num_fidelities=3, dtype=torch.float32, **options))
    asked = make_model(num_fidelities=2).spec()  # what is asked for has other fidelities
    batch = make_batch([5, 3], dtype=torch.float32, fidelities=[0, 2], offset=150)
    expected = model(batch)["energy"]
    for state in (model.state_dict(), seed_state(model)):
        before = torch.random.get_rng_state()
        found, spec, notes = own_layout(state, asked, 150)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert (spec.num_fidelities, spec.use_fidelity_readouts) == (3, own_readouts)
        back = AIMNet2(spec.model_copy(update={"fidelity_offset": 150}))
        back.load_state_dict(found)
        assert torch.equal(back(batch)["energy"], expected)
        assert notes == []
    single = make_model(dtype=torch.float32)
    found, spec, notes = own_layout(aimnet_state(single), asked, 200)
    assert spec.num_fidelities == 1
    assert notes == [
        "created on import: afv.weight: 55 elements from row 0",
        "created on import: outputs.atomic_shift.shifts.weight: 55 elements from row 0",
    ]


def test_what_the_layouts_cannot_say():
    model = make_model(num_fidelities=2)
    with pytest.raises(UsageError, match="charge readouts differ"):
        seed_state(model)
    with pytest.raises(UsageError, match="one fidelity"):
        aimnet_state(model)


@pytest.mark.filterwarnings("ignore")  # the peer's own imports warn
@pytest.mark.parametrize("c", [1, 2])
def test_parity_with_aimnet(c):
    pytest.importorskip("aimnet", reason="the peer package aimnet is not installed")
    from aimnet.models import AIMNet2 as Peer
    from aimnet.modules import AtomicShift, AtomicSum, LRCoulomb, Output

    spec = AIMNet2Spec(num_charge_channels=c)
    energy = {"key_in": "energy", "key_out": "energy"}
    peer = Peer(
        aev={"rc_s": spec.rc, "nshifts_s": spec.nshifts},
        nfeature=spec.nfeature,
        d2features=spec.d2features,
        ncomb_v=spec.ncomb_v,
        hidden=[list(layers) for layers in spec.hidden],
        aim_size=spec.aim_size,
        num_charge_channels=c,
        outputs={
            "energy_mlp": Output(
                mlp={"hidden": list(spec.energy_hidden)},
                n_in=spec.aim_size,
                n_out=1,
                key_in="aim",
                key_out="energy",
            ),
            "atomic_shift": AtomicShift(**energy),
            "atomic_sum": AtomicSum(**energy),
            "lrcoulomb": LRCoulomb(key_in="charges", key_out="energy", rc=spec.coulomb_rc),
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AIMNet2(spec)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "agh" not in name:
                    parameter.add_(0.02 * torch.randn_like(parameter))
            model.afv.weight[0] = 0.0
            model.outputs.atomic_shift.shifts.weight[0] = 0.0
    peer.load_state_dict(aimnet_state(model))
    # and the way back: what the peer holds makes the same model
    model, _ = import_state(peer.state_dict(), spec)

    batch = make_batch([12, 9, 5, 1], seed=c, dtype=torch.float32)
    assert set(batch["charge"].tolist()) != {0.0}
    assert set(batch["mult"].tolist()) != {1.0}
    ours = energy_and_forces(model, batch)
    theirs = energy_and_forces(peer, {key: value.clone() for key, value in batch.items()})
    for name in ("energy", "charges", "forces", *(["spin_charges"] if c == 2 else [])):
        torch.testing.assert_close(
            ours[name], theirs[name].to(ours[name].dtype), rtol=1e-5, atol=1e-5, msg=name
        )
