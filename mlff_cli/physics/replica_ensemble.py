"""Replicas at several temperatures, moved side by side and exchanged; one is the plain case.

A replica computes alone, in a thread of its own: what it does depends neither on the others nor on
how many threads there are. What is written is ordered by temperature.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import numpy as np
import openmm

from mlff_cli.core.affinity import on_core, quiet_cores
from mlff_cli.core.runtime import StopRequest
from mlff_cli.physics.mapped_exchange import MappedExchange
from mlff_cli.physics.md_schedule import FS, Schedule
from mlff_cli.physics.molecular_dynamics import Engine, Replica, Snapshot
from mlff_cli.physics.replica_exchange import Ladder

CHUNK = 20  # steps between looks at the clock
GRACE_SECONDS = 10.0  # how long a stopped run may take to reach its next event
POLL_SECONDS = 0.5

Write = Callable[[Mapping[str, np.ndarray], int], None]


class Ensemble:
    """All replicas of a run.

    Args:
        engine: where they are calculated.
        system: OpenMM's.
        temperatures: (K,) in K, ascending.
        schedule: when frames are written and replicas exchange.
        friction: 1/ps.
        timestep: fs.
        seed: of all random numbers.
        mapped: swaps through a map, of one pair of temperatures; needs a system without a box and
            without constraints.

    Attributes:
        ladder: which replica is at which temperature.
        step: steps done, equilibration included.
        mapped: swaps through a map, or None.
    """

    def __init__(
        self,
        engine: Engine,
        system: openmm.System,
        temperatures: np.ndarray,
        schedule: Schedule,
        *,
        friction: float,
        timestep: float,
        seed: int,
        mapped: MappedExchange | None = None,
    ) -> None:
        self.mapped = mapped
        self.ladder = Ladder.start(temperatures)
        self.step = 0
        self._schedule, self._timestep, self._seed = schedule, timestep, seed
        self._heat = np.zeros(len(temperatures))  # sum over frames of the kinetic temperatures
        n = len(temperatures)
        cores = quiet_cores(n) if engine.one_worker else []
        self._replicas = [
            Replica(
                engine,
                system,
                float(temperature),
                friction=friction,
                timestep=timestep,
                seed=seed,
                index=index,
                core=cores[index] if cores else None,
            )
            for index, temperature in enumerate(temperatures)
        ]

    @property
    def mean_heat(self) -> np.ndarray:
        """(K,) mean kinetic temperature of the frames at every temperature, K."""
        return self._heat / max(1, self._schedule.frames_before(self.step))

    def start(self, positions: np.ndarray) -> None:
        """Begin every replica at positions (N, 3), nm."""
        for replica in self._replicas:
            replica.start(positions)

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on; only right after an event."""
        blobs = {
            f"checkpoint_{index}": np.frombuffer(replica.checkpoint(), dtype="uint8")
            for index, replica in enumerate(self._replicas)
        }
        return {
            "step": np.asarray(self.step),
            "heat": self._heat.copy(),
            **self.ladder.plain(),
            **(self.mapped.plain() if self.mapped else {}),
            **blobs,
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` gave."""
        self.ladder = Ladder.restored(self.ladder.temperatures, state)
        self.step, self._heat = int(state["step"]), state["heat"].copy()
        if self.mapped:
            self.mapped.restore(state)
        for k, index in enumerate(self.ladder.replica):
            blob = state[f"checkpoint_{index}"].tobytes()
            self._replicas[index].restore(blob, float(self.ladder.temperatures[k]))

    def advance(self, pool: ThreadPoolExecutor, stop: StopRequest, write: Write) -> bool:
        """Move to the next event and do what is due there.

        Args:
            pool: threads to compute in.
            stop: asked for a while, it makes the replicas leave on their way.
            write: is given arrays (K, ...) by H5MD's names, and the row of the first.

        Returns:
            Whether the event was reached; if not, the run cannot go on from here.

        Raises:
            NumericalError: a replica explodes.
        """
        event = self._schedule.next_event(self.step)
        if not self._move(pool, event - self.step, stop):
            return False
        frame, exchange = self._schedule.is_frame(event), self._schedule.is_exchange(event)
        ordered = [self._replicas[index] for index in self.ladder.replica]
        if frame or exchange:
            shots = list(pool.map(Replica.snapshot, ordered))
        self.step = event
        if frame:
            self._frame(ordered, shots, write)
        if exchange:
            self._exchange(ordered, shots, pool)
        for replica in self._replicas:
            replica.settle()
        return True

    def _exchange(
        self, ordered: Sequence[Replica], shots: Sequence[Snapshot], pool: ThreadPoolExecutor
    ) -> None:
        energies = np.array([s.energy for s in shots])
        proposal = None
        if self.mapped is not None and self.mapped.due(self.ladder):
            k = self.mapped.pair
            ends = ordered[k : k + 2]

            def energy_of(positions: np.ndarray) -> np.ndarray:
                return np.array(list(pool.map(Replica.energy_at, ends, positions)))

            pair = np.stack([s.positions for s in shots[k : k + 2]])[None]
            proposal = self.mapped.propose(pair, energies[None, k : k + 2], energy_of)
        attempt = self.ladder.attempts
        log_p = proposal.of_ladder(0, len(energies) - 1) if proposal else None
        order = self.ladder.exchange(energies, self._seed, log_p)
        for k, index in enumerate(self.ladder.replica):
            self._replicas[index].move_to(float(self.ladder.temperatures[k]))
        if self.mapped is not None and proposal is not None and self.mapped.accepted(order):
            for k, positions in enumerate(proposal.positions[0], start=self.mapped.pair):
                self._replicas[self.ladder.replica[k]].place(positions, attempt)

    def _move(self, pool: ThreadPoolExecutor, n: int, stop: StopRequest) -> bool:
        leave = threading.Event()

        def move(replica: Replica) -> None:
            with on_core(replica.core):
                for done in range(0, n, CHUNK):
                    if leave.is_set():
                        return
                    replica.step(min(CHUNK, n - done))

        jobs = [pool.submit(move, replica) for replica in self._replicas]
        asked: float | None = None
        try:
            while wait(jobs, POLL_SECONDS, FIRST_EXCEPTION).not_done:
                if any(job.done() and job.exception() for job in jobs):
                    break
                if stop.requested:
                    asked = asked or time.monotonic()
                    if time.monotonic() - asked > GRACE_SECONDS:
                        leave.set()
            for job in jobs:
                if job.done():
                    job.result()
        except BaseException:
            leave.set()
            raise
        return not leave.is_set()

    def _frame(self, ordered: Sequence[Replica], shots: Sequence[Snapshot], write: Write) -> None:
        self._heat += [r.kinetic_temperature(s) for r, s in zip(ordered, shots, strict=True)]
        n = len(ordered)
        produced = self.step - self._schedule.equilibration
        arrays = {
            "step": np.full(n, produced),
            "time": np.full(n, produced * self._timestep / FS),
            "position": np.stack([s.positions for s in shots]),
            "force": np.stack([s.forces for s in shots]),
            "edges": np.stack([s.edges for s in shots]),
            "potential_energy": np.array([s.energy for s in shots]),
            "temperature": self.ladder.temperatures,
            "replica": self.ladder.replica,
        }
        write(arrays, (self._schedule.frames_before(self.step) - 1) * n)
