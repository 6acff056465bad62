"""`mlff info`: what a file says, and whether it is still what was recorded."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import CheckFailedError, DataError, StorageError
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.prior_file import Entry, PriorFile, Term, write_prior
from mlff_cli.data.beads.prior_forms import Harmonic
from mlff_cli.data.model_file import ModelFile
from mlff_cli.data.sae import write_sae
from mlff_cli.stages import compile as compile_stage
from mlff_cli.stages.info import ABSENT, SAME, Options, run
from tests.data.cg_sets import SOURCES, block, chain
from tests.synthetic import write_dataset
from tests.tiny import SAE, tiny_model_file

VERIFY = Options(verify=True)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("info")
    tiny_model_file().save(folder / "model.pt")
    options = compile_stage.Options(fidelity_level=0, dispersion="d3bj")
    compile_stage.run(folder / "model.pt", folder / "m", options)
    return folder


@pytest.fixture
def copy(compiled: Path, tmp_path: Path) -> Path:
    """The artifact and its YAML file, to be damaged."""
    for name in ("m_fid0.jpt", "m_fid0_meta.yaml"):
        (tmp_path / name).write_bytes((compiled / name).read_bytes())
    return tmp_path / "m_fid0.jpt"


def test_an_artifact_says_what_it_is(compiled: Path) -> None:
    summary = run(compiled / "m_fid0.jpt", VERIFY)
    facts = dict(summary.tables[0].rows)
    assert facts["fidelity"] == "0 (pbe/def2-svp)"
    assert facts["elements"] == "H C N O"
    assert facts["dispersion"] == "d3bj of pbe"
    assert facts["verified"] == "yes"
    results = {check["file"]: check["result"] for check in summary.data["verified"]}
    assert set(results.values()) == {SAME}
    assert str(compiled / "model.pt") in results


@pytest.mark.parametrize("where", ["/data/", "/code/", "metadata.json"])
def test_a_tampered_artifact_is_caught(copy: Path, where: str) -> None:
    """One byte of weights, code or metadata, in an archive that is otherwise sound."""
    original = copy.read_bytes()
    with zipfile.ZipFile(copy) as old:
        members = {name: old.read(name) for name in old.namelist()}
    victim = max((n for n in members if where in n), key=lambda n: len(members[n]))
    members[victim] = members[victim][:-1] + bytes([members[victim][-1] ^ 1])
    with zipfile.ZipFile(copy, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
    assert copy.read_bytes() != original
    with pytest.raises((CheckFailedError, DataError)) as caught:
        run(copy, VERIFY)
    if where != "metadata.json":
        assert caught.value.exit_code == 6


def test_weights_are_checked_without_the_yaml_file(copy: Path) -> None:
    copy.with_name("m_fid0_meta.yaml").unlink()
    assert run(copy, VERIFY).data["verified"][0]["result"] == "no hash recorded"
    with zipfile.ZipFile(copy) as old:
        members = {name: old.read(name) for name in old.namelist()}
    victim = max((n for n in members if "/data/" in n), key=lambda n: len(members[n]))
    members[victim] = bytes(len(members[victim]))
    with zipfile.ZipFile(copy, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
    with pytest.raises(CheckFailedError, match="code and weights"):
        run(copy, VERIFY)


def test_a_changed_input_is_named_and_an_absent_one_is_not_an_error(
    copy: Path, compiled: Path
) -> None:
    model = compiled / "model.pt"
    kept = model.read_bytes()
    try:
        model.unlink()
        results = {c["file"]: c["result"] for c in run(copy, VERIFY).data["verified"]}
        assert results[str(model)] == ABSENT
        tiny_model_file(seed=1).save(model)
        with pytest.raises(CheckFailedError, match=r"model\.pt is not the one recorded"):
            run(copy, VERIFY)
    finally:
        model.write_bytes(kept)


def test_a_model_file(compiled: Path) -> None:
    summary = run(compiled / "model.pt")
    facts = dict(summary.tables[0].rows)
    assert facts["kind"] == "model file"
    assert facts["fidelity 1"] == "gfn2-xtb, fid1.h5"
    assert summary.data["sha256"] == sha256(compiled / "model.pt")


def test_a_checkpoint_says_so_and_where_it_stands(tmp_path: Path) -> None:
    best, last = tiny_model_file(), tiny_model_file()
    best.training = {"step": 400, "val_loss": 0.5}
    last.training = {"step": 1200, "fingerprint": {}}
    for name, file, kind, step in (
        ("best.pt", best, "model file", "400"),
        ("last.pt", last, "checkpoint", "1,200"),
    ):
        file.save(tmp_path / name)
        facts = dict(run(tmp_path / name).tables[0].rows)
        assert (facts["kind"], facts["weights of step"]) == (kind, step)


def test_metadata_beside_an_artifact_points_to_the_artifact(compiled: Path) -> None:
    with pytest.raises(DataError, match=r"describe the artifact: m_fid0\.jpt"):
        run(compiled / "m_fid0_meta.yaml")


def test_a_model_file_runs_no_code(tmp_path: Path) -> None:
    """A pickle that would write a file is refused, and writes none."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"weights": Trap(), "format_version": 1}, tmp_path / "trap.pt")
    with pytest.raises(DataError):
        run(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


def test_data_and_sae(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.h5", 30, seed=1, level_of_theory="pbe/def2-svp")
    facts = dict(run(data).tables[0].rows)
    assert facts["molecules"] == "30"
    assert facts["labels"] == "energy, forces, charges"
    assert facts["level of theory"] == "pbe/def2-svp"
    notes = [f'provenance: {{"inputs": {{"d.h5": "{sha256(data)}"}}}}']
    write_sae(tmp_path / "sae.yaml", SAE, notes)
    summary = run(tmp_path / "sae.yaml", VERIFY)
    assert dict(summary.tables[0].rows)["C"] == "-1029.476123 eV"
    assert summary.data["verified"] == [{"file": "d.h5", "result": SAME}]


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        run(tmp_path / "absent")
    (tmp_path / "x.bin").write_bytes(b"something else")
    with pytest.raises(DataError, match="not a file of mlff"):
        run(tmp_path / "x.bin")
    (tmp_path / "x.json").write_text('{"results": {"a": 1}}')
    with pytest.raises(DataError, match="not an evaluation"):
        run(tmp_path / "x.json")
    (tmp_path / "x.zip").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match="damaged"):
        run(tmp_path / "x.zip")


def test_info_on_an_artifact_loads_no_torchscript(compiled: Path) -> None:
    """`torch.jit.load` is never reached."""
    code = (
        "import sys, torch\n"
        "def refuse(*a, **k): raise SystemExit('executed')\n"
        "torch.jit.load = refuse\n"
        "from mlff_cli.stages.info import Options, run\n"
        "print(run(sys.argv[1], Options(verify=True)).data['kind'])"
    )
    command = [sys.executable, "-c", code, str(compiled / "m_fid0.jpt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "compiled artifact (TorchScript)"


def test_a_provenance_of_another_program_is_left_alone(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.h5", 5, seed=1)
    with h5py.File(data, "r+") as file:
        file.attrs["provenance"] = "made by hand"
    assert [table.title for table in run(data).tables] == [str(data)]


def test_coarse_grained_sets_trajectories_and_priors_are_described(tmp_path: Path) -> None:
    write_cg(
        tmp_path / "CG.npz",
        [chain(5)],
        ["A", "B", "C"],
        SOURCES,
        {"mapping": "ca"},
        [block(0, 5, 7)],
    )
    R = np.random.default_rng(0).normal(size=(4, 3, 3))
    np.savez(tmp_path / "aa.npz", R=R, F=R, Z=np.array([8, 1, 1]))
    bond = Entry(types=("*", "*"), parameters=Harmonic(k=100.0, r0=3.8), samples=10)
    prior = PriorFile(temperature=300.0, species=("A",), terms={"bond": Term(entries=(bond,))})
    write_prior(tmp_path / "prior.yaml", prior)
    found = {name: run(tmp_path / name).data for name in ("CG.npz", "aa.npz", "prior.yaml")}
    assert found["CG.npz"]["kind"] == "coarse-grained set"
    assert found["CG.npz"]["species_table"] == ["A", "B", "C"]
    assert found["aa.npz"]["kind"] == "trajectory"
    assert found["prior.yaml"]["kind"] == "prior"
    assert found["prior.yaml"]["terms"] == {"bond": 1}
    rows = dict(map(tuple, run(tmp_path / "CG.npz").tables[0].rows))
    assert (rows["frames"], rows["beads"], rows["temperatures"]) == ("7", "5", "300 K")
    assert rows["mapping of chain"] == "ca"
    met = sorted(set(chain(5).species.tolist()))
    assert rows["species"] == f"{len(met)} of 3 occur: {', '.join('ABC'[s] for s in met)}"
    prior_rows = dict(map(tuple, run(tmp_path / "prior.yaml").tables[0].rows))
    assert prior_rows["bond"] == "1 entry, weight 1"


def test_a_flow_tells_what_it_is_and_how_good(tmp_path: Path) -> None:
    metrics = {"excess_nats": 0.25, "acceptance": 0.75}
    ModelFile(
        weights={"a": torch.zeros(3)},
        architecture={
            "flow": {"kind": "ic-spline"},
            "molecule": {"name": "ACE-ALA-NME", "numbers": [1] * 22, "bonds": []},
            "source": 300.0,
            "target": 450.0,
            "forcefield": ["amber14-all.xml", "implicit/obc2.xml"],
        },
        family="transport",
        config={},
        species=[1],
        fidelities=[],
        sae={},
        provenance={},
        training={"step": 50, "val_loss": 0.25, "metrics": metrics},
    ).save(tmp_path / "flow.pt")
    facts = {row[0]: row[1] for row in run(tmp_path / "flow.pt").tables[0].rows}
    assert facts["flow"] == "ic-spline"
    assert facts["molecule"] == "ACE-ALA-NME, 22 atoms"
    assert facts["temperatures"] == "300 K -> 450 K"
    assert facts["force field"] == "amber14-all.xml, implicit/obc2.xml"
    assert facts["validation"] == "excess 0.25 nats, swaps 0.75"
