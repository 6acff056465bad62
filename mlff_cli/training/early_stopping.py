"""Ending a run whose validation no longer improves."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.settings import EarlyStopping


class Patience:
    """Counts validations without improvement.

    Args:
        section: `trainer.early_stopping` of the configuration.
    """

    def __init__(self, section: EarlyStopping) -> None:
        self._section = section
        self._best = math.inf
        self._waited = 0

    @property
    def exhausted(self) -> bool:
        """Whether the run should end."""
        patience = self._section.patience
        return patience is not None and self._waited >= patience

    @property
    def _name(self) -> str:
        return self._section.metric.removeprefix("val/")

    def check_metrics(self, names: Collection[str]) -> None:
        """Refuse a run whose validations will not hold the metric.

        Args:
            names: of the validation's metrics, without `val/`.

        Raises:
            ConfigError: the metric is not among them.
        """
        if self._section.patience is not None and self._name not in names:
            raise ConfigError(
                f"trainer.early_stopping.metric: no metric {self._name!r}",
                remedy=f"use one of {', '.join(names)}",
            )

    def after_validation(self, metrics: Mapping[str, float]) -> None:
        """Look at a validation.

        Raises:
            ConfigError: the metric does not exist.
        """
        self.check_metrics(metrics)
        if self._section.patience is None:
            return
        name = self._name
        if metrics[name] < self._best - self._section.min_delta:
            self._best, self._waited = metrics[name], 0
        else:
            self._waited += 1

    def state(self) -> dict[str, Any]:
        """Plain values to continue from."""
        return {"best": self._best, "waited": self._waited}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._best, self._waited = float(state["best"]), int(state["waited"])
