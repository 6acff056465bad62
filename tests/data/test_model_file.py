"""The model file: bit-exact, the same bytes for the same content, and no code from strangers."""

import contextlib
import copy
import dataclasses
import hashlib
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.data.model_file import FORMAT_VERSION, ModelFile, load_model_file, load_plain
from tests.tiny_disk import run_on_tiny_disk

FAST = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make(seed: int = 0, **change: Any) -> ModelFile:
    """A small model file with every kind of value in it."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    values: dict[str, Any] = {
        "weights": {
            "afv.weight": random(119, 16),
            "outputs.shift": random(3, 1, dtype=torch.float64),
            "half": random(5).to(torch.bfloat16),
            "index": torch.arange(7),
            "scalar": torch.tensor(math.pi, dtype=torch.float64),
            "nothing": torch.zeros(0, 3),
        },
        "architecture": {"nfeature": 16, "hidden": [[512, 380], [256]], "coulomb": None},
        "family": "multifidelity",
        "config": {"data": {"fidelity_datasets": {0: "a.h5", 1: "b.h5"}}, "trainer": {"lr": 1e-4}},
        "species": [1, 6, 7, 8],
        "fidelities": [{"index": 0, "dataset": "a.h5", "level_of_theory": "pbe/def2-svp"}],
        "sae": {0: {1: -13.587222780835477, 6: -1029.4889999855063}},
        "provenance": {"inputs": {"a.h5": "0" * 64}, "seed": seed},
        "training": {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": random(4)}}}},
    }
    return ModelFile(**(values | change))


def equal(a: Any, b: Any) -> bool:
    """Same values, types and bits."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.contiguous().view(torch.uint8).equal(b.contiguous().view(torch.uint8))
            if a.dim()
            else torch.equal(a, b)
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("ema", [None, {"afv.weight": torch.ones(2, 2) / 3}])
def test_round_trip_is_bit_exact(tmp_path: Path, ema: Any) -> None:
    model = make(ema=ema)
    model.save(tmp_path / "a.pt")
    loaded = load_model_file(tmp_path / "a.pt", averaged=False)
    for name in vars(model):
        assert equal(getattr(model, name), getattr(loaded, name)), name
    assert loaded.sae[0][1].hex() == model.sae[0][1].hex()  # float64, every bit
    used = load_model_file(tmp_path / "a.pt")  # what was validated, where there is a choice
    assert used.ema is None
    assert equal(used.weights, ema or model.weights)


Plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    | st.tuples(inner, inner),
    max_leaves=10,
)  # fmt: skip


@FAST
@given(config=st.dictionaries(st.text(max_size=3) | st.integers(), Plain, max_size=4))
def test_any_plain_configuration_survives(
    tmp_path_factory: pytest.TempPathFactory, config: dict[Any, Any]
) -> None:
    path = tmp_path_factory.mktemp("plain") / "a.pt"
    make(config=config).save(path)
    assert equal(load_model_file(path).config, config)


def test_same_content_gives_same_bytes_under_any_name(tmp_path: Path) -> None:
    make().save(tmp_path / "a.pt")
    make().save(tmp_path / "folder" / "quite-another-name.model")
    assert digest(tmp_path / "a.pt") == digest(tmp_path / "folder" / "quite-another-name.model")


def test_bytes_do_not_depend_on_how_the_content_lies_in_memory(tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "a.pt")
    plain = ("architecture", "fidelities", "species", "provenance")
    # equal texts and lists as other objects, tensors as views, transposes and parameters
    other = make(**{n: json.loads(json.dumps(getattr(model, n))) for n in plain})
    big = torch.zeros(1000, 16)
    big[:119] = model.weights["afv.weight"]
    other.weights["afv.weight"] = big[:119]
    other.weights["outputs.shift"] = torch.nn.Parameter(model.weights["outputs.shift"])
    other.weights["nothing"] = torch.zeros(3, 0).T
    other.save(tmp_path / "b.pt")
    assert digest(tmp_path / "a.pt") == digest(tmp_path / "b.pt")
    shared = copy.deepcopy(model)
    shared.ema = shared.weights
    separate = copy.deepcopy(model)
    separate.ema = copy.deepcopy(model.weights)
    shared.save(tmp_path / "c.pt")
    separate.save(tmp_path / "d.pt")
    assert digest(tmp_path / "c.pt") == digest(tmp_path / "d.pt")


