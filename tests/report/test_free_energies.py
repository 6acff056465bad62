"""Figures of free energies: every landscape is drawn, and always the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from mlff_cli.physics.ensembles.collective_variables import Variable
from mlff_cli.physics.ensembles.landscapes import Landscape, Values, landscape
from mlff_cli.report.free_energies import MOST_PLANES, write_planes, write_profiles

VARIABLES = (Variable("phi ALA2", "dihedral", "degree"), Variable("RMSD", "length", "A"))


def made(columns: list[int], frames: int = 500) -> Landscape:
    ensembles = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        values = np.stack([rng.vonmises(1.0, 3.0, frames), rng.gamma(3.0, 1.0, frames)], 1)
        ensembles.append(Values.of(values, (frames,), VARIABLES))
    return landscape(columns, VARIABLES, *ensembles, bins=12, kt=0.6)


def test_planes_are_rows_and_always_the_same_bytes(tmp_path: Path) -> None:
    one = made([0, 1])
    for name in ("a", "b"):
        write_planes(tmp_path / f"{name}.png", [one], "x, 300 K")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    write_planes(tmp_path / "two.png", [one, one], "x, 300 K")
    small, tall = (imread(tmp_path / f"{n}.png").shape for n in ("a", "two"))
    assert tall[1] == small[1]
    assert tall[0] > 1.7 * small[0]
    assert MOST_PLANES >= 2


def test_profiles_and_what_cannot_be_compared_are_drawn(tmp_path: Path) -> None:
    few = made([1], frames=3)
    assert few.comparison is None
    write_profiles(tmp_path / "p.png", [made([0]), few], "x, 300 K")
    image = imread(tmp_path / "p.png")[..., :3]
    for colour in ((59, 108, 143), (200, 85, 61)):  # reference and simulation
        assert (np.abs(image * 255 - colour).max(axis=-1) < 12).sum() > 50
