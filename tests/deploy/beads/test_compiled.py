"""Machine code gives the model's numbers, and what cannot gain from it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

from mlff_cli.core.errors import CheckFailedError, MissingDependencyError, UsageError
from mlff_cli.deploy.beads import compiled as bead_compiled
from mlff_cli.deploy.beads.compiled import CompiledPotential
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.bound_bead_model import BoundBeadModel
from mlff_cli.potentials.prior import Prior
from tests.bead_chains import stretched, topology
from tests.potentials.bead_model_cases import tiny_model
from tests.potentials.prior_cases import PARAMETRIC


def interpreted(graph: GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
    """Instead of Inductor, which takes a minute: the same record, operation by operation."""
    return graph


def bound(*, learnt: bool = False, n: int = 5, members: int = 1) -> BoundBeadModel:
    models = [
        tiny_model(dtype=torch.float64, seed=k) if learnt else BeadModel(None, Prior(PARAMETRIC))
        for k in range(members)
    ]
    return BoundBeadModel([m.requires_grad_(False) for m in models], topology(n))


@pytest.mark.parametrize("mode", ["full", "prior", "ml"])
def test_what_is_recorded_is_the_model(mode: str) -> None:
    """Also for an ensemble, and for chains whose ends are beyond the cutoff."""
    model = bound(learnt=True, members=2)
    compiled = CompiledPotential(model, mode, interpreted)
    for copies, seed in ((3, 0), (3, 1), (1, 2)):
        x = torch.from_numpy(stretched(copies, 5, seed=seed))
        expected = model(x, mode)
        energy, forces = compiled(x)
        torch.testing.assert_close(energy, expected["energy"], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(forces, expected["forces"], rtol=1e-8, atol=1e-8)
        assert not forces.requires_grad
    single = compiled(x.float())
    assert single[0].dtype == torch.float64
    assert single[1].dtype == torch.float32


@pytest.mark.slow
def test_machine_code_is_the_model() -> None:
    model, x = bound(learnt=True), torch.from_numpy(stretched(4, 5))
    compiled = CompiledPotential(model)
    energy, forces = compiled(x)
    assert torch.equal(compiled(x)[1], forces)
    torch.testing.assert_close(energy, model(x)["energy"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(forces, model(x)["forces"], rtol=1e-8, atol=1e-8)


def test_wrong_numbers_are_refused() -> None:
    def wrong(graph: GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        return lambda x: [v * 1.001 for v in graph(x)]

    with pytest.raises(CheckFailedError, match="must be the model's"):
        CompiledPotential(bound(), "full", wrong)(torch.from_numpy(stretched(2, 5)))


def test_large_molecules_and_missing_compilers_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="up to 32 beads, this one has 40"):
        CompiledPotential(bound(n=40))

    def none(device: str, what: str) -> None:
        raise MissingDependencyError("none")

    monkeypatch.setattr(bead_compiled, "check_compiler", none)
    with pytest.raises(MissingDependencyError):
        CompiledPotential(bound())
