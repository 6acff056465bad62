"""A bead potential as machine code, for a fixed number of replicas.

    E_b(R) = mean_m sum_i E_allegro,m,i(R_b) + mean_m E_prior,m(R_b),    F = -dE/dR

A step of a small molecule is a thousand operations on tensors of some hundred numbers, and most of
its time goes by between them. Recorded once (make_fx: the operations of energy and gradient, no
derivative left) and fused by Inductor, it is a few loops. Sizes must not depend on positions: every
pair of beads is an edge, those beyond the cutoff with energy zero, which pays for small molecules.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from mlff_cli.core.compilers import check_compiler
from mlff_cli.core.errors import CheckFailedError, UsageError
from mlff_cli.potentials.allegro import Allegro
from mlff_cli.potentials.bead_edges import pairs_of
from mlff_cli.potentials.bound_bead_model import BoundBeadModel
from mlff_cli.potentials.scripted_prior import NearPairs

MOST_BEADS = 32  # beyond, most pairs are no neighbours
TOLERANCE = 1e-4  # of energies and forces, relative to the largest one, for single precision

Graph = Callable[[Tensor], tuple[Tensor, Tensor]]
Compiler = Callable[[GraphModule, list[Tensor]], Callable[..., Any]]


def inductor(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """Machine code of a graph, for the sizes of these inputs; a minute, then torch's cache."""
    from torch._functorch import config
    from torch._inductor import standalone_compile

    with config.patch(enable_autograd_cache=False):  # it cannot keep such records, and says so
        return standalone_compile(graph, [*inputs], donate_graph_module=True)


class CompiledPotential:
    """What a `BoundBeadModel` computes, compiled when a number of replicas first comes.

    Args:
        bound: the model, not scripted, on its device; its parameters need no gradients.
        mode: full, prior or ml.
        compiler: what compiles the record.

    Raises:
        UsageError: a molecule too large to gain from it.
        MissingDependencyError: there is nothing to compile with.
    """

    def __init__(
        self, bound: BoundBeadModel, mode: str = "full", compiler: Compiler = inductor
    ) -> None:
        check_compiler(bound.types.device.type, "a potential")
        near = any(isinstance(module, NearPairs) for module in bound.modules())
        if bound.n_beads > MOST_BEADS or near:
            raise UsageError(
                f"potentials are compiled for molecules of up to {MOST_BEADS} beads, this one has "
                f"{bound.n_beads}",
                remedy="leave --compile out: a large molecule gains nothing from it",
            )
        self._bound, self._mode, self._compiler = bound, mode, compiler
        self._graphs: dict[int, Graph] = {}

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (B,) float64 kcal/mol and forces (B, n, 3) of positions (B, n, 3) angstrom.

        Raises:
            CheckFailedError: the machine code does not give the model's numbers.
        """
        n = len(positions)
        if n not in self._graphs:
            self._graphs[n] = self._compile(positions)
        energy, forces = self._graphs[n](positions.to(torch.float64))
        return energy, forces.to(positions.dtype)

    def _compile(self, positions: Tensor) -> Graph:
        from torch.fx.experimental.proxy_tensor import make_fx

        x = positions.detach().to(torch.float64)
        with warnings.catch_warnings():  # of Inductor's own making
            warnings.simplefilter("ignore")
            recorded = make_fx(self._energy_and_forces(len(x)))(x)
            made = self._compiler(recorded, [x])

        def graph(given: Tensor) -> tuple[Tensor, Tensor]:
            energy, forces = made(given)
            return energy, forces

        self._check(graph, x)
        return graph

    def _energy_and_forces(self, replicas: int) -> Callable[[Tensor], list[Tensor]]:
        bound, n, mode = self._bound, self._bound.n_beads, self._mode
        types = bound.types.repeat(replicas)
        molecule = torch.arange(replicas, device=types.device).repeat_interleave(n)
        edges = pairs_of(molecule)
        # nequip's own networks: ours look at how many edges there are
        networks = [] if mode == "prior" else _plain_networks(bound)
        priors = [] if mode == "ml" else list(bound.priors)

        def compute(given: Tensor) -> list[Tensor]:
            with torch.enable_grad():
                x = given.detach().requires_grad_()
                energy = 0.0 * x.sum((1, 2))
                for network in networks:
                    inputs = {"pos": x.reshape(-1, 3), "atom_types": types, "edge_index": edges}
                    beads = network(inputs)["atomic_energy"].double().reshape(replicas, n)
                    energy = energy + beads.sum(1) / len(networks)
                for prior in priors:
                    energy = energy + prior(x.to(bound.prior_dtype)).double() / len(priors)
                (gradient,) = torch.autograd.grad(energy.sum(), x)
            return [energy.detach(), -gradient.detach()]

        return compute

    def _check(self, graph: Graph, x: Tensor) -> None:
        expected = self._bound(x, self._mode)
        found = dict(zip(("energy", "forces"), graph(x), strict=True))
        for name, values in found.items():
            wrong = float((values - expected[name]).abs().max())
            largest = max(1.0, float(expected[name].abs().max()))
            if not wrong <= TOLERANCE * largest:
                raise CheckFailedError(
                    f"the compiled potential's {name} must be the model's within {TOLERANCE:g} of "
                    f"the largest, {largest:.4g}; they differ by {wrong:.3g}",
                    remedy="leave --compile out",
                )


def _plain_networks(bound: BoundBeadModel) -> list[nn.Module]:
    networks = []
    for allegro in bound.allegros:
        assert isinstance(allegro, Allegro)
        networks.append(allegro.plain_network().eval().requires_grad_(False))
    return networks
