"""From a spec to a flow."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mlff_cli.flows.flow import Flow, IdentityFlow
from mlff_cli.flows.ic_spline import SplineCore
from mlff_cli.flows.internal_flow import Core, InternalFlow
from mlff_cli.flows.molecule import FlowMolecule
from mlff_cli.flows.spec import FlowSpec
from mlff_cli.flows.tarflow import TarFlow


def build_flow(spec: FlowSpec, molecule: FlowMolecule, dtype: torch.dtype = torch.float32) -> Flow:
    """A flow before training; `Flow.fit` gives it its statistics.

    Args:
        spec: kind, sizes, seed of the weights.
        molecule: what is mapped.
        dtype: of weights and statistics.

    Raises:
        DataError: the molecule has no Z-matrix.
        MissingDependencyError: ic-spline without zuko.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return _BUILDERS[spec.kind](spec, molecule, dtype)


def _identity(spec: FlowSpec, molecule: FlowMolecule, dtype: torch.dtype) -> Flow:
    return IdentityFlow(molecule)


def _linear(spec: FlowSpec, molecule: FlowMolecule, dtype: torch.dtype) -> Flow:
    return InternalFlow(molecule, Core(), scaling=spec.scaling, dtype=dtype)


def _ic_spline(spec: FlowSpec, molecule: FlowMolecule, dtype: torch.dtype) -> Flow:
    core = SplineCore(molecule, spec)
    flow = InternalFlow(molecule, core, start=spec.start, scaling=spec.scaling, dtype=dtype)
    return flow.to(dtype)


def _tarflow(spec: FlowSpec, molecule: FlowMolecule, dtype: torch.dtype) -> Flow:
    return TarFlow(molecule, spec, dtype)


_BUILDERS: dict[str, Callable[[FlowSpec, FlowMolecule, torch.dtype], Flow]] = {
    "ic-spline": _ic_spline,
    "tarflow": _tarflow,
    "identity": _identity,
    "linear": _linear,
}
