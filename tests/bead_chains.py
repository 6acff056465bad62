"""A chain of beads under its prior, and runs of it, for tests of engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlff_cli.data.beads.cg_beads import BeadMolecule, CGBlock
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.prior_file import PriorFile
from mlff_cli.data.model_file import ModelFile
from mlff_cli.physics.md_schedule import Schedule
from mlff_cli.physics.replicas import Replicas
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.prior import Prior
from mlff_cli.sampling.beads.dynamics import BeadDynamics
from mlff_cli.sampling.beads.guard import Guard
from tests.data.cg_sets import SOURCES
from tests.potentials.bead_model_cases import tiny_model
from tests.potentials.prior_cases import PARAMETRIC, SPECIES, chain_terms, chain_types

N = 6
MASSES = np.array([110.0, 90.0, 130.0, 57.0, 110.0, 70.0])
TERMS = chain_terms(N)


class PriorAlone:
    """The prior of a chain of N beads as a potential; counts what it is asked."""

    def __init__(self, n: int = N) -> None:
        self._prior = Prior(PARAMETRIC)
        self._bound = self._prior.bind(chain_terms(n), chain_types(n))
        self.calls = self.settled = 0

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return self._prior.energy_and_forces(positions, self._bound)

    def settle(self) -> None:
        self.settled += 1


def stretched(copies: int, n: int = N, seed: int = 0) -> np.ndarray:
    """Zigzag chains (copies, n, 3) in angstrom, a little apart from each other."""
    x = np.zeros((copies, n, 3))
    x[:, :, 0], x[:, :, 1] = 3.2 * np.arange(n), 2.0 * (np.arange(n) % 2)
    return x + np.random.default_rng(seed).normal(0.0, 0.05, x.shape)


def run_of(
    replicas: Replicas, temperatures: tuple[float, ...], schedule: Schedule, timestep: float
) -> BeadDynamics:
    """One ladder of the chain, not started."""
    start = stretched(len(temperatures))
    guard = Guard(TERMS.bonds, start, [f"bead {k}" for k in range(N)])
    return BeadDynamics(
        replicas, guard, np.array(temperatures), 1, schedule, timestep=timestep, seed=4
    )


def frames_of(run: BeadDynamics, until: int | None = None) -> dict[str, np.ndarray]:
    """Go on to the end, or to a step; what was written, (frames, B, ...)."""
    kept: dict[str, list[np.ndarray]] = {}

    def write(arrays: Mapping[str, np.ndarray], row: int) -> None:
        for name, values in arrays.items():
            kept.setdefault(name, []).append(np.array(values))

    while run.step < (run.schedule.end if until is None else until):
        run.advance(write)
    return {name: np.stack(values) for name, values in kept.items()}


def assert_goes_on_exactly(make: Callable[[], Replicas], timestep: float = 4.0) -> None:
    """Stopped at a look and continued, an engine writes the frames of a run without a stop."""
    temperatures = (300.0, 330.0)
    schedule = Schedule(equilibration=0, production=50, interval=10, exchange=15)
    whole, first, second = (run_of(make(), temperatures, schedule, timestep) for _ in range(3))
    for run in (whole, first):
        run.start(stretched(2))
    expected, before = frames_of(whole), frames_of(first, until=20)
    second.restore({k: v.copy() for k, v in first.state().items()})
    after = frames_of(second)
    assert whole.exchanged().attempted.sum() == 2  # one pair: every other attempt
    for name, values in expected.items():
        np.testing.assert_array_equal(np.concatenate([before[name], after[name]]), values, name)
    np.testing.assert_array_equal(second.mean_heat, whole.mean_heat)


def topology(n: int = N, name: str = "chain") -> BeadTopology:
    """A chain of n beads with its stretched frame; of N beads with `MASSES`."""
    types = tuple(chain_types(n))
    return BeadTopology(
        name=name,
        types=types,
        bead_names=("CA",) * n,
        residue_names=types,
        residues=np.arange(1, n + 1),
        chains=np.zeros(n, dtype=np.int64),
        masses=MASSES if n == N else np.full(n, 110.0),
        terms=chain_terms(n),
        start=stretched(1, n)[0],
    )


def write_model(
    path: Path,
    molecules: Sequence[BeadTopology] | None = None,
    *,
    prior: PriorFile = PARAMETRIC,
    allegro: bool = False,
    energy_scale: float = 5.0,
    family: str = "coarse-grained",
) -> Path:
    """A model file of the prior, or of a tiny Allegro on top of it."""
    model = BeadModel(None, Prior(prior))
    if allegro:
        model = tiny_model(dtype=torch.float32, energy_scale=energy_scale)
    ModelFile(
        weights=dict(model.state_dict()),
        architecture=model.architecture(),
        family=family,
        config={},
        species=[],
        fidelities=[],
        sae={},
        provenance={},
        units={"energy": "kcal/mol", "length": "angstrom"},
        molecules=[m.plain() for m in (molecules or [topology()])],
    ).save(path)
    return path


def write_set(
    path: Path,
    sizes: Sequence[int] = (N,),
    n_frames: int = 5,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """A coarse-grained set of chains `chain_0`, ...; frame k of one is moved by k angstrom."""
    molecules, blocks = [], []
    for k, n in enumerate(sizes):
        types = chain_types(n)
        pairs = np.stack([np.arange(n - 1), np.arange(1, n)], 1).astype(np.int32)
        molecules.append(
            BeadMolecule(
                name=f"chain_{k}",
                species=np.array([SPECIES.index(t) for t in types], np.int32),
                residue=np.arange(1, n + 1, dtype=np.int32),
                residue_name=np.array(types),
                bead_name=np.array(["CA"] * n),
                chain=np.zeros(n, np.int32),
                bonds=pairs,
            )
        )
        R = stretched(n_frames, n, seed=k) + np.arange(n_frames)[:, None, None]
        blocks.append(
            CGBlock(
                k,
                R=R.astype(np.float32),
                F=np.zeros(R.shape, np.float32),
                source=np.zeros(n_frames, np.int32),
                frame=np.arange(n_frames),
                temperature=np.full(n_frames, 300.0, np.float32),
            )
        )
    write_cg(path, molecules, list(SPECIES), SOURCES, dict(metadata or {}), blocks, force=True)
    return path
