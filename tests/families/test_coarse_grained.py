"""The coarse-grained recipe: the seed's configuration, delta learning, ragged batches."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.prior_file import PriorFile, write_prior
from mlff_cli.families.base import Inputs, Prepared
from mlff_cli.families.coarse_grained import CoarseGrained
from mlff_cli.families.coarse_grained_model import Predictor
from mlff_cli.families.coarse_grained_prior import BoundMolecules
from mlff_cli.families.coarse_grained_settings import CoarseGrainedSettings
from mlff_cli.families.configure import configure
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from mlff_cli.training.distributed import World
from mlff_cli.training.memory import StepMemory, TensorBatch
from tests.families.bead_sets import write_chains
from tests.potentials.prior_cases import PARAMETRIC

SEED = """\
# Key hyperparameters
model:
  cutoff: 12.0              # Neighbor list cutoff (A)
  allegro_size: "default"   # Model size variant
  use_priors: true          # Enable physics priors

training:
  batch_per_device: 8       # Batch size per GPU
  epochs_adabelief: 100     # Stage 1 epochs
  epochs_yogi: 0            # Stage 2 epochs (0 = skip)
  val_fraction: 0.1         # Validation split

ensemble:
  enabled: false            # Multi-seed training
  n_models: 5               # Number of models
  save_all_models: false    # Save best only
