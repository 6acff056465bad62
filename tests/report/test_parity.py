"""Errors against closed forms, and parity figures that show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.report.parity import Panel, parity_figure, write_parity
from mlff_cli.report.statistics import Errors


@given(shift=st.floats(-5, 5), n=st.integers(2, 40))
def test_a_shift_is_bias_mae_and_rmse(shift: float, n: int) -> None:
    reference = np.linspace(-3, 4, n)
    found = Errors.of(reference, reference + shift)
    assert found.bias == pytest.approx(shift, abs=1e-12)
    assert found.mae == pytest.approx(abs(shift), abs=1e-12)
    assert found.rmse == pytest.approx(abs(shift), abs=1e-12)
    assert found.r2 == pytest.approx(1 - shift**2 / reference.var(), abs=1e-9)


def test_predicting_the_mean_has_r2_zero() -> None:
    reference = np.arange(10.0)
    assert Errors.of(reference, np.full(10, 4.5)).r2 == pytest.approx(0.0)
    assert Errors.of(np.ones(3), np.zeros(3)).r2 is None


def test_empty_and_unequal_arrays_are_refused() -> None:
    for r, p in ((np.empty(0), np.empty(0)), (np.ones(2), np.ones(3))):
        with pytest.raises(ValueError, match="one size"):
            Errors.of(r, p)


def panel(n: int, title: str = "Forces") -> Panel:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=n)
    return Panel(title, "force component", "eV/A", reference, reference + 0.1 * rng.normal(size=n))


@pytest.mark.parametrize("n", [1, 2, 50_000])
def test_a_figure_shows_the_errors_of_all_points(n: int) -> None:
    shown = panel(n)
    figure = parity_figure([shown, panel(5, "Charges")], "Fidelity 0")
    axes = figure.axes[0]
    errors = Errors.of(shown.reference, shown.predicted)
    (text,) = [t.get_text() for t in axes.texts]
    assert f"RMSE {errors.rmse:.3g} eV/\N{LATIN CAPITAL LETTER A WITH RING ABOVE}" in text
    assert f"n = {n:,}" in text
    assert "(eV/\N{LATIN CAPITAL LETTER A WITH RING ABOVE})" in axes.get_xlabel()
    low, high = axes.get_xlim()
    assert axes.get_ylim() == (low, high)
    assert low <= shown.predicted.min() <= shown.predicted.max() <= high


def test_what_is_zero_everywhere_has_a_panel_only_if_it_is_alone() -> None:
    nothing = Panel("Spin charges", "s", "e", np.zeros(5), np.zeros(5))
    titles = [ax.get_title("left") for ax in parity_figure([panel(5), nothing]).axes]
    assert "Forces" in titles
    assert "Spin charges" not in titles
    assert "Spin charges" in [ax.get_title("left") for ax in parity_figure([nothing]).axes]
    wrong = Panel("Spin charges", "s", "e", np.zeros(5), np.ones(5))  # labels alone do not decide
    assert "Spin charges" in [ax.get_title("left") for ax in parity_figure([panel(5), wrong]).axes]


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_parity(tmp_path / name, [panel(300)], "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
