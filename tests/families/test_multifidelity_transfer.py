"""`--load` between models of any number of fidelities.

Laws: a continued fidelity has the total energies of the loaded model (1e-6 eV), whatever numbers
it, whatever the readouts and the layout of its file; a new one has the residual energies of the one
that it copies; what is not a change of fidelities is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.data.model_file import ModelFile
from mlff_cli.families.multifidelity_transfer import Source, agree, read_source, start_from
from mlff_cli.potentials.aimnet2.interop import aimnet_state, seed_state
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.training.settings_transfer import TransferSection
from mlff_cli.training.transfer import Transfer
from tests.tiny import SAE, molecules, tiny_model_file, tiny_network, tiny_spec

SINGLE = {"num_fidelities": 1}


def saved(folder: Path, levels: tuple[str | None, ...], **spec: Any) -> Path:
    """A model file with random weights in every parameter."""
    file = tiny_model_file(levels)
    network = tiny_network(3, num_fidelities=len(levels), **spec)
    file.weights = network.state_dict()
    file.architecture = network.spec().model_dump(mode="json")
    path = folder / "loaded.pt"
    file.save(path)
    return path


def energies_of(model: AIMNet2, fidelity: int, sae: Mapping[int, float]) -> Tensor:
    """Total energies of some molecules, computed in float64, eV."""
    batch = molecules()
    numbers = batch["numbers"] + fidelity * model.fidelity_offset
    network = model.double()(batch | {"numbers": numbers})["energy"].detach()
    table = torch.zeros(119, dtype=torch.float64)
    table[list(sae)] = torch.tensor(list(sae.values()), dtype=torch.float64)
    return network + table[batch["numbers"]].sum(dim=1)


def loaded_energies(path: Path, fidelity: int, sae: Mapping[int, float] | None = None) -> Tensor:
    source = read_source(path)
    assert source.spec is not None
    model = AIMNet2(source.spec)
    model.load_state_dict(dict(source.weights))
    return energies_of(model, fidelity, source.sae[fidelity] if sae is None else sae)


def begin(
    source: Source,
    levels: Sequence[str | None],
    sae: Mapping[int, Mapping[int, float]],
    options: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float64,
    **spec: Any,
) -> tuple[AIMNet2, Transfer]:
    """A run's model and its start."""
    model = AIMNet2(tiny_spec(num_fidelities=len(levels), **spec)).to(dtype)
    entries = [{"level_of_theory": level, "species": [1, 6, 7, 8]} for level in levels]
    section = TransferSection.model_validate(options or {})
    done = start_from(model, source, section, entries, sae)
    done.apply(model)
    return model, done


def other_sae(n: int) -> dict[int, dict[int, float]]:
    """Atomic energies that differ from the loaded model's by tenths of an electronvolt."""
    return {k: {z: e - k + 0.1 * z**0.5 for z, e in SAE.items()} for k in range(n)}


