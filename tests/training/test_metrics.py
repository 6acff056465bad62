"""Metrics against NumPy over the whole set, however it is cut into batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.training.metrics import RegressionMetrics, scale_and_unit
from mlff_cli.training.settings_loss import MetricOptions

CPU = torch.device("cpu")
OPTIONS = {
    n: MetricOptions(abbr=a) for n, a in (("energy", "E"), ("forces", "F"), ("charges", "q"))
}


def data(n: int, width: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    n_atoms = torch.randint(2, width + 1, (n,), generator=g)
    batch: dict[str, Tensor] = {
        "n_atoms": n_atoms,
        "numbers": torch.ones(n, width, dtype=torch.int64),
        "fidelity": torch.randint(0, 2, (n,), generator=g),
    }
    predicted = {}
    for name, shape in (("energy", ()), ("forces", (width, 3)), ("charges", (width,))):
        batch[name] = torch.randn(n, *shape, generator=g).double()
        predicted[name] = torch.randn(n, *shape, generator=g).double()
        batch[f"{name}_mask"] = torch.rand(n, generator=g) < 0.7
    return predicted, batch


def cut(values: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {k: v[rows] for k, v in values.items()}


def reference(
    predicted: dict[str, Tensor], batch: dict[str, Tensor], name: str, k: int | None
) -> tuple[np.ndarray, np.ndarray]:
    y, t = [], []
    for b in range(len(batch["n_atoms"])):
        if batch[f"{name}_mask"][b] and k in (None, int(batch["fidelity"][b])):
            n = int(batch["n_atoms"][b])
            real = slice(None) if name == "energy" else slice(0, n)
            y.append(predicted[name][b][real].numpy().ravel() if n else [])
            t.append(batch[name][b][real].numpy().ravel())
    return np.concatenate(y), np.concatenate(t)


@pytest.mark.parametrize("n_batches", [1, 3, 40])
def test_metrics_equal_those_of_the_whole_set(n_batches: int) -> None:
    predicted, batch = data(40, 6, seed=0)
    metrics = RegressionMetrics(OPTIONS, 2, CPU)
    for rows in np.array_split(np.arange(40), n_batches):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        metrics.update(cut(predicted, part), cut(batch, part))
    found = metrics.compute()
    for name, option in OPTIONS.items():
        scale = 1.0 if name == "charges" else 1 / KCAL_MOL
        for prefix, k in (("", None), ("fid0/", 0), ("fid1/", 1)):
            y, t = reference(
                {n: v if n != "energy" else v[:, None] for n, v in predicted.items()},
                {n: v if n != "energy" else v[:, None] for n, v in batch.items()},
                name,
                k,
            )
            expected = {
                "mae": scale * np.abs(y - t).mean(),
                "rmse": scale * np.sqrt(((y - t) ** 2).mean()),
                "r2": 1 - ((y - t) ** 2).sum() / ((t - t.mean()) ** 2).sum(),
            }
            for kind, value in expected.items():
                assert found[f"{prefix}{option.abbr}_{kind}"] == pytest.approx(value, rel=1e-10)


def test_labels_without_data_have_no_metrics() -> None:
    predicted, batch = data(5, 4, seed=1)
    batch["forces_mask"][:] = False
    metrics = RegressionMetrics(OPTIONS, 2, CPU)
    metrics.update(predicted, batch)
    assert not [name for name in metrics.compute() if "F_" in name]


def test_units_and_scales() -> None:
    units = RegressionMetrics(OPTIONS, 2, CPU).units
    assert units["E_rmse"] == "kcal/mol"
    assert units["fid1/F_mae"] == "kcal/mol/A"
    assert units["q_rmse"] == "e"
    seed = MetricOptions(abbr="E", scale=23.06)
    assert scale_and_unit("energy", seed) == (23.06, "kcal/mol")
    assert scale_and_unit("forces", MetricOptions(abbr="F", unit="eV/A")) == (1.0, "eV/A")
    with pytest.raises(ConfigError, match="contradicts"):
        scale_and_unit("energy", MetricOptions(abbr="E", scale=23.06, unit="eV"))
    with pytest.raises(ConfigError, match="must be one of"):
        scale_and_unit("energy", MetricOptions(abbr="E", unit="parsec"))
