"""Schema of what becomes of the weights that `--load` names."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt

from mlff_cli.training.settings_base import Section


class TransferSection(Section):
    """How loaded weights become the start of this model; without `--load` nothing here counts."""

    fidelity_map: dict[NonNegativeInt, NonNegativeInt] | None = None
    """Which fidelity of the file each fidelity of this run continues, {here: there}; those that
    are not listed are new. null: each continues the one with its number."""
    new_fidelities_from: NonNegativeInt | dict[NonNegativeInt, NonNegativeInt] = 0
    """Fidelity of the file that new ones start as a copy of; for all, or {here: there}."""
    readout_from: NonNegativeInt | None = None
    """Fidelity of the file whose readout becomes the shared one, where `use_fidelity_readouts` is
    false and the file has several. Nothing else can choose it."""
    energies: Literal["auto", "total", "residual"] = "auto"
    """What a continued fidelity keeps where its atomic energies (SAE) differ from the file's:
    total: the total energy, the atomic shifts absorb the difference; residual: what the network
    adds to the atomic energies; auto: total where both have the same level of theory, residual
    where it differs."""
    loaded_offset: int | None = Field(default=None, ge=119)
    """Offset of the fidelities in bare weights of aimnet2mult; null: `fidelity_offset`."""
    partial: bool = False
    """Load what fits and start the rest anew, where names or shapes differ; false: refuse."""