"""
TINY = (
    "model.allegro_size=small",
    "model.num_scalar_features=8",
    "model.num_tensor_features=4",
    "model.mlp_width=8",
    "model.num_bessels=4",
    "training.batch_per_device=6",
)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chains(tmp_path_factory.mktemp("sets") / "CG.npz", [5, 9, 7], 40)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prior") / "prior.yaml"
    write_prior(path, dataclasses.replace(PARAMETRIC, temperature=300.0))
    return f"model.prior={path}"


class Warned(NullReporter):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warning(self, message: str) -> None:
        self.heard.append(message)


def prepared(
    *overrides: str,
    dtype: torch.dtype = torch.float64,
    rank: int = 0,
    reporter: NullReporter | None = None,
) -> Prepared:
    family, settings = configure("cg", (), overrides, "m")
    inputs = Inputs(None, None, torch.device("cpu"), dtype, "test", World(rank), split_seed=0)
    return family.prepare(settings, inputs, reporter or NullReporter())


def model_of(task: Any) -> BeadModel:
    assert isinstance(task.model, BeadModel)
    return task.model


# -- configuration --------------------------------------------------------------------------------


def test_the_seed_s_configuration_is_read_with_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(SEED)
    family, settings = configure("default", (file,), ("data=CG.npz",), "m")
    assert family.name == "coarse-grained"
    assert settings == configure("cg", (), ("data=CG.npz",), "m")[1]
    assert settings.data.files == "CG.npz"
    (stage,) = settings.stages
    assert (stage.name, stage.epochs, stage.optimizer.class_) == ("AdaBelief", 100, "AdaBelief")
    assert settings.trainer.epochs == 100
    both = configure("default", (file,), ("data=a", "training.epochs_yogi=7"), "m")[1]
    assert [(s.name, s.epochs) for s in both.stages] == [("AdaBelief", 100), ("Yogi", 7)]
    assert both.members == 1
    assert configure("cg", (), ("ensemble.enabled=true",), "m")[1].members == 5


@pytest.mark.parametrize(
    ("overrides", "family"),
    [
        (("data=CG.npz",), "coarse-grained"),
        (("data=[a.npz,b.npz]",), "coarse-grained"),
        (("data.files=CG.npz",), "coarse-grained"),
        (("model.allegro_size=small",), "coarse-grained"),
        (("family=coarse-grained",), "coarse-grained"),
        (("trainer.epochs=3",), "multifidelity"),
        (("data.val_fraction=0.2",), "multifidelity"),
        ((), "multifidelity"),
    ],
)
def test_the_family_is_found_from_what_is_given(overrides: tuple[str, ...], family: str) -> None:
    assert configure("default", (), overrides, "m")[0].name == family


def test_a_key_of_one_family_does_not_hijack_a_configuration_of_the_other() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'training'"):
        configure("default", (), ("data.fidelity_datasets.0=a.h5", "training.epochs=3"), "m")
    with pytest.raises(ConfigError, match=r"model\.alegro_size"):
        configure("cg", (), ("model.alegro_size=small",), "m")


def test_the_resolved_configuration_reproduces_itself() -> None:
    two = ("training.epochs_yogi=4", "training.warmup_fraction=0.1")
    for preset in ("cg", "cg_small"):
        for more in (
            (),
            two,
            (*two[:1], "scheduler.warmup_steps=7", "optimizer.kwargs.betas=[0.8, 0.9]"),
            ("stages=[{name: one, epochs: 3}]",),
            ("stages=[{name: one, epochs: 3}]", "model.train_prior=true", "optimizer.class=SGD"),
        ):
            settings = configure(preset, (), ("data=CG.npz", *more), "m")[1]
            plain = settings.model_dump(mode="json", by_alias=True)
            assert ("stages" in plain) == ("stages" in str(more))
            again = CoarseGrainedSettings.model_validate(plain)
            assert again.stages == settings.stages
            assert again.trainer == settings.trainer
            assert again.model_dump(mode="json", by_alias=True) == plain


def test_stages_of_a_list_are_the_family_s_where_they_say_nothing() -> None:
    listed = "stages=[{name: a, epochs: 3}, {name: b, epochs: 1, optimizer: {class: Yogi}}]"
    usual = configure("cg", (), ("data=CG.npz", "training.epochs_yogi=1"), "m")[1].stages
    settings = configure("cg_small", (), ("data=CG.npz", listed), "m")[1]
    assert [s.optimizer for s in settings.stages] == [s.optimizer for s in usual]
    assert [s.scheduler for s in settings.stages] == [s.scheduler for s in usual]
    assert settings.trainer.epochs == 4
    for one in settings.stages:
        assert one.optimizer.force_no_train == [r"^prior\."]
    own = "optimizer={class: SGD, kwargs: {momentum: 0.9}}"
    given = (
        listed,
        own,
        "training.lr_adabelief=0.1",
        "training.weight_decay=0.2",
        "scheduler=null",
    )
    first, second = configure("cg", (), ("data=CG.npz", *given), "m")[1].stages
    assert (first.optimizer.class_, first.optimizer.kwargs.momentum) == ("SGD", 0.9)
    assert (first.optimizer.kwargs.lr, first.optimizer.kwargs.weight_decay) == (0.1, 0.2)
    assert (second.optimizer.class_, second.optimizer.kwargs.lr) == ("Yogi", 3e-4)
    assert first.scheduler is second.scheduler is None
    trained = configure("cg", (), ("data=CG.npz", listed, "model.train_prior=true"), "m")[1]
    assert all(s.optimizer.force_no_train == [] for s in trained.stages)
    frozen = "stages=[{name: a, epochs: 1, optimizer: {force_no_train: [x]}}]"
    (one,) = configure("cg", (), ("data=CG.npz", frozen), "m")[1].stages
    assert one.optimizer.force_no_train == [r"^prior\.", "x"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.gamma_F=0", "nothing to learn"),
        ("training.epochs_adabelief=0", "both 0"),
        ("model={use_allegro: false, use_priors: false}", "nothing is left"),
        ("model={use_priors: false, train_prior: true}", "no prior to train"),
        ("optimizer.class=torch.optim.SGD", "to take another, give stages"),
        ("optimizer.kwargs.lr=0.1", "to take another, give stages"),
        ("optimizer.kwargs.weight_decay=0.01", r"set training\.weight_decay"),
        ("trainer.epochs=7", r"trainer\.epochs is 7, the epochs of the stages are 100"),
        ("model={use_priors: false, prior: p.yaml}", "prior has no effect with use_priors=false"),
        ("model={use_priors: false, prior_weights: {bond: 2}}", "prior_weights has no effect"),
        ("model={use_allegro: false, l_max: 3}", "l_max has no effect with use_allegro=false"),
        ("model={prior: p.yaml, prior_form: spline}", "prior_form is of a prior that is fitted"),
        ("loss.kwargs.components={forces: {weight: 1}}", r"set training\.gamma_F"),
        ("model.prior_weights={bonds: 1.0}", "prior_weights"),
    ],
)
def test_contradictions_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure("cg", (), ("data=CG.npz", override), "m")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs_adabelief=50", "epochs_adabelief has no effect"),
        ("training.lr_yogi=0.1", "lr_yogi has no effect"),
        ("training.warmup_fraction=0.1", "warmup_fraction has no effect"),
        ("training.weight_decay=0.1", "weight_decay has no effect"),
        ("trainer.epochs=7", r"trainer\.epochs is 7, the epochs of the stages are 3"),
        ("optimizer.kwargs.betas=[0.8, 0.9]", "optimizer has no effect"),
        ("scheduler.warmup_steps=7", "scheduler has no effect"),
    ],
)
def test_keys_that_no_stage_reads_are_refused(override: str, message: str) -> None:
    kwargs = "{lr: 0.1, weight_decay: 0.0}"
    stages = f"stages=[{{name: a, epochs: 3, optimizer: {{kwargs: {kwargs}}}, scheduler: null}}]"
    configure("cg_small", (), ("data=CG.npz", stages, "trainer.epochs=3"), "m")
    with pytest.raises(ConfigError, match=message):
        configure("cg_small", (), ("data=CG.npz", stages, override), "m")
    if override.startswith("scheduler"):
        words = ("data=CG.npz", override, "training.warmup_fraction=0.1")
        with pytest.raises(ConfigError, match="the run's `scheduler` counts"):
            configure("cg", (), words, "m")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (("training.val_fraction=1.5",), ConfigError, "between 0 and 1"),
        (("data.temperature=310",), ConfigError, "no frame has the temperature 310"),
        (("trainer.precision=bf16",), ConfigError, "bf16"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(
    chains: Path, prior: str, overrides: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepared(f"data.files={chains}", prior, "model.use_allegro=false", *overrides)


def test_data_are_needed() -> None:
    with pytest.raises(ConfigError, match="no coarse-grained set is named") as caught:
        prepared("model.use_allegro=false")
    assert caught.value.remedy == "say which, as data=CG.npz"
    settings = configure("cg", (), (), "m")[1]
    (check,) = CoarseGrained().diagnose(settings, caught.value)
    assert (check.name, check.remedy) == ("data", caught.value.remedy)


@pytest.mark.parametrize("moving", ["model.train_prior=true", "model.use_allegro=false"])
def test_energies_and_a_prior_that_moves_are_refused(moving: str) -> None:
    with pytest.raises(ConfigError, match="which moves with a prior that the stages train"):
        configure("cg", (), ("data=CG.npz", "training.gamma_U=1", moving), "m")


def test_energies_are_needed_where_they_are_weighted(chains: Path, prior: str) -> None:
    with pytest.raises(ConfigError, match="needs energies U"):
        prepared(f"data.files={chains}", prior, *TINY, "training.gamma_U=1")


def test_frames_of_one_trajectory_in_two_files_are_refused(
    chains: Path, prior: str, tmp_path: Path
) -> None:
    """As of two force maps; another trajectory of the same molecules is welcome."""
    words = (prior, "model.use_allegro=false")
    again = write_chains(tmp_path / "again.npz", [5, 9, 7], 40, noise=1.0)
    with pytest.raises(DataError, match=r"40 frames are in .*CG\.npz, too") as caught:
        prepared(f"data=[{chains},{again}]", *words)
    assert caught.value.where == str(again)
    other = write_chains(tmp_path / "other.npz", [5, 9, 7], 30, seed=9)
    assert prepared(f"data=[{chains},{other}]", *words).task.epoch_length > 15


def test_a_model_file_tells_the_temperature_of_its_frames(chains: Path, prior: str) -> None:
    made = prepared(f"data={chains}", prior, "model.use_allegro=false")
    assert made.snapshot({}, {}).config["data"]["temperature"] == 300.0
    assert made.fingerprint["config"]["data"]["temperature"] is None


def test_a_prior_file_without_excluded_volume_is_told(chains: Path, tmp_path: Path) -> None:
    terms = {k: v for k, v in PARAMETRIC.terms.items() if k != "excluded_volume"}
    write_prior(tmp_path / "p.yaml", dataclasses.replace(PARAMETRIC, terms=terms))
    for on in (True, False):
        told = Warned()
        words = (f"data={chains}", f"model.prior={tmp_path}/p.yaml", "model.use_allegro=false")
        prepared(*words, f"model.excluded_volume={on}".lower(), reporter=told)
        assert any("no excluded_volume" in text for text in told.heard) == on


@pytest.mark.parametrize(("mapping", "told"), [("heavy-backbone", 1), ("ca", 0), ("unknown", 0)])
def test_a_prior_of_another_mapping_is_told(
    chains: Path, tmp_path: Path, mapping: str, told: int
) -> None:
    write_prior(tmp_path / "p.yaml", dataclasses.replace(PARAMETRIC, mapping=mapping))
    heard = Warned()
    words = (f"data={chains}", f"model.prior={tmp_path}/p.yaml", "model.use_allegro=false")
    prepared(*words, reporter=heard)
    found = [text for text in heard.heard if "mapping" in text]
    assert len(found) == told
    assert all("'heavy-backbone'" in text and "'ca'" in text for text in found)


def test_a_prior_that_does_not_know_the_types_is_refused(chains: Path, tmp_path: Path) -> None:
    term = dataclasses.replace(
        PARAMETRIC.terms["bond"], entries=PARAMETRIC.terms["bond"].entries[:1]
    )
    write_prior(tmp_path / "p.yaml", PriorFile(species=("VAL",), terms={"bond": term}))
    with pytest.raises(DataError, match="does not know the types ALA"):
        prepared(f"data={chains}", f"model.prior={tmp_path}/p.yaml", "model.use_allegro=false")


# -- the model ------------------------------------------------------------------------------------


def test_delta_learning_is_learning_the_whole_with_a_resting_prior(
    chains: Path, prior: str
) -> None:
    """Predictions, loss and the gradients of Allegro's weights are the same."""
    task = prepared(f"data={chains}", prior, *TINY).task
    model = model_of(task)
    (batch,) = task.train_batch(3)
    frames = BeadFrames([chains])
    assert model.prior is not None
    whole = Predictor(BoundMolecules(model.prior, frames), 5.0)
    plain = {k: v for k, v in batch.tensors.items() if not k.startswith("prior")}
    results = []
    for predictor, tensors in ((task.predict, batch.tensors), (whole, plain)):
        model.zero_grad()
        given = TensorBatch(tensors, batch.labels, len(batch))
        predicted = predictor(model, given, True)
        task.loss(predicted, tensors).total.backward()
        assert model.allegro is not None
        results.append((predicted, [p.grad.clone() for p in model.allegro.parameters()]))
    (one, slopes), (other, others) = results
    for name in ("energy", "forces"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=2e-5)
    for a, b in zip(slopes, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max() + 1e-9))


