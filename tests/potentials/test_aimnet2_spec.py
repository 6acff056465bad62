"""model.yaml: the nested form of aimnet2mult, our own, and what is refused."""

import copy

import pytest
import yaml
from pydantic import ValidationError

from mlff_cli.core.errors import ConfigError
from mlff_cli.potentials.aimnet2.spec import PRESETS, AIMNet2Spec, from_seed_yaml

NESTED = yaml.safe_load("""
class: aimnet2mult.models.aimnet2.AIMNet2
kwargs:
  nfeature: 16
  d2features: true
  ncomb_v: 12
  hidden: [[512, 380], [512, 380], [512, 380, 380]]
  aim_size: 256
  aev: {rc_s: 5.0, nshifts_s: 16}
  num_charge_channels: 2
  outputs:
    energy_mlp:
      class: aimnet2mult.modules.Output
      kwargs:
        n_in: 256
        n_out: 1
        key_in: aim
        key_out: energy
        mlp: {activation_fn: torch.nn.GELU, last_linear: true, hidden: [128, 128]}
    atomic_shift:
      class: aimnet2mult.modules.AtomicShift
      kwargs: {key_in: energy, key_out: energy}
    atomic_sum:
      class: aimnet2mult.modules.AtomicSum
      kwargs: {key_in: energy, key_out: energy}
    lrcoulomb:
      class: aimnet2mult.modules.LRCoulomb
      kwargs: {key_in: charges, key_out: energy, method: simple, rc: 4.6}
""")


def changed(path, value):
    """NESTED with the value at a dotted path replaced, or removed where it is None."""
    data = copy.deepcopy(NESTED)
    *parents, last = path.split(".")
    block = data
    for parent in parents:
        block = block[parent]
    if value is None:
        del block[last]
    else:
        block[last] = value
    return data


def test_nested_form_is_the_default():
    assert from_seed_yaml(NESTED) == AIMNet2Spec()


def test_nested_form_of_aimnet_has_one_charge_channel():
    text = yaml.safe_dump(NESTED).replace("aimnet2mult.modules", "aimnet.modules")
    data = yaml.safe_load(text.replace("aimnet2mult.models.aimnet2", "aimnet.models"))
    del data["kwargs"]["num_charge_channels"]
    assert from_seed_yaml(data) == AIMNet2Spec(num_charge_channels=1)


def test_nested_form_sets_every_size():
    data = changed("kwargs.hidden", [[9], [8, 7]])
    data["kwargs"] |= {"aev": {"rmin": 0.7, "rc_s": 4.0, "nshifts_s": 6}, "aim_size": 33}
    data["kwargs"]["outputs"]["energy_mlp"]["kwargs"] |= {"n_in": 33, "mlp": {"hidden": [5]}}
    del data["kwargs"]["outputs"]["lrcoulomb"]
    assert from_seed_yaml(data, num_fidelities=3, fidelity_offset=150) == AIMNet2Spec(
        hidden=((9,), (8, 7)),
        rmin=0.7,
        rc=4.0,
        nshifts=6,
        aim_size=33,
        energy_hidden=(5,),
        coulomb=None,
        num_fidelities=3,
        fidelity_offset=150,
    )


def test_flat_form():
    assert from_seed_yaml({}) == AIMNet2Spec()
    assert from_seed_yaml({"preset": "small", "rc": 4.5}) == AIMNet2Spec(**PRESETS["small"], rc=4.5)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("class", "os.system", "allowed: aimnet2mult.models.aimnet2.AIMNet2"),
        ("kwargs.outputs.atomic_sum.class", "builtins.eval", "allowed: .*modules.AtomicSum"),
        ("kwargs.outputs.lrcoulomb.kwargs.method", "dsf", "'dsf' comes later"),
        ("kwargs.outputs.lrcoulomb.kwargs.method", "ewald", "'ewald' comes later"),
        ("kwargs.nfeatures", 16, "did you mean 'nfeature'"),
        ("kwargs.aev.rc", 5.0, r"kwargs.aev: unknown key 'rc'"),
        ("kwargs.aev.eta_s", 3.0, "eta_s must be None"),
        ("kwargs.outputs.energy_mlp.kwargs.n_in", 128, r"equal aim_size \(256\)"),
        ("kwargs.outputs.energy_mlp.kwargs.mlp.activation_fn", "torch.nn.ReLU", "torch.nn.GELU"),
        ("kwargs.outputs.atomic_shift", None, "lacks the atomic shift"),
        ("kwargs.nfeature", "many", "nfeature: .*'many'"),
        ("kwargs.hidden", [[8]], "hidden: .*at least 2"),
        ("kwargs.num_charge_channels", 3, "num_charge_channels"),
        ("kwargs.aev", [1], "must hold keys and values"),
    ],
)
def test_refused(path, value, message):
    with pytest.raises(ConfigError, match=f"(?s)model.yaml.*{message}"):
        from_seed_yaml(changed(path, value), where="model.yaml")


def test_num_layers_says_what_to_set():
    with pytest.raises(ConfigError, match=r"(?s)length of `hidden`.*4 lists"):
        from_seed_yaml({"model": {"num_layers": 4}})


@pytest.mark.parametrize(
    "options", [{"rmin": 6.0}, {"hidden": ((8,), ())}, {"fidelity_offset": 100}, {"nope": 1}]
)
def test_spec_refuses(options):
    with pytest.raises(ValidationError):
        AIMNet2Spec(**options)
