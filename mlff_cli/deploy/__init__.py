"""Artifacts for production: TorchScript, verification, calculators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlff_cli.deploy.beads.calculator import BeadCalculator
    from mlff_cli.deploy.calculator import MLFFCalculator

__all__ = ["BeadCalculator", "MLFFCalculator"]


def __getattr__(name: str) -> Any:
    """Import a calculator when it is asked for, so that this package stays light."""
    if name == "BeadCalculator":
        from mlff_cli.deploy.beads.calculator import BeadCalculator

        return BeadCalculator
    if name == "MLFFCalculator":
        from mlff_cli.deploy.calculator import MLFFCalculator

        return MLFFCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
