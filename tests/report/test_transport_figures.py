"""Figures of a flow: the same values, the same bytes, whatever there is to draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlff_cli.physics.ensembles.collective_variables import Variable
from mlff_cli.physics.ensembles.landscapes import Landscape, Values, landscape
from mlff_cli.report.transport_figures import (
    EnergyPanel,
    Plane,
    WorkPanel,
    write_energies,
    write_triptychs,
    write_works,
)

VARIABLES = [Variable(f"{name} ALA2", "dihedral", "degree") for name in ("phi", "psi")]


def plane(n: int, seed: int = 0) -> Landscape:
    rng = np.random.default_rng(seed)
    a, b = (Values.of(rng.normal(s, 0.5, (n, 2)), (n,), VARIABLES) for s in (-1.0, -0.8))
    return landscape([0, 1], VARIABLES, a, b, bins=12, kt=0.6)


def panels(behind: np.ndarray) -> list[EnergyPanel]:
    rng = np.random.default_rng(0)
    return [EnergyPanel(300, 450, rng.normal(-60, 10, 200), behind, rng.normal(-30, 20, 300))]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 10  # something is drawn
        return image.size


@pytest.mark.parametrize("frames", [300, 6])
def test_triptychs(tmp_path: Path, frames: int) -> None:
    """Enough frames to compare, and too few."""
    planes = [Plane(plane(frames), plane(frames, 1).simulation, 300.0, 450.0)]
    for name in ("a.png", "b.png")[: 1 + (frames == 6)]:
        write_triptychs(tmp_path / name, planes, "300 K to 450 K")
    size(tmp_path / "a.png")
    if frames == 6:
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.slow
def test_more_residues_than_are_drawn(tmp_path: Path) -> None:
    planes = [Plane(plane(300), plane(300, 1).simulation, 300.0, 450.0)] * 9
    write_triptychs(tmp_path / "a.png", planes, "300 K to 450 K")
    _, height = size(tmp_path / "a.png")
    assert 1500 < height < 3200


@pytest.mark.parametrize("lost", [3, 200])
def test_energies_and_works_of_what_is_not_finite(tmp_path: Path, lost: int) -> None:
    """Frames without energy and one far away; none at all that is finite."""
    rng = np.random.default_rng(1)
    behind = rng.normal(-30, 22, 200)
    behind[:lost] = np.inf
    behind[-1] = behind[-1] if lost == 200 else 1e12
    write_energies(tmp_path / "u.png", panels(behind), "300 K to 450 K")
    work = np.where(np.isfinite(behind), behind / 20, np.inf)
    shown = [WorkPanel("flow", work, rng.normal(3, 1, 80), 1e-7, (0.1, 0.2))]
    write_works(tmp_path / "w.png", shown, "300 K to 450 K")
    size(tmp_path / "u.png")
    size(tmp_path / "w.png")
