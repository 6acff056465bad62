"""Metrics against NumPy over the whole set, however it is cut into batches and processes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import FIELDS, LABELS
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.families.configure import configure
from mlff_cli.training.distributed import World
from mlff_cli.training.metric_units import scale_and_unit
from mlff_cli.training.metrics import RegressionMetrics, check_metrics, merged
from mlff_cli.training.settings_loss import MetricOptions, MetricsSection

CPU = torch.device("cpu")
ABBR = dict(zip(LABELS, "EFqsDQ", strict=True))
OPTIONS = {label: MetricOptions(abbr=abbr) for label, abbr in ABBR.items()}
SCALE = {"energy": 1 / KCAL_MOL, "forces": 1 / KCAL_MOL}
Tensors = dict[str, Tensor]


def data(n: int = 40, width: int = 6, seed: int = 0) -> tuple[Tensors, Tensors]:
    """Ragged molecules of 3 fidelities with 70 % of the labels; NaN where nothing counts."""
    g = torch.Generator().manual_seed(seed)
    n_atoms = torch.randint(2, width + 1, (n,), generator=g)
    real = torch.arange(width) < n_atoms[:, None]
    batch: Tensors = {"n_atoms": n_atoms, "fidelity": torch.randint(0, 3, (n,), generator=g)}
    predicted = {}
    for label in LABELS:
        shape = (n, *FIELDS[label].shape(width))
        mask = torch.rand(n, generator=g) < 0.7
        counted = mask.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
        if "N" in FIELDS[label].dims:
            counted = counted & real.reshape(n, width, *[1] * (len(shape) - 2))
        y, t = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
        predicted[label] = y.where(counted, torch.nan)
        batch[label] = t.where(counted, torch.nan)
        batch[f"{label}_mask"] = mask
    return predicted, batch


def cut(values: Tensors, rows: np.ndarray) -> Tensors:
    return {k: v[rows] for k, v in values.items()}


def reference(predicted: Tensors, batch: Tensors, shift: float = 0.0) -> dict[str, float]:
    """All metrics by NumPy, molecule by molecule."""
    found = {}
    for label in LABELS:
        for prefix, k in (("", None), ("fid0/", 0), ("fid1/", 1), ("fid2/", 2)):
            y, t, per_atom = [], [], []
            for b in range(len(batch["n_atoms"])):
                if batch[f"{label}_mask"][b] and k in (None, int(batch["fidelity"][b])):
                    n = int(batch["n_atoms"][b])
                    of_atoms = "N" in FIELDS[label].dims
                    real = slice(0, n) if of_atoms else slice(None)
                    y.append(np.atleast_1d(predicted[label][b].numpy())[real].ravel())
                    t.append(np.atleast_1d(batch[label][b].numpy())[real].ravel())
                    per_atom.append((y[-1] - t[-1]) / n)
            e, truth = np.concatenate(y) - np.concatenate(t), np.concatenate(t) - shift
            scale, name = SCALE.get(label, 1.0), prefix + ABBR[label]
            found[f"{name}_mae"] = scale * np.abs(e).mean()
            found[f"{name}_rmse"] = scale * np.sqrt((e**2).mean())
            found[f"{name}_r2"] = 1 - (e**2).sum() / ((truth - truth.mean()) ** 2).sum()
            if label == "energy":
                a = np.concatenate(per_atom)
                found[f"{name}_per_atom_mae"] = scale * np.abs(a).mean()
                found[f"{name}_per_atom_rmse"] = scale * np.sqrt((a**2).mean())
    return found


def measured(predicted: Tensors, batch: Tensors, n_batches: int = 1) -> RegressionMetrics:
    metrics = RegressionMetrics(OPTIONS, 3, CPU)
    for rows in np.array_split(np.arange(len(batch["n_atoms"])), n_batches):
        metrics.update(cut(predicted, rows), cut(batch, rows))
    return metrics


@pytest.mark.parametrize("n_batches", [1, 3, 40])
def test_metrics_equal_those_of_the_whole_set(n_batches: int) -> None:
    predicted, batch = data()
    found = measured(predicted, batch, n_batches).compute()
    assert found == pytest.approx(reference(predicted, batch), rel=1e-10)


@pytest.mark.parametrize("mean", [1e6, -1e8])
def test_r2_survives_labels_of_large_mean(mean: float) -> None:
    predicted, batch = data()
    for label in LABELS:
        predicted[label], batch[label] = predicted[label] + mean, batch[label] + mean
    exact = reference(predicted, batch, shift=mean)
    found = measured(predicted, batch, 7).compute()
    for name, value in exact.items():
        if name.endswith("r2"):
            assert found[name] == pytest.approx(value, abs=1e-6), name


def test_constant_labels_have_no_r2() -> None:
    predicted, batch = data()
    for value in (0.0, 0.1, -123.456):
        batch["energy"] = torch.full_like(batch["energy"], value)
        found = measured(predicted, batch, 9).compute()
        assert "E_rmse" in found
        assert "E_r2" not in found


def test_padding_changes_nothing() -> None:
    predicted, batch = data()
    before = measured(predicted, batch).compute()
    for values in (predicted, batch):
        for label in ("forces", "charges", "spin_charges"):
            pad = (0, 0, 0, 3) if label == "forces" else (0, 3)
            values[label] = torch.nn.functional.pad(values[label], pad, value=7.0)
    assert measured(predicted, batch).compute() == pytest.approx(before, rel=1e-12)


def test_labels_without_data_have_no_metrics() -> None:
    predicted, batch = data()
    batch["forces_mask"][:] = False
    del predicted["forces"]  # what nobody has a label of is not predicted
    batch["charges_mask"] &= batch["fidelity"] == 1
    found = measured(predicted, batch).compute()
    assert not [name for name in found if "F_" in name]
    assert {name for name in found if "q_rmse" in name} == {"q_rmse", "fid1/q_rmse"}


def test_only_what_can_have_data_is_named() -> None:
    predicted, batch = data()
    having = {"energy": {0, 1, 2}, "charges": {1}, "forces": set[int]()}
    metrics = RegressionMetrics(OPTIONS, 3, CPU, having)
    names = set(metrics.units)
    assert {n for n in names if "q_mae" in n} == {"q_mae", "fid1/q_mae"}
    assert not [n for n in names if "F_" in n or "s_" in n]
    metrics.update(predicted, batch)
    assert set(metrics.compute()) <= names


def test_an_update_never_waits_for_the_device() -> None:
    predicted, batch = data()
    with FakeTensorMode() as fake:  # values do not exist here: asking for one raises
        y = {k: fake.from_tensor(v) for k, v in predicted.items()}
        t = {k: fake.from_tensor(v) for k, v in batch.items()}
        metrics = RegressionMetrics(OPTIONS, 3, CPU)
        metrics.update(y, t)
        metrics.load(metrics.state())
        with pytest.raises(DataDependentOutputException):
            metrics.compute()


def test_every_metric_has_a_unit() -> None:
    predicted, batch = data()
    metrics = measured(predicted, batch)
    assert set(metrics.compute()) == set(metrics.units)
    assert {k: metrics.units[k] for k in ("E_rmse", "fid1/F_mae", "q_rmse", "E_r2")} == {
        "E_rmse": "kcal/mol", "fid1/F_mae": "kcal/mol/A", "q_rmse": "e", "E_r2": ""
    }  # fmt: skip
    assert metrics.units["E_per_atom_mae"] == "kcal/mol/atom"
    assert metrics.units["D_mae"] == "e*angstrom"
    assert metrics.units["fid0/Q_rmse"] == "e*angstrom^2"


def test_a_state_is_continued_exactly() -> None:
    predicted, batch = data()
    whole = measured(predicted, batch, 4)
    first, second = RegressionMetrics(OPTIONS, 3, CPU), RegressionMetrics(OPTIONS, 3, CPU)
    rows = np.array_split(np.arange(40), 4)
    for part in rows[:2]:
        first.update(cut(predicted, part), cut(batch, part))
    second.load(first.state())
    for part in rows[2:]:
        second.update(cut(predicted, part), cut(batch, part))
    assert torch.equal(second.state(), whole.state())
    assert second.compute() == whole.compute()


@dataclass
class Meeting:
    """A sum over threads that stand for processes."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))
    tensors: list[Tensor] = field(default_factory=list)

    def sum_(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        self.barrier.wait()
        total = torch.stack(self.tensors).sum(0)
        self.barrier.wait()
        return tensor.copy_(total)


@dataclass(frozen=True)
class Side(World):
    """One of two processes."""

    meeting: Meeting = field(default_factory=Meeting)

    def sum_(self, tensor: Tensor) -> Tensor:
        return self.meeting.sum_(tensor)


def test_two_processes_measure_what_one_does() -> None:
    predicted, batch = data()
    expected = measured(predicted, batch).compute()
    meeting, found = Meeting(), [dict[str, float](), dict[str, float]()]
    shares = (np.arange(13), np.arange(13, 40))

    def process(rank: int) -> None:
        metrics = RegressionMetrics(OPTIONS, 3, CPU)
        metrics.update(cut(predicted, shares[rank]), cut(batch, shares[rank]))
        metrics.reduce(Side(rank=rank, size=2, meeting=meeting))
        found[rank] = metrics.compute()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found[0] == found[1] == pytest.approx(expected, rel=1e-12)


def test_states_of_processes_merge() -> None:
    predicted, batch = data()
    shares = np.array_split(np.arange(40), 3)
    states = [measured(cut(predicted, s), cut(batch, s)).state() for s in shares]
    together = RegressionMetrics(OPTIONS, 3, CPU)
    together.load(merged(torch.stack(states)))
    assert together.compute() == pytest.approx(measured(predicted, batch).compute(), rel=1e-12)


@pytest.mark.parametrize(
    ("label", "option", "expected"),
    [
        ("energy", {}, (1 / KCAL_MOL, "kcal/mol")),
        ("energy", {"scale": 23.06}, (23.06, "kcal/mol")),
        ("energy", {"unit": "meV"}, (1000.0, "meV")),
        ("energy", {"scale": 2.0}, (2.0, "eV/2")),
        ("forces", {"unit": "eV/A"}, (1.0, "eV/A")),
        ("forces", {"unit": "kJ/mol"}, (4.184 / KCAL_MOL, "kJ/mol/A")),
        ("charges", {"scale": 1.0}, (1.0, "e")),
        ("charges", {"scale": 1000.0}, (1000.0, "e/1000")),
        ("dipole", {"unit": "D"}, (4.803204712570263, "D")),
        ("quadrupole", {"unit": "D*angstrom"}, (4.803204712570263, "D*angstrom")),
    ],
)
def test_units_and_scales(
    label: str, option: dict[str, object], expected: tuple[float, str]
) -> None:
    scale, unit = scale_and_unit(label, MetricOptions.model_validate({"abbr": "x", **option}))
    assert (scale, unit) == (pytest.approx(expected[0], rel=1e-12), expected[1])


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"energy": {"abbr": "E", "scale": 23.06, "unit": "eV"}}, "contradicts"),
        ({"energy": {"abbr": "E", "unit": "parsec"}}, "must be one of"),
        ({"charges": {"abbr": "q", "unit": "eV"}}, "must be one of"),
        ({"coord": {"abbr": "x"}}, "is no label"),
        ({"forces": {"abbr": "F", "mult": 1}}, "mult is 3"),
        ({"energy": {"abbr": "E", "peratom": True}}, "peratom is False"),
        ({"energy": {"abbr": "E"}, "forces": {"abbr": "E"}}, "same abbr"),
    ],
)
def test_wrong_metrics_are_refused(cfg: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_metrics(MetricsSection.model_validate({"kwargs": {"cfg": cfg}}))


def test_one_key_changes_the_unit_of_energies_and_forces() -> None:
    cfg = {"energy": {"abbr": "E"}, "forces": {"abbr": "F"}, "charges": {"abbr": "q"}}
    section = MetricsSection.model_validate({"kwargs": {"cfg": cfg, "unit": "meV"}})
    units = RegressionMetrics(check_metrics(section), 1, CPU).units
    assert (units["E_mae"], units["F_mae"], units["q_mae"]) == ("meV", "meV/A", "e")
    cfg["energy"]["unit"] = "eV"
    section = MetricsSection.model_validate({"kwargs": {"cfg": cfg, "unit": "meV"}})
    assert RegressionMetrics(check_metrics(section), 1, CPU).units["E_mae"] == "eV"


def test_the_preset_names_every_label() -> None:
    _, settings = configure("default", [], ["metrics.kwargs.cfg.energy.unit=eV"], "x")
    options = check_metrics(settings.metrics)
    assert {label: option.abbr for label, option in options.items()} == ABBR
    assert RegressionMetrics(options, 1, CPU).units["E_mae"] == "eV"
