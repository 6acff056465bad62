"""The loop of a run of bead chains: steps, looks, frames and exchange, whatever engine moves them.

B = L K replicas: L ladders of K temperatures each, slot l K + k at temperature k of ladder l. With
one temperature that is B copies. Replicas keep their place in memory; exchange swaps thermostats.

Every `LOOK` steps and at every event the replicas are looked at (`bead_guard`) and settled, always
at the same steps, so that a run can be left and continued at any of them without a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.units import KJ_PER_KCAL
from mlff_cli.physics.md_schedule import FS, Schedule
from mlff_cli.physics.replica_exchange import Ladder
from mlff_cli.physics.replicas import Replicas, Snapshots
from mlff_cli.sampling.beads.guard import Finding, Guard

LOOK = 20  # steps
NM = 0.1  # per angstrom
HOT = 5.0  # times its temperature: a chain that is exploding
FEWEST = 30  # degrees of freedom from which on the kinetic temperature of one frame says something

Write = Callable[[Mapping[str, np.ndarray], int], None]


class BrokenChainError(NumericalError):
    """A replica is no chain any more.

    Attributes:
        replica: which.
        temperature: of its thermostat, K.
        step: at which it was seen.
        positions: (n, 3) angstrom then; where they are not finite, those of the look before.
    """

    def __init__(
        self, finding: Finding, temperature: float, step: int, positions: np.ndarray
    ) -> None:
        super().__init__(
            f"{finding.what} (replica {finding.replica} at {temperature:g} K, step {step})"
        )
        self.replica, self.temperature = finding.replica, temperature
        self.step, self.positions = step, positions


class BeadDynamics:
    """A run, from where it stands.

    Args:
        replicas: what moves them; their thermostats are set here.
        guard: what chains must keep to.
        temperatures: (K,) in K, ascending.
        n_ladders: L.
        schedule: when frames are written and replicas exchange.
        timestep: fs.
        seed: of exchange.

    Attributes:
        step: steps done.
        ladders: L of them.
    """

    def __init__(
        self,
        replicas: Replicas,
        guard: Guard,
        temperatures: np.ndarray,
        n_ladders: int,
        schedule: Schedule,
        *,
        timestep: float,
        seed: int,
    ) -> None:
        self.replicas, self.schedule, self.step = replicas, schedule, 0
        self.temperatures = np.asarray(temperatures, dtype=np.float64)
        self.ladders = [Ladder.start(self.temperatures) for _ in range(n_ladders)]
        self._guard, self._timestep = guard, timestep
        sequence = np.random.SeedSequence([seed, 1])  # 0 is the noise's
        self._seeds = [int(s) for s in sequence.generate_state(n_ladders, np.uint64)]
        self._heat = np.zeros(len(self.temperatures))
        self._last: np.ndarray | None = None

    @property
    def n_replicas(self) -> int:
        """Replicas, B."""
        return len(self.ladders) * len(self.temperatures)

    @property
    def at(self) -> np.ndarray:
        """(B,) which replica is at every slot."""
        n = len(self.temperatures)
        return np.concatenate([k * n + ladder.replica for k, ladder in enumerate(self.ladders)])

    @property
    def mean_heat(self) -> np.ndarray:
        """(K,) mean kinetic temperature of the frames at every temperature, K."""
        return self._heat / max(1, self.schedule.frames_before(self.step))

    def start(self, positions: np.ndarray) -> None:
        """Begin at positions (B, n, 3) in angstrom."""
        self.replicas.start(positions)
        self.replicas.settle()

    def advance(self, write: Write) -> None:
        """Go to the next look or event, and do what is due there.

        Args:
            write: is given arrays (B, ...) by H5MD's names and units, and the row of the first.

        Raises:
            BrokenChainError: a replica broke.
            NumericalError: the engine gave up.
        """
        look = (self.step // LOOK + 1) * LOOK
        target = min(look, self.schedule.next_event(self.step))
        self.replicas.step(target - self.step)
        self.step = target
        self._look()
        frame, exchange = self.schedule.is_frame(target), self.schedule.is_exchange(target)
        if frame or exchange:
            shots = self.replicas.snapshots()
            self._check(shots)
        if frame:
            self._frame(shots, write)
        if exchange:
            self._exchange(shots.energy)
        self.replicas.settle()

    def _look(self) -> None:
        x = self.replicas.positions()
        finding = self._guard.check(x)
        if finding is not None:
            raise self._broken(finding, x)
        self._last = x

    def _check(self, shots: Snapshots) -> None:
        finite = np.isfinite(shots.energy) & np.isfinite(shots.forces).all((1, 2))
        hot = shots.kinetic_temperature > HOT * self._thermostats()
        many = 3 * shots.positions.shape[1] >= FEWEST
        for wrong, told in (
            (~finite, "the energy or a force is NaN or infinite"),
            (hot & many, "the kinetic temperature is {:.3g} K"),
        ):
            if wrong.any():
                k = int(np.argmax(wrong))
                what = told.format(shots.kinetic_temperature[k])
                raise self._broken(Finding(k, what), shots.positions)

    def _broken(self, finding: Finding, x: np.ndarray) -> BrokenChainError:
        k = finding.replica
        if not np.isfinite(x[k]).all() and self._last is not None:
            x = self._last
        return BrokenChainError(finding, float(self._thermostats()[k]), self.step, x[k].copy())

    def _thermostats(self) -> np.ndarray:
        """(B,) temperature of every replica."""
        found = np.empty(self.n_replicas)
        found[self.at] = np.tile(self.temperatures, len(self.ladders))
        return found

    def _frame(self, shots: Snapshots, write: Write) -> None:
        at, n = self.at, self.n_replicas
        heat = shots.kinetic_temperature[at].reshape(len(self.ladders), -1)
        self._heat += heat.mean(axis=0)
        arrays = {
            "step": np.full(n, self.step),
            "time": np.full(n, self.step * self._timestep / FS),
            "position": shots.positions[at] * NM,
            "force": shots.forces[at] * (KJ_PER_KCAL / NM),
            "potential_energy": shots.energy[at] * KJ_PER_KCAL,
            "temperature": np.tile(self.temperatures, len(self.ladders)),
            "replica": at,
        }
        write(arrays, (self.schedule.frames_before(self.step) - 1) * n)

    def _exchange(self, energy: np.ndarray) -> None:
        by_slot = (energy[self.at] * KJ_PER_KCAL).reshape(len(self.ladders), -1)
        for ladder, energies, seed in zip(self.ladders, by_slot, self._seeds, strict=True):
            ladder.exchange(energies, seed)
        self.replicas.assign(self._thermostats())

    def exchanged(self) -> Ladder:
        """Counts of all ladders together, as if they were one."""
        total = Ladder.start(self.temperatures)
        for ladder in self.ladders:
            total.attempted += ladder.attempted
            total.accepted += ladder.accepted
            total.trips += ladder.trips
        return total

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on; at any moment between two `advance`."""
        ladders = [ladder.plain() for ladder in self.ladders]
        return {
            "step": np.asarray(self.step),
            "heat": self._heat.copy(),
            **{f"ladder_{k}": np.stack([p[k] for p in ladders]) for k in ladders[0]},
            **{f"replicas_{k}": v for k, v in self.replicas.state().items()},
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` gave."""
        self.step, self._heat = int(state["step"]), state["heat"].copy()
        names = self.ladders[0].plain()
        self.ladders = [
            Ladder.restored(self.temperatures, {k: state[f"ladder_{k}"][row] for k in names})
            for row in range(len(self.ladders))
        ]
        self.replicas.restore(_with_prefix(state, "replicas_"))


def _with_prefix(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
