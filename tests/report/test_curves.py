"""The figure of a run: what it draws, that it is bounded, and that it leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes

from mlff_cli.report.curves import (
    MAX_POINTS,
    best_row,
    curves_figure,
    plot_curves,
    thinned,
)
from mlff_cli.report.sections import run_section

UNITS = {"val/fid0/E_rmse": "kcal/mol", "val/fid0/F_rmse": "kcal/mol/A", "val/E_rmse": "kcal/mol"}


def rows(n: int = 30, fidelities: int = 2) -> list[dict[str, Any]]:
    """A run whose best validation is the one before the last."""
    made = []
    for i in range(1, n + 1):
        f = float(np.exp(-i / n)) + (0.5 if i == n else 0.0)
        row = {"kind": "metrics", "step": 10 * i, "epoch": i, "train/loss": f, "val/loss": 2 * f}
        row |= {"lr_0": 1e-4 * f, "lr_1": 1e-3 * f, "lr_2": 1e-3 * f}
        for k in range(fidelities):
            row |= {f"val/fid{k}/E_rmse": (k + 1) * f, f"train/fid{k}/E_rmse": (k + 0.5) * f}
            row |= {f"val/fid{k}/s_rmse": 0.0}
        row |= {"val/E_rmse": f, "val/fid0/F_rmse": 3 * f, "val/s_rmse": 0.0, "val/F_rmse": 3 * f}
        made.append(row)
    return made


def legend(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_a_bound_on_noise_is_a_line_and_stages_and_pretraining_are_shown() -> None:
    made = rows(fidelities=0)
    before = [
        {"step": 0, "epoch": 0, "stage": "prior", "pretraining/iteration": i, "pretraining/loss": v}
        for i, v in enumerate((5.0, 3.0, 2.0))
    ]
    for row in made:
        row.pop("val/E_rmse")
        row["stage"] = "one" if row["step"] <= 200 else "two"
    losses, forces, pretraining, rates = curves_figure(
        [*before, *made], {"val/F_rmse": "kcal/mol/A"}, noise={"val/F_rmse": 2.0}
    ).axes
    (line,) = [line for line in forces.lines if line.get_linestyle() == "--"]
    assert list(line.get_ydata()) == [2.0, 2.0]
    assert "noise, at most: 2" in legend(forces)
    assert pretraining.get_title("left") == "Loss of the pre-training (prior)"
    assert list(pretraining.lines[0].get_ydata()) == [5.0, 3.0, 2.0]
    for axis in (losses, forces, rates):
        (switch,) = [line for line in axis.lines if line.get_linestyle() == ":"]
        assert list(switch.get_xdata()) == [200, 200]


def test_panels_show_losses_errors_and_named_groups() -> None:
    made = rows()
    losses, energy, forces, rates = curves_figure(
        made, UNITS, {"lr_0": "embeddings", "lr_1": "shifts", "lr_2": "others"}
    ).axes
    best = best_row(made)
    assert best is made[-2]
    assert legend(losses) == ["training", "validation", f"best: {best['val/loss']:.4g}, epoch 29"]
    assert [t.split(":")[0] for t in legend(energy)] == ["fid0", "fid1"]
    assert energy.get_title("left") == "Energy RMSE (kcal/mol)"
    assert legend(forces)[0].startswith("validation: ")
    assert legend(rates) == ["embeddings", "shifts, others"]
    (ring,) = [line for line in losses.lines if line.get_linestyle() == "None"]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (best["step"], best["val/loss"])
    assert losses.get_yscale() == "log"


def test_errors_that_nobody_has_get_no_panel() -> None:
    made = [
        {k: v for k, v in row.items() if "F_rmse" not in k and "E_rmse" not in k} for row in rows()
    ]
    axes = curves_figure(made, UNITS).axes
    assert [axis.axison for axis in axes] == [True, False, False, True]


@pytest.mark.parametrize("made", [[], [{"kind": "metrics", "step": 1, "epoch": 1}]])
def test_a_run_that_has_just_begun_can_be_drawn(made: list[Any], tmp_path: Path) -> None:
    plot_curves(tmp_path / "a.png", made, UNITS)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_loss_below_zero_is_drawn_on_a_linear_axis() -> None:
    made = [{"step": i, "epoch": i, "train/loss": 1.0 - i, "val/loss": -i} for i in range(1, 5)]
    assert curves_figure(made, {}).axes[0].get_yscale() == "linear"


def test_long_runs_are_thinned_to_means() -> None:
    points = np.stack([np.arange(10_001.0), np.arange(10_001.0) ** 2], axis=1)
    few = thinned(points)
    assert len(few) == MAX_POINTS
    sizes = np.diff(np.append(np.linspace(0, 10_001, MAX_POINTS + 1).astype(int)[:-1], 10_001))
    np.testing.assert_allclose((few * sizes[:, None]).sum(0), points.sum(0))
    assert np.array_equal(thinned(points[:50]), points[:50])


def test_the_same_rows_give_the_same_bytes_and_touch_no_global_state(tmp_path: Path) -> None:
    before = ("matplotlib.pyplot" in sys.modules, rcParams.copy())
    for name in ("a.png", "b.png"):
        plot_curves(tmp_path / name, rows(5), UNITS)
    plot_curves(tmp_path / "a.png", rows(5), UNITS)  # replaced
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]
    assert ("matplotlib.pyplot" in sys.modules, rcParams.copy()) == before


def test_the_page_leaves_out_errors_that_are_zero_everywhere() -> None:
    section = run_section("run", rows(), UNITS)
    (table,) = [b for b in section.blocks if type(b).__name__ == "DataTable"]
    assert table.columns == ["", "E_rmse (kcal/mol)", "F_rmse (kcal/mol/A)"]
