"""Schema of what is minimised and what is measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from mlff_cli.training.settings_base import Section

Per = Literal["molecule", "sqrt_atom", "atom"]


class ComponentKwargs(Section):
    """Arguments of a component's function."""

    key_true: str | None = None
    """The label, where the component is not named like it."""
    key_pred: str | None = None
    """What is compared with it: the label's own prediction, or `charges` for a moment."""
    delta: PositiveFloat | None = None
    """huber_loss_fn: error from which it grows linearly, in the label's unit."""
    per: Per | None = None
    """What the error of a whole molecule is related to; the function's usual where null."""
    missing_label_regularization: NonNegativeFloat = 0.0
    """Pull the charges of molecules without this label towards zero: weight of their mean square
    by the component's own. For charges and spin_charges."""


class Component(Section):
    """One label's part of the loss."""

    weight: NonNegativeFloat
    """Share of the loss; all shares are scaled to sum 1."""
    fn: str | None = None
    """Error per molecule: energy_loss_fn, peratom_loss_fn, mse_loss_fn or huber_loss_fn."""
    scale: PositiveFloat | None = None
    """MTAdaWLoss: where the learned weight starts; at the component's share where null."""
    kwargs: ComponentKwargs = ComponentKwargs()
    """Arguments of the function."""


class LossKwargs(Section):
    """The loss's parts."""

    components: dict[str, Component] = {}
    """One per label."""
    lr: PositiveFloat | None = None
    """MTAdaWLoss: learning rate of the logarithms of the weights, 1e-3 where null; schedules keep
    its ratio to the optimizer's. Read from `eta`, too, as aimnet2mult calls its counterpart."""

    @model_validator(mode="before")
    @classmethod
    def _eta(cls, values: Any) -> Any:
        if isinstance(values, dict) and "eta" in values and "lr" not in values:
            return {("lr" if key == "eta" else key): value for key, value in values.items()}
        return values


class LossSection(Section):
    """What is minimised."""

    class_: str = Field(default="aimnet2mult.train.loss.MTLoss", alias="class")
    """How the components are combined: MTLoss has fixed weights, MTAdaWLoss learns them."""
    kwargs: LossKwargs = LossKwargs()
    """Its arguments."""


EnergyUnit = Literal["kcal/mol", "kJ/mol", "eV", "meV"]


class MetricOptions(Section):
    """How one label's errors are reported."""

    abbr: str = Field(pattern=r"^\w+$")
    """Beginning of the metric's names, as E in E_rmse."""
    scale: PositiveFloat | None = None
    """Factor from the label's unit to the reported one; found from `unit` where null."""
    unit: str | None = None
    """Reported unit: of energy kcal/mol, kJ/mol, eV, meV; of forces the same by A; of dipoles
    e*angstrom or D; of quadrupoles e*angstrom^2 or D*angstrom; found from `scale` where null."""
    peratom: bool | None = None
    """Whether the label has one value per atom; known from the label, must agree with it."""
    mult: PositiveFloat | None = None
    """Values per atom or molecule; known from the label, must agree with it."""


class MetricKwargs(Section):
    """Metrics by label."""

    cfg: dict[str, MetricOptions] = {}
    """One entry per label."""
    unit: EnergyUnit = "kcal/mol"
    """Unit of energies, and of forces by angstrom, where their own entry says nothing."""


class MetricsSection(Section):
    """What is measured, on the validation set and while training."""

    class_: str = Field(default="aimnet2mult.train.metrics.RegMultiMetric", alias="class")
    """Kind of metrics: regression errors."""
    kwargs: MetricKwargs = MetricKwargs()
    """Its arguments."""
