"""The check that a compiled coarse-grained model passes before it is kept.

The artifact is loaded from the bytes that were written and asked for frames of its molecule, that
it starts from and distorted ones, in one batch. Each part of the model is held to three laws, the
sum of both to the first:

    the eager members, one by one    E, F of the artifact = mean_m E_m, F_m
    finite differences               F.d = [8 (E(x-hd) - E(x+hd)) - (E(x-2hd) - E(x+2hd))]/12h
    rotation and translation         E(Qx + t) = E(x),  F(Qx + t) = Q F(x)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlff_cli.deploy.verify import CALLS, Check, VerificationRecord, one_thread
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.bead_model import BeadModel, Mode
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.prior import BoundTerms

DISTORTIONS = (0.0, 0.02, 0.05, 0.1, 0.2)  # angstrom, standard deviation
BOND = 3.8  # angstrom, of a chain without a frame to start from
# largest deviation allowed, relative to 1 or to the largest value, whichever is greater
TOLERANCES = {
    torch.float64: {"energy": 1e-10, "forces": 1e-9, "derivative": 1e-5},
    torch.float32: {"energy": 1e-5, "forces": 1e-4, "derivative": 1e-2},
}
STEP = {torch.float64: 1e-4, torch.float32: 1e-2}  # h, angstrom


def verify_bead_artifact(
    artifact: torch.jit.ScriptModule,
    models: Sequence[BeadModel],
    topology: BeadTopology,
    seed: int = 0,
) -> VerificationRecord:
    """Compare a loaded artifact with the models that it was made of.

    Args:
        artifact: loaded from the file that was written, on the CPU.
        models: the model, or the members of an ensemble, on the CPU; they are not changed.
        topology: the molecule.
        seed: of the distortions.

    Returns:
        The record, when every check passed.

    Raises:
        CheckFailedError: a deviation is larger than its tolerance; the message lists them.
    """
    record = VerificationRecord([f"{topology.name}, {len(DISTORTIONS)} frames"])
    x = torch.from_numpy(frames_of(topology, seed))
    rng = np.random.default_rng([seed, 1])
    with one_thread():
        for mode in _modes(models[0]):
            dtype = _dtype(models[0], mode)
            record.checks += _against_eager(artifact, models, topology, x, mode, dtype)
            if mode != "full":  # the sum of parts that follow the laws
                record.checks += _against_differences(artifact, x, mode, dtype, rng)
                record.checks += _against_rotation(artifact, x, mode, dtype, rng)
    record.require("in the installed torch, nequip or nequip-allegro")
    return record


def frames_of(topology: BeadTopology, seed: int) -> np.ndarray:
    """Frames (T, n, 3) in angstrom to compare on: the first one, and distorted more and more."""
    rng = np.random.default_rng(seed)
    start = topology.start
    if start is None:
        steps = rng.normal(size=(topology.n_beads, 3))
        start = np.cumsum(BOND * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
    noise = rng.normal(size=(len(DISTORTIONS), *start.shape))
    frames: np.ndarray = start - start.mean(0) + np.array(DISTORTIONS)[:, None, None] * noise
    return frames


def _modes(model: BeadModel) -> list[Mode]:
    """The parts of a model, and their sum where there are two."""
    parts: list[Mode] = []
    if model.prior is not None:
        parts.append("prior")
    if model.allegro is not None:
        parts.append("ml")
    return [*parts, "full"] if len(parts) > 1 else parts


def _dtype(model: BeadModel, mode: Mode) -> torch.dtype:
    """The coarsest precision of a mode: the prior is float64, Allegro what it was built for."""
    return torch.float64 if mode == "prior" or model.allegro is None else model.allegro.dtype


def _against_eager(
    artifact: torch.jit.ScriptModule,
    models: Sequence[BeadModel],
    topology: BeadTopology,
    x: Tensor,
    mode: Mode,
    dtype: torch.dtype,
) -> list[Check]:
    members = [_eager(model, topology, x, mode) for model in models]
    wanted = {
        "energy": torch.stack([energy for energy, _ in members]).mean(0),
        "forces": torch.stack([forces for _, forces in members]).mean(0),
    }
    largest = dict.fromkeys(wanted, 0.0)
    for _ in range(CALLS):
        out = artifact(x, mode)
        for name, value in wanted.items():
            largest[name] = float(np.max([largest[name], _deviation(out[name], value)]))
    return [
        _check(name, f"{mode}: {name} of the artifact and the eager model", largest[name], dtype)
        for name in wanted
    ]


def _against_differences(
    artifact: torch.jit.ScriptModule,
    x: Tensor,
    mode: Mode,
    dtype: torch.dtype,
    rng: np.random.Generator,
) -> list[Check]:
    h = STEP[dtype]
    d = torch.from_numpy(rng.normal(size=tuple(x.shape)))
    d = d / d.square().sum((1, 2), keepdim=True).sqrt()  # [t, i, xyz], of length 1 per frame

    def energy(steps: float) -> Tensor:
        out: Tensor = artifact(x + steps * h * d, mode)["energy"]
        return out

    slope = (8.0 * (energy(-1) - energy(1)) - (energy(-2) - energy(2))) / (12.0 * h)
    along = (artifact(x, mode)["forces"] * d).sum((1, 2))
    name = f"{mode}: forces and finite differences of the energy"
    return [_check("derivative", name, _deviation(slope, along), dtype)]


def _against_rotation(
    artifact: torch.jit.ScriptModule,
    x: Tensor,
    mode: Mode,
    dtype: torch.dtype,
    rng: np.random.Generator,
) -> list[Check]:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)  # a rotation, no mirror
    Q, t = torch.from_numpy(q), torch.from_numpy(rng.normal(scale=3.0, size=3))
    before, after = artifact(x, mode), artifact(x @ Q.T + t, mode)
    energy = _deviation(after["energy"], before["energy"])
    forces = _deviation(after["forces"], before["forces"] @ Q.T)
    return [
        _check("energy", f"{mode}: energy of rotated and moved frames", energy, dtype),
        _check("forces", f"{mode}: forces of rotated and moved frames", forces, dtype),
    ]


def _eager(
    model: BeadModel, topology: BeadTopology, x: Tensor, mode: Mode
) -> tuple[Tensor, Tensor]:
    """Energies (T,) and forces (T, n, 3) of a model that knows nothing of being bound."""
    T, n = x.shape[:2]
    molecule = torch.arange(T).repeat_interleave(n)
    flat = x.reshape(-1, 3)
    number = {name: k for k, name in enumerate(model.type_names)}
    types = torch.tensor([number[name] for name in topology.types]).repeat(T)
    bound = None
    if model.prior is not None:
        bound = BoundTerms.join([model.prior.bind(topology.terms, topology.types)] * T)
    edges = None if model.allegro is None else edges_of(flat, molecule, model.cutoff)
    energy, forces = model.energy_and_forces(flat, types, bound, edges, molecule, T, mode)
    return energy, forces.reshape(T, n, 3)


def _check(kind: str, name: str, largest: float, dtype: torch.dtype) -> Check:
    unit = "kcal/mol" if kind == "energy" else "kcal/mol/angstrom"
    return Check(f"{name}, relative", largest, TOLERANCES[dtype][kind], unit)


def _deviation(seen: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to 1 or to the largest value; NaN where one is NaN."""
    scale = max(1.0, float(wanted.abs().max()))
    return float((seen - wanted).abs().max()) / scale