def test_a_ragged_batch_is_its_frames_one_by_one(chains: Path, prior: str) -> None:
    task = prepared(f"data={chains}", prior, *TINY, "model.train_prior=true").task
    (batch,) = task.train_batch(0)
    n = batch.tensors["n_atoms"]
    assert n.min() < n.max()
    together = task.predict(task.model, batch, False)
    padding = torch.arange(int(n.max())) >= n[:, None]
    assert not together["forces"][padding].any()
    for b in range(len(batch)):
        size = int(n[b])
        one = {
            k: (v[b : b + 1, :size] if v.dim() > 1 else v[b : b + 1])
            for k, v in batch.tensors.items()
        }
        alone = task.predict(task.model, TensorBatch(one, batch.labels, 1), False)
        torch.testing.assert_close(alone["forces"][0], together["forces"][b, :size])
        torch.testing.assert_close(alone["energy"][0], together["energy"][b])


def test_padding_reaches_no_gradient(chains: Path, prior: str) -> None:
    task = prepared(f"data={chains}", prior, *TINY, "model.train_prior=true").task
    (batch,) = task.train_batch(0)
    slopes = []
    for park in (0.0, float("nan")):
        tensors = dict(batch.tensors)
        n = tensors["n_atoms"]
        padding = torch.arange(tensors["coord"].shape[1]) >= n[:, None]
        for name in ("coord", "forces"):
            tensors[name] = torch.where(padding[..., None], park, tensors[name])
        task.model.zero_grad()
        predicted = task.predict(task.model, TensorBatch(tensors, batch.labels, len(batch)), True)
        task.loss(predicted, tensors).total.backward()
        slopes.append([p.grad.clone() for p in task.model.parameters() if p.grad is not None])
    assert all(torch.isfinite(g).all() for g in slopes[1])
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))


