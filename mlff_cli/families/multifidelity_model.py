"""The model of a multi-fidelity training: its architecture, and what it predicts of a batch."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from mlff_cli.core.config import read_yaml
from mlff_cli.core.errors import ConfigError
from mlff_cli.families.multifidelity_settings import MultifidelitySettings
from mlff_cli.families.multifidelity_transfer import Source, agree
from mlff_cli.physics.multipoles import moments
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec, from_seed_yaml
from mlff_cli.training.task import Batch


def predict(model: nn.Module, batch: Batch, training: bool) -> dict[str, Tensor]:
    """Predictions of a batch; forces and moments only where a molecule has them as a label."""
    if "forces" in batch.labels:
        out = energy_and_forces(model, batch.tensors, create_graph=training)
    else:
        out = dict(model(batch.tensors))
    return out | moments(out["charges"], batch.tensors, batch.labels)


def architecture(
    settings: MultifidelitySettings, model_yaml: Path | None, source: Source | None = None
) -> AIMNet2Spec:
    """The model's spec from `--model`, else a loaded model's or the preset's, for these fidelities.

    Raises:
        ConfigError: the file or the settings are wrong, or contradict the loaded model.
    """
    given = source.spec if source else None
    if model_yaml:
        keys = {str(k): v for k, v in read_yaml(model_yaml).items()}
        given = from_seed_yaml(keys, where=str(model_yaml))
    try:
        spec = settings.model.spec(
            given,
            num_fidelities=max(1, len(settings.data.fidelity_datasets)),
            fidelity_offset=settings.fidelity_offset,
            use_fidelity_readouts=settings.use_fidelity_readouts,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(("model", *map(str, first["loc"])))
        raise ConfigError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if source:
        agree(spec, source, partial=settings.transfer.partial)
    return spec
