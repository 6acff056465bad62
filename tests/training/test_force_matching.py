"""Force matching: every real component counts alike, whatever batches and processes divide them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.force_matching import ForceMatchingLoss, ForceMetrics
from mlff_cli.training.metrics import merged

CPU = torch.device("cpu")


def batch(sizes: list[int], seed: int = 0) -> tuple[dict, dict, np.ndarray, np.ndarray]:
    """Padded labels and predictions, and those of the real beads alone; padding is NaN."""
    rng = np.random.default_rng(seed)
    n = max(sizes)
    y, t = np.full((2, len(sizes), n, 3), np.nan)
    for b, size in enumerate(sizes):
        y[b, :size], t[b, :size] = rng.normal(size=(2, size, 3))
    labels = {
        "forces": torch.from_numpy(t),
        "forces_mask": torch.ones(len(sizes), dtype=torch.bool),
        "energy": torch.from_numpy(rng.normal(size=len(sizes))),
        "energy_mask": torch.arange(len(sizes)) != 1,
        "n_atoms": torch.tensor(sizes),
        "molecule": torch.arange(len(sizes)) % 2,
    }
    predicted = {
        "forces": torch.from_numpy(y).requires_grad_(),
        "energy": torch.from_numpy(rng.normal(size=len(sizes))).requires_grad_(),
    }
    return predicted, labels, y[~np.isnan(y)], t[~np.isnan(t)]


def test_the_loss_is_the_mean_over_real_components_and_known_energies() -> None:
    predicted, labels, y, t = batch([3, 7, 2])
    value = ForceMatchingLoss(2.0, 0.5)(predicted, labels)
    known = labels["energy_mask"].numpy()
    de = (predicted["energy"].detach() - labels["energy"]).numpy()[known]
    expected = 2.0 * ((y - t) ** 2).mean() + 0.5 * (de**2).mean()
    assert float(value.total.detach()) == pytest.approx(expected)
    assert value.counts.tolist() == [36, 2]
    value.total.backward()
    gradient = predicted["forces"].grad
    assert torch.isfinite(gradient).all()
    assert not gradient[0, 3:].any()
    assert predicted["energy"].grad[1] == 0


def test_the_losses_of_parts_sum_to_that_of_the_whole() -> None:
    loss = ForceMatchingLoss(1.0, 0.1)
    predicted, labels, _, _ = batch([3, 7, 2, 5])
    whole = loss.counts([labels])
    parts = [
        loss(
            {k: v[a:b] for k, v in predicted.items()}, {k: v[a:b] for k, v in labels.items()}, whole
        ).total
        for a, b in ((0, 1), (1, 4))
    ]
    assert float(sum(parts).detach()) == pytest.approx(
        float(loss(predicted, labels).total.detach()), rel=1e-12
    )


def test_a_loss_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="positive weight"):
        ForceMatchingLoss(0.0)
    assert ForceMatchingLoss(1.0).names == ("forces",)


def test_errors_are_those_of_the_real_components_however_divided() -> None:
    predicted, labels, y, t = batch([3, 7, 2, 5, 4])
    metrics = ForceMetrics(["a", "b"], CPU, energies=True)
    for a, b in ((0, 2), (2, 5)):
        metrics.update(
            {k: v[a:b] for k, v in predicted.items()}, {k: v[a:b] for k, v in labels.items()}
        )
    found = metrics.compute()
    assert found["F_rmse"] == pytest.approx(math.sqrt(((y - t) ** 2).mean()))
    assert found["F_mae"] == pytest.approx(abs(y - t).mean())
    assert found["F_relative"] == pytest.approx(found["F_rmse"] / math.sqrt((t**2).mean()))
    assert found["F_r2"] == pytest.approx(1 - ((y - t) ** 2).sum() / ((t - t.mean()) ** 2).sum())
    first = [k for k in range(5) if k % 2 == 0]
    e = torch.cat(
        [(predicted["forces"] - labels["forces"])[k, : labels["n_atoms"][k]] for k in first]
    )
    assert found["a/F_rmse"] == pytest.approx(float(e.detach().square().mean().sqrt()))
    assert set(found) == set(metrics.units)
    assert "E_relative" not in found


def test_states_of_several_processes_merge() -> None:
    predicted, labels, _, _ = batch([3, 7, 2, 5])
    whole, halves = ForceMetrics(["a"], CPU), [ForceMetrics(["a"], CPU) for _ in range(2)]
    whole.update(predicted, labels)
    for half, (a, b) in zip(halves, ((0, 3), (3, 4)), strict=True):
        half.update(
            {k: v[a:b] for k, v in predicted.items()}, {k: v[a:b] for k, v in labels.items()}
        )
    again = ForceMetrics(["a"], CPU)
    again.load(again.merge(torch.stack([h.state() for h in halves])))
    assert again.compute() == pytest.approx(whole.compute())
    torch.testing.assert_close(merged(whole.state()[None]), whole.state())
