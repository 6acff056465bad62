"""Mapping files: what is refused before an atom is looked at, and weights that make no bead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlff_cli.coarse.mapping.chains import find_chains
from mlff_cli.coarse.mapping.mapping_file import file_beads, read_mapping
from mlff_cli.core.errors import ConfigError
from tests.coarse.peptides import peptide

CARBONS = "resid 0 and (name CA or name C)"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("name: NO, select: resid 0", "name is text, found False"),  # of YAML 1.1
        ("name: 2020-01-01, select: resid 0", "name is text"),
        ("name: {a: 1}, select: resid 0", "name is text"),
        ("name: , select: resid 0", "name is text, found None"),
        ("name: A, select: 5", "select is text, found 5"),
        ("name: A, select: resid 0, species: ''", "species is text"),
        ("name: '*', select: resid 0", "means any type"),
        ("name: A, select: resid 0, residue: 99999999999", "residue is one number"),
        (f"name: A, select: resid 0, weights: [1{'0' * 400}]", "weights are"),
        ("name: A, select: resid 0, weights: [.nan]", "weights are"),
        ("name: A, select: resid 0, weights: [1.7e+308]", "weights are"),
    ],
)
def test_values_that_are_none(tmp_path: Path, entry: str, told: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"beads:\n- {{{entry}}}\n")
    with pytest.raises(ConfigError, match=told) as caught:
        read_mapping(path)
    assert f"{path}, bead 0" in str(caught.value)


@pytest.mark.parametrize("weights", ["[1, -1]", "[1, -0.9999999]", "[0, 0]", "[1]"])
def test_weights_that_cancel_throw_no_bead_away(tmp_path: Path, weights: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"beads:\n- {{name: A, select: {CARBONS}, weights: {weights}}}\n")
    made = peptide(("ALA", "ALA"))
    chains = find_chains(made.topology, made.positions, {})
    with pytest.raises(ConfigError, match="a sum that is not 0"):
        file_beads(chains, read_mapping(path), path)


def test_weights_may_be_negative(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"beads:\n- {{name: A, select: {CARBONS}, weights: [-1, 3]}}\n")
    made = peptide(("ALA", "ALA"))
    beads, _ = file_beads(find_chains(made.topology, made.positions, {}), read_mapping(path), path)
    np.testing.assert_allclose(beads[0].weights, [-0.5, 1.5])
