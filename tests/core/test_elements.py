"""Elements: number and symbol are inverse, against ASE's table."""

import ase.data
import pytest

from mlff_cli.core.elements import MAX_Z, SYMBOLS, atomic_number, symbol
from mlff_cli.core.errors import DataError


def test_number_and_symbol_are_inverse_for_all_elements() -> None:
    assert [atomic_number(symbol(z)) for z in range(1, MAX_Z + 1)] == list(range(1, MAX_Z + 1))


def test_symbols_are_those_of_ase() -> None:
    assert list(SYMBOLS) == ase.data.chemical_symbols


@pytest.mark.parametrize("z", [-1, 0, 119, 206])
def test_a_number_outside_the_table_is_refused_and_named(z: int) -> None:
    with pytest.raises(DataError, match=rf"1 to 118, found {z}$"):
        symbol(z)


@pytest.mark.parametrize("name", ["X", "", "cl", "CL", "Xx", "1"])
def test_an_unknown_symbol_is_refused_and_named(name: str) -> None:
    with pytest.raises(DataError, match=f"unknown element symbol '{name}'"):
        atomic_number(name)
