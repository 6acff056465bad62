"""Hundreds of replicas of a molecule in one batch: `replica_ensemble.Ensemble`, as torch.

L copies of a ladder of K temperatures are B = K L replicas; replica l K + k starts at temperature k
of ladder l. Frames are ordered by step, temperature, ladder. With one temperature ladders are plain
copies. Exchange happens within a ladder and swaps thermostats; replicas keep their place in memory.

The force field sees parts of `PART` replicas, whatever the number of threads is, so that the last
bits do not depend on how many there are. Positions and velocities are in double precision, energies
and forces in the force field's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.runtime import StopRequest
from mlff_cli.physics.forcefield import ForceField
from mlff_cli.physics.langevin import NM_KJ, Langevin
from mlff_cli.physics.mapped_exchange import MappedExchange, Proposal
from mlff_cli.physics.md_schedule import FS, Schedule
from mlff_cli.physics.molecular_dynamics import FEWEST, HOT
from mlff_cli.physics.replica_exchange import K_B, Ladder
from mlff_cli.physics.replicas import Snapshots

PART = 128  # replicas of 22 atoms that a core's cache holds
CHUNK = 20  # steps between looks at the clock
GRACE_SECONDS = 10.0  # how long a stopped run may take to reach its next event

Write = Callable[[Mapping[str, np.ndarray], int], None]


class BatchedPotential:
    """The force field as a `langevin.Potential`, computed in parts.

    Args:
        field: the force field, where it is to be computed.
        threads: parts at a time on the CPU.
        compile: whether torch's compiler fuses it.
    """

    def __init__(self, field: ForceField, threads: int = 1, compile: bool = False) -> None:
        self._masses = field.masses
        self._part = PART if field.masses.device.type == "cpu" else 1 << 30
        self._evaluate = (
            torch.compile(field.evaluate, dynamic=False) if compile else field.energy_and_gradient
        )
        self._pool = ThreadPoolExecutor(threads, "replicas", initializer=_one_thread)

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (B,) and forces (B, N, 3)."""
        parts = positions.to(self._masses).split(self._part)  # type: ignore[no-untyped-call]
        found = list(self._pool.map(self._compute, parts))
        energies, forces = zip(*found, strict=True)
        return torch.cat(energies).double(), torch.cat(forces)

    def _compute(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():  # which every thread has of its own
            energy, gradient = self._evaluate(positions)
            return energy, -gradient

    def energies(self, positions: np.ndarray) -> np.ndarray:
        """Energies (B,) of positions (B, N, 3), nm; what is not finite is infinite."""
        found = self(torch.as_tensor(positions, device=self._masses.device))[0].cpu().numpy()
        return np.where(np.isfinite(found), found, np.inf)


def _one_thread() -> None:
    torch.set_num_threads(1)  # of operations that this thread calls


class BatchedEnsemble:
    """All replicas of a run.

    Args:
        field: the force field.
        temperatures: (K,) in K, ascending.
        schedule: when frames are written and replicas exchange.
        copies: L.
        friction: 1/ps.
        timestep: fs.
        seed: of all random numbers.
        threads: of the CPU.
        compile: whether the force field is compiled.
        mapped: swaps through a map, of one pair of temperatures.

    Attributes:
        step: steps done, equilibration included.
        mapped: swaps through a map, or None.
    """

    def __init__(
        self,
        field: ForceField,
        temperatures: np.ndarray,
        schedule: Schedule,
        *,
        copies: int,
        friction: float,
        timestep: float,
        seed: int,
        threads: int = 1,
        compile: bool = False,
        mapped: MappedExchange | None = None,
    ) -> None:
        self.step, self.mapped = 0, mapped
        self._temperatures = np.asarray(temperatures, dtype=np.float64)
        self._schedule, self._timestep = schedule, timestep
        self._ladders = [Ladder.start(self._temperatures) for _ in range(copies)]
        noise, *exchange = np.random.SeedSequence(seed).generate_state(1 + copies, np.uint64)
        self._seeds = [int(s) for s in exchange]
        self._heat = np.zeros(len(self._temperatures))
        self._potential = BatchedPotential(field, threads, compile)
        self._dynamics = Langevin(
            self._potential,
            field.masses.double().cpu().numpy(),
            np.tile(self._temperatures, copies),
            friction=friction,
            timestep=timestep,
            seed=int(noise >> np.uint64(1)),
            k_B=K_B,
            scale=NM_KJ,
            device=field.masses.device,
            recentre=True,
        )

    @property
    def n_replicas(self) -> int:
        """Replicas, B."""
        return len(self._ladders) * len(self._temperatures)

    @property
    def at(self) -> np.ndarray:
        """(L, K) replica of every ladder at every temperature."""
        n = len(self._temperatures)
        return np.stack([row * n + ladder.replica for row, ladder in enumerate(self._ladders)])

    @property
    def ladder(self) -> Ladder:
        """Counts of all ladders together; `trips` (B,) of every replica."""
        total = Ladder.start(self._temperatures)
        for ladder in self._ladders:
            total.attempted += ladder.attempted
            total.accepted += ladder.accepted
        total.trips = np.concatenate([ladder.trips for ladder in self._ladders])
        return total

    @property
    def mean_heat(self) -> np.ndarray:
        """(K,) mean kinetic temperature of the frames at every temperature, K."""
        return self._heat / max(1, self._schedule.frames_before(self.step))

    def start(self, positions: np.ndarray) -> None:
        """Begin every replica at positions (N, 3), nm."""
        self._dynamics.start(np.repeat(positions[None], self.n_replicas, axis=0))
        self._dynamics.settle()

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on; only right after an event."""
        ladders = [ladder.plain() for ladder in self._ladders]
        return {
            "step": np.asarray(self.step),
            "heat": self._heat.copy(),
            **(self.mapped.plain() if self.mapped else {}),
            **{f"ladder_{name}": np.stack([p[name] for p in ladders]) for name in ladders[0]},
            **{f"dynamics_{name}": values for name, values in self._dynamics.state().items()},
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` gave."""
        self.step, self._heat = int(state["step"]), state["heat"].copy()
        if self.mapped:
            self.mapped.restore(state)
        names = self._ladders[0].plain()
        self._ladders = [
            Ladder.restored(self._temperatures, {k: state[f"ladder_{k}"][row] for k in names})
            for row in range(len(self._ladders))
        ]
        prefix = "dynamics_"
        mine = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self._dynamics.restore(mine)

    def advance(self, pool: ThreadPoolExecutor, stop: StopRequest, write: Write) -> bool:
        """See `replica_ensemble.Ensemble.advance`; the pool is not needed here."""
        event = self._schedule.next_event(self.step)
        if not self._move(event - self.step, stop):
            return False
        shots = self._dynamics.snapshots()
        self._check(shots)
        self.step = event
        if self._schedule.is_frame(event):
            self._frame(shots, write)
        if self._schedule.is_exchange(event):
            self._exchange(shots)
        self._dynamics.settle()
        return True

    def _move(self, n: int, stop: StopRequest) -> bool:
        asked: float | None = None
        for done in range(0, n, CHUNK):
            self._dynamics.step(min(CHUNK, n - done))
            if stop.requested:
                asked = asked or time.monotonic()
                if time.monotonic() - asked > GRACE_SECONDS:
                    return False
        return True

    def _check(self, shots: Snapshots) -> None:
        heat, thermostats = shots.kinetic_temperature, self._dynamics.temperatures
        finite = np.isfinite(shots.energy) & np.isfinite(shots.forces).all((1, 2))
        finite &= np.isfinite(shots.positions).all((1, 2)) & np.isfinite(heat)
        if not finite.all():
            k = int(np.argmin(finite))
            raise NumericalError(
                f"at {thermostats[k]:g} K positions, forces or energy are NaN or infinite "
                f"(replica {k})"
            )
        hot = heat > HOT * thermostats
        if hot.any() and 3 * shots.positions.shape[1] >= FEWEST:
            k = int(np.argmax(hot))
            raise NumericalError(
                f"the kinetic temperature must stay near {thermostats[k]:g} K, found "
                f"{heat[k]:.3g} K (replica {k})"
            )

    def _frame(self, shots: Snapshots, write: Write) -> None:
        at, n = self.at.T.ravel(), self.n_replicas  # ordered by temperature, then ladder
        copies = len(self._ladders)
        self._heat += shots.kinetic_temperature[at].reshape(-1, copies).mean(axis=1)
        produced = self.step - self._schedule.equilibration
        arrays = {
            "step": np.full(n, produced),
            "time": np.full(n, produced * self._timestep / FS),
            "position": shots.positions[at],
            "force": shots.forces[at],
            "potential_energy": shots.energy[at],
            "temperature": np.repeat(self._temperatures, copies),
            "replica": at,
        }
        write(arrays, (self._schedule.frames_before(self.step) - 1) * n)

    def _exchange(self, shots: Snapshots) -> None:
        at, n_pairs = self.at, len(self._temperatures) - 1
        energies = shots.energy[at]  # [L, K]
        proposal: Proposal | None = None
        if self.mapped is not None and self.mapped.due(self._ladders[0]):  # all are in step
            ends = slice(self.mapped.pair, self.mapped.pair + 2)
            proposal = self.mapped.propose(
                shots.positions[at[:, ends]], energies[:, ends], self._potential.energies
            )
        moved: list[tuple[int, np.ndarray]] = []
        for row, (ladder, seed) in enumerate(zip(self._ladders, self._seeds, strict=True)):
            log_p = proposal.of_ladder(row, n_pairs) if proposal else None
            order = ladder.exchange(energies[row], seed, log_p)
            if proposal is not None and self.mapped is not None and self.mapped.accepted(order):
                who = self.at[row, proposal.pair : proposal.pair + 2]
                moved += zip(who.tolist(), proposal.positions[row], strict=True)
        thermostats = np.empty(self.n_replicas)
        thermostats[self.at] = self._temperatures
        self._dynamics.assign(thermostats)
        if moved:
            rows, positions = zip(*moved, strict=True)
            self._dynamics.place(np.array(rows), np.stack(positions))
