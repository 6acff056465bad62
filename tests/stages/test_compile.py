"""`mlff compile`: defaults from the model file, contradictions refused, dispersion counted once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mlff_cli.core.errors import ConfigError, DataError, StorageError, UsageError
from mlff_cli.data.sae import write_sae
from mlff_cli.deploy import torchscript
from mlff_cli.deploy.artifact import read_metadata
from mlff_cli.physics.dispersion import D3BJ
from mlff_cli.physics.dispersion_parameters import functional_parameters
from mlff_cli.potentials.aimnet2.fidelity import extract_fidelity
from mlff_cli.potentials.aimnet2.interop import seed_state
from mlff_cli.potentials.total import TotalPotential
from mlff_cli.stages.compile import Options, run
from tests.tiny import SPECIES, molecules, tiny_model_file, tiny_network, tiny_spec

D3 = Options(fidelity_level=0, dispersion="d3bj")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compile") / "model.pt"
    tiny_model_file().save(path)
    return path


@pytest.fixture(scope="module")
def compiled(model: Path) -> Path:
    """Fidelity 0 with dispersion, compiled once for the tests that only look at it."""
    run(model, model.with_name("m"), D3)
    return model.with_name("m_fid0.jpt")


def load(path: Path) -> torch.nn.Module:
    return torchscript.load(path).double()


def total(k: int, functional: str | None = None, seed: int = 0) -> TotalPotential:
    """The potential that fidelity k of the model stands for, put together by hand."""
    network = extract_fidelity(tiny_network(seed, num_fidelities=3), k).double()
    d3 = D3BJ(functional_parameters(functional), SPECIES) if functional else None
    return TotalPotential(network, tiny_model_file().sae[k], SPECIES, d3)


def test_the_short_form_is_enough(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Default weights, default output, the functional from the level of theory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "model.pt")
    summary = run(options=D3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "compiled_model_fid0.jpt",
        "compiled_model_fid0_meta.yaml",
        "model.pt",
    ]
    out, wanted = load(Path("compiled_model_fid0.jpt"))(molecules()), total(0, "pbe")(molecules())
    torch.testing.assert_close(out["energy"], wanted["energy"], rtol=1e-13, atol=1e-9)
    torch.testing.assert_close(out["forces"], wanted["forces"], rtol=1e-9, atol=1e-10)
    assert summary.data["dispersion"]["functional"] == "pbe"
    assert summary.data["verification"]["passed"]


def test_meta_yaml_tells_the_whole_story(model: Path, compiled: Path) -> None:
    meta = yaml.safe_load(compiled.with_name("m_fid0_meta.yaml").read_text())
    assert meta["fidelity"] == {
        "index": 0,
        "dataset": "fid0.h5",
        "level_of_theory": "pbe/def2-svp",
    }
    assert meta["dispersion"]["s8"] == functional_parameters("pbe").s8
    assert meta["sae"]["8"] == pytest.approx(-2041.789012)
    assert list(meta["provenance"]["inputs"]) == [str(model)]
    assert meta["provenance"]["model"]["command"] == "mlff train"
    assert {"energy", "forces"} <= meta["outputs"].keys()
    assert meta["verification"]["passed"]


@pytest.mark.parametrize("k", [1, 2])
def test_each_fidelity_is_its_own(model: Path, tmp_path: Path, k: int) -> None:
    run(model, tmp_path / "m", Options(fidelity_level=k))
    energy = load(tmp_path / f"m_fid{k}.jpt")(molecules())["energy"]
    torch.testing.assert_close(energy, total(k)(molecules())["energy"], rtol=1e-13, atol=1e-9)


def test_a_name_that_ends_in_jpt_is_taken_as_it_is(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "water.jpt", Options(fidelity_level=1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["water.jpt", "water_meta.yaml"]


def test_same_model_same_bytes(model: Path, compiled: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "other_name", D3)
    assert (tmp_path / "other_name_fid0.jpt").read_bytes() == compiled.read_bytes()


def test_float64(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "m", replace(D3, dtype="float64"))
    out = torchscript.load(tmp_path / "m_fid0.jpt")(molecules())
    assert out["charges"].dtype == torch.float64
    assert read_metadata(tmp_path / "m_fid0.jpt")["dtype"] == "float64"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a seed user passes beside the weights."""
    folder = tmp_path_factory.mktemp("beside")
    write_sae(folder / "sae_fid0.yaml", tiny_model_file().sae[0])
    shifted = {z: e + 0.01 for z, e in tiny_model_file().sae[0].items()}
    write_sae(folder / "other_sae.yaml", shifted)
    write_sae(folder / "short_sae.yaml", {1: tiny_model_file().sae[0][1]})
    spec = tiny_spec().model_dump(mode="json")
    inner = ("num_fidelities", "fidelity_offset", "use_fidelity_readouts")
    plain = {k: v for k, v in spec.items() if k not in inner}
    (folder / "model.yaml").write_text(yaml.safe_dump(plain))
    (folder / "other.yaml").write_text(yaml.safe_dump({**plain, "aim_size": 32}))
    return {p.name: p for p in folder.iterdir()}


