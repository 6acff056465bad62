"""Forces: F = -dE/dR, by differentiation of the energy that the model returns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def energy_and_forces(
    model: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    data: dict[str, Tensor],
    create_graph: bool = False,
) -> dict[str, Tensor]:
    """Run a model and differentiate its energy.

    Args:
        model: maps a batch to a dictionary with energy (B,).
        data: the batch; its coord (B, N, 3) is not changed.
        create_graph: keep the graph, so that a loss of forces can be differentiated (training).
            Without it the results are detached.

    Returns:
        What the model returns, and forces (B, N, 3) eV/angstrom, zero for padding.
    """
    # a caller under torch.no_grad still wants forces
    with torch.enable_grad():
        coord = data["coord"].detach().requires_grad_(True)
        out = dict(model({**data, "coord": coord}))
        # molecules do not interact: the gradient of the sum holds every molecule's own
        (gradient,) = torch.autograd.grad(out["energy"].sum(), coord, create_graph=create_graph)
        out["forces"] = -gradient
    if not create_graph:
        out = {name: value.detach() for name, value in out.items()}
    return out