@pytest.mark.parametrize("readouts_there", [True, False])
@pytest.mark.parametrize("readouts_here", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_fidelity_becomes_several_and_keeps_its_energies(
    tmp_path: Path, n: int, readouts_here: bool, readouts_there: bool
) -> None:
    path = saved(tmp_path, ("pbe",), use_fidelity_readouts=readouts_there)
    sae = {k: dict(SAE) for k in range(n)}
    model, done = begin(
        read_source(path), ("pbe", "gfn2", "gfn1")[:n], sae, use_fidelity_readouts=readouts_here
    )
    expected = loaded_energies(path, 0)
    for k in range(n):  # the same atomic energies: copies give the same totals
        torch.testing.assert_close(energies_of(model, k, sae[k]), expected, rtol=0, atol=1e-6)
    assert done.warnings == []
    assert done.count("initial") == done.count("dropped") == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_atomic_energies_go_into_the_shifts(tmp_path: Path, dtype: torch.dtype) -> None:
    path = saved(tmp_path, ("pbe",))
    sae = other_sae(2)
    model, done = begin(read_source(path), ("pbe", "gfn2"), sae, dtype=dtype)
    total = loaded_energies(path, 0)
    torch.testing.assert_close(energies_of(model, 0, sae[0]), total, rtol=0, atol=1e-6)
    # the new fidelity: the residual energies of the one that it copies
    residual = loaded_energies(path, 0, sae={})
    torch.testing.assert_close(energies_of(model, 1, {}), residual, rtol=0, atol=1e-6)
    assert done.starts[0].keeps == "total"
    assert set(done.starts[0].shifts) == set(SAE)
    assert "to keep total energies" in dict(done.rows())["start of fidelity 0"]


def test_fidelities_in_another_order_find_their_own(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe", "gfn2", "gfn1"))
    before = read_source(path).sae
    options = {"fidelity_map": {0: 2, 2: 0}, "new_fidelities_from": 1}
    sae = {0: before[2], 1: SAE, 2: before[0]}
    model, done = begin(read_source(path), ("gfn1", "new", "pbe"), sae, options)
    for here, there in ((0, 2), (2, 0)):
        torch.testing.assert_close(
            energies_of(model, here, sae[here]), loaded_energies(path, there), rtol=0, atol=1e-6
        )
    torch.testing.assert_close(
        energies_of(model, 1, {}), loaded_energies(path, 1, {}), rtol=0, atol=1e-6
    )
    assert [(s.source, s.continued) for s in done.starts] == [(2, True), (1, False), (0, True)]
    assert done.warnings == []


def test_a_changed_order_is_warned_of_and_keeps_residual_energies(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe", "gfn2"))
    model, done = begin(read_source(path), ("gfn2", "pbe"), other_sae(2))
    assert "transfer.fidelity_map='{0: 1, 1: 0}'" in done.warnings[0]
    assert [s.keeps for s in done.starts] == ["residual", "residual"]
    residual = loaded_energies(path, 0, sae={})
    torch.testing.assert_close(energies_of(model, 0, {}), residual, rtol=0, atol=1e-6)


def test_fewer_fidelities_drop_the_others_and_say_so(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe", "gfn2", "gfn1"))
    sae = {0: read_source(path).sae[1]}
    model, done = begin(read_source(path), ("gfn2",), sae, {"fidelity_map": {0: 1}})
    torch.testing.assert_close(
        energies_of(model, 0, sae[0]), loaded_energies(path, 1), rtol=0, atol=1e-6
    )
    dropped = [item.part for item in done.items if item.fate == "dropped"]
    assert dropped == ["fidelity 0 of the file", "fidelity 2 of the file"]


def test_two_fidelities_become_four_only_as_told(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe", "gfn2"))
    sae = {k: dict(SAE) for k in range(4)}
    model, done = begin(
        read_source(path), ("pbe", "gfn2", "a", "b"), sae, {"new_fidelities_from": {3: 1}}
    )
    assert [(s.source, s.continued) for s in done.starts] == [
        (0, True), (1, True), (0, False), (1, False)
    ]  # fmt: skip
    for k, source in ((2, 0), (3, 1)):
        torch.testing.assert_close(
            energies_of(model, k, {}), loaded_energies(path, source, {}), rtol=0, atol=1e-6
        )
    assert [i.part for i in done.items if i.fate == "created"] == ["fidelity 2", "fidelity 3"]


def test_a_shared_readout_out_of_several_must_be_chosen(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe", "gfn2"))
    source, sae = read_source(path), {k: dict(SAE) for k in range(2)}
    levels = ("pbe", "gfn2")
    with pytest.raises(ConfigError, match="shared by 2 fidelities here, and the file has 2"):
        begin(source, levels, sae, use_fidelity_readouts=False)
    with pytest.raises(ConfigError, match="readouts 0 to 1, found 2"):
        begin(source, levels, sae, {"readout_from": 2}, use_fidelity_readouts=False)
    same = {k: read_source(path).sae[k] for k in range(2)}
    for chosen in (0, 1):
        model, done = begin(
            source, levels, same, {"readout_from": chosen}, use_fidelity_readouts=False
        )
        torch.testing.assert_close(
            energies_of(model, chosen, same[chosen]),
            loaded_energies(path, chosen),
            rtol=0,
            atol=1e-6,
        )
        dropped = {i.part for i in done.items if i.fate == "dropped"}
        assert dropped == {f"fidelity {1 - chosen} of the file"}
    _, done = begin(source, levels, same, {"readout_from": 1})
    assert any("no effect" in note for note in done.notes)


def test_the_offset_numbers_the_input_and_not_the_tables(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe", "gfn2"), fidelity_offset=300)
    same = {k: read_source(path).sae[k] for k in range(2)}
    model, done = begin(read_source(path), ("pbe", "gfn2"), same, fidelity_offset=150)
    for k in range(2):
        torch.testing.assert_close(
            energies_of(model, k, same[k]), loaded_energies(path, k), rtol=0, atol=1e-6
        )
    assert any("fidelity_offset is 150 here and 300" in note for note in done.notes)


@pytest.mark.parametrize("layout", ["aimnet", "aimnet2mult", "ours"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_bare_weights_of_one_fidelity_serve_several(
    tmp_path: Path, layout: str, wrapped: bool
) -> None:
    network = tiny_network(3)
    state = {
        "aimnet": lambda: aimnet_state(network),
        "aimnet2mult": lambda: seed_state(network),
        "ours": network.state_dict,
    }[layout]()
    path = tmp_path / "bare.pt"
    torch.save({"model": dict(state)} if wrapped else dict(state), path)
    model, done = begin(read_source(path), ("pbe", "gfn2"), other_sae(2))
    for k in range(2):
        torch.testing.assert_close(
            energies_of(model, k, {}), energies_of(network, 0, {}), rtol=0, atol=1e-6
        )
    assert any("residual energies are kept" in note for note in done.notes)
    created = [n for n in done.notes if n.startswith("created on import")]
    assert bool(created) == (layout == "aimnet")  # it has 63 elements


def test_tables_of_aimnet2mult_have_the_offset_that_they_were_made_with(tmp_path: Path) -> None:
    network = tiny_network(3, num_fidelities=2, fidelity_offset=300, use_fidelity_readouts=False)
    network.load_state_dict(
        {k: v[:1].expand_as(v) if "charge_readouts" in k else v
         for k, v in network.state_dict().items()}
    )  # fmt: skip
    path = tmp_path / "seed.pt"
    torch.save({"model": seed_state(network)}, path)
    options = {"loaded_offset": 300}
    model, _ = begin(
        read_source(path), (None, None), other_sae(2), options, use_fidelity_readouts=True
    )
    for k in range(2):
        torch.testing.assert_close(
            energies_of(model, k, {}), energies_of(network, k, {}), rtol=0, atol=1e-6
        )


def test_elements_that_the_model_never_saw_are_said(tmp_path: Path) -> None:
    source = read_source(saved(tmp_path, ("pbe",)))
    model = AIMNet2(source.spec or AIMNet2Spec())
    entries = [{"level_of_theory": "pbe", "species": [1, 6, 16, 17]}]
    sae = {0: dict(SAE) | {16: -1.0, 17: -2.0}}
    done = start_from(model, source, TransferSection(), entries, sae)
    assert any("not trained on S, Cl" in note for note in done.notes)


# -- what is no change of fidelities ---------------------------------------------------------------


def test_another_width_is_refused_by_key_and_by_tensor(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe",))
    wider = tiny_spec(aim_size=20)
    with pytest.raises(ConfigError, match="aim_size is 20 here and 16 in the file") as caught:
        agree(wider, read_source(path), partial=False)
    assert caught.value.where == str(path)
    with pytest.raises(ConfigError, match=r"mlps\.2\.out\.weight: \(16, 16\) in the file, \(20"):
        begin(read_source(path), ("pbe",), {0: SAE}, aim_size=20)


def test_a_cutoff_changes_no_shape_and_is_refused_all_the_same(tmp_path: Path) -> None:
    source = read_source(saved(tmp_path, ("pbe",)))
    with pytest.raises(ConfigError, match=r"rc is 4\.5 here and 5\.0 in the file"):
        agree(tiny_spec(rc=4.5), source, partial=False)
    assert agree(tiny_spec(num_fidelities=3), source, partial=False) == []


def test_partial_loads_what_fits_of_another_width(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe",))
    source = read_source(path)
    model, done = begin(source, ("pbe", "gfn2"), other_sae(2), {"partial": True}, aim_size=20)
    assert torch.equal(model.conv_a.agh, source.weights["conv_a.agh"].double())
    names = {n for i in done.items if i.fate == "initial" for n in i.names}
    assert names == {"mlps.2.out.weight", "mlps.2.out.bias", "outputs.energy_mlp.hidden.0.weight"}
    assert any("aim_size is 20 here" in note for note in done.notes)
    assert any("energies are not the loaded model's" in note for note in done.notes)
    assert [start.keeps for start in done.starts] == [None, None]


def test_files_that_are_no_start(tmp_path: Path) -> None:
    odd = tmp_path / "odd.pt"
    for payload, message in (
        ({"model": 3}, "neither a model file"),
        ({"weights": {}}, "neither a model file"),
        ({"state_dict": {}, "format_version": 2}, "exported inference model"),
    ):
        torch.save(payload, odd)
        with pytest.raises(ConfigError, match=message):
            read_source(odd)
    torch.save({"model": {"some.weight": torch.zeros(3)}}, odd)
    with pytest.raises(ConfigError, match="lack 'afv.weight'") as caught:
        begin(read_source(odd), ("pbe",), {0: SAE})
    assert caught.value.where == str(odd)
    file: ModelFile = tiny_model_file()
    file.family = "transport"
    file.save(odd, force=True)
    with pytest.raises(ConfigError, match="family is 'transport'"):
        read_source(odd)


def test_a_diverged_model_is_no_start(tmp_path: Path) -> None:
    path = saved(tmp_path, ("pbe",))
    payload = torch.load(path, weights_only=True)
    payload["weights"]["conv_a.agh"][0, 0, 0] = float("nan")
    torch.save(payload, path)
    with pytest.raises(DataError, match="conv_a.agh holds numbers that are not finite"):
        begin(read_source(path), ("pbe",), {0: SAE})
