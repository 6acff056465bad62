"""`mlff calc-sae` from file to file: laws, rare elements, bad input, nothing left behind."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.core.reporting import NullProgress, NullReporter
from mlff_cli.data import compositions
from mlff_cli.data.grouped_writer import GroupedHDF5Writer
from mlff_cli.data.sae import read_sae
from mlff_cli.stages.calc_sae import Options, run
from tests.dask_commands import local_cluster
from tests.synthetic import self_energy, write_dataset, write_large

Change = Callable[[h5py.File], None]


def write(path: Path, numbers: list[list[int]], energy: list[float]) -> Path:
    """A file of the given molecules."""
    with GroupedHDF5Writer(path, force=True) as writer:
        for z, e in zip(numbers, energy, strict=True):
            coord = np.arange(3.0 * len(z)).reshape(1, -1, 3)
            arrays = {"coord": coord, "numbers": np.array([z]), "energy": np.array([e])}
            writer.append(len(z), arrays)
    return path


def test_recovers_the_generator(tmp_path: Path) -> None:
    data = write_large(tmp_path / "d.h5", 20_000)
    summary = run(data, tmp_path / "sae.yaml")
    sae = read_sae(tmp_path / "sae.yaml")
    assert sorted(sae) == [1, 6, 7, 8, 9, 15, 16, 17, 35, 53]
    for row in summary.data["elements"]:
        assert abs(row["sae_ev"] - self_energy(row["z"])) < 5 * row["uncertainty_ev"]
        assert sae[row["z"]] == pytest.approx(row["sae_ev"], abs=1e-9)
    assert summary.data["molecules"]["fitted"] == 19_200
    assert summary.data["rmse_fitted_ev"] == pytest.approx(0.2, abs=0.02)
    assert summary.data["solution"] == "unique"
    json.dumps(summary.data, allow_nan=False)
    assert len(summary.tables[0].rows) == 10


def test_residuals_are_interaction_energies(tmp_path: Path) -> None:
    """With self-atomic energies 1e4 times larger than the interaction, only that remains."""
    data = write_dataset(tmp_path / "d.h5", 600)
    summary = run(data, tmp_path / "sae.yaml")
    assert summary.data["rmse_all_ev"] < 10


@pytest.mark.parametrize("samples", [None, 150])
def test_same_bytes_for_the_same_input(tmp_path: Path, samples: int | None) -> None:
    data = write_dataset(tmp_path / "d.h5", 400)
    options = Options(samples=samples, seed=3)
    run(data, tmp_path / "a.yaml", options)
    run(data, tmp_path / "b.yaml", options)
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster() as found:
        yield found


@pytest.mark.parametrize("samples", [None, 150])
def test_same_bytes_whoever_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, samples: int | None
) -> None:
    monkeypatch.setattr(compositions, "BLOCK_MOLECULES", 9)
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere, and the path is relative
    write_dataset(tmp_path / "d.h5", 400, missing=0.1)
    crews = {"here": {}, "two": {"workers": 2}, "cluster": {"scheduler": scheduler}}
    for name, options in crews.items():
        run("d.h5", tmp_path / name, Options(samples, seed=3, **options))  # type: ignore[arg-type]
    assert (tmp_path / "two").read_bytes() == (tmp_path / "here").read_bytes()
    assert (tmp_path / "cluster").read_bytes() == (tmp_path / "here").read_bytes()


def test_a_worker_s_error_is_this_command_s(tmp_path: Path, scheduler: str) -> None:
    data = write_dataset(tmp_path / "d.h5", 200, sizes=(3, 4), n_parents=20)
    with h5py.File(data, "r+") as file:
        _set("numbers", (2, 1), 0)(file)
    for options in (Options(workers=2), Options(scheduler=scheduler)):
        with pytest.raises(DataError, match="found 0") as caught:
            run(data, tmp_path / "sae.yaml", options)
        assert caught.value.where == f"{data}, group 003, molecule 2"
    assert list(tmp_path.iterdir()) == [data]


def test_the_seed_moves_a_sample_within_its_uncertainty(tmp_path: Path) -> None:
    data = write_large(tmp_path / "d.h5", 20_000, elements=(1, 6, 8))
    found = []
    for seed in (0, 1):
        options = Options(samples=2000, seed=seed, force=True)
        found.append(run(data, tmp_path / "sae.yaml", options).data)
    assert found[0]["sae"] != found[1]["sae"]
    assert found[0]["molecules"]["used"] == 2000
    assert found[0]["molecules"]["labelled"] == 20_000
    for a, b in zip(found[0]["elements"], found[1]["elements"], strict=True):
        assert abs(a["sae_ev"] - b["sae_ev"]) < 5 * np.hypot(
            a["uncertainty_ev"], b["uncertainty_ev"]
        )


def test_a_sample_as_large_as_the_file_is_the_file(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.h5", 200, missing=0.5)
    whole = run(data, tmp_path / "a.yaml").data
    for samples in (whole["molecules"]["labelled"], 200, 10**9):
        part = run(data, tmp_path / "b.yaml", Options(samples=samples, force=True)).data
        assert part["sae"] == whole["sae"]


def test_rare_elements_enter_every_sample(tmp_path: Path) -> None:
    """One gold and one xenon molecule among 500: a sample of 20 would miss them."""
    rng = np.random.default_rng(0)
    numbers = [rng.choice([1, 6, 8], size=5).tolist() for _ in range(500)]
    numbers[123], numbers[321] = [79, 1, 1], [54, 6]
    energy = [float(self_energy(np.array(z)).sum() + 0.01 * rng.normal()) for z in numbers]
    data = write(tmp_path / "d.h5", numbers, energy)
    for seed in range(5):
        reporter = NullReporter()
        options = Options(samples=20, seed=seed, force=True)
        summary = run(data, tmp_path / "sae.yaml", options, reporter)
        assert sorted(read_sae(tmp_path / "sae.yaml")) == [1, 6, 8, 54, 79]
        assert set(summary.data["elements_added_to_sample"]) <= {54, 79}
        assert summary.data["sae"]["79"] == pytest.approx(self_energy(79), abs=1.0)
    assert any("added to the sample" in w for w in reporter.warnings)


def test_rank_deficiency_is_named_everywhere(tmp_path: Path) -> None:
    data = write(tmp_path / "d.h5", [[1, 1, 8], [1, 1, 8, 1, 1, 8], [6, 6], [6]], [-1, -2, -4, -2])
    reporter = NullReporter()
    summary = run(data, tmp_path / "sae.yaml", Options(), reporter)
    text = (tmp_path / "sae.yaml").read_text()
    for place in (reporter.warnings[-1], summary.tables[0].notes[0], text):
        assert "H and O cannot be told apart" in place
        assert "minimum-norm" in place
    assert summary.data["solution"] == "minimum-norm"
    assert summary.data["rank"] == 2
    assert summary.data["rank_deficient"][0]["elements"] == [1, 8]
    sae = read_sae(tmp_path / "sae.yaml")
    assert sae == pytest.approx({1: -0.4, 6: -2, 8: -0.2})


def test_missing_labels_are_skipped_and_counted(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.h5", 300, missing=0.3)
    with h5py.File(data) as file:
        missing = sum(int(np.isnan(g["energy"][:]).sum()) for g in file.values())
    counts = run(data, tmp_path / "sae.yaml").data["molecules"]
    assert missing > 50
    assert counts["without_energy"] == missing
    assert counts["labelled"] == counts["used"] == 300 - missing


def test_float32_energies_warn(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.h5", 100)
    with h5py.File(data, "r+") as file:
        for group in file.values():
            values = group["energy"][:].astype("float32")
            del group["energy"]
            group["energy"] = values
    reporter = NullReporter()
    run(data, tmp_path / "sae.yaml", Options(), reporter)
    assert any("float32" in w and "1 meV" in w for w in reporter.warnings)


def _set(name: str, index: tuple[int, ...], value: float) -> Change:
    def change(file: h5py.File) -> None:
        group = file[sorted(file)[0]]
        group[name][index] = value

    return change


def _drop(name: str) -> Change:
    def change(file: h5py.File) -> None:
        for group in file.values():
            del group[name]

    return change


def _all_nan(file: h5py.File) -> None:
    for group in file.values():
        group["energy"][:] = np.nan


def _shorten(file: h5py.File) -> None:
    group = file[sorted(file)[0]]
    values = group["energy"][:-1]
    del group["energy"]
    group["energy"] = values


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("numbers", (2, 1), 0), ["group 003, molecule 2", "found 0"]),
        (_set("numbers", (1, 0), 119), ["group 003, molecule 1", "found 119"]),
        (_set("numbers", (1, 0), 206), ["found 206", "without fidelity offset"]),
        (_set("energy", (1,), np.inf), ["group 003, molecule 1", "finite"]),
        (_drop("energy"), ["none of 200 molecules"]),
        (_all_nan, ["none of 200 molecules"]),
        (_drop("coord"), ["'coord'"]),
        (_shorten, ["group 003", "shape"]),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    tmp_path: Path, change: Change, says: list[str]
) -> None:
    data = write_dataset(tmp_path / "d.h5", 200, sizes=(3, 4), n_parents=20)
    with h5py.File(data, "r+") as file:
        change(file)
    with pytest.raises(DataError) as caught:
        run(data, tmp_path / "sae.yaml")
    assert caught.value.exit_code == 3
    assert caught.value.remedy
    for part in (str(data), *says):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == [data]


def test_files_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        run(tmp_path / "absent.h5", tmp_path / "sae.yaml")
    for text in ("", "not HDF5"):
        (tmp_path / "d.h5").write_text(text)
        with pytest.raises(DataError, match="HDF5"):
            run(tmp_path / "d.h5", tmp_path / "sae.yaml")
    assert not (tmp_path / "sae.yaml").exists()


@pytest.mark.parametrize(
    "options",
    [
        Options(percentiles=(98, 2)),
        Options(percentiles=(-1, 98)),
        Options(percentiles=(2, 101)),
        Options(percentiles=(float("nan"), 98)),
        Options(samples=0),
        Options(workers=-1),
        Options(workers=2, scheduler="tcp://127.0.0.1:8786"),
    ],
)
def test_impossible_options(tmp_path: Path, options: Options) -> None:
    data = write_dataset(tmp_path / "d.h5", 20)
    with pytest.raises(UsageError):
        run(data, tmp_path / "sae.yaml", options)


def test_existing_output_needs_force(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.h5", 50)
    (tmp_path / "sae.yaml").write_text("precious")
    with pytest.raises(UsageError, match="--force"):
        run(data, tmp_path / "sae.yaml")
    assert (tmp_path / "sae.yaml").read_text() == "precious"
    run(data, tmp_path / "sae.yaml", Options(force=True))
    assert read_sae(tmp_path / "sae.yaml")


def test_dry_run_touches_nothing(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.h5", 50)
    summary = run(data, tmp_path / "sae.yaml", Options(dry_run=True))
    assert summary.data["molecules"] == 50
    assert list(tmp_path.iterdir()) == [data]


class _Interrupting(NullReporter):
    """Ctrl-C when the given pass begins."""

    def __init__(self, description: str) -> None:
        super().__init__()
        self._description = description

    def progress(self, total: int | None, description: str, unit: str = "") -> NullProgress:
        if description == self._description:
            raise KeyboardInterrupt
        return super().progress(total, description, unit)


@pytest.mark.parametrize("at", ["fit", "residuals", "fit without outliers", "errors"])
def test_interruption_leaves_nothing(tmp_path: Path, at: str) -> None:
    data = write_dataset(tmp_path / "d.h5", 100)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "sae.yaml", Options(), _Interrupting(at))
    assert list(tmp_path.iterdir()) == [data]


def test_torch_is_not_imported() -> None:
    code = "import sys, mlff_cli.stages.calc_sae; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
