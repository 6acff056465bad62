"""The transport recipe: the seed's configuration, its data, and what it refuses."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.families.base import Inputs, Prepared
from mlff_cli.families.configure import PRESETS, configure
from mlff_cli.families.transport import Transport
from mlff_cli.families.transport_data import TransportBatches, read_frames
from mlff_cli.families.transport_model import load_transport
from mlff_cli.families.transport_settings import TransportSettings
from mlff_cli.training.distributed import World
from mlff_cli.training.evaluation import evaluate
from tests.transport_frames import write_frames

TINY = ("flow.transforms=2", "flow.hidden=[8]", "flow.bins=3", "training.batch_size=8")
# layers, embedding, heads, blocks, batch, learning rate, temperatures of the seed's presets
SIZES = {
    "aa_300_450": (8, 192, 8, 5, 256, 5e-4, 300, 450),
    "aa_300_450_gpu": (6, 128, 8, 4, 64, 5e-4, 300, 450),
    "aa_300_450_gpu_light": (4, 96, 4, 3, 16, 5e-4, 300, 450),
    "aa_300_670": (10, 256, 8, 6, 256, 3e-4, 300, 670),
    "aa_300_1000": (12, 320, 8, 8, 256, 2e-4, 300, 1000),
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames") / "remd.h5")


def prepared(file: Path, *overrides: str, size: int = 1, rank: int = 0) -> Prepared:
    family, settings = configure("ic_300_450", (), (f"data={file}", *TINY, *overrides), "m")
    world = World(rank, size)
    inputs = Inputs(None, None, torch.device("cpu"), torch.float64, "test", world, split_seed=0)
    return family.prepare(settings, inputs, NullReporter())


# -- configuration --------------------------------------------------------------------------------


def test_a_warm_up_without_a_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_epochs=1 needs a schedule"):
        configure("ic_300_450", (), ("data=a.h5", "scheduler=null"), "m")
    given = ("data=a.h5", "scheduler=null", "training.warmup_epochs=0")
    s = configure("ic_300_450", (), given, "m")[1]
    assert (s.scheduler, s.training.warmup_epochs) == (None, 0)


@pytest.mark.parametrize("name", SIZES)
def test_the_seed_s_presets(name: str) -> None:
    family, s = configure(name, (), (), "m")
    assert isinstance(family, Transport)
    flow, t = s.flow, s.training
    found = (flow.layers, flow.embedding, flow.heads, flow.blocks, t.batch_size, t.lr)
    assert (*found, s.temperatures.source, s.temperatures.target) == SIZES[name]
    assert (flow.kind, t.epochs, t.warmup_epochs, t.batches_per_epoch) == ("tarflow", 3000, 50, 1)
    assert (s.use_energy_gating, s.E_cut, s.E_max) == (True, 500.0, 1e5)
    assert s.gate.initial_E_max == 1e10
    assert s.trainer.epochs == 3000
    assert s.optimizer.kwargs.lr == t.lr
    assert s.scheduler.warmup_steps == 50


def test_each_of_the_seed_s_keys_can_be_given() -> None:
    given = (
        "use_energy_gating=false",
        "E_cut=300",
        "E_max=5000",
        "gate.mode=seed",
        "gate.gate_warmup_epochs=500",
        "training.warmup_epochs=20",
        "training.lr=1e-4",
        "training.epochs=1500",
        "temperatures.target=670",
    )
    s = configure("aa_300_450_gpu", (), given, "m")[1]
    assert (s.use_energy_gating, s.E_cut, s.E_max, s.gate.mode) == (False, 300, 5000, "seed")
    assert (s.gate.gate_warmup_epochs, s.scheduler.warmup_steps) == (500, 20)
    assert (s.trainer.epochs, s.optimizer.kwargs.lr, s.temperatures.target) == (1500, 1e-4, 670)


@pytest.mark.parametrize("key", ["E_cut=300", "family=transport", "temperatures.target=500"])
def test_a_configuration_with_keys_of_this_family_needs_no_preset(key: str) -> None:
    family, settings = configure("default", (), ("data=remd.h5", key), "m")
    assert isinstance(family, Transport)
    assert settings.flow.kind == "ic-spline"


@pytest.mark.parametrize("name", [p for p, files in PRESETS.items() if "transport" in files])
def test_a_resolved_configuration_reads_as_itself_and_can_be_changed(
    name: str, tmp_path: Path
) -> None:
    settings = configure(name, (), ("data=a.h5",), "m")[1]
    plain = settings.model_dump(mode="json", by_alias=True)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plain))
    assert configure(name, (file,), (), "m")[1] == settings
    assert configure(name, (file,), ("training.epochs=7",), "m")[1].trainer.epochs == 7


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.epochs=3", "training.epochs"),
        ("optimizer.kwargs.lr=1e-3", "training.lr"),
        ("scheduler.warmup_steps=3", "training.warmup_epochs"),
        ("loss.class=MTAdaWLoss", "loss is for other families"),
        ("E_cut=2e5", "E_cut must be below E_max"),
        ("gate.gate_warmup_epochs=20", "min_learning_epochs"),
        ("temperatures.target=300", "must differ"),
        ("training.forward=0", None),
        ("E_cutt=3", "did you mean 'E_cut'"),
    ],
)
def test_what_contradicts_itself_or_says_nothing(override: str, said: str | None) -> None:
    if said is None:
        assert configure("aa_300_450", (), (override,), "m")[1].training.forward == 0
        both = (override, "training.inverse=0")
        with pytest.raises(ConfigError, match="nothing to learn"):
            configure("aa_300_450", (), both, "m")
        return
    with pytest.raises(ConfigError) as caught:
        configure("aa_300_450", (), (override,), "m")
    assert said in f"{caught.value} {caught.value.remedy}"


# -- data -----------------------------------------------------------------------------------------


def test_frames_come_in_the_flow_s_units_with_their_own_energies(frames: Path) -> None:
    settings = TransportSettings.model_validate({"data": str(frames)})
    recorded = read_frames(settings)
    assert recorded.molecule.name == "ACE-ALA-NME"
    assert [len(recorded.source), len(recorded.target)] == [80, 80]
    x = recorded.source.positions
    bond = np.linalg.norm(x[:, 0] - x[:, 1], axis=1)
    assert 0.08 < bond.mean() < 0.16  # nm
    assert recorded.source.energy.mean() < recorded.target.energy.mean()


@pytest.mark.parametrize("constraints", ["hbonds", None])
def test_data_with_constraints_is_refused_with_the_remedy(
    tmp_path: Path, constraints: str | None
) -> None:
    file = write_frames(tmp_path / "held.h5", n=24, constraints=constraints or "")
    with pytest.raises(DataError) as caught:
        read_frames(TransportSettings.model_validate({"data": str(file)}))
    assert caught.value.exit_code == 3
    assert "--constraints none" in str(caught.value.remedy)


def test_a_temperature_that_was_not_sampled(frames: Path) -> None:
    settings = TransportSettings.model_validate(
        {"data": str(frames), "temperatures": {"source": 300, "target": 670}}
    )
    with pytest.raises(DataError, match=r"670 K needs at least 20 frames, found 0.*300, 450"):
        read_frames(settings)


def test_energies_that_are_not_those_of_the_force_field(tmp_path: Path) -> None:
    file = write_frames(tmp_path / "other.h5", n=24, forcefield=["amber14-all.xml"])
    with pytest.raises(DataError, match="must be those of the sampling"):
        prepared(file)


def test_validation_is_the_end_of_the_run_and_batches_are_functions_of_the_step(
    frames: Path,
) -> None:
    task = prepared(frames).task
    batches: Any = task.train_batch.__self__  # type: ignore[attr-defined]
    assert isinstance(batches, TransportBatches)
    recorded = read_frames(TransportSettings.model_validate({"data": str(frames)}))
    held = torch.from_numpy(recorded.source.positions[-8:])
    torch.testing.assert_close(batches.validation.source, held)
    assert len(batches.train.source) == 72
    a, b = task.train_batch(3)[0].tensors, task.train_batch(3)[0].tensors
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["source"], task.train_batch(4)[0].tensors["source"])


def test_processes_share_a_batch(frames: Path) -> None:
    whole = prepared(frames).task.train_batch(5)[0].tensors["source"]
    parts = [prepared(frames, size=3, rank=r).task.train_batch(5) for r in range(3)]
    shares = torch.cat([p[0].tensors["source"] for p in parts])
    assert len(shares) == len(whole)
    assert {tuple(x.flatten().tolist()) for x in shares} == {
        tuple(x.flatten().tolist()) for x in whole
    }
    halves = prepared(frames, "training.split=2").task.train_batch(5)
    torch.testing.assert_close(torch.cat([p.tensors["source"] for p in halves]), whole)


# -- the task -------------------------------------------------------------------------------------


def test_a_flow_that_starts_as_the_identity_has_the_loss_of_the_naive_swap(frames: Path) -> None:
    ready = prepared(frames, "flow.start=identity")
    task = ready.task
    loss, metrics = evaluate(task, task.model, torch.device("cpu"), World())
    x = task.train_batch.__self__.validation  # type: ignore[attr-defined]
    beta = [1 / (0.00831446261815324 * T) for T in (300.0, 450.0)]
    U, V = x.source_energy.numpy(), x.target_energy.numpy()
    naive = (beta[0] - beta[1]) * (V.mean() - U.mean())
    assert loss == pytest.approx(naive, rel=1e-4)
    pairs = np.minimum(1.0, np.exp((beta[0] - beta[1]) * (U - V))).mean()
    assert metrics["acceptance"] == pytest.approx(pairs, rel=1e-3)


def test_thresholds_from_data(frames: Path) -> None:
    task = prepared(frames, "E_cut=auto").task
    banner = " ".join(task.journal.banner()) if task.journal else ""
    recorded = read_frames(TransportSettings.model_validate({"data": str(frames)}))
    E_cut = float(banner.partition("E_cut=")[2].partition(",")[0])
    assert E_cut > recorded.target.energy.max()
    assert "beta_source = 0.4009078501 mol/kJ" in banner
    assert "beta_target = 0.2672719001 mol/kJ" in banner


def test_a_model_file_rebuilds_the_flow(frames: Path, tmp_path: Path) -> None:
    ready = prepared(frames)
    with torch.no_grad():
        for parameter in ready.task.model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    file = ready.snapshot(ready.task.model.state_dict(), {})
    assert file.units == {"energy": "kJ/mol", "length": "nm"}
    file.save(tmp_path / "model.pt")
    found = load_transport(tmp_path / "model.pt", dtype=torch.float64)
    assert found.temperatures == (300.0, 450.0)
    assert found.system.getNumParticles() == 22
    x = ready.task.validation_batch(0).tensors["source"]
    for a, b in zip(found.flow(x), ready.task.model(x), strict=True):
        torch.testing.assert_close(a, b)


def test_baselines_are_not_trained(frames: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train"):
        prepared(frames, "flow.kind=linear")


@pytest.mark.parametrize("override", ["E_max=-1e5", "load"])
def test_an_error_after_the_engine_ends_its_processes(
    frames: Path, tmp_path: Path, override: str
) -> None:
    before = {p.pid for p in multiprocessing.active_children()}
    given = ["energy=openmm", "openmm_workers=1", "gate.gate_warmup_epochs=0"]
    given += ["E_cut=auto", "E_max=-1e5"] if override != "load" else ["flow.bins=4"]
    load = None
    if override == "load":
        ready = prepared(frames)
        load = tmp_path / "other.pt"
        ready.snapshot(ready.task.model.state_dict(), {}).save(load)
    family, settings = configure("ic_300_450", (), (f"data={frames}", *TINY, *given), "m")
    inputs = Inputs(None, load, torch.device("cpu"), torch.float64, "test", World(), split_seed=0)
    with pytest.raises(ConfigError):
        family.prepare(settings, inputs, NullReporter())
    assert {p.pid for p in multiprocessing.active_children()} <= before


def test_the_plan_tells_where_a_flow_starts(frames: Path) -> None:
    def told(*overrides: str) -> str:
        return dict(prepared(frames, *overrides).description)["flow"]

    assert told() == "ic-spline, starting from linear"
    sizes = ("flow.layers=1", "flow.embedding=8", "flow.heads=2", "flow.blocks=1")
    assert told("flow.kind=tarflow", *sizes) == "tarflow, starting from identity"


def test_thresholds_below_the_data_are_warned_of(frames: Path) -> None:
    assert prepared(frames, "E_cut=auto").warnings == []
    (warning,) = prepared(frames, "E_cut=-1e5").warnings
    assert "100 % of the frames themselves lie above E_cut" in warning
    assert prepared(frames, "E_cut=-1e5", "use_energy_gating=false").warnings == []
