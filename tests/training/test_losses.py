"""A batch of anything is worth its molecules one by one, whatever is missing or padded."""

from __future__ import annotations

import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import functional

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import FIELDS, LABELS
from mlff_cli.data.batching import Batch, Collator
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.families.multifidelity_settings import MultifidelitySettings
from mlff_cli.physics.multipoles import moments
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.training.loss_errors import MolecularError, huber
from mlff_cli.training.losses import (
    FLOOR,
    AdaptiveLoss,
    FixedLoss,
    MultiTaskLoss,
    Term,
    build_loss,
)
from mlff_cli.training.optimizers import build_optimizer, freeze
from mlff_cli.training.settings_loss import LossSection
from tests.synthetic import self_energy
from tests.tiny import molecules, tiny_network
from tests.tiny_training import ELEMENTS, write_fidelities

SHARED = ("energy", "forces", "charges", "spin_charges")
SAE = {z: float(self_energy(z)) for z in ELEMENTS}
SECTIONS = {
    "MTLoss": {"energy": {"weight": 1}, "forces": {"weight": 0.5}, "charges": {"weight": 0.01}},
    "Huber": {
        "energy": {"weight": 1, "fn": "huber_loss_fn", "kwargs": {"delta": 0.1, "per": "atom"}},
        "forces": {"weight": 0.5, "fn": "huber_loss_fn", "kwargs": {"delta": 0.1}},
        "spin_charges": {"weight": 0.02, "fn": "mse_loss_fn"},
    },
    "per atom": {"energy": {"weight": 1, "fn": "peratom_loss_fn"}, "charges": {"weight": 0.1}},
    "pulled": {
        "energy": {"weight": 1},
        "charges": {"weight": 0.1, "kwargs": {"missing_label_regularization": 0.01}},
    },
    "MTAdaWLoss": {
        "energy": {"weight": 1},
        "forces": {"weight": 0.5, "scale": 3.0},
        "spin_charges": {"weight": 0.02, "kwargs": {"missing_label_regularization": 0.3}},
    },
}


def section(kind: str = "MTLoss", **components: object) -> LossSection:
    return LossSection.model_validate({"class": kind, "kwargs": {"components": components}})


def loss_of(name: str) -> MultiTaskLoss:
    kind = name if name.startswith("MT") else "MTLoss"
    loss = build_loss(section(kind, **SECTIONS[name]), LABELS)
    if isinstance(loss, AdaptiveLoss):
        with torch.no_grad():
            loss.log_variance.copy_(torch.linspace(-1.0, 1.5, len(loss.log_variance)))
    return loss


@pytest.fixture(scope="module")
def collator(tmp_path_factory: pytest.TempPathFactory) -> Collator:
    folder: Path = tmp_path_factory.mktemp("fidelities")
    write_fidelities(folder, missing=0.25)
    sets = [FidelityDataset(folder / f"fid{k}.h5", k, SAE, SHARED) for k in range(3)]
    return Collator(sets, SHARED, offset=200, dtype=torch.float64)


@pytest.fixture
def model() -> AIMNet2:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = AIMNet2Spec(
            nfeature=4, ncomb_v=3, hidden=((16, 12), (16, 12), (16, 12)), aim_size=8, nshifts=6,
            energy_hidden=(8,), num_fidelities=3, num_charge_channels=2,
        )  # fmt: skip
        net = AIMNet2(spec).double()
        with torch.no_grad():  # readouts start equal; make them differ, as after training
            for p in net.parameters():
                p.add_(0.05 * torch.randn_like(p))
        return net


