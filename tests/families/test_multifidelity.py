"""The recipe reads the seed's configuration and refuses what contradicts itself."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from mlff_cli.core.config import load_config
from mlff_cli.core.errors import ConfigError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.fidelities import fidelity_paths
from mlff_cli.data.settings import DataSection
from mlff_cli.families.base import Inputs
from mlff_cli.families.multifidelity import MultiFidelity
from mlff_cli.families.multifidelity_model import architecture
from mlff_cli.families.multifidelity_settings import MultifidelitySettings
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.training.distributed import World
from tests.tiny_training import tiny_overrides

SEED = Path(__file__).with_name("seed_train.yaml")
NAMES = ["run_name=r", "project_name=p"]
PLATEAU = [
    "scheduler.class=ignite.handlers.param_scheduler.ReduceLROnPlateauScheduler",
    "scheduler.kwargs={metric_name: val_loss, factor: 0.9, patience: 2}",
]


def settings(*overrides: str) -> MultifidelitySettings:
    return load_config([], overrides, MultifidelitySettings).model


def test_every_fragment_of_the_seed_validates() -> None:
    loaded = load_config([SEED], NAMES, MultifidelitySettings).model
    sampler = loaded.data.samplers.train.kwargs
    assert (sampler.batch_mode, sampler.batch_size) == ("molecules", 32)
    assert sampler.batches_per_epoch == 3
    assert loaded.data.fidelity_weights == {0: 3.0, 1: 1.0, 2: 0.5}
    assert loaded.checkpoint.filename_prefix == "r"
    assert loaded.frequency("val", 100) == 2
    assert loaded.frequency("train", 100) == 500
    assert architecture(loaded, None) == AIMNet2Spec()
    assert loaded.wandb.init.mode == "online"


@pytest.mark.parametrize("rate", ["1.0e-5", "5.0e-5", "1.0e-4"])
def test_the_seed_s_alternatives_validate_too(rate: str) -> None:
    more = [f"optimizer.kwargs.lr={rate}", "samplers.train.kwargs.batch_mode=atoms"]
    loaded = load_config([SEED], [*NAMES, *PLATEAU, *more], MultifidelitySettings).model
    assert loaded.data.samplers.train.kwargs.batch_mode == "atoms"
    assert loaded.optimizer.kwargs.lr == float(rate)
    assert load_config([SEED], [*NAMES, "wandb.init.mode=disabled"], MultifidelitySettings)


def test_the_resolved_configuration_reproduces_itself() -> None:
    first = load_config([SEED], NAMES, MultifidelitySettings).model
    plain = first.model_dump(mode="json", by_alias=True)
    again = MultifidelitySettings.model_validate(plain)
    assert again == first
    assert [again.frequency(name, 100) for name in ("train", "val")] == [500, 2]


def test_an_unknown_key_names_its_line_and_neighbour(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("trainer:\n  epoch: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_config([file], [], MultifidelitySettings)
    assert f"{file}:2" in str(caught.value)
    assert "trainer.epochs" in str(caught.value)


def test_the_architecture_follows_the_data_and_the_model_section(tmp_path: Path) -> None:
    given = settings("data.fidelity_datasets={0: a, 1: b}", "model.preset=small", "model.rc=4.5")
    spec = architecture(given, None)
    assert (spec.num_fidelities, spec.rc, spec.nfeature) == (2, 4.5, 8)
    two = architecture(settings("model.num_layers=2"), None)
    assert len(two.hidden) == 2
    file = tmp_path / "model.yaml"
    file.write_text("nfeature: 4\n")
    assert architecture(given, file).nfeature == 4
    for wrong in ("model.num_layers=4", "model.preset=huge", "model.rc=0.1"):
        with pytest.raises(ConfigError, match=r"^model(\.|: rmin must be below rc)"):
            architecture(settings(wrong), None)


def data(**values: Any) -> DataSection:
    base = {"fidelity_datasets": {0: "a.h5", 1: "b.h5"}}
    base["sae"] = {"energy": {"files": {0: "a.yaml", 1: "b.yaml"}}}  # type: ignore[dict-item]
    return DataSection.model_validate({**base, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fidelity_datasets": {}}, "numbers the files 0, 1"),
        ({"fidelity_datasets": {0: "a.h5", 2: "b.h5"}}, "numbers the files 0, 1"),
        ({"fidelity_datasets": {0: "a.h5", 1: "./a.h5"}}, "same file"),
        ({"val_fidelity_datasets": {0: "b.h5"}}, "same file"),
        ({"fidelity_weights": {2: 1.0}}, "no fidelity 2"),
        ({"val_fidelity_datasets": {5: "c.h5"}}, "no fidelity 5"),
        ({"sae": {"energy": {"files": {0: "a.yaml"}}}}, r"files\.1 is missing"),
    ],
)
def test_contradicting_files_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fidelity_paths(data(**values))


def test_a_batch_without_forces_is_predicted_without_them(tmp_path: Path) -> None:
    overrides = tiny_overrides(tmp_path)
    components = "loss.kwargs.components={energy: {weight: 1}, forces: {weight: 1}}"
    family = MultiFidelity()
    inputs = Inputs(None, None, torch.device("cpu"), torch.float32, "test", World(), split_seed=0)
    prepared = family.prepare(settings(*overrides, components), inputs, NullReporter())
    task = prepared.task
    (batch,) = task.train_batch(0)
    assert {"energy", "forces"} <= batch.labels
    both = task.predict(task.model, batch, True)
    assert both["forces"].grad_fn is not None
    energies = type(batch)(batch.tensors, frozenset({"energy"}), batch.fidelity, batch.index)  # type: ignore[call-arg,attr-defined]
    only = task.predict(task.model, energies, True)
    assert "forces" not in only
    torch.testing.assert_close(only["energy"], both["energy"])
    assert dict(prepared.description)["split by"] == "molecule name"
    rebuilt = family.build(prepared.fingerprint["architecture"])
    rebuilt.load_state_dict(task.model.state_dict())


def test_what_makes_model_files_holds_none_of_the_data(tmp_path: Path) -> None:
    inputs = Inputs(None, None, torch.device("cpu"), torch.float32, "test", World(), split_seed=0)
    of_energy = "loss.kwargs.components={energy: {weight: 1}}"
    chosen = settings(*tiny_overrides(tmp_path), of_energy)
    prepared = MultiFidelity().prepare(chosen, inputs, NullReporter())
    weights, snapshot = prepared.task.model.state_dict(), prepared.snapshot
    feed = prepared.task.train_batch.__self__  # type: ignore[attr-defined]
    data = weakref.ref(feed._fidelities.train[0])
    assert isinstance(data(), FidelityDataset)
    del prepared, feed
    gc.collect()
    assert data() is None
    assert [f["index"] for f in snapshot(weights, {}).fidelities] == [0, 1, 2]
