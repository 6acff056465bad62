"""From a model file to the potential of one of its fidelities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.model_file import ModelFile
from mlff_cli.physics.dispersion import D3BJ
from mlff_cli.physics.dispersion_parameters import D3Parameters
from mlff_cli.potentials.aimnet2.fidelity import extract_fidelity
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.potentials.total import TotalPotential

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def spec_of(file: ModelFile, where: str) -> AIMNet2Spec:
    """The architecture of a model file.

    Raises:
        DataError: it is none that this version knows.
    """
    try:
        return AIMNet2Spec.model_validate(file.architecture)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise DataError(
            f"the architecture cannot be read: {name}: {first['msg']}",
            where=where,
            remedy="the file is damaged, or of a newer mlff-cli: make it again, or upgrade",
        ) from error


def network_of(file: ModelFile, where: str) -> AIMNet2:
    """The network of a model file, in evaluation mode.

    Raises:
        DataError: architecture and weights do not belong together.
    """
    spec = spec_of(file, where)
    try:
        model = AIMNet2(spec)
        model.load_state_dict(file.weights)
    except RuntimeError as error:
        raise DataError(
            f"architecture and weights do not fit ({str(error).strip().splitlines()[-1].strip()})",
            where=where,
            remedy="pass the model.yaml that the weights were trained with, or train again",
        ) from error
    return model.eval().requires_grad_(False)


def fidelity_entry(file: ModelFile, k: int, where: str) -> dict[str, Any]:
    """What a model file says of fidelity k: dataset, level of theory, species.

    Raises:
        UsageError: there is no such fidelity.
    """
    entries = {int(entry["index"]): entry for entry in file.fidelities}
    if k not in entries:
        raise UsageError(
            f"fidelity {k} does not exist; the model has {fidelity_list(file)}",
            where=where,
            remedy="choose one with --fidelity-level",
        )
    return dict(entries[k])


def fidelity_list(file: ModelFile) -> str:
    """The fidelities of a model file in words: '0 (pbe/def2-svp), 1 (gfn2-xtb)'."""
    told = [
        f"{entry['index']} ({entry.get('level_of_theory') or 'level of theory unknown'})"
        for entry in file.fidelities
    ]
    return ", ".join(told) or "none"


def species_of(file: ModelFile, k: int, where: str) -> list[int]:
    """Atomic numbers that fidelity k was trained on."""
    entry = fidelity_entry(file, k, where)
    return sorted(int(z) for z in entry.get("species") or file.species)


def sae_of(file: ModelFile, k: int, where: str) -> Mapping[int, float]:
    """Atomic energies of fidelity k, eV.

    Raises:
        DataError: the file has none.
    """
    if not file.sae.get(k):
        raise DataError(
            f"the model file holds no atomic energies (SAE) for fidelity {k}",
            where=where,
            remedy="pass --sae sae.yaml",
        )
    return file.sae[k]


def potential_of(
    file: ModelFile,
    k: int,
    where: str,
    *,
    dispersion: D3Parameters | None = None,
    dtype: str = "float32",
) -> TotalPotential:
    """The potential of fidelity k: network, atomic energies, and dispersion if asked for.

    Args:
        file: the model.
        k: the fidelity.
        where: the file's name, for messages.
        dispersion: parameters of D3(BJ).
        dtype: precision of the network.

    Raises:
        UsageError: there is no such fidelity, or D3 does not know an element.
        DataError: the file's parts do not fit together.
    """
    species = species_of(file, k, where)
    sae = sae_of(file, k, where)
    network = extract_fidelity(network_of(file, where), k).to(DTYPES[dtype])
    d3 = None if dispersion is None else D3BJ(dispersion, species)
    try:
        potential = TotalPotential(network, sae, species, d3)
    except DataError as error:
        error.where = error.where or where
        raise
    return potential.eval().requires_grad_(False)
