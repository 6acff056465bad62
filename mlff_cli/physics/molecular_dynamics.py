"""Langevin dynamics of one replica with OpenMM, such that it can be continued exactly.

The integrator is OpenMM's LangevinMiddleIntegrator (Zhang et al., J. Phys. Chem. A 123, 6056,
2019). In a box, the last bits of the CPU platform's forces depend on neighbour lists and thus on
what came before. So at every event (a frame, an exchange) the context is made anew and loaded with
its own checkpoint: an interrupted run that begins there does what the uninterrupted one did. One
thread adds forces in one order; with more, OpenMM gives no two runs the same last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import openmm

from mlff_cli.core.affinity import on_core
from mlff_cli.core.errors import MissingDependencyError, NumericalError, UsageError
from mlff_cli.physics.drawn_velocities import AHEAD, half_a_step_behind
from mlff_cli.physics.replica_exchange import K_B

AUTOMATIC = ("CUDA", "HIP", "CPU", "Reference")  # fastest first; OpenCL only by name
HOT = 5.0  # times its temperature: a molecule that is exploding
FEWEST = 30  # degrees of freedom from which on the kinetic temperature says something
_STREAM = {"velocities": 0, "noise": 1, "placed": 2}  # random numbers for different ends


@dataclass(frozen=True)
class Engine:
    """Where and how OpenMM calculates.

    Attributes:
        platform: OpenMM's name.
        properties: of the platform.
        exact: whether two runs give the same bits.
    """

    platform: str
    properties: Mapping[str, str]
    exact: bool

    def context(
        self, system: openmm.System, integrator: openmm.Integrator | None = None
    ) -> openmm.Context:
        """A context on this platform."""
        platform = openmm.Platform.getPlatformByName(self.platform)
        integrator = integrator or openmm.VerletIntegrator(0.001)
        return openmm.Context(system, integrator, platform, dict(self.properties))

    @property
    def one_worker(self) -> bool:
        """Whether a replica has one worker thread, which every kernel wakes."""
        return self.platform == "CPU" and self.properties.get("Threads") == "1"


def choose_engine(platform: str = "auto", threads: int = 1) -> Engine:
    """The engine of a platform's name.

    Args:
        platform: OpenMM's name, or "auto" for the fastest that works here.
        threads: of one replica on the CPU.

    Raises:
        UsageError: OpenMM knows no such platform.
        MissingDependencyError: it does not work here.
    """
    n = openmm.Platform.getNumPlatforms()
    known = [openmm.Platform.getPlatform(i).getName() for i in range(n)]
    if platform != "auto" and platform not in known:
        raise UsageError(
            f"--platform: this OpenMM has {', '.join(known)}, found {platform!r}",
            remedy="choose one of these, or 'auto'",
        )
    for name in AUTOMATIC if platform == "auto" else (platform,):
        if name not in known:
            continue
        properties: dict[str, str] = {}
        if name == "CPU":
            properties = {"Threads": str(threads), "DeterministicForces": "true"}
        elif name in ("CUDA", "HIP"):
            properties = {"Precision": "mixed", "DeterministicForces": "true"}
        elif name == "OpenCL":
            properties = {"Precision": "mixed"}
        exact = name in ("Reference", "CUDA", "HIP") or (name == "CPU" and threads == 1)
        engine = Engine(name, properties, exact)
        if name in ("CPU", "Reference"):
            return engine
        probe = openmm.System()
        probe.addParticle(1.0)
        try:
            engine.context(probe)
        except openmm.OpenMMException as error:
            if platform != "auto":
                raise MissingDependencyError(
                    f"OpenMM's platform {name} does not work here: {error}",
                    remedy="choose another --platform, or 'auto'",
                ) from error
            continue
        return engine
    raise MissingDependencyError("OpenMM has no platform that works here")


@dataclass(frozen=True)
class Snapshot:
    """A replica at one moment.

    Attributes:
        positions: (N, 3) in nm; molecules are whole, not wrapped into the box.
        forces: (N, 3) in kJ/mol/nm, of the potential energy; constraint forces are not in it.
        edges: (3, 3) box in nm.
        energy: potential energy, kJ/mol.
        kinetic: kinetic energy, kJ/mol.
    """

    positions: np.ndarray
    forces: np.ndarray
    edges: np.ndarray
    energy: float
    kinetic: float


class Replica:
    """One copy of the system at its thermostat.

    Args:
        engine: where it is calculated.
        system: OpenMM's.
        temperature: in K.
        friction: in 1/ps.
        timestep: in fs.
        seed: of its velocities and noise; with `index` it decides every random number.
        index: which replica this is.
        core: where it computes, as long as its steps are called from there; None: anywhere.
    """

    def __init__(
        self,
        engine: Engine,
        system: openmm.System,
        temperature: float,
        *,
        friction: float,
        timestep: float,
        seed: int,
        index: int,
        core: int | None = None,
    ) -> None:
        self.temperature = temperature
        self.core = core
        self._seed, self._index = seed, index
        self._periodic = system.usesPeriodicBoundaryConditions()
        self._integrator = openmm.LangevinMiddleIntegrator(temperature, friction, timestep / 1000)
        self._integrator.setRandomNumberSeed(self._random("noise"))
        with on_core(core):  # its worker thread starts here and stays where it started
            self._context = engine.context(system, self._integrator)
        masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
        self._masses = np.array(masses)
        moving = int((self._masses > 0).sum())
        self.degrees_of_freedom = 3 * moving - system.getNumConstraints()

    def _random(self, purpose: str, *further: int) -> int:
        """A seed for OpenMM, never 0, which would mean a random one."""
        key = [self._seed, self._index, _STREAM[purpose], *further]
        return 1 + int(np.random.SeedSequence(key).generate_state(1)[0]) % (2**31 - 2)

    def start(self, positions: np.ndarray) -> None:
        """Begin at positions (N, 3), nm, with velocities of the temperature."""
        self._context.setPositions(positions)
        self._context.applyConstraints(1e-6)
        self._context.setVelocitiesToTemperature(self.temperature, self._random("velocities"))
        self.settle()

    def step(self, n: int) -> None:
        """Go on by n steps.

        Raises:
            NumericalError: the molecule explodes.
        """
        try:
            self._integrator.step(n)
        except openmm.OpenMMException as error:
            raise NumericalError(f"at {self.temperature:g} K OpenMM stopped: {error}") from error

    def positions(self) -> np.ndarray:
        """Positions (N, 3) now, nm, finite or not."""
        state = self._context.getState(positions=True)
        return np.asarray(state.getPositions(asNumpy=True)._value)

    def snapshot(self) -> Snapshot:
        """Positions, forces and energies now.

        Raises:
            NumericalError: they are not finite, or far too hot.
        """
        state = self._context.getState(positions=True, forces=True, energy=True)
        found = Snapshot(
            state.getPositions(asNumpy=True)._value,
            state.getForces(asNumpy=True)._value,
            np.array(state.getPeriodicBoxVectors(asNumpy=True)._value),
            state.getPotentialEnergy()._value,
            state.getKineticEnergy()._value,
        )
        finite = np.isfinite(found.positions).all() and np.isfinite(found.forces).all()
        if not (finite and np.isfinite(found.energy) and np.isfinite(found.kinetic)):
            raise NumericalError(
                f"at {self.temperature:g} K positions, forces or energy are NaN or infinite"
            )
        hot = self.kinetic_temperature(found)
        if self.degrees_of_freedom >= FEWEST and hot > HOT * self.temperature:
            raise NumericalError(
                f"the kinetic temperature must stay near {self.temperature:g} K, found {hot:.3g} K"
            )
        return found

    def kinetic_temperature(self, snapshot: Snapshot) -> float:
        """2 E_kin / (f k_B), in K, with f degrees of freedom."""
        return float(2 * snapshot.kinetic / (max(1, self.degrees_of_freedom) * K_B))

    def move_to(self, temperature: float) -> None:
        """Change the thermostat, and the velocities by sqrt(T_new / T_old)."""
        if temperature == self.temperature:
            return
        velocities = self._context.getState(velocities=True).getVelocities(asNumpy=True)._value
        self._context.setVelocities(velocities * np.sqrt(temperature / self.temperature))
        self._set_temperature(temperature)

    def energy_at(self, positions: np.ndarray) -> float:
        """Potential energy of other positions (N, 3), nm, in kJ/mol; NaN where there is none.

        The replica stays as it is.
        """
        before = self._context.getState(positions=True).getPositions(asNumpy=True)
        if not np.isfinite(positions).all():
            return float("nan")
        try:
            self._context.setPositions(positions)
            return float(self._context.getState(energy=True).getPotentialEnergy()._value)
        except openmm.OpenMMException:
            return float("nan")
        finally:
            self._context.setPositions(before)

    def place(self, positions: np.ndarray, event: int) -> None:
        """Go to positions (N, 3), nm, with new velocities of the temperature.

        Args:
            positions: of atoms without constraints.
            event: a number that makes these velocities others than those of another event.
        """
        rng = np.random.default_rng(self._random("placed", event))
        h = self._integrator.getStepSize()._value  # ps
        masses = np.where(self._masses > 0, self._masses, np.inf)[:, None]
        drawn = np.sqrt(K_B * self.temperature / masses) * rng.standard_normal(positions.shape)
        ahead = self._forces_at(positions + AHEAD * h * drawn)
        here = self._forces_at(positions)
        self._context.setVelocities(half_a_step_behind(drawn, ahead, here, h / masses))

    def _forces_at(self, positions: np.ndarray) -> np.ndarray:
        """Go to positions (N, 3), nm; returns forces there, kJ/mol/nm."""
        self._context.setPositions(positions)
        state = self._context.getState(forces=True)
        return np.asarray(state.getForces(asNumpy=True)._value)

    def _set_temperature(self, temperature: float) -> None:
        self._integrator.setTemperature(temperature)
        self.temperature = temperature

    def settle(self) -> None:
        """Forget what is no part of the state.

        A molecule without a box is put back around the origin, so that it does not diffuse to
        where single precision is coarse.
        """
        if self._periodic:
            self.restore(self.checkpoint(), self.temperature)
            return
        positions = self._context.getState(positions=True).getPositions(asNumpy=True)._value
        centre = np.average(positions, axis=0, weights=self._masses)
        self._context.setPositions(positions - centre)

    def checkpoint(self) -> bytes:
        """Everything there is after `settle`, in OpenMM's own format."""
        checkpoint: bytes = self._context.createCheckpoint()
        return checkpoint

    def restore(self, checkpoint: bytes, temperature: float) -> None:
        """Continue from what `checkpoint` returned."""
        self._set_temperature(temperature)
        self._context.reinitialize(preserveState=False)
        self._context.loadCheckpoint(checkpoint)