def test_numpy_scalars_become_plain_and_anything_else_is_refused(tmp_path: Path) -> None:
    value = np.float64(-13.587222780835477)
    make(sae={0: {np.int64(1): value}}).save(tmp_path / "a.pt")
    (key,), (loaded,) = (load_model_file(tmp_path / "a.pt").sae[0].keys(), [float(value)])
    assert (type(key), key) == (int, 1)
    assert load_model_file(tmp_path / "a.pt").sae[0][1] == loaded
    for odd in (Path("a.h5"), np.zeros(2), {1, 2}, object(), torch.float32):
        with pytest.raises(TypeError, match=r"model\.config\.data\.x is a"):
            make(config={"data": {"x": odd}}).save(tmp_path / "b.pt")
    assert not (tmp_path / "b.pt").exists()


def test_the_description_is_json_without_tensors() -> None:
    model = make(sae={0: {np.int64(1): np.float64(-13.5)}})
    described = model.description()
    again = json.loads(json.dumps(described, allow_nan=False))
    assert again["sae"] == {"0": {"1": -13.5}}
    assert again["units"] == {"energy": "eV", "length": "angstrom", "charge": "e"}
    assert set(described) == set(vars(model)) - {"weights", "ema", "training"}
    described["config"]["data"].clear()
    assert model.config["data"]  # a copy: nobody changes the model through it


def test_existing_file_needs_force_and_an_error_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    make(0).save(path)
    before = digest(path)
    with pytest.raises(UsageError, match="exists already"):
        make(1).save(path)
    with pytest.raises(TypeError):
        make(1, config={"x": object()}).save(path, force=True)
    assert digest(path) == before
    make(1).save(path, force=True)
    assert digest(path) != before
    assert list(tmp_path.iterdir()) == [path]


OTHER_PROCESS = """
import hashlib, sys
from pathlib import Path
import torch
from mlff_cli.core.errors import StorageError
from mlff_cli.data.model_file import load_model_file
folder = Path(sys.argv[1])
model = load_model_file("{source}")
model.save(folder / "a.pt")
print(hashlib.sha256((folder / "a.pt").read_bytes()).hexdigest())
model.weights = {"w": torch.ones(100_000)}
try:
    model.save(folder / "a.pt", force=True)
except StorageError as error:
    print(error.exit_code, error)
print([p.name for p in folder.iterdir()], len(load_model_file(folder / "a.pt").weights))
"""


def test_another_process_gives_the_same_bytes_and_names_a_full_disk(tmp_path: Path) -> None:
    disk, source = tmp_path / "disk", tmp_path / "source.pt"
    disk.mkdir()
    make().save(source)
    result = run_on_tiny_disk(disk, OTHER_PROCESS.replace("{source}", str(source)))
    assert result.stdout.splitlines() == [
        digest(source),
        f"3 {disk}/a.pt: the file could not be read or written: No space left on device",
        "  remedy: free some space, or write to another disk",
        "['a.pt'] 6",  # the old file is whole
    ], result.stderr


