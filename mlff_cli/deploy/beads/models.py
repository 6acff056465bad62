"""Coarse-grained models out of their files."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads.prior_file import PriorFile, prior_from_plain
from mlff_cli.data.model_file import ModelFile
from mlff_cli.potentials.bead_model import BeadModel, bead_model_of
from mlff_cli.potentials.bead_topology import BeadTopology, find_molecule
from mlff_cli.potentials.prior import Prior

FAMILY = "coarse-grained"
UNITS = {"energy": "kcal/mol", "length": "angstrom"}


def bead_model_from(
    file: ModelFile,
    where: str = "model",
    dtype: torch.dtype | None = None,
    *,
    prior_only: bool = False,
) -> BeadModel:
    """The model of a file, with its weights, in evaluation mode.

    Args:
        file: the model file.
        where: its name, for messages.
        dtype: what Allegro computes in; None: what its weights are stored in.
        prior_only: leave Allegro out, which then need not be installed; a model without a prior
            is built whole.

    Raises:
        UsageError: it is of another family.
        DataError: the weights are not those of the architecture, or the units are others.
        MissingDependencyError: it has an Allegro, and nequip-allegro is not installed.
    """
    if file.family != FAMILY:
        raise UsageError(
            f"a coarse-grained model is needed, this one is of the family {file.family!r}",
            where=where,
            remedy="pass a model that was trained on a coarse-grained set",
        )
    if dict(file.units) != UNITS:
        raise DataError(
            f"a coarse-grained model is in {_units(UNITS)}, found {_units(file.units)}",
            where=where,
            remedy="make the file again with `mlff train`",
        )
    architecture, weights = dict(file.architecture), dict(file.weights)
    if prior_only and architecture.get("prior") is not None:
        architecture["allegro"] = None
        weights = {name: w for name, w in weights.items() if not name.startswith("allegro.")}
    doubles = any(v.dtype == torch.float64 for n, v in file.weights.items() if "allegro." in n)
    model = bead_model_of(
        architecture, dtype or (torch.float64 if doubles else torch.float32), where
    )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(
            f"the weights do not fit the model ({str(error).strip().splitlines()[-1].strip()})",
            where=where,
            remedy="make the file again",
        ) from error
    return model.eval().requires_grad_(False)


def _units(units: Mapping[str, str]) -> str:
    return ", ".join(f"{unit} ({name})" for name, unit in units.items()) or "none"


def molecule_of(file: ModelFile, name: str | None, where: str) -> BeadTopology:
    """A molecule that the model was trained on; without a name the only one.

    Raises:
        UsageError: none has the name, or there are several and no name is given.
        DataError: the file has no molecule.
    """
    return find_molecule([BeadTopology.from_plain(m) for m in file.molecules], name, where)


def trained_prior(file: ModelFile, where: str) -> PriorFile | None:
    """The prior of a model file with the values it was trained to; the architecture has the first.

    Raises:
        DataError: the weights are not those of the prior, or values that its forms cannot have.
    """
    plain = file.architecture.get("prior")
    if plain is None:
        return None
    prior, own = Prior(prior_from_plain(plain, where)), "prior."
    weights = {n.removeprefix(own): w for n, w in file.weights.items() if n.startswith(own)}
    try:
        prior.load_state_dict(weights)
        return prior.updated()
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"the trained prior makes no sense: {str(error).strip().splitlines()[0]}",
            where=where,
            remedy="make the file again, with a smaller learning rate or without `train_prior`",
        ) from error
