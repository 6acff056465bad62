"""`mlff train` from files to a model file: repeatable, resumable, and clear about bad input."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
from pathlib import Path

import h5py
import pytest
import torch
import yaml

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import (
    ConfigError,
    DataError,
    InterruptedRunError,
    MLFFError,
    NumericalError,
    UsageError,
)
from mlff_cli.core.reporting import NullProgress, NullReporter
from mlff_cli.data.model_file import load_model_file
from mlff_cli.potentials.aimnet2.interop import seed_state
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.stages.train import Options, run
from mlff_cli.training.run_log import read_rows
from tests.synthetic import write_dataset
from tests.tiny_disk import run_on_tiny_disk
from tests.tiny_training import TINY_MODEL, tiny_overrides, write_fidelities

SEED = Path(__file__).parents[1] / "families" / "seed_train.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def overrides(folder: Path) -> tuple[str, ...]:
    return tiny_overrides(folder)


@pytest.fixture(scope="module")
def trained(folder: Path, overrides: tuple[str, ...]) -> Path:
    save = folder / "first" / "model.pt"
    run(Options(save=save, overrides=overrides))
    return save


class StopAt(NullReporter):
    """Sends SIGTERM to this process when the bar has moved `step` times."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def progress(self, total: int | None, description: str, unit: str = "") -> NullProgress:
        reporter = self

        class Bar(NullProgress):
            def advance(self, n: int = 1, **fields: object) -> None:
                reporter.step -= n
                if reporter.step == 0:
                    os.kill(os.getpid(), signal.SIGTERM)

        return Bar()


class Listening(NullReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


def test_a_run_leaves_a_model_that_describes_itself(trained: Path, overrides: object) -> None:
    model = load_model_file(trained)
    assert [f["level_of_theory"] for f in model.fidelities] == [f"synthetic-{k}" for k in range(3)]
    assert model.fidelities[2]["labels"].keys() == {"energy"}
    assert model.species == [1, 6, 7, 8]
    assert set(model.sae) == {0, 1, 2}
    assert isinstance(model.sae[0][6], float)
    assert model.sae[0][6] == pytest.approx(-13.6 * 6**2.4, abs=1e-8)
    assert model.architecture["num_fidelities"] == 3
    assert len(model.provenance["inputs"]) == 6
    folder = trained.with_suffix(".run")
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.yaml", "metrics.csv", "metrics.jsonl", "train.log", "checkpoints",
        "loss_curves.png", "split.npz",
    }  # fmt: skip
    best = sorted((folder / "checkpoints").glob("best_*.pt"))
    assert 1 <= len(best) <= 3
    losses = {p: float(load_model_file(p).training["val_loss"]) for p in best}
    winner = load_model_file(min(losses, key=lambda p: losses[p]))
    assert all(torch.equal(winner.weights[k], v) for k, v in model.weights.items())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["trainer"]["epochs"] == 3


def test_the_log_has_losses_errors_per_fidelity_and_units(trained: Path) -> None:
    folder = trained.with_suffix(".run")
    rows = read_rows(folder / "metrics.jsonl")
    assert [r["step"] for r in rows] == [6, 12, 18]
    assert rows[-1]["val/loss"] < rows[0]["val/loss"]
    for name in ("train/loss", "train/energy_loss", "val/fid0/E_rmse", "val/fid1/q_mae", "lr_0"):
        assert all(name in row for row in rows)
    assert "val/fid2/F_rmse" not in rows[0]
    parts = [v for k, v in rows[0].items() if k.startswith("val/") and k.endswith("_loss")]
    assert sum(parts) == pytest.approx(rows[0]["val/loss"])
    with (folder / "metrics.csv").open() as stream:
        header = next(csv.reader(stream))
    assert "val/fid0/E_rmse [kcal/mol]" in header
    assert "val/F_mae [kcal/mol/A]" in header


def test_the_same_inputs_and_seed_give_the_same_bytes(
    trained: Path, folder: Path, overrides: tuple[str, ...]
) -> None:
    again = folder / "again" / "model.pt"
    run(Options(save=again, overrides=overrides))
    assert again.read_bytes() == trained.read_bytes()
    other = folder / "other" / "model.pt"
    run(Options(save=other, overrides=overrides, seed=1))
    a, b = (load_model_file(p).weights["afv.weight"] for p in (trained, other))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("step", [6, 9])
def test_a_stopped_run_continues_as_if_never_stopped(
    trained: Path, tmp_path: Path, overrides: tuple[str, ...], step: int
) -> None:
    options = Options(save=tmp_path / "model.pt", overrides=overrides)
    with pytest.raises(InterruptedRunError) as caught:
        run(options, StopAt(step))
    assert caught.value.exit_code == 75
    assert f"stopped at step {step} of 18" in str(caught.value)
    assert not options.save.exists()
    run(options)
    assert options.save.read_bytes() == trained.read_bytes()
    rows, expected = (
        read_rows(p.with_suffix(".run") / "metrics.jsonl") for p in (options.save, trained)
    )
    assert rows == expected


