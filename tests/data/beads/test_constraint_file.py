"""Constraint groups from a file: three spellings, one meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.constraint_file import read_constraints

GROUPS = st.lists(st.lists(st.integers(0, 99), min_size=2, max_size=4, unique=True), min_size=1)


@given(GROUPS)
def test_every_spelling_gives_the_same_pairs(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("constraints")
    texts = {
        "plain.txt": "# rigid\n\n" + "\n".join(" ".join(map(str, g)) for g in groups),
        "commas.txt": "\n".join(", ".join(map(str, g)) + "  # why" for g in groups),
        "list.json": json.dumps(groups),
        "block.yaml": yaml.safe_dump(groups),
        "named.yaml": yaml.safe_dump({"chignolin": groups}),
    }
    expected = [[g[0], a] for g in groups for a in g[1:]]
    for name, text in texts.items():
        path = folder / name
        path.write_text(text)
        assert read_constraints(path, {"chignolin": 100})["chignolin"].tolist() == expected, name


def test_a_list_for_every_molecule(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: [[0, 1]]\nb: []\n")
    found = read_constraints(path, {"a": 2, "b": 3})
    assert found["a"].tolist() == [[0, 1]]
    assert found["b"].shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("0 5\n", "whole number from 0 to 4, found 5"),
        ("0 -1\n", "found '-1'"),
        ("0 1.5\n", "found '1.5'"),
        ("CA CB\n", "found 'CA'"),
        ("[[0, true]]", "found True"),
        ("3\n", "two or more different atoms"),
        ("3 3\n", "two or more different atoms"),
        ("[0, 1]", "a group is a list"),
        ("{other: [[0, 1]]}", "found other"),
        ("m: 3\nm2: [[", "neither a plain list nor YAML"),
        ("{m: 3}", "a list of groups is needed, found 3"),
        ('"text"', "found str"),
    ],
)
def test_bad_files_name_the_file_and_the_group(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_constraints(path, {"m": 5})
    assert str(path) in str(caught.value)


def test_several_molecules_need_names(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("0 1\n")
    with pytest.raises(DataError, match="2 molecules needs a list for each"):
        read_constraints(path, {"a": 2, "b": 2})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file does not exist"):
        read_constraints(tmp_path / "none.txt", {"m": 5})
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="must be text"):
        read_constraints(tmp_path / "b.bin", {"m": 5})