def seed_options(files: dict[str, Path], **changes: Any) -> Options:
    """The options of the seed's own command line."""
    return replace(
        Options(
            fidelity_level=0,
            fidelity_offset=200,
            num_fidelities=3,
            use_fidelity_readouts=True,
            model=files["model.yaml"],
            sae=files["sae_fid0.yaml"],
        ),
        **changes,
    )


def test_the_seeds_command_line_on_our_model(
    model: Path, tmp_path: Path, files: dict[str, Path]
) -> None:
    run(model, tmp_path / "m", seed_options(files, dispersion="d3bj"))
    energy = load(tmp_path / "m_fid0.jpt")(molecules())["energy"]
    wanted = total(0, "pbe")(molecules())["energy"]
    torch.testing.assert_close(energy, wanted, rtol=1e-13, atol=1e-9)


@pytest.mark.parametrize("layout", ["theirs", "ours"])
def test_weights_without_a_description(tmp_path: Path, files: dict[str, Path], layout: str) -> None:
    """{'model': state_dict} with --model, --sae and the rest given, as the seed's cli saves it."""
    network = tiny_network(num_fidelities=3)
    with torch.no_grad():
        for readout in network.charge_readouts:  # that layout shares them between fidelities
            for parameter in readout.parameters():
                parameter.copy_(parameter[:1].expand_as(parameter))
    state = seed_state(network) if layout == "theirs" else network.state_dict()
    torch.save({"model": state}, tmp_path / "weights.pt")
    options = seed_options(files, dispersion="d3bj", dispersion_functional="wb97m")
    run(tmp_path / "weights.pt", tmp_path / "m", options)
    d3 = D3BJ(functional_parameters("wb97m"), SPECIES)
    one = extract_fidelity(network, 0).double()
    wanted = TotalPotential(one, tiny_model_file().sae[0], SPECIES, d3)(molecules())
    out = load(tmp_path / "m_fid0.jpt")(molecules())
    torch.testing.assert_close(out["energy"], wanted["energy"], rtol=1e-13, atol=1e-8)
    torch.testing.assert_close(out["charges"], wanted["charges"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("missing", ["model", "sae"])
def test_bare_weights_need_the_rest(tmp_path: Path, files: dict[str, Path], missing: str) -> None:
    torch.save({"model": tiny_network(num_fidelities=3).state_dict()}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=f"--{missing} needed"):
        run(tmp_path / "w.pt", tmp_path / "m", seed_options(files, **{missing: None}))


def test_bare_weights_of_another_architecture(tmp_path: Path, files: dict[str, Path]) -> None:
    torch.save({"model": seed_state(tiny_network())}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"w\.pt"):
        run(
            tmp_path / "w.pt",
            tmp_path / "m",
            seed_options(files, model=files["other.yaml"], num_fidelities=1),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fidelity_level": 3}, r"fidelity 3 does not exist.*0 \(pbe/def2-svp\)"),
        ({"fidelity_level": -1}, "fidelity -1 does not exist"),
        ({"fidelity_level": None}, "has 3 fidelities"),
        ({"fidelity_offset": 128}, "--fidelity-offset 128 contradicts"),
        ({"num_fidelities": 2}, "--num-fidelities 2 contradicts"),
        ({"use_fidelity_readouts": False}, "--use-fidelity-readouts false contradicts"),
        ({"format": "pt2"}, "comes in a later version.*jpt"),
        ({"format": "eager"}, "comes in a later version.*jpt"),
        ({"format": "lammps"}, "comes in a later version.*jpt"),
        ({"format": "onnx"}, "is unknown"),
        ({"dtype": "float16"}, "float32, float64"),
        ({"dispersion": "d4"}, "comes in a later version"),
        ({"dispersion": "d2"}, "is unknown"),
        ({"dispersion": "none", "dispersion_functional": "pbe"}, "needs a dispersion method"),
        ({"dispersion": "none", "dispersion_s8": 0.0}, "needs a dispersion method"),
        ({"dispersion_functional": "b3lyp"}, "contradicts the labels, which are pbe/def2-svp"),
        ({"dispersion_functional": "pbesoll"}, "near names: .*pbesol"),
        ({"dispersion_s8": 0.5}, "missing: a1, a2"),
        ({"dispersion_functional": "pbe", "dispersion_a1": 0.4}, "both give parameters"),
        ({"fidelity_level": 1}, r"labels \(gfn2-xtb\) contain dispersion already"),
        (
            {"fidelity_level": 2, "dispersion_functional": "pbe"},
            r"labels \(gfn1-xtb\) contain dispersion already",
        ),
    ],
)
def test_contradictions_are_usage_errors(
    model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}") as caught:
        run(model, tmp_path / "m", replace(D3, **changes))
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sae": "other_sae.yaml"}, "other_sae.yaml says -13.577234 eV"),
        ({"sae": "short_sae.yaml"}, "short_sae.yaml says nothing"),
        ({"model": "other.yaml"}, "aim_size is 32 in"),
    ],
)
def test_files_that_contradict_the_model(
    model: Path, tmp_path: Path, files: dict[str, Path], changes: dict[str, str], message: str
) -> None:
    options = seed_options(files, **{name: files[file] for name, file in changes.items()})
    with pytest.raises(UsageError, match=message):
        run(model, tmp_path / "m", options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("level", ["wb97m-d3bj/def2-tzvp", "b97-3c", "gfn2-xtb", "gfn1-xtb"])
def test_labels_with_dispersion_refuse_a_second_one(tmp_path: Path, level: str) -> None:
    tiny_model_file((level,)).save(tmp_path / "model.pt")
    with pytest.raises(UsageError, match="count it twice"):
        run(tmp_path / "model.pt", tmp_path / "m", D3)


@pytest.mark.parametrize("level", [None, "ccsd(t)/cbs"])
def test_a_level_without_functional_lists_the_choices(tmp_path: Path, level: str | None) -> None:
    tiny_model_file((level,)).save(tmp_path / "model.pt")
    with pytest.raises(UsageError, match=r"(?s)names no functional.*b3lyp.*pbe0"):
        run(tmp_path / "model.pt", tmp_path / "m", D3)


def test_custom_parameters_and_three_body_term(model: Path, tmp_path: Path) -> None:
    custom = replace(D3, dispersion_s8=0.5, dispersion_a1=0.4, dispersion_a2=4.5, dispersion_s9=1.0)
    summary = run(model, tmp_path / "m", custom)
    found = summary.data["dispersion"]
    assert {n: found[n] for n in ("s6", "s8", "a1", "a2", "s9")} == {
        "s6": 1.0,
        "s8": 0.5,
        "a1": 0.4,
        "a2": 4.5,
        "s9": 1.0,
    }
    assert found["functional"] is None


def test_one_fidelity_needs_no_level(tmp_path: Path) -> None:
    tiny_model_file(("wb97m/def2-tzvp",)).save(tmp_path / "model.pt")
    summary = run(tmp_path / "model.pt", tmp_path / "m", Options(dispersion="d3bj"))
    assert summary.data["dispersion"]["functional"] == "wb97m"


def test_outputs_are_not_replaced_without_force(model: Path, tmp_path: Path) -> None:
    options = Options(fidelity_level=1)
    run(model, tmp_path / "m", options)
    (tmp_path / "m_fid1_meta.yaml").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        run(model, tmp_path / "m", options)
    assert (tmp_path / "m_fid1_meta.yaml").read_text() == "mine"
    run(model, tmp_path / "m", replace(options, force=True))
    assert "sha256" in (tmp_path / "m_fid1_meta.yaml").read_text()


def test_dry_run_touches_nothing(model: Path, tmp_path: Path) -> None:
    summary = run(model, tmp_path / "m", replace(D3, dry_run=True))
    assert "D3(BJ) of pbe" in summary.lines[0]
    assert list(tmp_path.iterdir()) == []


def test_bad_weights(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        run(tmp_path / "absent.pt", tmp_path / "m", D3)
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(DataError):
        run(tmp_path / "text.pt", tmp_path / "m", D3)
    broken = tiny_model_file()
    broken.architecture["aim_size"] = 17
    broken.save(tmp_path / "broken.pt")
    with pytest.raises(DataError, match="do not fit"):
        run(tmp_path / "broken.pt", tmp_path / "m", D3)
    lacking = tiny_model_file()
    del lacking.sae[0][8]
    lacking.save(tmp_path / "lacking.pt")
    with pytest.raises(DataError, match="Z = 8"):
        run(tmp_path / "lacking.pt", tmp_path / "m", D3)
