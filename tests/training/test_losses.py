"""A batch of anything is worth its molecules one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError
from mlff_cli.data.batching import Batch, Collator
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.training.losses import (
    MultiTaskLoss,
    build_loss,
    energy_error,
    mean_squared_error,
)
from mlff_cli.training.settings_loss import LossSection
from tests.synthetic import self_energy
from tests.tiny_training import ELEMENTS, write_fidelities

LABELS = ("energy", "forces", "charges", "spin_charges")
WEIGHTS = {"energy": 1.0, "forces": 0.5, "charges": 0.01, "spin_charges": 0.02}
ERRORS = {name: mean_squared_error for name in LABELS} | {"energy": energy_error}
SAE = {z: float(self_energy(z)) for z in ELEMENTS}


def weighted(names: tuple[str, ...] = LABELS) -> MultiTaskLoss:
    return MultiTaskLoss({n: (n, ERRORS[n], WEIGHTS[n]) for n in names})


@pytest.fixture
def collator(tmp_path: Path) -> Collator:
    write_fidelities(tmp_path, missing=0.25)
    sets = [FidelityDataset(tmp_path / f"fid{k}.h5", k, SAE, LABELS) for k in range(3)]
    return Collator(sets, LABELS, offset=200, dtype=torch.float64)


@pytest.fixture
def model() -> AIMNet2:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = AIMNet2Spec(
            nfeature=4, ncomb_v=3, hidden=((16, 12), (16, 12), (16, 12)), aim_size=8, nshifts=6,
            energy_hidden=(8,), num_fidelities=3,
        )  # fmt: skip
        net = AIMNet2(spec).double()
        with torch.no_grad():  # readouts start equal; make them differ, as after training
            for p in net.parameters():
                p.add_(0.05 * torch.randn_like(p))
        return net


def gradients(model: AIMNet2, value: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    pairs = zip(model.named_parameters(), found, strict=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs}


def test_a_mixed_batch_equals_its_molecules_one_by_one(model: AIMNet2, collator: Collator) -> None:
    rng = np.random.default_rng(1)
    fidelity = np.arange(24) % 3
    index = np.array([rng.integers(len(collator.datasets[k])) for k in fidelity])
    batch = collator(fidelity, index)
    masks = torch.stack([batch.tensors[f"{n}_mask"] for n in LABELS])
    counts = masks.sum(1)
    assert (counts > 0).all()
    assert not masks.all(dim=1).any()
    assert len(set(batch.tensors["n_atoms"].tolist())) > 2

    loss = weighted()
    together = loss(energy_and_forces(model, batch.tensors, create_graph=True), batch.tensors)
    expected = gradients(model, together.total)

    scale = sum(WEIGHTS.values())
    total = 0.0
    summed = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for b in range(len(batch)):
        single: Batch = collator(fidelity[b : b + 1], index[b : b + 1])
        predicted = energy_and_forces(model, single.tensors, create_graph=True)
        value = torch.zeros((), dtype=torch.float64)
        for c, name in enumerate(LABELS):
            alone = MultiTaskLoss({name: (name, ERRORS[name], 1.0)})
            e = alone(predicted, single.tensors).total
            value = value + WEIGHTS[name] / scale / int(counts[c]) * e
        if value.requires_grad:
            for name, g in gradients(model, value).items():
                summed[name] += g
        total += float(value.detach())
    assert float(together.total.detach()) == pytest.approx(total, rel=1e-10)
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, g in expected.items():
        assert float((g - summed[name]).abs().max()) < 1e-10 * largest, name


def test_a_batch_in_parts_takes_the_step_of_the_whole(model: AIMNet2, collator: Collator) -> None:
    rng = np.random.default_rng(2)
    fidelity = np.arange(24) % 3
    index = np.array([rng.integers(len(collator.datasets[k])) for k in fidelity])
    whole = collator(fidelity, index)
    parts = collator.parts(fidelity, index, 5)
    sizes = [part.tensors["n_atoms"] for part in parts]
    assert len(parts) == 5
    assert sorted(torch.cat(sizes).tolist()) == sorted(whole.tensors["n_atoms"].tolist())
    assert all(int(a.max()) <= int(b.min()) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    loss = weighted()
    counts = loss.counts([part.tensors for part in parts])
    expected = loss(energy_and_forces(model, whole.tensors, create_graph=True), whole.tensors)
    assert torch.equal(counts, expected.counts)
    values = [
        loss(energy_and_forces(model, part.tensors, create_graph=True), part.tensors, counts)
        for part in parts
    ]
    total = torch.stack([v.total for v in values]).sum()
    assert float(total.detach()) == pytest.approx(float(expected.total.detach()), rel=1e-10)
    got, wanted = gradients(model, total), gradients(model, expected.total)
    largest = max(float(g.abs().max()) for g in wanted.values())
    for name, g in wanted.items():
        assert float((g - got[name]).abs().max()) < 1e-10 * largest, name


def test_padding_changes_nothing(collator: Collator) -> None:
    batch = collator(np.zeros(6, dtype=int), np.arange(6)).tensors
    rng = torch.Generator().manual_seed(0)
    predicted = {n: torch.randn(batch[n].shape, generator=rng).double() for n in LABELS}
    wider = dict(batch)
    for name in ("numbers", "forces", "charges", "spin_charges"):
        pad = (0, 0, 0, 5) if name == "forces" else (0, 5)
        wider[name] = torch.nn.functional.pad(batch[name], pad)
        if name != "numbers":  # what is predicted for padding must not count either
            predicted[f"wide_{name}"] = torch.nn.functional.pad(predicted[name], pad, value=7.0)
    wide = {n: predicted.get(f"wide_{n}", predicted[n]) for n in LABELS}
    a, b = weighted()(predicted, batch), weighted()(wide, wider)
    assert float(a.total) == pytest.approx(float(b.total), rel=1e-14)


def test_errors_are_those_of_the_formulas() -> None:
    n = torch.tensor([2.0, 3.0], dtype=torch.float64)
    e = energy_error(torch.tensor([1.0, 4.0]), torch.tensor([0.0, 1.0]), n)
    torch.testing.assert_close(e, torch.tensor([1 / 2**0.5, 9 / 3**0.5]).double())
    y = torch.arange(18.0).reshape(2, 3, 3).double()
    f = mean_squared_error(y, torch.zeros_like(y), n)
    np_y = y.numpy()
    assert f.tolist() == pytest.approx([(np_y[0, :2] ** 2).mean(), (np_y[1] ** 2).mean()])
    q = mean_squared_error(y[..., 0], torch.zeros(2, 3), n)
    assert q.tolist() == pytest.approx([(np_y[0, :2, 0] ** 2).mean(), (np_y[1, :, 0] ** 2).mean()])


def test_a_component_without_labels_adds_and_takes_nothing(collator: Collator) -> None:
    batch = collator(np.full(10, 2), np.arange(10))  # fidelity 2 has energies only
    predicted = {"energy": batch.tensors["energy"] + 1.0}
    both = weighted(("energy", "forces"))
    value = both(predicted, batch.tensors)
    only = MultiTaskLoss({"energy": ("energy", energy_error, 1.0)})(predicted, batch.tensors)
    assert value.counts[1] == 0
    assert float(value.total) == pytest.approx(float(only.total) / 1.5, rel=1e-14)


def test_the_loss_of_a_set_does_not_depend_on_its_batches(collator: Collator) -> None:
    fidelity, index = np.arange(30) % 3, np.arange(30) // 3
    loss = weighted()

    def whole(parts: list[np.ndarray]) -> float:
        sums, counts = torch.zeros(4).double(), torch.zeros(4).double()
        for part in parts:
            batch = collator(fidelity[part], index[part])
            predicted = {n: batch.tensors[n] + 0.1 * batch.tensors["n_atoms"].sum() * 0 + 0.3
                         for n in LABELS}  # fmt: skip
            value = loss(predicted, batch.tensors)
            sums, counts = sums + value.sums, counts + value.counts
        return float(loss.parts(sums, counts).sum())

    one = whole([np.arange(30)])
    assert whole(np.array_split(np.arange(30), 7)) == pytest.approx(one, rel=1e-12)


def section(**components: dict[str, object]) -> LossSection:
    return LossSection.model_validate({"kwargs": {"components": components}})


def test_configurations_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown name 'os.system'"):
        build_loss(section(energy={"weight": 1, "fn": "os.system"}), LABELS)
    with pytest.raises(ConfigError, match="later version"):
        build_loss(section(dipole={"weight": 1, "fn": "dipole_loss_fn"}), (*LABELS, "dipole"))
    with pytest.raises(ConfigError, match=r"data\.y does not list"):
        build_loss(section(forces={"weight": 1}), ("energy",))
    with pytest.raises(ConfigError, match="no component with a positive weight"):
        build_loss(section(energy={"weight": 0}), LABELS)
    with pytest.raises(ConfigError, match="later version"):
        build_loss(LossSection.model_validate({"class": "MTAdaWLoss"}), LABELS)


def test_a_weight_of_zero_switches_a_component_off() -> None:
    built = build_loss(section(energy={"weight": 2}, charges={"weight": 0}), ("energy",))
    assert built.names == ("energy",)
