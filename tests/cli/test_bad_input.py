"""Bad input through the command line: exit code, a message that names place and remedy, no output.

Every case runs in an empty folder and must leave it empty. The world that it points at (`good`
files and one damaged file per kind) must stay as it was.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mlff_cli.cli.app import app
from mlff_cli.data.sae import write_sae
from tests.synthetic import self_energy, write_dataset
from tests.tiny import tiny_model_file
from tests.tiny_disk import run_on_tiny_disk
from tests.tiny_training import TINY_MODEL

GROUP = "004"
TRAIN = (
    "train --save out.pt data.fidelity_datasets.0={data} data.sae.energy.files.0={world}/sae.yaml "
    "trainer.epochs=1 data.samplers.train.kwargs.batches_per_epoch=1 "
    "data.samplers.train.kwargs.batch_size=8 " + " ".join(f"'{o}'" for o in TINY_MODEL)
)
READERS = {  # every command that reads labelled molecules
    "info": "info {data}",
    "convert": "convert {data} -o out.h5",
    "convert to xyz": "convert {data} -o out.xyz",
    "calc-sae": "calc-sae {data} out.yaml",
    "evaluate": "evaluate {world}/model.pt {data} -o out.json --device cpu",
    "train": TRAIN,
}
ALL = tuple(READERS)
COORD = ("convert", "convert to xyz", "evaluate", "train")  # calc-sae and info read none
NUMBERS = (*COORD, "calc-sae")
LABELS = ("calc-sae", "evaluate", "train")


def replace(group: h5py.Group, name: str, values: np.ndarray) -> None:
    del group[name]
    group[name] = values


def put(name: str, row: int, value: float) -> Callable[[h5py.File], None]:
    """A damage: one value of one molecule."""

    def damage(file: h5py.File) -> None:
        values = file[GROUP][name]
        values[(row, *[0] * (values.ndim - 1))] = value

    return damage


def no_labels(file: h5py.File) -> None:
    for group in file.values():
        for name in ("energy", "forces", "charges"):
            group[name][...] = np.nan


MOLECULE_2 = f"group {GROUP}, molecule 2"
DAMAGED: dict[str, tuple[Callable[[h5py.File], None], tuple[str, ...], tuple[str, ...]]] = {
    # name: (damage, who must refuse it, words of the message)
    "group without coord": (
        lambda f: f[GROUP].pop("coord"),
        ALL,
        (f"group {GROUP}", "needs 'coord'", "mlff convert"),
    ),
    "wrong shape": (
        lambda f: replace(f[GROUP], "coord", f[GROUP]["coord"][:, :-1]),
        ALL,
        (f"group {GROUP}", "'coord' must have shape (8, 4, 3) (molecules, N, 3), found (8, 3, 3)"),
    ),
    "energy of wrong shape": (
        lambda f: replace(f[GROUP], "energy", np.zeros((8, 3))),
        ALL,
        ("'energy' must have shape (8,) (molecules), found (8, 3)",),
    ),
    "text for numbers": (
        lambda f: replace(f[GROUP], "coord", np.array([b"a"] * 8)),
        ALL,
        ("'coord' must hold float32, found |S1",),
    ),
    "dangling link": (
        lambda f: f.__setitem__("777", h5py.SoftLink("/nowhere")),
        ALL,
        ("'777' must be a group", "a link leads nowhere"),
    ),
    "foreign group": (lambda f: f.create_group("abc"), ALL, ("number of atoms, found 'abc'",)),
    "unknown unit": (
        lambda f: f.attrs.__setitem__("units_energy", "hertz"),
        ALL,
        ("units_energy", "found 'hertz'"),
    ),
    "no molecules": (lambda f: f.clear(), ALL, ("holds no molecules",)),
    "NaN coordinate": (put("coord", 2, np.nan), COORD, (MOLECULE_2, "must be finite, found nan")),
    "NaN charge": (put("charge", 2, np.nan), COORD, (MOLECULE_2, "'charge' must be finite")),
    "negative multiplicity": (put("mult", 2, -2), COORD, (MOLECULE_2, "found -2")),
    "element 0": (put("numbers", 2, 0), NUMBERS, (MOLECULE_2, "from 1 to 118, found 0")),
    "element 119": (put("numbers", 2, 119), NUMBERS, (MOLECULE_2, "from 1 to 118, found 119")),
    "element not in the SAE": (
        put("numbers", 2, 16),
        ("train",),
        (MOLECULE_2, "no self-atomic energy for S at fidelity 0", "mlff calc-sae"),
    ),
    "element not in the model": (
        put("numbers", 2, 16),
        ("evaluate",),
        (MOLECULE_2, "Z = 16 is not supported", "train on the element"),
    ),
    "labels all absent": (no_labels, LABELS, ("energy", "mlff label")),
    "infinite energy": (put("energy", 2, np.inf), LABELS, (MOLECULE_2, "'energy'")),
    "infinite force": (put("forces", 2, -np.inf), ("evaluate", "train"), (MOLECULE_2, "'forces'")),
}
EVALUATION = json.dumps(
    {
        "format": "mlff-evaluation-1",
        "model": "m.pt",
        "units": {"energy": "eV"},
        "results": [],
        "provenance": {},
    }
)
UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    # name: (how to make the file, words of the message)
    "missing": (lambda p: None, "does not exist"),
    "empty": (lambda p: p.touch(), "empty"),
    "not HDF5": (lambda p: p.write_text("hello\n"), "not a"),
    "folder": (lambda p: p.mkdir(), "a file is needed"),
    "pipe": (lambda p: os.mkfifo(p), "a file is needed"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Good files, damaged files; whoever changes them is caught at the end."""
    folder = tmp_path_factory.mktemp("world")
    labels = ("energy", "forces", "charges")
    for k in range(2):
        level = f"synthetic-{k}"
        path = folder / f"good{k}.h5"
        write_dataset(path, 40, k, sizes=(4,), labels=labels, level_of_theory=level, n_parents=5)
    write_sae(folder / "sae.yaml", {z: float(self_energy(z)) for z in (1, 6, 7, 8)})
    tiny_model_file().save(folder / "model.pt")
    (folder / "evaluation.json").write_text(EVALUATION)
    for name, (damage, _, _) in DAMAGED.items():
        path = folder / f"{name}.h5"
        write_dataset(path, 8, 2, sizes=(4,), labels=labels, level_of_theory="s", n_parents=1)
        with h5py.File(path, "r+") as file:
            damage(file)
    for name, (make, _) in UNREADABLE.items():
        make(folder / f"{name}.h5")
    files = sorted(p for p in folder.iterdir() if p.is_file())
    before = {p.name: p.read_bytes() for p in files}
    yield folder
    assert {p.name: p.read_bytes() for p in files} == before


