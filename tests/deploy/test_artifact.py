"""Laws of the compiled artifact: it is its model, it is reproducible, it describes itself."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import CheckFailedError, DataError, StorageError, UsageError
from mlff_cli.deploy import torchscript, verify
from mlff_cli.deploy.artifact import meta_path, read_meta_yaml, read_metadata, write_artifact
from mlff_cli.physics.dispersion_parameters import functional_parameters
from tests.tiny import SPECIES, molecules, tiny_potential

PBE = functional_parameters("pbe")
METADATA = {"species": list(SPECIES), "fidelity": {"index": 0, "level_of_theory": "pbe/def2-svp"}}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "model_fid0.jpt"
    write_artifact(tiny_potential(PBE, torch.float32), path, METADATA, parameters=PBE)
    return path


def test_the_seeds_inference_example(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the seed's document writes it, beside a file of that name."""
    monkeypatch.chdir(artifact.parent)
    model = torch.jit.load("model_fid0.jpt", map_location="cpu")

    data = {
        "coord": torch.tensor([[[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]]),
        "numbers": torch.tensor([[8, 1, 1]]),
        "charge": torch.tensor([0.0]),
        "mult": torch.tensor([1.0]),
    }

    output = model(data)
    assert output["energy"].item() < -2000
    assert output["energy"].dtype == torch.float64
    assert output["forces"].shape == (1, 3, 3)
    assert output["charges"].shape == output["spin_charges"].shape == (1, 3)


def test_artifact_is_its_model(artifact: Path) -> None:
    """Loaded in another process that knows nothing of mlff, as its users will."""
    code = (
        "import sys, torch, warnings; warnings.simplefilter('ignore');"
        "m = torch.jit.load(sys.argv[1]); d = torch.load(sys.argv[2]);"
        "torch.save({k: v for k, v in m(d).items()}, sys.argv[3])"
    )
    data, out = artifact.with_name("in.pt"), artifact.with_name("out.pt")
    torch.save(molecules(), data)
    command = [sys.executable, "-c", code, str(artifact), str(data), str(out)]
    subprocess.run(command, check=True, cwd=artifact.parent)
    seen, wanted = torch.load(out), tiny_potential(PBE, torch.float32)(molecules())
    torch.testing.assert_close(seen["energy"], wanted["energy"], rtol=1e-9, atol=1e-5)
    for name in ("forces", "charges", "spin_charges"):
        torch.testing.assert_close(seen[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_metadata_goes_round(artifact: Path) -> None:
    inside = read_metadata(artifact)
    assert inside["species"] == list(SPECIES)
    assert inside["verification"]["passed"]
    beside = read_meta_yaml(artifact)
    assert beside is not None
    assert beside["artifact"] == {"file": "model_fid0.jpt", "sha256": sha256(artifact)}
    assert {k: v for k, v in beside.items() if k != "artifact"} == inside
    assert inside["payload_sha256"] == torchscript.payload_sha256(artifact)


def test_metadata_is_read_without_running_anything(artifact: Path, tmp_path: Path) -> None:
    """An archive whose code cannot run still says what it is."""
    broken = tmp_path / "broken.jpt"
    with zipfile.ZipFile(artifact) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"raise SystemExit" if "/code/" in name else old.read(name))
    assert read_metadata(broken)["species"] == list(SPECIES)
    with pytest.raises(DataError):
        torchscript.load(broken)


def test_verification_record_has_the_numbers(artifact: Path) -> None:
    record = read_metadata(artifact)["verification"]
    checks = {c["name"]: c for c in record["checks"]}
    energy = checks["energy of the artifact and the eager model, float32, relative"]
    assert energy["largest"] < 1e-6
    assert checks["dispersion energy of the artifact and dftd3"]["largest"] < 1e-8
    assert checks["forces of the artifact and the eager model, float64, relative"]["largest"] < 1e-9
    assert len(record["molecules"]) >= 6


def test_same_weights_give_the_same_bytes(artifact: Path, tmp_path: Path) -> None:
    again = tmp_path / "other_name.jpt"
    write_artifact(tiny_potential(PBE, torch.float32), again, METADATA, parameters=PBE)
    assert again.read_bytes() == artifact.read_bytes()


def test_existing_output_needs_force(artifact: Path) -> None:
    before = artifact.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write_artifact(tiny_potential(seed=1), artifact, METADATA)
    assert artifact.read_bytes() == before


def test_no_file_is_kept_when_the_dispersion_is_wrong(tmp_path: Path) -> None:
    """Compiled with the parameters of one functional, declared as those of another."""
    path = tmp_path / "wrong.jpt"
    with pytest.raises(CheckFailedError, match="dispersion energy of the artifact and dftd3"):
        write_artifact(
            tiny_potential(PBE), path, METADATA, parameters=functional_parameters("b3lyp")
        )
    assert list(tmp_path.iterdir()) == []


def test_a_deviation_fails_the_check(tmp_path: Path) -> None:
    """An artifact of other weights is not the model."""
    path = tmp_path / "other.jpt"
    torchscript.save(torchscript.script(tiny_potential(seed=1)), path, {})
    with pytest.raises(CheckFailedError, match="energy of the artifact and the eager model"):
        verify.verify(torchscript.load(path), tiny_potential(seed=0))


def test_nan_fails_the_check() -> None:
    assert not verify.Check("x", float("nan"), 1.0, "eV").passed


@pytest.mark.parametrize("species", [[1], [2, 10], [1, 6, 7, 8], [26, 46, 79], [17, 92]])
def test_every_element_is_in_a_structure(species: list[int]) -> None:
    found = verify.molecules_of(species)
    assert {int(z) for m in found for z in m.numbers} == set(species)
    assert all(len(m.numbers) > 1 for m in found)


def test_yaml_is_plain(artifact: Path) -> None:
    assert yaml.safe_load(meta_path(artifact).read_text())["format"] == "mlff-jpt-1"


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.jpt"
    text.write_text("no archive")
    with pytest.raises(DataError, match="damaged or of another kind"):
        read_metadata(text)
    with zipfile.ZipFile(tmp_path / "bare.jpt", "w") as archive:
        archive.writestr("a/version", "3")
    with pytest.raises(DataError, match="no metadata of mlff"):
        read_metadata(tmp_path / "bare.jpt")
    with pytest.raises(StorageError):
        read_metadata(tmp_path / "absent.jpt")


def test_importing_deploy_is_light() -> None:
    code = "import sys, mlff_cli.deploy; print([m for m in ('torch', 'ase') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
