"""Names of residues and species of beads."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import pytest
from mdtraj.core.element import get_by_symbol

from mlff_cli.coarse.mapping.residues import (
    CLASS_OF,
    CLASSES,
    VARIANTS,
    ResidueKind,
    classify,
    read_residue_table,
)
from mlff_cli.coarse.mapping.species import carried, species_table
from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.core.residues import D_AMINO_ACIDS, STANDARD


def kind(name: str, atoms: str = "N CA C", **table: ResidueKind) -> ResidueKind | None:
    topology = mdtraj.Topology()
    residue = topology.add_residue(name, topology.add_chain(), resSeq=1)
    for atom in atoms.split():
        symbol = {"ZN": "Zn", "CL": "Cl", "NA": "Na"}.get(atom, atom[0])
        topology.add_atom(atom, get_by_symbol(symbol), residue)
    return classify(residue, table)


def test_tables_are_whole() -> None:
    assert len(STANDARD) == 20 == len(CLASS_OF)
    assert sorted(CLASS_OF) == sorted(STANDARD)
    assert set(VARIANTS.values()) <= set(STANDARD)
    assert set(D_AMINO_ACIDS.values()) == set(STANDARD) - {"GLY"}
    assert not set(VARIANTS) & set(D_AMINO_ACIDS)


@pytest.mark.parametrize("name", STANDARD)
def test_standard_residues(name: str) -> None:
    for written in (name, name.lower(), f"N{name}", f"C{name}"):
        found = kind(written)
        assert found is not None
        assert (found.kind, found.species, found.group) == ("amino", name, CLASS_OF[name])


@pytest.mark.parametrize(
    ("name", "species", "group"),
    [
        ("HID", "HIS", "polar"),
        ("HIE", "HIS", "polar"),
        ("HIP", "HIS", "positive"),
        ("HSP", "HIS", "positive"),
        ("CYX", "CYS", "polar"),
        ("CYM", "CYS", "negative"),
        ("ASH", "ASP", "polar"),
        ("GLH", "GLU", "polar"),
        ("LYN", "LYS", "polar"),
        ("NHIE", "HIS", "polar"),
        ("DAL", "D-ALA", "nonpolar"),
        ("DAR", "D-ARG", "positive"),
    ],
)
def test_variants_have_parents_and_their_own_charge(name: str, species: str, group: str) -> None:
    found = kind(name)
    assert found is not None
    assert (found.species, found.group) == (species, group)
    assert found.handed == ("D" if species.startswith("D-") else "L")


@pytest.mark.parametrize(
    ("name", "atoms", "expected"),
    [
        ("ACE", "CH3 C O", "cap"),
        ("NME", "N C", "cap"),
        ("HOH", "O H1 H2", "skip"),
        ("SOL", "O H1 H2", "skip"),
        ("ZN", "ZN", "skip"),
        ("CLA", "CL", "skip"),
        ("LIG", "C1 C2", None),
        ("XYZ", "C1", None),  # a lone carbon is no ion
    ],
)
def test_other_residues(name: str, atoms: str, expected: str | None) -> None:
    found = kind(name, atoms)
    assert (found.kind if found else None) == expected


def test_a_table_is_asked_first(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "MSE: MET\nsep: {species: SEP, class: negative}\nHEM: skip\nALA: DAL\nXX: {species: XX}\n"
    )
    table = read_residue_table(path)
    assert kind("MSE", **table) == ResidueKind("amino", "MET", "nonpolar", "L")
    assert kind("SEP", **table) == ResidueKind("amino", "SEP", "negative")
    assert kind("HEM", "FE C1 C2 C3", **table) == ResidueKind("skip")
    assert kind("ALA", **table) == ResidueKind("amino", "D-ALA", "nonpolar", "D")
    assert carried(table["XX"], "residue", "XX 1") == "XX"
    with pytest.raises(DataError, match="XX 1 has no class"):
        carried(table["XX"], "class", "XX 1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[MSE]",
        "MSE: BAD",
        "MSE: 3",
        "MSE: {class: polar}",
        "MSE: {species: ' '}",
        "MSE: {species: '*'}",
        "NO: skip",
        "010: skip",
        "MSE: {species: A, class: big}",
        "a: [",
    ],
)
def test_bad_tables(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match="r.yaml"):
        read_residue_table(tmp_path / "r.yaml")


def test_species_tables_begin_alike() -> None:
    assert species_table("residue", [], ["GLY"]) == list(STANDARD)
    found = species_table("residue", ["N", "CA"], ["SEP", "ALA", "N", "ALA-N"])
    assert found == [*STANDARD, "N", "CA", "ALA-N", "SEP"]
    assert species_table("class", [], ["polar"]) == list(CLASSES)
    assert species_table("", [], ["B", "A", "B"]) == ["A", "B"]