@pytest.fixture
def mlff(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run a command line in an empty folder; returns exit code and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(line: str, **names: object) -> tuple[int, str]:
        words = [w.format(world=world, **names) for w in shlex.split(line)]
        result = CliRunner().invoke(app, words)
        assert "Traceback" not in result.stderr, result.stderr
        return result.exit_code, result.stderr

    return run


def refused(outcome: tuple[int, str], code: int, *words: str) -> None:
    """Exit code, message and remedy are there."""
    assert outcome[0] == code, outcome
    for word in (*words, "remedy:"):
        assert word in outcome[1]


@pytest.mark.parametrize(
    ("name", "command"), [(n, c) for n, (_, who, _) in DAMAGED.items() for c in who]
)
def test_damaged_data(
    mlff: Callable[..., tuple[int, str]], world: Path, tmp_path: Path, name: str, command: str
) -> None:
    data = world / f"{name}.h5"
    refused(mlff(READERS[command], data=data), 3, str(data), *DAMAGED[name][2])
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_files_that_are_no_data(
    mlff: Callable[..., tuple[int, str]], world: Path, tmp_path: Path, name: str, command: str
) -> None:
    data = world / f"{name}.h5"
    refused(mlff(READERS[command], data=data), 3, str(data), UNREADABLE[name][1])
    assert list(tmp_path.rglob("*")) == []


GOOD = TRAIN.replace("{data}", "{world}/good0.h5")
SECOND = GOOD + " data.sae.energy.files.1={world}/sae.yaml data.fidelity_datasets.1={again}"


@pytest.mark.parametrize("way", ["same", "relative", "symbolic link", "hard link"])
def test_two_fidelities_of_one_file(
    mlff: Callable[..., tuple[int, str]], world: Path, tmp_path: Path, way: str
) -> None:
    data = world / "good0.h5"
    again = {
        "same": data,
        "relative": Path(os.path.relpath(data, tmp_path)),
        "symbolic link": tmp_path / "again.h5",
        "hard link": tmp_path / "again.h5",
    }[way]
    if way == "symbolic link":
        again.symlink_to(data)
    if way == "hard link":
        os.link(data, again)
    words = ("data.fidelity_datasets.0 and data.fidelity_datasets.1 are the same file", str(again))
    refused(mlff(SECOND, again=again), 2, *words)
    assert {p for p in tmp_path.rglob("*") if p != again} == set()


CONFIGURATIONS: dict[str, tuple[bytes, str]] = {
    "trainer:\n  epoch: 3\n": (b"", "c.yaml:2: unknown key 'trainer.epoch'"),
    "data:\n  samplers:\n    train:\n      kwargs:\n        batchsize: 1\n": (b"", "c.yaml:5"),
    "optimizer:\n  kwargs:\n    lr: fast\n": (b"", "c.yaml:3: 'optimizer.kwargs.lr'"),
    "loss: 3\n": (b"", "c.yaml:1: 'loss'"),
    "- 1\n": (b"", "a mapping of keys is needed, found a list"),
    "seed: 1\nseed: 2\n": (b"", "c.yaml:2: not valid YAML: found duplicate key"),
    "trainer:\n\tepochs: 1\n": (b"", "c.yaml:2: not valid YAML"),
    "run_name: ${nowhere.x}\n": (b"", "c.yaml:1: 'run_name'"),
    "seed: !!python/object/apply:os.mkdir [out]\n": (b"", "c.yaml:1: not valid YAML"),
    "binary": (bytes(range(256)), "c.yaml: not a configuration"),
}


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configuration_files(
    mlff: Callable[..., tuple[int, str]], tmp_path: Path, text: str
) -> None:
    content, message = CONFIGURATIONS[text]
    (tmp_path / "c.yaml").write_bytes(content or text.encode())
    code, told = mlff(GOOD + " --config c.yaml")
    assert code == 2
    assert message in told
    assert [p.name for p in tmp_path.rglob("*")] == ["c.yaml"]


VALUES = {  # override: words of the message
    "trainer.epochs=many": "'trainer.epochs'",
    "trainer.epochs=0": "greater than 0, found 0",
    "optimizer.kwargs.lr=-1": "greater than 0, found -1",
    "optimizer.kwargs.lr=inf": "'optimizer.kwargs.lr'",
    "optimizer.kwargs.lr=1e300": "less than or equal to 1000",
    "data.samplers.train.kwargs.batch_size=0": "greater than 0, found 0",
    "data.fidelity_weights.0=inf": "data.fidelity_weights.0",
    "data.fidelity_weights.4=1": "there is no fidelity 4",
    "seed=99999999999999999999999": "'seed'",
    "data.split_seed=18446744073709551616": "'data.split_seed'",
    "data.samplers.train.kwargs.bucket=9999999999": "less than 2147483648",
    "data.samplers.train.kwargs.block=9999999999": "less than 2147483648",
    "checkpoint.filename_prefix=../up": "'checkpoint.filename_prefix'",
    "metrics.kwargs.cfg.energy.abbr=a/b": "'metrics.kwargs.cfg.energy.abbr'",
    "optimizer.param_groups.shifts.lr=1e300": "less than or equal to 1000",
    "optimizer.kwargs.eps=[1e-30, 1e-3]": "takes a number",
    "scheduler.kwargs.start_value=abc": "should be a valid number",
    "model.nshifts=1": "model.nshifts",
    "model.rc=0.5": "model: rmin must be below rc",
    "family=[1]": "family is one of",
    "optimizer.class=os.system": "unknown name 'os.system'",
    "wandb.init.mode=remote": "'disabled', 'offline' or 'online'",
    "trainer": "an override is key=value",
    "run_name=\udce4": "is not YAML",  # a byte that is no UTF-8, as Python hands it on
}


@pytest.mark.parametrize("override", VALUES)
def test_values(mlff: Callable[..., tuple[int, str]], tmp_path: Path, override: str) -> None:
    code, told = mlff(f"{GOOD} '{override}'")
    assert code == 2, told
    assert VALUES[override] in told
    assert list(tmp_path.rglob("*")) == []


def test_what_the_device_cannot_do_is_told_before_anything_is_made(
    mlff: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    for mode in ("", " --dry-run", " --lr-find"):
        outcome = mlff(f"{GOOD} --device cpu trainer.precision=tf32{mode}")
        refused(outcome, 4, "trainer.precision=tf32 needs an NVIDIA GPU")
    assert list(tmp_path.rglob("*")) == []


def test_a_range_test_is_of_one_model(mlff: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    refused(mlff(f"{GOOD} --lr-find --ensemble 2"), 2, "--lr-find tests one model")
    assert list(tmp_path.rglob("*")) == []


WRITERS = {  # command: the output that it must not replace
    "convert {world}/good0.h5 -o out.h5": "out.h5",
    "calc-sae {world}/good0.h5 out.yaml": "out.yaml",
    "label in.xyz -o out.h5 --method gfn2-xtb --workers 1": "out.h5",
    GOOD: "out.pt",
    "evaluate {world}/model.pt {world}/good0.h5 -o out.json --device cpu": "out.json",
    "evaluate {world}/model.pt {world}/good0.h5 -o out.json": "out_parity.png",
    "compile --weights {world}/model.pt --fidelity-level 0 -o out": "out_fid0.jpt",
    "compile --weights {world}/model.pt --fidelity-level 0 --output out": "out_fid0_meta.yaml",
    "report {world}/evaluation.json -o out.html": "out.html",
}
WATER = "3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


@pytest.mark.parametrize("line", WRITERS)
def test_an_existing_output_needs_force(
    mlff: Callable[..., tuple[int, str]], tmp_path: Path, line: str
) -> None:
    (tmp_path / "in.xyz").write_text(WATER)
    output = tmp_path / WRITERS[line]
    output.write_bytes(b"precious")
    refused(mlff(line), 2, f"{WRITERS[line]}: the output exists already", "--force")
    assert output.read_bytes() == b"precious"
    assert {p.name for p in tmp_path.rglob("*")} == {"in.xyz", output.name}


@pytest.mark.parametrize(
    "line",
    [
        "calc-sae data.h5 data.h5",
        "evaluate {world}/model.pt data.h5 -o data.h5",
        "report eval.json -o eval.json",
        GOOD.replace("{world}/good0.h5", "data.h5").replace("out.pt", "data.h5"),
    ],
)
def test_an_output_never_replaces_an_input(
    mlff: Callable[..., tuple[int, str]], world: Path, tmp_path: Path, line: str
) -> None:
    shutil.copy(world / "good0.h5", tmp_path / "data.h5")
    (tmp_path / "in.xyz").write_text(WATER)
    (tmp_path / "eval.json").write_text("{}")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    refused(mlff(f"{line} --force"), 2, "would replace an input")
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("target", [".", "/", "/dev/stdout", "/dev/full", ""])
@pytest.mark.parametrize(
    "line",
    [
        "calc-sae {world}/good0.h5 '{target}' --force",
        "report {world}/model.pt -o '{target}' --force",
        GOOD.replace("out.pt", "'{target}'") + " --force",
    ],
)
def test_folders_and_devices_are_no_outputs(
    mlff: Callable[..., tuple[int, str]], tmp_path: Path, line: str, target: str
) -> None:
    refused(mlff(line, target=target), 2, "the output must be a file")
    assert list(tmp_path.rglob("*")) == []


def test_a_linked_output_is_written_where_the_link_leads(
    mlff: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "sae.yaml"
    link.symlink_to(tmp_path / "disk" / "real.yaml")
    assert mlff("calc-sae {world}/good0.h5 sae.yaml")[0] == 0
    assert mlff("calc-sae {world}/good0.h5 sae.yaml")[0] == 2
    assert mlff("calc-sae {world}/good0.h5 sae.yaml --force")[0] == 0
    assert link.is_symlink()
    assert (tmp_path / "disk" / "real.yaml").read_text().endswith("\n")


def test_names_with_blanks_and_accents(
    mlff: Callable[..., tuple[int, str]], world: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "Größe µ"
    folder.mkdir()
    shutil.copy(world / "good0.h5", folder / "my data.h5")
    assert mlff("calc-sae 'Größe µ/my data.h5' 'Größe µ/new folder/sae é.yaml'")[0] == 0
    assert mlff("info 'Größe µ/new folder/sae é.yaml' --verify")[0] == 0


COMPILE = "compile --weights {world}/model.pt -o out "
CONTRADICTIONS = {  # options of compile: words of the message
    "": "the model has 3 fidelities",
    "--fidelity-level 3": "fidelity 3 does not exist",
    "--fidelity-level 0 --fidelity-offset 100": "--fidelity-offset 100 contradicts",
    "--fidelity-level 0 --num-fidelities 2": "--num-fidelities 2 contradicts",
    "--fidelity-level 0 --use-fidelity-readouts false": "contradicts the model file",
    "--fidelity-level 1 --dispersion d3bj": "contain dispersion already",
    "--fidelity-level 0 --dispersion d3bj --dispersion-functional blyp": "contradicts the labels",
    "--fidelity-level 0 --dispersion d3bj --dispersion-functional pbee": "near names: pbe",
    "--fidelity-level 0 --dispersion-functional pbe": "needs a dispersion method",
    "--fidelity-level 0 --dispersion d3bj --dispersion-s8 1": "missing: a1, a2",
    "--fidelity-level 0 --dispersion d3bj --dispersion-s8 1 --dispersion-a1 -9 --dispersion-a2 0": (
        "must be positive for every pair of elements, found a1=-9, a2=0"
    ),
    "--fidelity-level 0 --sae {world}/sae.yaml": "the model was trained with",
    "--fidelity-level 0 --format exe": "--format exe is unknown",
    "--fidelity-level 0 -o .": "--output is the beginning of a file name",
}


@pytest.mark.parametrize("options", CONTRADICTIONS)
def test_options_of_compile_that_contradict(
    mlff: Callable[..., tuple[int, str]], tmp_path: Path, options: str
) -> None:
    refused(mlff(COMPILE + options), 2, CONTRADICTIONS[options])
    assert list(tmp_path.rglob("*")) == []


def changed(path: Path, **changes: object) -> None:
    """A model file with other contents."""
    payload = torch.load(path, weights_only=True)
    torch.save({**payload, **changes}, path)


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda p: p.write_text("hello"), "not a file of tensors and plain values"),
    "junk": (lambda p: p.write_bytes(b"junk"), "not a file of tensors and plain values"),
    "empty": (lambda p: p.write_bytes(b""), "not a file of tensors and plain values"),
    "list": (lambda p: torch.save([1], p), "a dict is needed, found a list"),
    "code": (lambda p: torch.save({"weights": Path}, p), "not a file of tensors and plain values"),
    "newer": (lambda p: changed(p, format_version=99), "format version 99 is newer"),
    "species": (lambda p: changed(p, species=[1, 200]), "'species' make no sense: [1, 200]"),
    "fidelities": (lambda p: changed(p, fidelities=[{}]), "'fidelities' make no sense"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "line", ["info m.pt", "evaluate m.pt {world}/good0.h5", "compile --weights m.pt"]
)
def test_files_that_are_no_models(
    mlff: Callable[..., tuple[int, str]], world: Path, tmp_path: Path, name: str, line: str
) -> None:
    model = tmp_path / "m.pt"
    shutil.copy(world / "model.pt", model)
    make, message = MODELS[name]
    make(model)
    outcome = mlff(line)
    if line.startswith("info") and name in ("text", "junk", "empty"):
        message = "the file is empty" if name == "empty" else "not a file of mlff"
    refused(outcome, 3, "m.pt", message)
    assert "weights_only" not in outcome[1]  # torch's advice would run whatever the file holds
    assert list(tmp_path.iterdir()) == [model]


def test_an_architecture_of_the_future_is_no_bug(
    mlff: Callable[..., tuple[int, str]], world: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.pt"
    shutil.copy(world / "model.pt", model)
    changed(model, architecture={**tiny_model_file().architecture, "novelty": 1})
    words = ("m.pt", "novelty")
    refused(mlff("compile --weights m.pt --fidelity-level 0 -o out"), 3, *words)
    refused(mlff("evaluate m.pt {world}/good0.h5 -o out.json"), 3, *words)


@pytest.fixture(scope="module")
def artifact(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One compiled fidelity."""
    stem = tmp_path_factory.mktemp("artifact") / "a"
    line = f"compile --weights {world}/model.pt --fidelity-level 0 -o {stem}"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.stderr
    return Path(f"{stem}_fid0.jpt")


def flip(path: Path) -> None:
    """Change one bit of the largest member, which holds weights or code."""
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda m: m.file_size)
        at = member.header_offset + 200 + member.file_size // 2
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("line", ["evaluate a.jpt {world}/good0.h5", "info --verify a.jpt"])
def test_a_tampered_artifact_is_not_run(
    mlff: Callable[..., tuple[int, str]], artifact: Path, tmp_path: Path, line: str
) -> None:
    copy = tmp_path / "a.jpt"
    shutil.copy(artifact, copy)
    flip(copy)
    refused(mlff(line), 3, "a.jpt", "Bad CRC-32")
    assert list(tmp_path.iterdir()) == [copy]


def test_weights_of_another_artifact_are_not_run(
    mlff: Callable[..., tuple[int, str]], artifact: Path, tmp_path: Path
) -> None:
    """All check sums of the archive are right, its contents are not those that were verified."""
    copy = tmp_path / "a.jpt"
    with zipfile.ZipFile(artifact) as old, zipfile.ZipFile(copy, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if "/data/" in member.filename and content:
                content = bytes([content[0] ^ 1]) + content[1:]
            new.writestr(member, content)
    refused(mlff("evaluate a.jpt {world}/good0.h5"), 3, "a.jpt", "not those that were verified")


@pytest.mark.parametrize("content", [bytes(range(256)), b"[1]", b"artifact: 3", b"a: [}"])
def test_a_damaged_description_beside_an_artifact(
    mlff: Callable[..., tuple[int, str]], artifact: Path, tmp_path: Path, content: bytes
) -> None:
    shutil.copy(artifact, tmp_path / "a.jpt")
    (tmp_path / "a_meta.yaml").write_bytes(content)
    refused(mlff("info --verify a.jpt"), 3, "a_meta.yaml")


EVALUATIONS = {
    "[]": "not an evaluation",
    "{}": "not an evaluation",
    "{bad": "not JSON",
    '{"format":"mlff-evaluation-1"}': "the evaluation is damaged: model",
    '{"format":"mlff-evaluation-1","results":3}': "the evaluation is damaged",
}


@pytest.mark.parametrize("text", EVALUATIONS)
def test_damaged_evaluations(
    mlff: Callable[..., tuple[int, str]], tmp_path: Path, text: str
) -> None:
    (tmp_path / "e.json").write_text(text)
    refused(mlff("report e.json -o out.html"), 3, "e.json", EVALUATIONS[text])
    if text != "[]":  # only an object looks like an evaluation to info
        refused(mlff("info e.json"), 3, "e.json", EVALUATIONS[text])
    assert [p.name for p in tmp_path.iterdir()] == ["e.json"]


@pytest.mark.parametrize("log", [b"", b"[1]\n", bytes(range(256)), b'{"kind": "units"}\n{bad\n'])
def test_a_damaged_log_is_reported_as_far_as_it_is_good(
    mlff: Callable[..., tuple[int, str]], tmp_path: Path, log: bytes
) -> None:
    (tmp_path / "a.run").mkdir()
    (tmp_path / "a.run" / "metrics.jsonl").write_bytes(log)
    assert mlff("report a.run -o out.html")[0] == 0


def test_predictions_and_errors_that_are_not_finite(
    mlff: Callable[..., tuple[int, str]], world: Path, tmp_path: Path
) -> None:
    line = "evaluate {world}/model.pt d.h5 -o out.json --device cpu"
    for name, row, value, words in (
        ("coord", 3, None, ("d.h5, group 004, molecule 3", "is not finite")),
        ("energy", 1, 1e300, ("d.h5", "the errors of energy overflow", "1e+300")),
    ):
        shutil.copy(world / "good0.h5", tmp_path / "d.h5")
        with h5py.File(tmp_path / "d.h5", "r+") as file:
            values = file[GROUP][name]
            if value is None:
                values[row, 1] = values[row, 0]  # two atoms at one place
            else:
                values[row] = value
        refused(mlff(line + " --units eV"), 5, *words)
        assert [p.name for p in tmp_path.rglob("*")] == ["d.h5"]


def test_labels_are_no_extxyz(mlff: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "in.xyz").write_text(WATER)
    refused(mlff("label in.xyz -o out.xyz --method gfn2-xtb"), 2, "out.xyz", "found the suffix")
    assert [p.name for p in tmp_path.iterdir()] == ["in.xyz"]


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("| head -n 1", 0, ""),  # the reader leaves
        (">&-", 0, ""),  # nobody listens
        ("> /dev/full", 3, "standard output: the file could not be read or written: No space"),
    ],
)
@pytest.mark.parametrize("options", ["", "--json"])
def test_results_that_nobody_takes(
    world: Path, end: str, code: int, words: str, options: str
) -> None:
    program = f"{shlex.quote(sys.executable)} -m mlff_cli info {world}/model.pt {options}"
    command = ["bash", "-c", f"set -o pipefail; {program} {end}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("end", ["2> /dev/full", "2>&1 > /dev/null | true", "2>&-"])
def test_messages_that_nobody_takes_end_no_command(world: Path, tmp_path: Path, end: str) -> None:
    """A terminal that is gone, or a log on a full disk, costs the messages and no result."""
    program = f"{shlex.quote(sys.executable)} -m mlff_cli calc-sae {world}/good0.h5 sae.yaml"
    command = ["bash", "-c", f"set -o pipefail; {program} {end}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["sae.yaml"]


SEEDS = ("calc-sae {world}/good0.h5 out.yaml", "label in.xyz -o out.h5 --method gfn2-xtb")


@pytest.mark.parametrize("line", SEEDS)
@pytest.mark.parametrize("seed", ["-1", "9" * 30, "x"])
def test_seeds(mlff: Callable[..., tuple[int, str]], tmp_path: Path, line: str, seed: str) -> None:
    assert mlff(f"{line} --seed {seed}")[0] == 2
    assert list(tmp_path.rglob("*")) == []


FULL_DISK = """
import json, os, sys
from pathlib import Path
from typer.testing import CliRunner
from mlff_cli.cli.app import app

if __name__ == "__main__":
    disk, told = Path(sys.argv[1]), {{}}
    os.chdir(disk)
    with open("filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1024))
        except OSError:
            pass
    for line in {lines!r}:
        result = CliRunner().invoke(app, line)
        left = [str(p) for p in disk.rglob("*") if p.is_file() and p.name != "filler"]
        told[line[0]] = [result.exit_code, result.stderr, left]
    print(json.dumps(told))
"""


def test_a_full_disk(world: Path, tmp_path: Path) -> None:
    """Every writing command says so, names the file and leaves nothing under its name."""
    source = tmp_path / "in.xyz"
    source.write_text(WATER)
    disk = tmp_path / "disk"
    disk.mkdir()
    lines = [
        [w.format(world=world) for w in shlex.split(line.replace("in.xyz", str(source)))]
        for line in WRITERS
        if "-o out.json --device" not in line and "--output out" not in line
    ]
    done = run_on_tiny_disk(disk, FULL_DISK.format(lines=lines), size="64k")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"convert", "calc-sae", "label", "train", "evaluate", "compile", "report"}
    for command, (code, message, left) in told.items():
        assert code == 3, (command, message)
        assert "No space left" in message, command
        assert "out" in message.split("error:")[1], command
        assert "free some space" in message, command
        assert "Traceback" not in message, message
        # an interrupted label continues from its journal, which is kept though empty
        assert left in ([], [f"{disk}/out.h5.partial/journal.jsonl"]), command
