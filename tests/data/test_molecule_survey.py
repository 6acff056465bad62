"""A grouped file's extremes are found in the molecule that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_cli.core.checks import Check
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.grouped_writer import write_grouped
from mlff_cli.data.molecule_checklist import check_molecules
from mlff_cli.data.molecule_survey import closest, survey_molecules

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def waters(n: int = 5) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    forces = rng.normal(size=(n, 3, 3))
    forces -= forces.mean(1, keepdims=True)
    return [
        {
            "coord": WATER + 0.02 * rng.normal(size=(3, 3)),
            "numbers": np.array([8, 1, 1]),
            "energy": -76.0,
            "forces": forces[k],
        }
        for k in range(n)
    ]


def findings(path: Path, molecules: list[dict[str, Any]]) -> dict[str, Check]:
    write_grouped(path, molecules, {"level_of_theory": "pbe/def2-svp"})
    with GroupedHDF5(path) as file:
        return {check.name: check for check in check_molecules(file)}


def test_contacts_do_not_depend_on_order_or_place() -> None:
    rng = np.random.default_rng(0)
    coord, numbers = rng.normal(size=(4, 7, 3)) * 3, rng.integers(1, 9, (4, 7))
    order = rng.permutation(7)
    np.testing.assert_allclose(
        closest(coord, numbers), closest(coord[:, order] + 5.0, numbers[:, order])
    )


def test_good_molecules_pass(tmp_path: Path) -> None:
    found = findings(tmp_path / "a.h5", waters())
    assert {c.verdict for c in found.values()} == {"ok"}
    assert "energy 5, forces 5" in found["labels"].finding


def test_a_missing_label_is_counted(tmp_path: Path) -> None:
    molecules = waters()
    molecules[2]["energy"] = np.nan
    write_grouped(tmp_path / "a.h5", molecules, {})
    with GroupedHDF5(tmp_path / "a.h5") as file:
        assert survey_molecules(file).labels["energy"] == 4


@pytest.mark.parametrize(
    ("spoil", "name", "verdict"),
    [
        (lambda m: m.__setitem__("coord", WATER * 0.2), "contacts", "failed"),
        (lambda m: m.__setitem__("coord", WATER * 0.55), "contacts", "warning"),
        (lambda m: m.__setitem__("forces", 100 * m["forces"]), "forces", "warning"),
        (lambda m: m.__setitem__("forces", m["forces"] + 1.0), "net force", "warning"),
        (lambda m: m.__setitem__("energy", np.inf), "infinite", "failed"),
    ],
)
def test_what_was_spoilt_is_found(tmp_path: Path, spoil: Any, name: str, verdict: str) -> None:
    molecules = waters()
    spoil(molecules[3])
    found = findings(tmp_path / "a.h5", molecules)
    assert found[name].verdict == verdict
    if name != "infinite":
        assert "molecule 3" in found[name].finding


def test_a_repeated_geometry_is_a_warning(tmp_path: Path) -> None:
    molecules = waters()
    molecules[4]["coord"] = molecules[1]["coord"]
    assert findings(tmp_path / "a.h5", molecules)["repeated"].verdict == "warning"
