"""What determines a flow's shape; everything else of it is weights and statistics."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Kind = Literal["ic-spline", "tarflow", "linear", "identity"]
Start = Literal["linear", "identity"]
Scaling = Literal["measured", "temperature"]


class FlowSpec(BaseModel):
    """Kind and sizes of a flow."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    kind: Kind = "ic-spline"
    """ic-spline: splines of internal coordinates; tarflow: an autoregressive transformer on
    body-fixed positions; linear and identity: the untrained baselines."""
    start: Start = "linear"
    """What ic-spline is before training: the linear map, or the identity."""
    scaling: Scaling = "measured"
    """Of the linear map: spreads measured at both temperatures, or exactly sqrt(T2/T1)."""
    seed: NonNegativeInt = 0
    """Of the initial weights."""
    transforms: PositiveInt = 8
    """ic-spline: coupling transforms; each moves one half of the coordinates."""
    bins: int = Field(default=8, ge=2)
    """ic-spline: bins of a spline."""
    conditioning: Literal["all", "soft"] = "all"
    """ic-spline: what networks see: all coordinates, or soft torsions only, which takes far fewer
    weights and so far fewer frames."""
    splines: Literal["all", "circular"] = "all"
    """ic-spline: which coordinates splines bend: all, or the torsions on their circle, while bonds
    and angles are only scaled and shifted."""
    hidden: tuple[PositiveInt, ...] = Field(default=(128, 128), min_length=1)
    """ic-spline: hidden layers of the network that gives the splines."""
    bound: PositiveFloat = 6.0
    """ic-spline: standardised coordinates beyond it are left alone by the splines."""
    layers: PositiveInt = 4
    """tarflow: autoregressive layers, the order of the atoms turned round between them."""
    embedding: PositiveInt = 96
    """tarflow: features of an atom."""
    heads: PositiveInt = 4
    """tarflow: attention heads."""
    blocks: PositiveInt = 3
    """tarflow: transformer blocks in a layer."""
    max_log_scale: PositiveFloat = 2.0
    """Largest logarithm of a factor that one layer may scale a coordinate by."""

    @model_validator(mode="after")
    def _check(self) -> FlowSpec:
        if self.embedding % self.heads:
            raise ValueError(
                f"embedding must be a multiple of heads, found {self.embedding} and {self.heads}"
            )
        return self
