"""The figure of bead forces: panels and bars of what is there, and always the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mlff_cli.report.bead_parity import ForcePanel, write_force_parity


@pytest.mark.parametrize("modes", [("full",), ("full", "prior", "ml")])
def test_the_same_values_give_the_same_bytes(tmp_path: Path, modes: tuple[str, ...]) -> None:
    F = np.random.default_rng(0).normal(0, 10, 300)
    panels = [ForcePanel(m, F, F + k, ["RMSE 1.0"]) for k, m in enumerate(modes)]
    by_type = {m: {"ALA": 3.0, "GLY": 4.0} for m in (*modes, "zero")}
    for name in ("a.png", "b.png"):
        write_force_parity(tmp_path / name, panels, by_type, 2.5, "Forces of x")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = imread(tmp_path / "a.png")[..., :3]
    assert (np.abs(image * 255 - (201, 206, 214)).max(axis=-1) < 4).sum() > 500  # bars of no force
    with_prior = (np.abs(image * 255 - (59, 108, 143)).max(axis=-1) < 4).sum() > 500
    assert with_prior == ("prior" in modes)
