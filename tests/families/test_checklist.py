"""Every finding of the checklist, on data where it is good and on data where it is not."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mlff_cli.core.checks import Check, check_table, first_error
from mlff_cli.core.errors import ConfigError, DataError, MissingDependencyError, MLFFError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.batch_survey import survey
from mlff_cli.data.fidelities import open_fidelities
from mlff_cli.data.sae import write_sae
from mlff_cli.families import checklist as generic
from mlff_cli.families.base import Inputs, Prepared
from mlff_cli.families.checklist import check_memory, check_packages, check_time, checklist
from mlff_cli.families.configure import configure
from mlff_cli.families.multifidelity_checklist import DataInspection, check_overlap, diagnose
from mlff_cli.training.distributed import World
from mlff_cli.training.fit import build_stepper
from mlff_cli.training.step import Stepper
from tests.synthetic import self_energy, write_dataset
from tests.tiny_training import tiny_overrides, write_fidelities

CPU = torch.device("cpu")
SAMPLER = "data.samplers.train.kwargs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def overrides(folder: Path) -> tuple[str, ...]:
    return tiny_overrides(folder)


def inspect(overrides: Sequence[str], *more: str) -> DataInspection:
    _, settings = configure("default", [], [*overrides, *more], "model")
    return DataInspection(settings, open_fidelities(settings.data, settings.seed))


def found(overrides: Sequence[str], *more: str) -> dict[str, Check]:
    return {c.name: c for c in inspect(overrides, *more).checks()}


def ready(overrides: Sequence[str], *more: str) -> tuple[Prepared, Stepper, object]:
    family, settings = configure("default", [], [*overrides, *more], "model")
    inputs = Inputs(None, None, CPU, torch.float32, "test", World(), split_seed=0)
    prepared = family.prepare(settings, inputs, NullReporter())
    inspection = DataInspection(settings, open_fidelities(settings.data, settings.seed))
    prepared = dataclasses.replace(prepared, inspection=inspection)
    return prepared, build_stepper(prepared.task, settings, World()), settings


def test_good_data_pass(overrides: tuple[str, ...]) -> None:
    checks = found(overrides)
    assert {c.verdict for c in checks.values()} == {"ok"}
    assert checks["data 1"].finding.startswith("fid1.h5: 40 molecules of 3 to 7 atoms; energy 40")
    assert checks["SAE 2"].finding == "sae2.yaml covers H, C, N, O"
    assert "200, at least 119; elements of 3 fidelities take numbers up to 518" in (
        checks["fidelity_offset"].finding
    )
    assert "no molecule in common (by molecule name)" in checks["validation"].finding
    assert "6 per epoch of 8 molecules" in checks["batches"].finding


def test_atomic_energies_of_another_fidelity_are_found(
    folder: Path, overrides: tuple[str, ...]
) -> None:
    write_sae(folder / "xtb.yaml", {z: float(self_energy(z)) / 20 for z in (1, 6, 7, 8, 9)})
    check = found(overrides, f"data.sae.energy.files.1={folder / 'xtb.yaml'}")
    assert check["SAE 1"].finding.endswith("; F not in the data")
    wrong = check["SAE fit 1"]
    assert wrong.verdict == "warning"
    assert "sae0.yaml of fidelity 0" in wrong.finding
    assert "data.sae.energy.files.1=" in str(wrong.remedy)
    every = [f"data.sae.energy.files.{k}={folder / 'xtb.yaml'}" for k in range(3)]
    alone = found(overrides, *every)["SAE fit 0"]
    assert "eV per atom is no binding energy" in alone.finding
    assert "mlff calc-sae" in str(alone.remedy)


def test_a_loss_without_labels_is_told(overrides: tuple[str, ...]) -> None:
    y = "data.y=[energy,forces,charges,spin_charges,dipole]"
    check = found(overrides, y, "loss.kwargs.components.dipole={weight: 1.0}")["labels"]
    assert check.verdict == "warning"
    assert "no file has dipole" in check.finding


def test_charges_that_are_not_in_the_file_are_named(tmp_path: Path) -> None:
    import h5py

    given = write_fidelities(tmp_path, sizes=(24,))
    with h5py.File(tmp_path / "fid0.h5", "r+") as file:
        for group in file.values():
            del group["mult"]
    assert "without mult (mult as 1)" in found(given)["data 0"].finding


def test_molecules_of_training_and_validation_are_compared(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    check = found(overrides, "data.separate_val=false")["validation"]
    assert check.verdict == "warning"
    own = inspect(overrides).fidelities
    held = {(k, int(i)) for k, rows in enumerate(own.split.validation) for i in rows}
    assert f"{len({_name(own.train[k], i) for k, i in held})} molecules in common" in check.finding
    # the same geometries under other names
    write_fidelities(tmp_path, sizes=(24,))
    renamed = tmp_path / "renamed.h5"
    _rename(tmp_path / "fid0.h5", renamed)
    given = write_fidelities(tmp_path, sizes=(24,))
    leaking = found(given, f"data.val_fidelity_datasets={{0: {renamed}}}")["validation"]
    assert leaking.verdict == "warning"
    assert "no molecule in common (by molecule name), but 24 geometries are" in leaking.finding


def _name(data: object, i: int) -> str:
    group, row = data.locate(np.array([i]))  # type: ignore[attr-defined]
    return str(data.groups[int(group[0])].read("molecule")[int(row[0])])  # type: ignore[attr-defined]


def _rename(source: Path, target: Path) -> None:
    import shutil

    import h5py

    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        for group in file.values():
            group["molecule"][...] = [b"other " + name for name in group["molecule"][...]]


def test_padding_shares_and_heavy_batches_are_those_of_the_epoch(
    overrides: tuple[str, ...],
) -> None:
    weights = "data.fidelity_weights={0: 1.0, 1: 0.0, 2: 3.0}"
    own = inspect(overrides, weights)
    task = ready(overrides, weights)[0].task
    steps = [task.train_batch(step) for step in range(task.epoch_length)]
    padded = sum(p.tensors["numbers"].numel() for parts in steps for p in parts)
    atoms = sum(int(p.tensors["n_atoms"].sum()) for parts in steps for p in parts)
    assert own.survey.padding == pytest.approx(1 - atoms / padded)
    assert own.survey.atoms.sum() == atoms
    assert own.survey.drawn.tolist() == [12, 0, 36]
    most = max(parts[0].tensors["numbers"].numel() for parts in steps)
    assert most in {steps[s][0].tensors["numbers"].numel() for s in own.heavy_steps()}
    share = {c.name: c for c in own.checks()}["fidelity weights"]
    assert share.verdict == "warning"
    assert "asked 25.0 / 0.0 / 75.0 %, drawn 25.0 / 0.0 / 75.0 %" in share.finding
    split = inspect(overrides, f"{SAMPLER}.split=4")
    assert survey(split.fidelities, 4).padding < own.survey.padding


def test_what_stands_in_the_way_is_found_file_by_file(
    folder: Path, overrides: tuple[str, ...]
) -> None:
    (folder / "h_only.yaml").write_text("1: -13.6\n")
    given = (
        *overrides,
        f"data.sae.energy.files.0={folder / 'h_only.yaml'}",
        "data.fidelity_datasets.1=nowhere.h5",
        f"data.sae.energy.files.2={folder / 'fid0.h5'}",
    )
    _, settings = configure("default", [], given, "model")
    with pytest.raises(MLFFError) as caught:
        open_fidelities(settings.data, 0)
    checks = {c.name: c for c in diagnose(settings, caught.value)}
    assert [n for n, c in checks.items() if c.verdict == "failed"] == ["SAE 0", "data 1", "SAE 2"]
    assert "no self-atomic energy for C, N, O" in checks["SAE 0"].finding
    assert checks["data 2"].verdict == "ok"
    assert first_error(list(checks.values())) is not None
    other = ConfigError("something else")
    assert diagnose(settings, other)[-1].error is other


def test_a_check_as_plain_values_and_as_a_table() -> None:
    failed = Check.failed("SAE 0", DataError("no C", where="a.yaml", remedy="mend it"))
    good = Check("device", "cpu", remedy="not shown")
    assert failed.plain() == {
        "check": "SAE 0",
        "finding": "a.yaml: no C",
        "verdict": "failed",
        "remedy": "mend it",
        "exit_code": 3,
    }
    table = check_table("checklist", [good, failed])
    assert table.rows[1] == ["SAE 0", "a.yaml: no C", "failed"]
    assert table.notes == ["SAE 0: mend it"]
    assert first_error([good]) is None


def test_the_whole_list_leaves_the_model_as_it_was(overrides: tuple[str, ...]) -> None:
    prepared, stepper, settings = ready(overrides, "trainer.ema_decay=0.99", "trainer.accumulate=2")
    before = {k: v.clone() for k, v in prepared.task.model.state_dict().items()}
    state = torch.get_rng_state()
    checks = {c.name: c for c in checklist(prepared, stepper, settings)}  # type: ignore[arg-type]
    assert {c.verdict for c in checks.values()} == {"ok"}
    assert {"device", "packages", "parameters", "memory", "time"} <= set(checks)
    assert f"torch {importlib.metadata.version('torch')}" in checks["packages"].finding
    assert "average" in checks["memory"].finding
    assert torch.equal(torch.get_rng_state(), state)
    assert not stepper.optimizer.state
    after = prepared.task.model.state_dict()
    assert all(torch.equal(before[k], v) for k, v in after.items())
    assert all(p.grad is None for p in prepared.task.model.parameters())


def test_frozen_parameters_are_counted(overrides: tuple[str, ...]) -> None:
    prepared, stepper, _ = ready(overrides, "optimizer.force_no_train=['afv.weight']")
    frozen = prepared.task.model.afv.weight.numel()  # type: ignore[union-attr, operator]
    assert f", {frozen} of them frozen" in generic.check_parameters(stepper.task).finding


@pytest.mark.parametrize(("part", "verdict"), [(1.1, "warning"), (0.5, "failed")])
def test_a_step_that_does_not_fit_says_which_would(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, part: float, verdict: str
) -> None:
    _, stepper, settings = ready(overrides, f"{SAMPLER}.batch_size=64")
    monkeypatch.setattr(generic, "free_memory", lambda device: 1 << 40)
    roomy = check_memory(stepper, settings, [0])  # type: ignore[arg-type]
    assert roomy.verdict == "ok"
    need = generic.StepMemory(stepper.task, stepper.optimizer).of(stepper.task.train_batch(0))
    monkeypatch.setattr(generic, "free_memory", lambda device: int(part * need.total))
    check = check_memory(stepper, settings, [0])  # type: ignore[arg-type]
    assert check.verdict == verdict
    if verdict == "failed":
        assert isinstance(check.error, MissingDependencyError)
        assert check.error.exit_code == 4
    else:
        assert f"{SAMPLER}.batch_size=" in str(check.remedy)


def test_packages_that_are_asked_for_are_looked_for(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, settings = ready(overrides)
    wanted = settings.model_copy(deep=True)  # type: ignore[attr-defined]
    wanted.tensorboard = True
    wanted.trainer.compile = True
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    checks = check_packages(wanted)
    assert [(c.name, c.verdict) for c in checks] == [
        ("packages", "ok"),
        ("trackers", "failed"),
        ("compiler", "failed"),
    ]
    assert all(c.error.exit_code == 4 for c in checks if c.error)
    assert "mlff-cli[track]" in str(checks[1].remedy)
    assert len(check_packages(settings)) == 1  # type: ignore[arg-type]


def test_time_goes_with_the_epochs(overrides: tuple[str, ...]) -> None:
    _, stepper, settings = ready(overrides)
    text = check_time(stepper, settings).finding  # type: ignore[arg-type]
    assert "for 3 epochs without validation (from 8 molecules)" in text


def test_overlap_counts_across_fidelities(tmp_path: Path) -> None:
    """A molecule that is validated at one fidelity and trained on at another is in common."""
    own = inspect(write_fidelities(tmp_path, sizes=(24, 40))).fidelities
    trained = [own.split.train[0], np.arange(len(own.train[1]))]
    assert check_overlap(own, trained).verdict == "warning"
    assert check_overlap(own, list(own.split.train)).verdict == "ok"


def test_a_data_set_without_any_label_is_refused_with_its_file(tmp_path: Path) -> None:
    write_dataset(tmp_path / "bare.h5", 6, labels=())
    given = (f"data.fidelity_datasets.0={tmp_path / 'bare.h5'}", "data.sae.energy.files.0=no.yaml")
    _, settings = configure("default", [], given, "model")
    checks = diagnose(settings, DataError("whatever"))
    assert [c.verdict for c in checks] == ["failed"] * 3
    assert "none of the labels" in checks[1].finding
