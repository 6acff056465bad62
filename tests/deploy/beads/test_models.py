"""Coarse-grained models out of their files: units, parts, and what is not needed."""

import builtins
import dataclasses
import sys

import pytest
import torch

from mlff_cli.core.errors import DataError
from mlff_cli.deploy.beads.models import bead_model_from
from mlff_cli.deploy.beads.potential import bead_potential_of
from tests.deploy.beads.cases import members, model_file, topology
from tests.potentials.prior_cases import chain


@pytest.fixture(scope="module")
def file():
    return model_file(members(1)[0], [topology()])


def test_the_prior_alone_needs_no_nequip(file, monkeypatch):
    x = chain(8, frames=3)
    energy, forces = bead_potential_of(file, topology(), "prior")(x)
    whole = bead_model_from(file)
    assert whole.allegro is not None
    alone = bead_model_from(file, prior_only=True)
    assert alone.allegro is None

    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] in ("nequip", "allegro"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    for name in [n for n in sys.modules if n.partition(".")[0] in ("nequip", "allegro")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    again = bead_potential_of(file, topology(), "prior")(x)
    torch.testing.assert_close(again, (energy, forces), rtol=0, atol=0)


def test_the_prior_alone_is_that_of_the_whole_model(file):
    from mlff_cli.potentials.bound_bead_model import BoundBeadModel

    x = chain(8, frames=3)
    whole = BoundBeadModel([bead_model_from(file)], topology())(x, "prior")
    energy, forces = bead_potential_of(file, topology(), "prior")(x)
    torch.testing.assert_close(energy, whole["energy"])
    torch.testing.assert_close(forces, whole["forces"])


@pytest.mark.parametrize("units", [{"energy": "eV", "length": "nm"}, {}])
def test_other_units_are_refused(file, units):
    with pytest.raises(DataError, match="is in kcal/mol .energy., angstrom .length., found"):
        bead_model_from(dataclasses.replace(file, units=units), "model.pt")


def test_types_that_contradict_each_other_are_refused(file):
    architecture = {**file.architecture, "type_names": ["A"]}
    with pytest.raises(DataError, match="types of beads are those of Allegro") as caught:
        bead_model_from(dataclasses.replace(file, architecture=architecture), "model.pt")
    assert caught.value.where == "model.pt"
