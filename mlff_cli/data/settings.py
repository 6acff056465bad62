"""Schema of the `data` section of a multi-fidelity training configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
)

from mlff_cli.data.sampling import Mode

Label = Literal["energy", "forces", "charges", "spin_charges", "dipole", "quadrupole"]


def _one_or_many(value: Any) -> Any:
    """Refuse what names no files, in one message instead of one per type."""
    many = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    if not (many or isinstance(value, str)):
        raise ValueError("a file, a pattern or a list of them is needed")
    return value


# sampling computes with 64-bit products of two of these
Number = Annotated[int, Field(gt=0, lt=2**31)]
Files = Annotated[str | list[str], BeforeValidator(_one_or_many)]


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

    batch_size: Number = 4096
    """Atoms or molecules per batch, by `batch_mode`."""
    batch_mode: Mode = "atoms"
    """What `batch_size` counts."""
    shuffle: bool = True
    """Draw in random order."""
    batches_per_epoch: int | None = None
    """Batches per epoch; null: as many as one pass over all data takes; -1: everything once."""
    sampling_strategy: Literal["weighted", "uniform"] = "weighted"
    """weighted: by `data.fidelity_weights`; uniform: every molecule equally often."""
    bucket: Number = 1
    """Sort by size within this many batches, which saves padding but makes batches of like
    molecules; 1 switches it off."""
    block: Number = 1
    """Draw molecules that lie together in the file, in runs of this many: a compressed file on disk
    is decoded once per pass instead of once per molecule; 1 draws in any order."""
    mixed_blocks: Number = 64
    """Runs of `block` molecules that are mixed with each other."""
    split: Number = 1
    """Compute a batch in so many parts of similar sizes and sum their gradients: the same step,
    with less padding and less memory."""


class ValidationKwargs(Section):
    """How validation batches are made; the batches change no result."""

    batch_size: Number = 4096
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

    num_workers: NonNegativeInt = 1
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

    fidelity_datasets: dict[NonNegativeInt, Files] = {}
    """Grouped HDF5 files per fidelity, counted from 0: a file, a pattern as data/part_*.h5, or a
    list of them; several are read one after the other."""
    fidelity_weights: dict[NonNegativeInt, NonNegativeFloat] = {}
    """How often each fidelity is drawn, relative to the others; 1 where not given."""
    val_fidelity_datasets: dict[NonNegativeInt, Files] | None = None
    """Validation files per fidelity, of any of them; without it `val_fraction` is split off."""
    sae: SAESection = SAESection()
    """Self-atomic energies."""
    val_fraction: float = 0.1
    """Share of the molecules (not conformers) that is validated on."""
    split_seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of the split alone; null takes the run's."""
    split_file: str | None = None
    """Split of another run on the same molecules (split.npz in its run folder)."""
    separate_val: bool = True
    """Keep validation molecules out of training."""
    ddp_load_full_dataset: bool = False
    """Keep all data in memory, in every process; without it `in_memory_mb` is what the processes of
    a machine have together, and what does not fit is read from disk."""
    x: list[Literal["coord", "numbers", "charge", "mult"]] = ["coord", "numbers", "charge", "mult"]
    """Inputs of the model, which always reads these four."""
    y: list[Label] = ["energy", "forces", "charges", "spin_charges"]
    """Labels to read where a file has them."""
    samplers: Samplers = Samplers()
    """How batches are drawn."""
    loaders: Loaders = Loaders()
    """How batches are made."""
    in_memory_mb: NonNegativeInt = 1024
    """Memory for data, in MiB: fidelities are kept in it, in their order, while they fit; rows
    of the others are read from disk when a batch asks."""