def test_force_continues_what_is_unfinished_and_replaces_the_rest(
    trained: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """Makefiles always pass --force; a stopped training must not begin again for that."""
    options = Options(save=tmp_path / "model.pt", overrides=overrides, force=True)
    options.save.write_bytes(b"an older model")
    with pytest.raises(InterruptedRunError):
        run(options, StopAt(9))
    told = Listening()
    run(options, told)
    assert any("continuing at step 9" in line for line in told.lines)
    assert options.save.read_bytes() == trained.read_bytes()
    told = Listening()
    run(dataclasses.replace(options, overrides=(*overrides, "trainer.epochs=1")), told)
    assert not any("continuing" in line for line in told.lines)
    assert options.save.read_bytes() != trained.read_bytes()


def test_an_unfinished_run_refuses_other_settings(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    options = Options(save=tmp_path / "model.pt", overrides=overrides)
    with pytest.raises(InterruptedRunError):
        run(options, StopAt(2))
    changed = dataclasses.replace(options, overrides=(*overrides, "optimizer.kwargs.lr=3e-3"))
    with pytest.raises(ConfigError, match=r"optimizer\.kwargs\.lr: 0\.002 -> 0\.003"):
        run(changed)
    run(dataclasses.replace(changed, resume="never"))
    assert load_model_file(options.save).config["optimizer"]["kwargs"]["lr"] == 3e-3


def test_a_model_may_not_take_its_run_folder_s_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="suffix of run folders"):
        run(Options(save=tmp_path / "model.run"))


def test_a_finished_model_needs_force(trained: Path, overrides: tuple[str, ...]) -> None:
    before = trained.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        run(Options(save=trained, overrides=overrides))
    run(Options(save=trained, overrides=overrides, force=True))
    assert trained.read_bytes() == before


def test_a_dry_run_touches_nothing(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    summary = run(Options(save=tmp_path / "model.pt", overrides=overrides, dry_run=True))
    assert summary.data["plan"]["batches per epoch"] == "6"
    assert list(tmp_path.iterdir()) == []


def test_the_seed_s_configuration_trains(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    files = tuple(o for o in overrides if o.startswith("data.") and "samplers" not in o)
    options = Options(
        save=tmp_path / "model.pt",
        configs=(SEED,),
        overrides=(*files, *(o for o in TINY_MODEL), "wandb.init.mode=disabled"),
    )
    run(options)
    folder = options.save.with_suffix(".run")
    assert list((folder / "checkpoints").glob("model_best_*.pt"))
    assert [r["step"] for r in read_rows(folder / "metrics.jsonl")] == [2, 3, 4, 6]


def test_weights_start_a_training_of_more_fidelities(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    one = tuple(o for o in overrides if not o.startswith(("data.fidelity_datasets", "data.sae")))
    first = [o for o in overrides if ".0=" in o]
    single = tmp_path / "single.pt"
    run(Options(save=single, overrides=(*one, *first, "use_fidelity_readouts=false")))
    multi = tmp_path / "multi.pt"
    frozen = ("optimizer.force_no_train=['mlps.*','conv.*']", "trainer.epochs=1")
    run(Options(save=multi, load=single, overrides=(*overrides, *frozen)))
    origin = load_model_file(multi).provenance
    assert origin["inputs"][str(single)] == sha256(single)
    assert origin["command"].startswith(f"mlff train --load {single} data.fidelity_datasets.0=")
    a, b = load_model_file(single).weights, load_model_file(multi).weights
    for name, tensor in a.items():
        if name.startswith(("mlps", "conv")):
            assert torch.equal(tensor, b[name]), name
    assert b["afv.weight"].shape[0] == 3 * a["afv.weight"].shape[0]
    assert not torch.equal(a["afv.weight"], b["afv.weight"][: len(a["afv.weight"])])


def test_weights_of_aimnet2mult_continue_as_they_are(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    first, seed, second = (tmp_path / f"{name}.pt" for name in ("first", "seed", "second"))
    run(Options(save=first, overrides=overrides))
    trained = load_model_file(first)
    network = AIMNet2(AIMNet2Spec.model_validate(trained.architecture))
    weights = {  # their charge readouts are shared: only equal ones can be written
        k: v[:1].expand_as(v) if k.startswith("charge_readouts") else v
        for k, v in trained.weights.items()
    }
    network.load_state_dict(weights)
    torch.save({"model": seed_state(network)}, seed)
    still = ("optimizer.kwargs.lr=1e-30", "trainer.epochs=1", "scheduler.kwargs.start_value=1e-30",
             "scheduler.kwargs.end_value=1e-30")  # fmt: skip
    run(Options(save=second, load=seed, overrides=(*overrides, *still)))
    for name, tensor in load_model_file(second).weights.items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0, msg=name)


def test_foreign_weights_that_do_not_fit_name_their_file(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    path = tmp_path / "odd.pt"
    torch.save({"model": {"some.weight": torch.zeros(3)}}, path)
    with pytest.raises(ConfigError, match="odd.pt"):
        run(Options(save=tmp_path / "m.pt", load=path, overrides=overrides))


def test_a_loss_that_is_not_finite_names_the_molecules(tmp_path: Path) -> None:
    given = tiny_overrides(tmp_path)
    with h5py.File(tmp_path / "fid2.h5", "r+") as file:
        for group in file.values():
            group["energy"][:] = 1e200
    options = Options(save=tmp_path / "model.pt", overrides=given)
    with pytest.raises(NumericalError, match=r"step 1; the batch holds .*fidelity 2 group") as e:
        run(options)
    assert e.value.exit_code == 5
    assert not options.save.exists()


def test_a_validation_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    given = tiny_overrides(tmp_path)
    write_dataset(tmp_path / "val.h5", 4, seed=9, sizes=range(3, 8), parent_seed=6)
    with h5py.File(tmp_path / "val.h5", "r+") as file:
        for group in file.values():
            group["energy"][:] = 1e200
    files = f"data.val_fidelity_datasets={{0: {tmp_path / 'val.h5'}}}"
    options = Options(save=tmp_path / "model.pt", overrides=(*given, files))
    with pytest.raises(NumericalError, match="validation loss is inf after step 6"):
        run(options)
    assert not list(tmp_path.glob("**/*.pt"))


def test_the_run_folder_s_configuration_makes_the_same_model(
    trained: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    config = trained.with_suffix(".run") / "config.yaml"
    run(Options(save=tmp_path / "model.pt", configs=(config,)))
    again, first = load_model_file(tmp_path / "model.pt"), load_model_file(trained)
    assert again.config == first.config
    assert all(torch.equal(again.weights[k], v) for k, v in first.weights.items())


BAD: list[tuple[str, type[MLFFError], str]] = [
    ("data.fidelity_datasets.1=nowhere.h5", DataError, "nowhere.h5"),
    ("data.fidelity_datasets.1={dir}/fid0.h5", ConfigError, "same file"),
    ("data.fidelity_datasets.1={dir}/sae0.yaml", DataError, "not a readable HDF5"),
    ("data.sae.energy.files.1={dir}/fid0.h5", DataError, "fid0.h5"),
    ("data.sae.energy.files.1={dir}/h_only.yaml", DataError, "C, N, O at fidelity 1"),
    ("data.val_fraction=0", ConfigError, "between 0 and 1"),
    ("data.valfraction=0.1", ConfigError, "data.val_fraction"),
    ("trainer.epochs=many", ConfigError, "trainer.epochs"),
    ("optimizer.class=subprocess.Popen", ConfigError, "unknown name"),
    ("family=coarse", ConfigError, "family is one of"),
    ("data.y=[charges]", ConfigError, "data.y does not list"),
    ("data.samplers.val.kwargs.batches_per_epoch=5", ConfigError, "every molecule once"),
    ("data.samplers.val.kwargs.sampling_strategy=weighted", ConfigError, "sampling_strategy"),
    ("data.samplers.train.kwargs.batches_per_epoch=0", ConfigError, "-1 or null, found 0"),
    ("data.x=[coord,numbers,charge]", ConfigError, "the model reads coord"),
    ("metrics.kwargs.cfg.energy.peratom=true", ConfigError, "peratom is False"),
    ("metrics.kwargs.cfg.forces.mult=1", ConfigError, "mult is 3"),
]


@pytest.mark.parametrize(("override", "kind", "message"), BAD)
def test_bad_input_is_named_and_leaves_nothing(
    folder: Path,
    tmp_path: Path,
    overrides: tuple[str, ...],
    override: str,
    kind: type[MLFFError],
    message: str,
) -> None:
    (folder / "h_only.yaml").write_text("1: -13.6\n")
    given = (*overrides, override.format(dir=folder))
    with pytest.raises(kind) as caught:
        run(Options(save=tmp_path / "model.pt", overrides=given))
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_labels_may_be_missing_molecule_by_molecule(tmp_path: Path) -> None:
    write_fidelities(tmp_path, missing=0.5)
    given = tiny_overrides(tmp_path, missing=0.5)
    run(Options(save=tmp_path / "model.pt", overrides=(*given, "trainer.epochs=1")))
    counts = load_model_file(tmp_path / "model.pt").fidelities[1]["labels"]
    assert 0 < counts["energy"] < 40


FULL_DISK = """
import sys
from pathlib import Path
from mlff_cli.core.errors import MLFFError
from mlff_cli.stages.train import Options, run
folder = Path(sys.argv[1])
try:
    run(Options(save=folder / "model.pt", overrides={overrides!r}))
except MLFFError as error:
    print(error.exit_code, error)
print(sorted(p.name for p in folder.rglob("*.pt")))
"""


def test_a_full_disk_is_named_and_leaves_no_half_files(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    code = FULL_DISK.format(overrides=overrides)
    result = run_on_tiny_disk(tmp_path, code, size="32k")
    assert result.stdout.startswith("3 "), result.stderr
    assert "No space left" in result.stdout
    assert str(tmp_path) in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
