"""What a sampling run is asked for, and whether that can be done."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlff_cli.core.artifacts import check_writable, sha256, version
from mlff_cli.core.errors import UsageError
from mlff_cli.physics.md_schedule import Schedule, make_schedule
from mlff_cli.physics.molecular_dynamics import Engine, choose_engine

TIMESTEPS = {"none": 1.0, "hbonds": 2.0}  # fs
LONGEST = {"none": 2.0, "hbonds": 4.0}  # fs: beyond, the fastest vibration is no longer followed
SUFFIXES = (".h5", ".hdf5", ".h5md")
HOTTEST = 5000.0  # K


@dataclasses.dataclass(frozen=True)
class Options:
    """What to simulate and how.

    Attributes:
        temperatures: in K; several are replica exchange.
        peptide: sequence to build instead of reading a structure, see `data.trajectories.peptide`.
        forcefield: OpenMM's force-field files, see `physics.openmm_system`.
        constraints: "hbonds": bonds to hydrogen and water are rigid; "none": nothing is.
        time: production, ps.
        equilibration: before it, ps.
        timestep: fs; None: 1 without constraints, 2 with them.
        interval: between frames, ps.
        friction: 1/ps.
        exchange_interval: between exchanges, ps.
        padding: nm of explicit water around the solute, where water is added.
        ph: decides the protonation of added hydrogens.
        platform: OpenMM's name; "auto": the fastest here.
        threads: of one replica on the CPU. More than one is faster for large systems, but no two
            runs are the same to the last bit.
        engine: "openmm".
        seed: of everything that is random.
        force: replace an existing output, and an interrupted run that was asked for something else.
        dry_run: say what would be simulated, write nothing.
    """

    temperatures: tuple[float, ...] = (300.0,)
    peptide: str | None = None
    forcefield: tuple[str, ...] = ("amber14-all.xml", "implicit/obc2.xml")
    constraints: Literal["none", "hbonds"] = "none"
    time: float = 100.0
    equilibration: float = 10.0
    timestep: float | None = None
    interval: float = 1.0
    friction: float = 1.0
    exchange_interval: float = 1.0
    padding: float = 1.0
    ph: float = 7.0
    platform: str = "auto"
    threads: int = 1
    engine: str = "openmm"
    seed: int = 0
    force: bool = False
    dry_run: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked run.

    Attributes:
        temperatures: (K,) ascending.
        timestep: fs.
        config: what must be the same to continue.
    """

    system: Path | None
    output: Path
    options: Options
    temperatures: np.ndarray
    timestep: float
    schedule: Schedule
    engine: Engine
    config: dict[str, Any]


def make_plan(system: Path | None, output: Path, options: Options) -> Plan:
    """Refuse what cannot be done before any work is."""
    if options.engine != "openmm":
        raise UsageError(
            f"--engine: 'openmm' is the engine there is, found {options.engine!r}",
            remedy="a batched torch engine is planned; leave the option out",
        )
    if (system is None) == (options.peptide is None):
        raise UsageError(
            "either a structure or --peptide is needed, found "
            + ("neither" if system is None else "both"),
            remedy="mlff sample FILE.pdb -o TRAJ.h5, or mlff sample --peptide ACE-ALA-NME -o ...",
        )
    if options.constraints not in TIMESTEPS:
        raise UsageError(
            f"--constraints must be {' or '.join(TIMESTEPS)}, found {options.constraints!r}"
        )
    temperatures = np.array(sorted(options.temperatures), dtype="float64")
    if not len(temperatures) or not ((temperatures > 0) & (temperatures <= HOTTEST)).all():
        shown = ", ".join(f"{t:g}" for t in options.temperatures) or "none"
        raise UsageError(
            f"--temperature must be above 0 and at most {HOTTEST:g} K, found {shown}",
            remedy="give one temperature, or several separated by commas",
        )
    if (np.diff(temperatures) == 0).any():
        raise UsageError(
            f"--temperature: every one may be given once, found {options.temperatures}"
        )
    _in_range("friction", options.friction, 1e-6, 1e4, "1/ps")
    _in_range("ph", options.ph, 0.0, 14.0, "")
    _in_range("padding", options.padding, 0.1, 20.0, "nm")
    if options.threads < 1 or options.seed < 0:
        raise UsageError(
            "--threads must be at least 1 and --seed at least 0, "
            f"found {options.threads} and {options.seed}"
        )
    timestep = TIMESTEPS[options.constraints] if options.timestep is None else options.timestep
    schedule = make_schedule(
        time=options.time,
        equilibration=options.equilibration,
        interval=options.interval,
        exchange=options.exchange_interval if len(temperatures) > 1 else None,
        timestep=timestep,
    )
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"trajectories are written as H5MD, found the suffix {output.suffix!r}",
            where=str(output),
            remedy="call it .h5; `mlff convert` makes other formats of it",
        )
    local = [Path(name) for name in options.forcefield if Path(name).is_file()]
    check_writable(output, force=options.force, inputs=[*([system] if system else []), *local])
    engine = choose_engine(options.platform, options.threads)
    config = {
        "system": None if system is None else sha256(system),
        **{name: _plain(value) for name, value in dataclasses.asdict(options).items()},
        "temperatures": temperatures.tolist(),
        "timestep": timestep,
        "platform": engine.platform,
        "forcefield": [
            f"{name} {sha256(name)}" if Path(name).is_file() else name
            for name in options.forcefield
        ],
        "openmm": version("openmm"),
    }
    for name in ("force", "dry_run"):
        del config[name]
    return Plan(system, output, options, temperatures, timestep, schedule, engine, config)


def _in_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise UsageError(f"--{name} must be {low:g} to {high:g} {unit}, found {value:g}".rstrip())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
