"""Artifacts for production: TorchScript, verification, calculators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlff_cli.deploy.calculator import MLFFCalculator

__all__ = ["MLFFCalculator"]


def __getattr__(name: str) -> Any:
    """Import the calculator when it is asked for, so that this package stays light."""
    if name in __all__:
        from mlff_cli.deploy.calculator import MLFFCalculator

        return MLFFCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