def mixed(collator: Collator, n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    fidelity = np.arange(n) % 3
    return fidelity, np.array([rng.integers(len(collator.datasets[k])) for k in fidelity])


def gradients(parameters: list[Tensor], value: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_same_gradients(found: list[Tensor], wanted: list[Tensor]) -> None:
    largest = max(float(g.abs().max()) for g in wanted)
    assert largest > 0
    for f, w in zip(found, wanted, strict=True):
        assert float((f - w).abs().max()) < 1e-10 * largest


# -- laws of every loss ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("n_parts", [24, 5])
def test_parts_of_a_batch_sum_to_the_whole(
    model: AIMNet2, collator: Collator, name: str, n_parts: int
) -> None:
    fidelity, index = mixed(collator)
    loss = loss_of(name)
    parameters = [*model.parameters(), *loss.parameters()]

    def value(batch: Batch, counts: Tensor | None = None) -> Tensor:
        predicted = energy_and_forces(model, batch.tensors, create_graph=True)
        total: Tensor = loss(predicted, batch.tensors, counts).total
        return total

    batch = collator(fidelity, index)
    masks = torch.stack([batch.tensors[f"{n}_mask"] for n in SHARED])
    assert masks.any(dim=1).all()
    assert not masks.all(dim=1).any()
    assert len(set(batch.tensors["n_atoms"].tolist())) > 2
    together = value(batch)

    parts = collator.parts(fidelity, index, n_parts)
    assert len(parts) == n_parts
    counts = loss.counts([part.tensors for part in parts])
    total = torch.stack([value(part, counts) for part in parts]).sum()
    assert float(total.detach()) == pytest.approx(float(together.detach()), rel=1e-10)
    assert_same_gradients(gradients(parameters, total), gradients(parameters, together))


@pytest.mark.parametrize("name", SECTIONS)
def test_padding_changes_nothing(collator: Collator, name: str) -> None:
    batch = collator(*mixed(collator, 9)).tensors
    rng = torch.Generator().manual_seed(0)
    predicted = {n: torch.randn(batch[n].shape, generator=rng).double() for n in SHARED}
    wider, wide = dict(batch), dict(predicted)
    for n in ("numbers", "forces", "charges", "spin_charges"):
        pad = (0, 0, 0, 5) if n == "forces" else (0, 5)
        wider[n] = functional.pad(batch[n], pad)
        if n in predicted:  # what is predicted for padding must not count either
            wide[n] = functional.pad(predicted[n], pad, value=torch.nan)
    loss = loss_of(name)
    a, b = loss(predicted, batch), loss(wide, wider)
    assert float(a.total.detach()) == pytest.approx(float(b.total.detach()), rel=1e-14)


@pytest.mark.parametrize("name", SECTIONS)
def test_what_is_masked_reaches_no_gradient(collator: Collator, name: str) -> None:
    batch = dict(collator(*mixed(collator)).tensors)
    n_atoms = batch["n_atoms"]
    real = torch.arange(batch["numbers"].shape[1]) < n_atoms[:, None]
    predicted = {}
    for n in SHARED:
        known = batch[f"{n}_mask"].reshape(-1, *[1] * (batch[n].dim() - 1))
        batch[n] = batch[n].where(known, torch.nan)  # as if the collator had not put zeros
        y = torch.ones_like(batch[n]) * 0.3
        if "N" in FIELDS[n].dims:
            y = y.where(real.reshape(*real.shape, *[1] * (y.dim() - 2)), torch.inf)
        predicted[n] = y.requires_grad_(True)
    loss = loss_of(name)
    loss(predicted, batch).total.backward()
    for n in set(loss.labels):
        slope = predicted[n].grad
        assert slope is not None
        assert torch.isfinite(slope).all()
        if not any(t.missing and t.error.label == n for t in loss.terms):
            assert not slope[~batch[f"{n}_mask"]].any()
        if "N" in FIELDS[n].dims:
            assert not slope[~real].any()
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_batch_without_any_label_costs_nothing(collator: Collator, name: str) -> None:
    batch = dict(collator(*mixed(collator)).tensors)
    for n in SHARED:
        batch[f"{n}_mask"] = torch.zeros_like(batch[f"{n}_mask"])
    predicted = {n: (batch[n] + 1.0).requires_grad_(True) for n in SHARED}
    loss = loss_of(name)
    value = loss(predicted, batch)
    value.total.backward()
    pulled = [t.error.label for t in loss.terms if t.missing]
    if not pulled:
        assert float(value.total.detach()) == 0.0
    for n in set(loss.labels) - set(pulled):
        assert not predicted[n].grad.any()
    for parameter in loss.parameters():
        assert not parameter.grad.any()
        assert torch.isfinite(parameter.grad).all()


def test_a_component_without_labels_adds_and_takes_nothing(collator: Collator) -> None:
    batch = collator(np.full(10, 2), np.arange(10))  # fidelity 2 has energies only
    predicted = {"energy": batch.tensors["energy"] + 1.0}
    both = loss_of("MTLoss")(predicted, batch.tensors)
    only = build_loss(section(energy={"weight": 1}), LABELS)(predicted, batch.tensors)
    assert both.counts[1] == 0
    assert float(both.total) == pytest.approx(float(only.total) / 1.51, rel=1e-14)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_loss_of_a_set_does_not_depend_on_its_batches(collator: Collator, name: str) -> None:
    fidelity, index = mixed(collator, 30)
    loss = loss_of(name)

    def whole(parts: list[np.ndarray]) -> float:
        n = len(loss.names)
        sums, counts = torch.zeros(n).double(), torch.zeros(n).double()
        for part in parts:
            batch = collator(fidelity[part], index[part]).tensors
            value = loss({n: batch[n] + 0.3 for n in SHARED}, batch)
            sums, counts = sums + value.sums, counts + value.counts
        return float(loss.parts(sums, counts).sum())

    one = whole([np.arange(30)])
    assert whole(np.array_split(np.arange(30), 7)) == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_loss_never_waits_for_the_device(collator: Collator, name: str) -> None:
    batch = collator(*mixed(collator)).tensors
    loss = loss_of(name)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:  # asking for a value raises here
        faked = {k: fake.from_tensor(v) for k, v in batch.items()}
        predicted = {n: (faked[n] + 1.0).requires_grad_(True) for n in SHARED}
        value = loss(predicted, faked, loss.counts([faked, faked]))
        value.total.backward()
        loss.parts(value.sums, value.counts)


def test_charges_learn_the_moments() -> None:
    data = molecules()
    network = tiny_network().double().requires_grad_(True)
    g = torch.Generator().manual_seed(0)
    batch = {
        **data,
        "n_atoms": (data["numbers"] > 0).sum(1),
        "dipole": torch.randn(4, 3, generator=g, dtype=torch.float64),
        "quadrupole": torch.randn(4, 6, generator=g, dtype=torch.float64),
        "dipole_mask": torch.tensor([True, True, False, True]),
        "quadrupole_mask": torch.tensor([True, False, False, True]),
    }
    loss = build_loss(section(dipole={"weight": 1}, quadrupole={"weight": 0.5}), LABELS)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    totals = []
    for _ in range(60):
        optimizer.zero_grad()
        out = network(batch)
        value = loss(moments(out["charges"], batch, loss.labels), batch).total
        value.backward()
        optimizer.step()
        totals.append(float(value.detach()))
    assert totals[-1] < 0.3 * totals[0]
    torch.testing.assert_close(out["charges"].sum(1), data["charge"], rtol=0, atol=1e-5)


# -- errors of one molecule -----------------------------------------------------------------------


def ragged(label: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    n_atoms = torch.tensor([3.0, 5.0, 2.0], dtype=torch.float64)
    shape = (3, *FIELDS[label].shape(5))
    y, t = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    return y, t, n_atoms, torch.tensor([True, True, False])


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("delta", [None, 0.7])
def test_errors_are_those_of_torch(label: str, delta: float | None) -> None:
    y, t, n_atoms, mask = ragged(label)
    penalty = {} if delta is None else {"penalty": partial(huber, delta=delta)}
    found = MolecularError(label, **penalty)(y, t, n_atoms, mask)  # type: ignore[arg-type]
    reference = (
        functional.mse_loss if delta is None else partial(functional.huber_loss, delta=delta)
    )
    for b in range(3):
        real = slice(None) if "N" not in FIELDS[label].dims else slice(0, int(n_atoms[b]))
        one = (y[b][real], t[b][real]) if y.dim() > 1 else (y[b], t[b])
        expected = float(reference(*one)) if mask[b] else 0.0  # type: ignore[operator]
        assert float(found[b]) == pytest.approx(expected, rel=1e-12)


def test_energies_are_related_to_atoms_as_documented() -> None:
    y, t, n, mask = ragged("energy")
    r = torch.where(mask, y - t, 0.0)
    for per, expected in (
        ("molecule", r**2),
        ("sqrt_atom", r**2 / n**0.5),
        ("atom", (r / n) ** 2),
    ):
        error = MolecularError("energy", per=per)  # type: ignore[arg-type]
        torch.testing.assert_close(error(y, t, n, mask), expected)
    absolute = MolecularError("energy", partial(huber, delta=1e-9), "atom")(y, t, n, mask)
    torch.testing.assert_close(absolute, 1e-9 * (r / n).abs(), rtol=1e-6, atol=1e-18)


@given(r=st.floats(-100, 100), delta=st.floats(1e-3, 10))
def test_huber_is_half_a_square_near_zero_and_a_line_beyond(r: float, delta: float) -> None:
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    value = huber(x, delta)
    (slope,) = torch.autograd.grad(value, x)
    expected = r * r / 2 if abs(r) <= delta else delta * (abs(r) - delta / 2)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert float(slope) == pytest.approx(min(max(r, -delta), delta), rel=1e-12, abs=1e-300)


# -- learned weights ------------------------------------------------------------------------------


def energies(scale: float = 1.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Energies with mean squared error 4 scale^2, dipoles with 0.01."""
    mask = torch.ones(3, dtype=torch.bool)
    batch = {
        "n_atoms": torch.ones(3, dtype=torch.int64),
        "energy": torch.zeros(3).double(),
        "dipole": torch.zeros(3, 3).double(),
        "energy_mask": mask,
        "dipole_mask": mask,
    }
    predicted = {
        "energy": 2 * scale * torch.ones(3).double(),
        "dipole": 0.1 * torch.ones(3, 3).double(),
    }
    return predicted, batch


def adaptive(**weights: float) -> AdaptiveLoss:
    return AdaptiveLoss([Term(n, MolecularError(n), w) for n, w in weights.items()])


def test_learned_weights_begin_as_the_fixed_ones() -> None:
    predicted, batch = energies()
    fixed = FixedLoss([Term(n, MolecularError(n), w) for n, w in (("energy", 3), ("dipole", 1))])
    learned = adaptive(energy=3, dipole=1)
    a, b = float(fixed(predicted, batch).total), float(learned(predicted, batch).total.detach())
    assert b == pytest.approx(a + FLOOR, rel=1e-14)
    assert learned.weights() == pytest.approx({"weight_energy": 0.75, "weight_dipole": 0.25})


def test_learned_weights_are_those_of_kendall() -> None:
    predicted, batch = energies()
    loss = adaptive(energy=1, dipole=1)
    with torch.no_grad():
        loss.log_variance.copy_(torch.tensor([0.3, -2.0]))
    total = loss(predicted, batch).total
    # the paper: 1/(2 sigma^2) L + log sigma, here with mean weights 1/2 instead of 1, doubled
    sigma = torch.exp(0.5 * loss.log_variance.detach())
    errors = torch.tensor([4.0, 0.01], dtype=torch.float64)
    published = (errors / (2 * sigma**2) + sigma.log()).sum()
    assert float(total.detach()) == pytest.approx(float(published), rel=1e-9)
    (slope,) = torch.autograd.grad(total, loss.log_variance)
    expected = 0.5 * (1 - errors / sigma**2)
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_learned_weights_come_to_rest_at_the_inverse_errors(scale: float) -> None:
    predicted, batch = energies(scale)
    loss = adaptive(energy=3, dipole=1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(600):
        optimizer.zero_grad()
        loss(predicted, batch).total.backward()
        torch.nn.utils.clip_grad_value_(loss.parameters(), 0.4)  # as the loop does
        optimizer.step()
    at_rest = {"weight_energy": 0.75 / (4 * scale**2), "weight_dipole": 0.25 / 0.01}
    assert loss.weights() == pytest.approx(at_rest, rel=1e-3)


def test_a_fitted_component_keeps_a_finite_weight() -> None:
    predicted, batch = energies()
    predicted["dipole"] = batch["dipole"].clone()
    loss = adaptive(energy=1, dipole=1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss(predicted, batch).total.backward()
        optimizer.step()
    assert loss.weights()["weight_dipole"] == pytest.approx(0.5 / FLOOR, rel=0.5)


def test_the_reported_loss_does_not_know_learned_weights() -> None:
    loss = adaptive(energy=3, dipole=1)
    sums, counts = torch.tensor([8.0, 2.0]).double(), torch.tensor([2, 4])
    before = loss.parts(sums, counts).tolist()
    with torch.no_grad():
        loss.log_variance.fill_(5.0)
    assert loss.parts(sums, counts).tolist() == before == [3.0, 0.125]


def test_learned_weights_are_resumed_exactly() -> None:
    predicted, batch = energies()

    def run(loss: AdaptiveLoss, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(predicted, batch).total.backward()
            optimizer.step()

    def fresh() -> tuple[AdaptiveLoss, torch.optim.Optimizer]:
        loss = adaptive(energy=3, dipole=1)
        return loss, torch.optim.AdamW(loss.param_groups(1e-4))

    whole, optimizer = fresh()
    run(whole, optimizer, 7)
    first, optimizer = fresh()
    run(first, optimizer, 3)
    file = io.BytesIO()
    torch.save({"loss": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second, optimizer = fresh()
    second.load_state_dict(state["loss"])
    optimizer.load_state_dict(state["optimizer"])
    run(second, optimizer, 4)
    assert torch.equal(second.log_variance, whole.log_variance)
    assert not torch.equal(second.log_variance, first.log_variance)


def test_a_fixed_loss_has_no_state() -> None:
    loss = loss_of("MTLoss")
    assert not loss.state_dict()
    loss.load_state_dict({})
    assert loss.param_groups(1e-3) == []
    assert loss.weights() == {}


# -- molecules without a label --------------------------------------------------------------------


def test_charges_of_unlabelled_molecules_are_pulled_to_zero(collator: Collator) -> None:
    batch = collator(*mixed(collator)).tensors
    mask, real = batch["charges_mask"], batch["numbers"] > 0
    g = torch.Generator().manual_seed(3)
    q = torch.randn(batch["charges"].shape, generator=g, dtype=torch.float64)
    plain = build_loss(section(charges={"weight": 2}, energy={"weight": 1}), LABELS)
    pulled = build_loss(
        section(
            charges={"weight": 2, "kwargs": {"missing_label_regularization": 0.05}},
            energy={"weight": 1},
        ),
        LABELS,
    )
    predicted = {"charges": q, "energy": batch["energy"]}
    more = float(pulled(predicted, batch).total - plain(predicted, batch).total)
    alone = [float(q[b][real[b]].square().mean()) for b in torch.nonzero(~mask)[:, 0]]
    assert more == pytest.approx(2 / 3 * 0.05 * float(np.mean(alone)), rel=1e-10)
    assert pulled.names == ("charges", "energy", "charges_missing")


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({"energy": {"weight": 1, "fn": "os.system"}}, "unknown name 'os.system'"),
        ({"forces": {"weight": 1}}, r"data\.y does not list"),
        ({"energy": {"weight": 0}}, "no component with a positive weight"),
        ({"energy": {"weight": 1, "fn": "huber_loss_fn"}}, r"energy.kwargs.delta"),
        ({"energy": {"weight": 1, "kwargs": {"delta": 1.0}}}, "grows linearly"),
        ({"charges": {"weight": 1, "kwargs": {"per": "atom"}}}, "averaged over the atoms already"),
        ({"energy": {"weight": 1, "scale": 2.0}}, "MTAdaWLoss"),
        ({"energy": {"weight": 1, "kwargs": {"key_pred": "charges"}}}, "compares a label"),
        ({"volume": {"weight": 1}}, "compares a label"),
        (
            {"energy": {"weight": 1, "kwargs": {"missing_label_regularization": 0.1}}},
            "no sensible guess of energy",
        ),
    ],
)
def test_configurations_that_cannot_be_met_are_refused(
    components: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_loss(section(**components), ("energy", "charges"))


def test_moments_are_configured_as_aimnet2mult_does() -> None:
    kwargs = {"key_pred": "charges", "key_true": "dipole"}
    built = build_loss(
        section(
            d={"weight": 1, "fn": "aimnet2mult.train.loss.dipole_loss_fn", "kwargs": kwargs},
            q={"weight": 1, "fn": "quadrupole_loss_fn", "kwargs": {"key_pred": "charges"}},
        ),
        LABELS,
    )
    assert built.names == ("d", "q")
    assert built.labels == ("dipole", "quadrupole")


def test_the_rate_of_learned_weights_is_settable_and_its_group_does_not_decay() -> None:
    values = {"class": "aimnet2mult.train.loss.MTAdaWLoss", "kwargs": {"eta": 0.01}}
    values["kwargs"]["components"] = SECTIONS["MTAdaWLoss"]  # type: ignore[index]
    loss = build_loss(LossSection.model_validate(values), LABELS)
    assert loss.names[-1] == "spin_charges_missing"
    (group,) = loss.param_groups(1e-3)
    assert group["lr"] == 0.01
    assert group["lr_ratio"] == pytest.approx(10.0)
    assert group["weight_decay"] == 0.0
    assert group["params"] == list(loss.parameters())
    assert loss.weights()["weight_forces"] == pytest.approx(3.0)  # its scale
    assert loss.learned_names == ("weight_energy", "weight_forces", "weight_spin_charges")


def test_a_weight_of_zero_switches_a_component_off() -> None:
    built = build_loss(section(energy={"weight": 2}, charges={"weight": 0}), ("energy",))
    assert built.names == ("energy",)


def test_the_examples_of_the_page_are_valid() -> None:
    page = Path(__file__).parents[2] / "docs" / "losses.md"
    examples = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    for text in examples:
        settings = MultifidelitySettings.model_validate(yaml.safe_load(text))
        if "loss" in text:
            built = build_loss(settings.loss, settings.data.y)
            assert built.names == ("energy", "forces", "dipole")
        network = tiny_network()
        freeze(network, settings.optimizer)
        build_optimizer(network, settings.optimizer)
