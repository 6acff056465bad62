"""Weights that do not describe themselves: `{"model": state_dict}`, with the rest given beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mlff_cli.core.config import read_yaml
from mlff_cli.core.errors import ConfigError, UsageError
from mlff_cli.data.model_file import ModelFile
from mlff_cli.potentials.aimnet2.interop import import_state
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec, from_seed_yaml


def architecture_from_yaml(path: Path, given: Mapping[str, Any]) -> AIMNet2Spec:
    """The spec of a model.yaml, nested as the seed writes it or flat.

    Args:
        path: the file.
        given: num_fidelities, fidelity_offset, use_fidelity_readouts; None where unknown.

    Raises:
        ConfigError: unreadable, or an unknown class, key or value.
    """
    known = {name: value for name, value in given.items() if value is not None}
    content = {str(key): value for key, value in read_yaml(path).items()}
    return from_seed_yaml(content, where=str(path), **known)


def model_file_of(
    payload: Mapping[str, Any],
    spec: AIMNet2Spec | None,
    sae: Mapping[int, float] | None,
    fidelity: int | None,
    where: str,
) -> tuple[ModelFile, list[str]]:
    """Make a model file of bare weights.

    Args:
        payload: `{"model": state dict}` or a state dict, in our layout, aimnet's or aimnet2mult's.
        spec: from --model.
        sae: from --sae, of the fidelity asked for.
        fidelity: the fidelity asked for; None where there is only one.
        where: the file's name.

    Returns:
        The model file, and notes on parameters that found no counterpart.

    Raises:
        UsageError: --model or --sae is missing.
        ConfigError: weights and architecture do not fit.
    """
    missing = [name for name, value in (("--model", spec), ("--sae", sae)) if value is None]
    if spec is None or sae is None:
        raise UsageError(
            f"the weights do not describe themselves: {' and '.join(missing)} needed",
            where=where,
            remedy="add --model model.yaml --sae sae.yaml (and --num-fidelities where above 1)",
        )
    state = payload.get("model", payload)
    with torch.random.fork_rng(devices=[]):
        ours = AIMNet2(spec)
        notes: list[str] = []
        if not isinstance(state, Mapping) or set(state) != set(ours.state_dict()):
            try:
                ours, report = import_state(dict(payload), spec)
            except ConfigError as error:
                error.where = error.where or where
                raise
            state = ours.state_dict()
            notes = [*report.created, *report.dropped]
    k = fidelity or 0
    entry = {"dataset": None, "level_of_theory": None, "species": sorted(sae)}
    file = ModelFile(
        weights=dict(state),
        architecture=spec.model_dump(mode="json"),
        family="multifidelity",
        config={},
        species=sorted(sae),
        fidelities=[{"index": i, **entry} for i in range(spec.num_fidelities)],
        sae={k: dict(sae)},
        provenance={},
    )
    return file, notes