def test_what_a_resting_prior_gives_follows_its_parameters(chains: Path, prior: str) -> None:
    """As after a pre-training, or when a checkpoint is loaded."""
    for memory in ("data.in_memory_mb=2048", "data.in_memory_mb=0"):
        task = prepared(f"data={chains}", prior, *TINY, memory).task
        before = task.train_batch(0)[0].tensors
        again = task.train_batch(0)[0].tensors
        assert torch.equal(before["prior_forces"], again["prior_forces"])
        state = {k: v.clone() for k, v in task.model.state_dict().items()}
        own = [k for k in state if k.startswith("prior.") and k.endswith((".k", ".epsilon"))]
        task.model.load_state_dict({k: 2 * v if k in own else v for k, v in state.items()})
        after = task.train_batch(0)[0].tensors
        assert not torch.allclose(before["prior_forces"], after["prior_forces"], rtol=1e-2)
        task.model.load_state_dict(state)
        back = task.train_batch(0)[0].tensors
        assert torch.equal(before["prior_forces"], back["prior_forces"])


def test_a_prior_is_fitted_to_the_training_frames_of_all_files(tmp_path: Path) -> None:
    files = [write_chains(tmp_path / f"{k}.npz", [6 + k], 60, seed=k) for k in range(2)]
    words = (f"data=[{files[0]},{files[1]}]", "model.use_allegro=false")
    for form in ("parametric", "spline"):
        task = prepared(*words, f"model.prior_form={form}").task
        file = model_of(task).prior.file  # type: ignore[union-attr]
        assert file.form == form
        assert file.temperature == 300.0
        assert {"bond", "angle", "dihedral"} <= set(file.terms)
        assert file.terms["bond"].entries[-1].samples < 60 * (5 + 6)  # without validation frames
    less = prepared(
        *words, "model.prior_weights={angle: 0.5, dihedral: 0}", "model.excluded_volume=false"
    ).task
    terms = model_of(less).prior.file.terms  # type: ignore[union-attr]
    assert terms["angle"].weight == 0.5
    assert not {"dihedral", "excluded_volume"} & set(terms)


