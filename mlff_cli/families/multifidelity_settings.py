"""Schema of a multi-fidelity training: the loop's settings, the data and the model's size."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mlff_cli.core.config import merge
from mlff_cli.data.settings import DataSection
from mlff_cli.data.settings import Section as DataPart
from mlff_cli.potentials.aimnet2.spec import PRESETS, AIMNet2Spec
from mlff_cli.training.settings import TrainingSettings


class ModelSection(DataPart):
    """Size of the model; what is null keeps the preset's or the model file's value."""

    preset: str = "default"
    """Size to start from, where no model file is given: default or small."""
    num_layers: PositiveInt | None = None
    """Message passes, at most as many as the architecture has; the last one always stays."""
    nfeature: PositiveInt | None = None
    """Feature channels per atom."""
    ncomb_v: PositiveInt | None = None
    """Vectors per channel that the Gaussians are mixed into."""
    hidden: list[list[PositiveInt]] | None = None
    """Hidden layers of every message pass."""
    aim_size: PositiveInt | None = None
    """Features per atom that the energy is read from."""
    rc: PositiveFloat | None = None
    """Cutoff of the local geometry, angstrom."""
    nshifts: PositiveInt | None = None
    """Number of Gaussians."""
    num_charge_channels: Literal[1, 2] | None = None
    """1: charges; 2: alpha and beta charges, for open shells."""
    energy_hidden: list[PositiveInt] | None = None
    """Hidden layers of the energy readout."""

    def spec(self, given: AIMNet2Spec | None, **fixed: Any) -> AIMNet2Spec:
        """The architecture: a model file's or the preset's, with this section's changes.

        Args:
            given: what `--model` says, if it was given.
            fixed: values that other sections determine.

        Raises:
            ValueError: unknown preset, or more layers than the architecture has.
        """
        if given is None and self.preset not in PRESETS:
            raise ValueError(f"model.preset is one of {', '.join(PRESETS)}, found {self.preset!r}")
        base = given.model_dump() if given is not None else PRESETS[self.preset]
        changes = self.model_dump(exclude={"preset", "num_layers"}, exclude_none=True)
        spec = AIMNet2Spec.model_validate({**base, **changes, **fixed})
        if self.num_layers is None:
            return spec
        if not 2 <= self.num_layers <= len(spec.hidden):
            raise ValueError(
                f"model.num_layers must lie between 2 and {len(spec.hidden)}, the passes of the "
                f"architecture, found {self.num_layers}"
            )
        hidden = (*spec.hidden[: self.num_layers - 1], spec.hidden[-1])
        return spec.model_copy(update={"hidden": hidden})


class MultifidelitySettings(TrainingSettings):
    """A multi-fidelity training configuration."""

    fidelity_offset: int = Field(default=200, ge=119)
    """Distance between the same element's numbers in two fidelities."""
    use_fidelity_readouts: bool = True
    """Whether every fidelity has its own readouts."""
    data: DataSection = DataSection()
    """What is trained on."""
    model: ModelSection = ModelSection()
    """Size of the model."""

    @model_validator(mode="before")
    @classmethod
    def _samplers_at_top(cls, values: Any) -> Any:
        """Read a top-level `samplers` as `data.samplers`, as old files have it in both places."""
        if not isinstance(values, dict) or "samplers" not in values:
            return values
        rest = {k: v for k, v in values.items() if k != "samplers"}
        rest["data"] = merge(rest.get("data", {}), {"samplers": values["samplers"]})
        return rest
