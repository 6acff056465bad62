"""Schema of what is minimised and what is measured."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveFloat

from mlff_cli.training.settings_base import Section


class Component(Section):
    """One label's part of the loss."""

    weight: NonNegativeFloat
    """Share of the loss; all shares are scaled to sum 1."""
    fn: str | None = None
    """Error per molecule: energy_loss_fn, peratom_loss_fn or mse_loss_fn."""
    kwargs: dict[str, Any] = {}
    """key_true and key_pred, where the component is not named like its label."""


class Components(Section):
    """The loss's parts."""

    components: dict[str, Component] = {}
    """One per label."""


class LossSection(Section):
    """What is minimised."""

    class_: str = Field(default="aimnet2mult.train.loss.MTLoss", alias="class")
    """How the components are combined: MTLoss has fixed weights."""
    kwargs: Components = Components()
    """Its arguments."""


class MetricOptions(Section):
    """How one label's errors are reported."""

    abbr: str
    """Beginning of the metric's names, as E in E_rmse."""
    scale: PositiveFloat | None = None
    """Factor from eV or e to the reported unit; found from `unit` where null."""
    unit: str | None = None
    """Reported unit of energy: kcal/mol, kJ/mol, eV, meV; found from `scale` where null."""
    peratom: bool | None = None
    """Whether the label has one value per atom; known from the label, must agree with it."""
    mult: PositiveFloat | None = None
    """Values per atom or molecule; known from the label, must agree with it."""


class MetricKwargs(Section):
    """Metrics by label."""

    cfg: dict[str, MetricOptions] = {}
    """One entry per label."""


class MetricsSection(Section):
    """What is measured on the validation set."""

    class_: str = Field(default="aimnet2mult.train.metrics.RegMultiMetric", alias="class")
    """Kind of metrics: regression errors."""
    kwargs: MetricKwargs = MetricKwargs()
    """Its arguments."""