def test_a_model_file_rebuilds_the_model(chains: Path, prior: str) -> None:
    made = prepared(f"data={chains}", prior, *TINY)
    weights = {k: v.clone() for k, v in made.task.model.state_dict().items()}
    assert {name.partition(".")[0] for name in weights} == {"allegro", "prior"}
    file = made.snapshot(weights, {})
    assert (file.family, file.units["energy"]) == ("coarse-grained", "kcal/mol")
    assert [m["name"] for m in file.molecules] == ["chain_0", "chain_1", "chain_2"]
    rebuilt = CoarseGrained().build(file.architecture)
    rebuilt.load_state_dict(weights)
    batch = made.task.validation_batch(0)
    expected = made.task.predict(made.task.model, batch, False)["forces"]
    found = made.task.predict(rebuilt, batch, False)["forces"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # float32 by default


def test_energies_are_compared_up_to_a_constant_of_each_molecule(
    chains: Path, prior: str, tmp_path: Path
) -> None:
    """U of the prior, shifted by another constant for each molecule, leaves no error."""
    with BeadFrames([chains]) as frames:
        module = Prior(PARAMETRIC)
        bound = BoundMolecules(module, frames)
        U = np.zeros(len(frames))
        for k in range(3):
            for index, R, _ in frames.of_molecule(k, np.arange(len(frames))):
                x = torch.from_numpy(R.astype(np.float64))
                U[index] = module(x, bound(k)).detach().numpy() + 1000.0 * (k + 1)
    with np.load(chains) as old:
        np.savez(tmp_path / "u.npz", **old, U=U)
    words = (f"data={tmp_path}/u.npz", prior, *TINY, "training.gamma_U=1")
    task = prepared(*words, "training.pretrain_prior=true").task

    def left() -> dict[int, np.ndarray]:
        """What Allegro is to learn of every molecule's training frames."""
        found: dict[int, dict[int, float]] = {}
        for step in range(2 * task.epoch_length):
            (batch,) = task.train_batch(step)
            t = batch.tensors
            rest = (t["energy"] - t["prior_energy"]).tolist()
            for k, i, e in zip(t["molecule"].tolist(), t["index"].tolist(), rest, strict=True):
                found.setdefault(k, {})[i] = e
        return {k: np.array(list(v.values())) for k, v in found.items()}

    assert all(np.abs(rest).max() < 1e-3 for rest in left().values())
    with torch.no_grad():  # as a pre-training moves it
        for name, value in task.model.named_parameters():
            if name.startswith("prior.") and name.endswith(".k"):
                value.mul_(2.0)
    assert task.pretraining is not None
    assert max(abs(rest.mean()) for rest in left().values()) > 1.0
    task.pretraining.then()
    assert len(left()) == 3
    for rest in left().values():
        assert abs(rest.mean()) < 1e-3
        assert np.abs(rest).max() > 0.1


def test_noise_of_the_maps_is_told_as_a_bound_and_only_where_it_says_something(
    tmp_path: Path, prior: str
) -> None:
    """Of all where all are known; a bound that is the forces' mean square is none."""

    def bounds(*told: dict[str, float] | None) -> dict[str, float]:
        report = {"molecules": [{"unlearnable": one} for one in told]}
        file = write_chains(tmp_path / "n.npz", [5, 9], 60, metadata={"force_map": report})
        words = (f"data={file}", prior, "model.use_allegro=false", "training.val_fraction=0.5")
        return dict(prepared(*words).task.noise_bound)

    found = bounds({"bound": 4.0, "total": 9.0}, {"bound": 16.0, "total": 30.0})
    assert found["chain_0/F_rmse"] == 2.0
    assert found["chain_1/F_rmse"] == 4.0
    assert found["F_rmse"] == pytest.approx(np.sqrt((5 * 4 + 9 * 16) / 14))
    assert bounds({"bound": 4.0, "total": 9.0}, {"bound": 9.0, "total": 9.0}) == {
        "chain_0/F_rmse": 2.0
    }
    assert bounds({"bound": None}, None) == {}  # type: ignore[dict-item]


def test_memory_of_a_step_is_known_before_it(chains: Path, prior: str) -> None:
    task = prepared(f"data={chains}", prior, *TINY, dtype=torch.float32).task
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad])
    memory = StepMemory(task, optimizer)
    (small,) = task.train_batch(0)
    estimate = memory.of([small])
    assert estimate.activations > 1e5
    assert memory.largest(small, estimate.total * 4) > 2 * len(small)
