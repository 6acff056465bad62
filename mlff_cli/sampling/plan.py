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
MOST_REPLICAS = 1 << 16
ENGINES = ("openmm", "torch")
DTYPES = ("float32", "float64")


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
        threads: of one replica on the CPU with OpenMM. More than one is faster for large systems,
            but no two runs are the same to the last bit.
        engine: "openmm"; "torch": all replicas in one batch, see `physics.batched_ensemble`.
        replicas: copies at every temperature; more than one needs engine "torch".
        flow: model of a flow between two neighbouring temperatures, whose swaps go through it.
        device: of engine "torch" and of the flow: auto, cpu, cuda or cuda:N.
        dtype: of energies and forces of engine "torch": "float32" or "float64".
        compile: whether torch's compiler fuses the force field of engine "torch": several times
            as fast, after a minute.
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
    replicas: int = 1
    flow: Path | None = None
    device: str = "auto"
    dtype: str = "float32"
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
        engine: OpenMM's, which also prepares what torch simulates.
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

    @property
    def batched(self) -> bool:
        """Whether all replicas are one batch of torch."""
        return self.options.engine == "torch"

    @property
    def n_replicas(self) -> int:
        """Copies of the molecule, and frames of one moment."""
        return len(self.temperatures) * self.options.replicas

    @property
    def platform(self) -> str:
        """Where forces are computed, in words."""
        if not self.batched:
            return self.engine.platform
        return f"torch {self.options.device} {self.options.dtype}"

    @property
    def exact(self) -> bool:
        """Whether two runs give the same bits; sums on a GPU have no fixed order."""
        return self.options.device == "cpu" if self.batched else self.engine.exact


def make_plan(system: Path | None, output: Path, options: Options) -> Plan:
    """Refuse what cannot be done before any work is."""
    _check_engine(options)
    _check_flow(options)
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
    given = [path for path in (system, options.flow) if path is not None]
    check_writable(output, force=options.force, inputs=[*given, *local])
    engine = choose_engine(
        "CPU" if options.engine == "torch" else options.platform, options.threads
    )
    config = {
        "system": None if system is None else sha256(system),
        **{name: _plain(value) for name, value in dataclasses.asdict(options).items()},
        "temperatures": temperatures.tolist(),
        "timestep": timestep,
        "flow": None if options.flow is None else sha256(options.flow),
        "forcefield": [
            f"{name} {sha256(name)}" if Path(name).is_file() else name
            for name in options.forcefield
        ],
        "openmm": version("openmm"),
    }
    for name in ("force", "dry_run"):
        del config[name]
    plan = Plan(system, output, options, temperatures, timestep, schedule, engine, config)
    config["platform"] = plan.platform
    return plan


def _check_engine(options: Options) -> None:
    """Refuse what the engine does not know."""
    if options.engine not in ENGINES:
        raise UsageError(
            f"--engine must be {' or '.join(ENGINES)}, found {options.engine!r}",
            remedy="openmm knows every system; torch is for hundreds of replicas of a molecule",
        )
    if options.dtype not in DTYPES:
        raise UsageError(f"--dtype must be {' or '.join(DTYPES)}, found {options.dtype!r}")
    if not 1 <= options.replicas * max(1, len(options.temperatures)) <= MOST_REPLICAS:
        raise UsageError(
            f"--replicas times temperatures must be 1 to {MOST_REPLICAS}, "
            f"found {options.replicas} times {len(options.temperatures)}"
        )
    if options.engine == "openmm":
        if options.replicas > 1 or options.compile:
            found = f"--replicas {options.replicas}" if options.replicas > 1 else "--compile"
            raise UsageError(
                f"{found} needs --engine torch, found --engine openmm",
                remedy="pass --engine torch, or leave it out",
            )
        return
    if options.constraints != "none":
        raise UsageError(
            f"--engine torch keeps no bond rigid, found --constraints {options.constraints}",
            remedy="pass --constraints none, or --engine openmm",
        )
    if options.platform != "auto" or options.threads != 1:
        found = f"--threads {options.threads}" if options.threads != 1 else options.platform
        raise UsageError(
            f"--platform and --threads are OpenMM's, found {found} with --engine torch",
            remedy="leave it out: --device says where torch computes, on all cores it may use",
        )


def _check_flow(options: Options) -> None:
    """Refuse what swaps through a flow cannot be done with; what the model says comes later."""
    if options.flow is None:
        return
    if len(options.temperatures) < 2:
        raise UsageError(
            "--flow exchanges replicas of two temperatures, found "
            f"{len(options.temperatures)} in --temperature",
            remedy="name both of the flow's, as --temperature 300,450",
        )
    if options.constraints != "none":
        raise UsageError(
            f"--flow moves every atom on its own, found --constraints {options.constraints}",
            remedy="pass --constraints none",
        )


def _in_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise UsageError(f"--{name} must be {low:g} to {high:g} {unit}, found {value:g}".rstrip())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