# --- loading what others made


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("how", ["pickle", "torch", "torch-inside"])
def test_code_in_a_file_never_runs(tmp_path: Path, how: str) -> None:
    path, target = tmp_path / "a.pt", tmp_path / "created-by-the-file"
    attack = Malicious(target)
    if how == "pickle":
        path.write_bytes(pickle.dumps(attack))
    else:
        payload = vars(make()) | {"config": {"x": attack}}
        torch.save(attack if how == "torch" else payload, path)
    torch_runs = pickle.loads if how == "pickle" else None
    for load in (load_model_file, load_plain):
        with pytest.raises(DataError, match="not a file of tensors and plain values") as caught:
            load(path)
        assert caught.value.where == str(path)
        assert not target.exists()
    # the attack is a real one: an ordinary load runs it
    if torch_runs:
        torch_runs(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert target.exists()


def test_a_newer_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    make(format_version=FORMAT_VERSION + 1).save(tmp_path / "a.pt")
    with pytest.raises(DataError, match=rf"version {FORMAT_VERSION + 1} is newer") as caught:
        load_model_file(tmp_path / "a.pt")
    assert caught.value.remedy == "upgrade mlff-cli"
    make(format_version=0).save(tmp_path / "b.pt")
    with pytest.raises(DataError, match="version 0 was never written"):
        load_model_file(tmp_path / "b.pt")


def test_unknown_entries_of_a_superset_are_left_out(tmp_path: Path) -> None:
    torch.save(vars(make()) | {"more": 1}, tmp_path / "a.pt")
    assert not hasattr(load_model_file(tmp_path / "a.pt"), "more")


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        ({"model": {"w": torch.ones(2)}}, "not a model file of mlff"),
        ({"weights": {}}, "not a model file of mlff"),
        ({"format_version": 1}, "not a model file of mlff"),
        ({"format_version": 1, "weights": {}}, r"lacks \['architecture', 'config', 'family'"),
        ([1, 2], "a dict is needed, found a list"),
        (torch.ones(3), "a dict is needed, found a Tensor"),
    ],
)
def test_other_payloads_are_refused(tmp_path: Path, payload: Any, rule: str) -> None:
    torch.save(payload, tmp_path / "a.pt")
    with pytest.raises(DataError, match=rule) as caught:
        load_model_file(tmp_path / "a.pt")
    assert caught.value.where == str(tmp_path / "a.pt")


def test_a_bare_state_dict_loads_as_plain_and_is_refused_as_a_model(tmp_path: Path) -> None:
    weights = torch.nn.Linear(3, 2).state_dict()
    torch.save({"model": weights}, tmp_path / "a.pt")
    assert equal(dict(load_plain(tmp_path / "a.pt")["model"]), dict(weights))
    with pytest.raises(DataError, match="--model and --sae"):
        load_model_file(tmp_path / "a.pt")


def test_a_compiled_model_is_told_apart(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(3, 2)).save(tmp_path / "a.jpt")
    with pytest.raises(DataError, match="compiled model, the trained one is needed"):
        load_model_file(tmp_path / "a.jpt")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent\.pt: the model file does not exist"):
        load_model_file(tmp_path / "absent.pt")


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\0" * 99]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_model_file(tmp_path / "a.pt")
    assert caught.value.where == str(tmp_path / "a.pt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "a.pt"
    make().save(path)
    return path.read_bytes()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, saved: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    place = data.draw(st.integers(0, len(saved) - 1))
    damaged = bytearray(saved)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    with contextlib.suppress(DataError):
        loaded = load_model_file(path)
        model = make()
        assert all(equal(getattr(model, n), getattr(loaded, n)) for n in vars(model))


@FAST
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, saved: bytes, share: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "truncated.pt"
    path.write_bytes(saved[: int(len(saved) * share)])
    with pytest.raises(DataError) as caught:
        load_model_file(path)
    assert caught.value.where == str(path)


def test_molecules_of_beads_are_kept_and_checked(tmp_path: Path) -> None:
    plain = {"name": "a", "types": ["ALA"], "start": [[0.0, 1.0, 2.0]]}
    file = make(family="coarse-grained", molecules=[plain])
    file.save(tmp_path / "m.pt")
    assert load_model_file(tmp_path / "m.pt").molecules == [plain]
    make(molecules=[3]).save(tmp_path / "wrong.pt")
    with pytest.raises(DataError, match="'molecules' make no sense"):
        load_model_file(tmp_path / "wrong.pt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("architecture", [1]),
        ("molecules", 5),
        ("weights", 1),
        ("family", 2),
        ("fidelities", [1]),
        ("sae", []),
        ("units", "eV"),
        ("provenance", None),
    ],
)
def test_values_of_another_kind_are_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "wrong.pt"
    good = make()
    torch.save(
        {f.name: getattr(good, f.name) for f in dataclasses.fields(good)} | {name: value}, path
    )
    with pytest.raises(DataError, match=f"the model file's '{name}' make no sense") as caught:
        load_model_file(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy == "make the file again"
