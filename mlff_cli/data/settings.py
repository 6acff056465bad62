"""Schema of the `data` section of a multi-fidelity training configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt

from mlff_cli.data.sampling import Mode

Label = Literal["energy", "forces", "charges", "spin_charges", "dipole", "quadrupole"]


class Section(BaseModel):
    """A section that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class EnergySAE(Section):
    """Self-atomic energies that are subtracted before training."""

    files: dict[int, str] = {}
    """SAE file per fidelity, as `mlff calc-sae` writes them."""
    mode: Literal["linreg"] = "linreg"
    """How they are used: the sum over atoms is subtracted."""


class SAESection(Section):
    """Reference values of atoms, by label."""

    energy: EnergySAE = EnergySAE()
    """Those of the energy."""


class SamplerKwargs(Section):
    """How batches are drawn."""

    batch_size: PositiveInt = 4096
    """Atoms or molecules per batch, by `batch_mode`."""
    batch_mode: Mode = "atoms"
    """What `batch_size` counts."""
    shuffle: bool = True
    """Draw in random order."""
    batches_per_epoch: int | None = None
    """Batches per epoch; null: as many as one pass over all data takes; -1: everything once."""
    sampling_strategy: Literal["weighted", "uniform"] = "weighted"
    """weighted: by `data.fidelity_weights`; uniform: every molecule equally often."""
    bucket: PositiveInt = 1
    """Sort by size within this many batches, which saves padding but makes batches of like
    molecules; 1 switches it off."""
    split: PositiveInt = 1
    """Compute a batch in so many parts of similar sizes and sum their gradients: the same step,
    with less padding and less memory."""


class ValidationKwargs(Section):
    """How validation batches are made; the batches change no result."""

    batch_size: PositiveInt = 4096
    """Atoms or molecules per batch, by `batch_mode`."""
    batch_mode: Mode = "atoms"
    """What `batch_size` counts."""
    shuffle: bool = False
    """Kept for old files: the sums over all molecules know no order."""
    batches_per_epoch: int | None = None
    """null or -1: validation covers every molecule once."""
    sampling_strategy: Literal["uniform"] = "uniform"
    """Every molecule counts once."""


class Sampler(Section):
    """Sampler of the training set."""

    kwargs: SamplerKwargs = SamplerKwargs()
    """Its options."""


class ValidationSampler(Section):
    """Sampler of the validation set."""

    kwargs: ValidationKwargs = ValidationKwargs()
    """Its options."""


class Samplers(Section):
    """Samplers of the training and the validation set."""

    train: Sampler = Sampler()
    """Of the training set."""
    val: ValidationSampler = ValidationSampler()
    """Of the validation set, which is always covered exactly once."""


class Loader(Section):
    """How batches are made."""

    num_workers: NonNegativeInt = 0
    """Threads that make batches ahead of their use; 0 makes each when it is needed."""
    pin_memory: bool = True
    """Page-lock batches on their way to a GPU; without one this does nothing."""


class Loaders(Section):
    """Loaders of the training and the validation set."""

    train: Loader = Loader()
    """Of the training set."""
    val: Loader = Loader()
    """Of the validation set."""


class DataSection(Section):
    """What is trained on."""

    fidelity_datasets: dict[NonNegativeInt, str] = {}
    """Grouped HDF5 file per fidelity, counted from 0."""
    fidelity_weights: dict[NonNegativeInt, NonNegativeFloat] = {}
    """How often each fidelity is drawn, relative to the others; 1 where not given."""
    val_fidelity_datasets: dict[NonNegativeInt, str] | None = None
    """Validation file per fidelity; without it `val_fraction` is split off."""
    sae: SAESection = SAESection()
    """Self-atomic energies."""
    val_fraction: float = 0.1
    """Share of the molecules (not conformers) that is validated on."""
    separate_val: bool = True
    """Keep validation molecules out of training."""
    ddp_load_full_dataset: bool = False
    """Whether every process of a distributed run loads all data."""
    x: list[Literal["coord", "numbers", "charge", "mult"]] = ["coord", "numbers", "charge", "mult"]
    """Inputs of the model, which always reads these four."""
    y: list[Label] = ["energy", "forces", "charges", "spin_charges"]
    """Labels to read where a file has them."""
    samplers: Samplers = Samplers()
    """How batches are drawn."""
    loaders: Loaders = Loaders()
    """How batches are made."""
    in_memory_mb: NonNegativeInt = 2048
    """Files that need more memory than this stay on disk, in MiB."""
