"""What a coarse-grained training refuses: options of other families, and no data."""

from __future__ import annotations

from pathlib import Path

from mlff_cli.core.errors import ConfigError
from mlff_cli.data.sources import expand, refuse_repeated
from mlff_cli.families.base import Inputs
from mlff_cli.families.coarse_grained_settings import CoarseGrainedSettings


def chosen_files(settings: CoarseGrainedSettings) -> list[Path]:
    """The sets to train on.

    Raises:
        ConfigError: none is named, one twice, or a pattern that no file matches.
    """
    if not settings.data.files:
        raise ConfigError(
            "no coarse-grained set is named to train on", remedy="say which, as data=CG.npz"
        )
    paths = expand("data", settings.data.files)
    refuse_repeated({"data": paths})
    return paths


def refuse_options(settings: CoarseGrainedSettings, inputs: Inputs) -> None:
    """Refuse options of other families.

    Raises:
        ConfigError: with what to do instead.
    """
    if inputs.model is not None:
        raise ConfigError(
            "--model is for multi-fidelity models, a coarse-grained one is described by the "
            "configuration",
            remedy="set model.allegro_size and the other keys of `model`",
        )
    if inputs.load is not None:
        raise ConfigError(
            "--load is for multi-fidelity models, found a coarse-grained configuration",
            remedy="train from the start, or resume the run by giving its command again",
        )
    if settings.trainer.compile:
        raise ConfigError(
            "--compile traces padded batches, those of bead molecules are ragged",
            remedy="leave it out",
        )
    if settings.trainer.precision == "bf16":
        raise ConfigError(
            "trainer.precision is full or tf32 for coarse-grained models, found bf16: forces are "
            "differences that 8 bits do not resolve",
            remedy="leave trainer.precision out",
        )
