"""The vocabulary: every field has a shape, a type that NumPy knows, and a role."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.fields import FIELDS, INPUTS, LABELS, Field


def test_roles_part_the_vocabulary() -> None:
    ids = tuple(name for name, field in FIELDS.items() if field.role == "id")
    assert sorted((*INPUTS, *LABELS, *ids)) == sorted(FIELDS)
    assert INPUTS == ("coord", "numbers", "charge", "mult")
    assert LABELS[:4] == ("energy", "forces", "charges", "spin_charges")


@given(n_atoms=st.integers(1, 500))
def test_shapes_follow_the_number_of_atoms(n_atoms: int) -> None:
    assert FIELDS["coord"].shape(n_atoms) == FIELDS["forces"].shape(n_atoms) == (n_atoms, 3)
    assert FIELDS["numbers"].shape(n_atoms) == FIELDS["charges"].shape(n_atoms) == (n_atoms,)
    assert FIELDS["energy"].shape(n_atoms) == FIELDS["molecule"].shape(n_atoms) == ()
    assert FIELDS["dipole"].shape(n_atoms) == (3,)
    assert FIELDS["quadrupole"].shape(n_atoms) == (6,)


@pytest.mark.parametrize("field", FIELDS.values(), ids=list(FIELDS))
def test_types_units_and_words_are_given(field: Field) -> None:
    assert field.doc
    assert FIELDS[field.name] is field
    assert np.dtype(field.dtype).kind in "fiU"
    assert bool(field.unit) == (field.name not in {"numbers", "mult", "molecule"})


def test_energy_keeps_a_microelectronvolt_at_ten_million_electronvolt() -> None:
    dtype = np.dtype(FIELDS["energy"].dtype)
    assert dtype.type(1e7 + 1e-6) != dtype.type(1e7)
