"""SAE files: what is written is read back, what is wrong is named with its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.data.sae import DIGITS, read_sae, write_sae

ENERGIES = st.floats(-1e6, 1e6, allow_nan=False)


@given(sae=st.dictionaries(st.integers(1, 118), ENERGIES, min_size=1))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, sae: dict[int, float]) -> None:
    path = tmp_path_factory.mktemp("sae") / "sae.yaml"
    write_sae(path, sae, ["made by a test", "two\nlines"])
    found = read_sae(path)
    assert list(found) == sorted(sae)
    assert found == pytest.approx(sae, abs=0.6 * 10**-DIGITS, rel=0)


def test_the_plain_form_of_other_tools_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sae.yaml"
    path.write_text("6: -1035.7\n1: -1.36e1\n8: -2043\n")
    assert read_sae(path) == {1: -13.6, 6: -1035.7, 8: -2043.0}


def test_flow_style_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sae.yaml"
    path.write_text("{1: -13.6, 6: 1e-5}")
    assert read_sae(path) == {1: -13.6, 6: 1e-5}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("1: -13.6\n0: 2.0\n", 2, "'0'"),
        ("1: -13.6\n119: 2.0\n", 2, "without fidelity offset"),
        ("201: -13.6\n", 1, "raw atomic numbers"),
        ("H: -13.6\n", 1, "'H'"),
        ("-1: -13.6\n", 1, "'-1'"),
        ("1: -13.6\n6: -1\n1: -13.7\n", 3, "occurs twice"),
        ("# energies\n1: nan\n", 2, "finite"),
        ("1: .inf\n", 1, "finite"),
        ("1: true\n", 1, "'true'"),
        ("1:\n", 1, "finite"),
        ("1: [2]\n", 1, "a structure"),
        ("1: -13,6\n", 1, "'-13,6'"),
        ("- 1\n- 2\n", 1, "mapping"),
        ("{}\n", 1, "mapping"),
        ("1: 2: 3\n", 1, "not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, line: int, says: str) -> None:
    path = tmp_path / "sae.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_sae(path)
    assert says in str(caught.value)
    assert caught.value.where == f"{path}:{line}"
    assert caught.value.remedy


def test_empty_missing_and_binary_files(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(DataError, match="holds no energies"):
        read_sae(tmp_path / "empty.yaml")
    with pytest.raises(StorageError, match=r"absent\.yaml"):
        read_sae(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\x89HDF\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        read_sae(tmp_path / "binary.yaml")


def test_impossible_energies_are_not_written(tmp_path: Path) -> None:
    for sae in ({0: 1.0}, {119: 1.0}, {1: float("nan")}):
        with pytest.raises(DataError):
            write_sae(tmp_path / "sae.yaml", sae)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "sae.yaml"
    write_sae(path, {1: -13.6})
    with pytest.raises(UsageError, match="--force"):
        write_sae(path, {1: 0.0})
    write_sae(path, {1: -13.7}, force=True)
    assert read_sae(path) == {1: -13.7}
