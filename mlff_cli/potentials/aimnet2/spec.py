"""Sizes and options of an AIMNet2."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Layers = tuple[PositiveInt, ...]


class AIMNet2Spec(BaseModel):
    """What determines the shape of an AIMNet2; the defaults are the published architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nfeature: PositiveInt = 16
    """Feature channels per atom (times the Gaussians when `d2features`)."""
    d2features: bool = True
    """Whether features depend on the Gaussian that they are contracted with."""
    ncomb_v: PositiveInt = 12
    """Vectors per channel that the Gaussians are mixed into."""
    hidden: tuple[Layers, ...] = Field(
        default=((512, 380), (512, 380), (512, 380, 380)), min_length=2
    )
    """Hidden layers of every message pass; its length is the number of passes."""
    aim_size: PositiveInt = 256
    """Features per atom after the last pass, which the energy is read from."""
    rmin: PositiveFloat = 0.8
    """Centre of the first Gaussian, angstrom."""
    rc: PositiveFloat = 5.0
    """Cutoff of the local geometry, angstrom."""
    nshifts: PositiveInt = 16
    """Number of Gaussians."""
    num_charge_channels: Literal[1, 2] = 2
    """1: charges; 2: alpha and beta charges, for open shells."""
    energy_hidden: Layers = (128, 128)
    """Hidden layers of the energy readout."""
    coulomb: Literal["simple"] | None = "simple"
    """Long-range Coulomb energy of the charges."""
    coulomb_rc: PositiveFloat = 4.6
    """Where the Coulomb energy's short range, left to the network, ends; angstrom."""
    num_fidelities: PositiveInt = 1
    """Number of methods that the model predicts."""
    fidelity_offset: int = Field(default=200, ge=119)
    """Distance in `numbers` between the same element in two fidelities."""
    use_fidelity_readouts: bool = True
    """Whether every fidelity has its own readouts (else only its own embedding)."""

    @model_validator(mode="after")
    def _check(self) -> AIMNet2Spec:
        if self.rmin >= self.rc:
            raise ValueError(f"rmin must be below rc, found rmin {self.rmin} and rc {self.rc}")
        for i, layers in enumerate(self.hidden):
            if not layers:
                raise ValueError(f"every pass needs a hidden layer, hidden[{i}] has none")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {
        "nfeature": 8,
        "ncomb_v": 8,
        "hidden": ((192, 128), (192, 128), (192, 128, 128)),
        "aim_size": 128,
        "energy_hidden": (64, 64),
        "num_charge_channels": 1,
    },
}
"""What each preset sets; everything else keeps its default."""
