"""What a model file knows is a default; an option that says otherwise is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlff_cli.core.errors import UsageError
from mlff_cli.data.model_file import ModelFile
from mlff_cli.deploy.potential import spec_of
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec

SAE_TOLERANCE = 1e-6  # eV: SAE files are text
NOT_IN_MODEL_YAML = ("num_fidelities", "fidelity_offset", "use_fidelity_readouts")


def check_options(file: ModelFile, given: Mapping[str, Any], where: str) -> None:
    """Compare options with the model's architecture.

    Args:
        file: the model.
        given: option name in the architecture -> value, None where it was left out.
        where: the model file's name.

    Raises:
        UsageError: an option contradicts the model.
    """
    spec = spec_of(file, where)
    for name, value in given.items():
        known = getattr(spec, name)
        if value is not None and value != known:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} {_text(value)} contradicts the model file, which says {_text(known)}",
                where=where,
                remedy=f"leave {option} out",
            )


def check_spec(file: ModelFile, spec: AIMNet2Spec, source: str, where: str) -> None:
    """Compare a model.yaml with the model's architecture.

    Raises:
        UsageError: they differ; names the first difference.
    """
    known = spec_of(file, where)
    for name in AIMNet2Spec.model_fields:
        if name not in NOT_IN_MODEL_YAML and getattr(spec, name) != getattr(known, name):
            raise UsageError(
                f"{name} is {_text(getattr(spec, name))} in {source} and "
                f"{_text(getattr(known, name))} in the model file",
                where=where,
                remedy="leave --model out: the model file describes itself",
            )


def check_sae(known: Mapping[int, float], given: Mapping[int, float], source: str) -> None:
    """Compare an SAE file with what was subtracted in training.

    Raises:
        UsageError: an element differs or is missing; names the first.
    """
    for z, energy in sorted(known.items()):
        other = given.get(z)
        if other is None or abs(other - energy) > SAE_TOLERANCE:
            raise UsageError(
                f"Z = {z}: {source} says {'nothing' if other is None else f'{other:.6f} eV'}, "
                f"the model was trained with {energy:.6f} eV",
                where=source,
                remedy="leave --sae out: the model file holds its atomic energies",
            )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
