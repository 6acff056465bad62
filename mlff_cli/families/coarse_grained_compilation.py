"""Compilation of coarse-grained models: an artifact for OpenMM and ASE, or a folder for LAMMPS."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import check_writable
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import Summary, Table
from mlff_cli.data.beads.prior_file import prior_to_plain
from mlff_cli.data.model_file import load_model_file
from mlff_cli.deploy.artifact import meta_path
from mlff_cli.deploy.beads.artifact import write_bead_artifact
from mlff_cli.deploy.beads.models import bead_model_from
from mlff_cli.deploy.beads.opening import trained_at
from mlff_cli.deploy.beads.potential import DTYPES
from mlff_cli.deploy.beads.start import Known, find_start
from mlff_cli.deploy.verify import VerificationRecord
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.bound_bead_model import BoundBeadModel
from mlff_cli.potentials.prior import Prior

SUFFIX = ".jpt"
PACKAGES = ("torch", "nequip", "nequip-allegro")


@dataclasses.dataclass(frozen=True)
class BeadRequest:
    """What is to be compiled.

    Attributes:
        weights: the model file, or those of an ensemble's members.
        output: stem of the artifact, or its name; the folder for LAMMPS.
        format: jpt or lammps.
        dtype: of Allegro, float32 or float64.
        molecule: its name, where there are several.
        structure: beads that it starts from, of a molecule that the model need not know.
        device: that LAMMPS will compute on.
        force: replace existing outputs.
    """

    weights: tuple[Path, ...]
    output: Path
    format: str = "jpt"
    dtype: str = "float32"
    molecule: str | None = None
    structure: Path | None = None
    device: str = "cpu"
    force: bool = False


class BeadCompilation:
    """A compilation whose files were opened and checked, and that has written nothing.

    Args:
        request: what is to be compiled.

    Attributes:
        inputs: files that it read.
        topology: the molecule.
        notes: what the user must be told of it.
        plan: what will be done, in words.

    Raises:
        UsageError: another family, an output that exists, members that differ, or an ensemble for
            LAMMPS.
        DataError: a file is damaged, or the model does not know the molecule.
        MissingDependencyError: nequip-allegro is needed and not installed.
    """

    def __init__(self, request: BeadRequest) -> None:
        self._request, where = request, str(request.weights[0])
        self.inputs = [*request.weights, *([request.structure] if request.structure else [])]
        if request.format == "lammps" and len(request.weights) > 1:
            raise UsageError(
                f"an ensemble has no place in one pair style of LAMMPS, found "
                f"{len(request.weights)} models",
                remedy="compile its members one by one, or the ensemble with --format jpt and run "
                "it with `mlff simulate --engine lammps`",
            )
        self._path = request.output
        if request.format == "jpt":
            if request.output.suffix != SUFFIX:
                self._path = request.output.with_name(f"{request.output.name}{SUFFIX}")
            for target in (self._path, meta_path(self._path)):
                check_writable(target, force=request.force, inputs=self.inputs)
        else:
            from mlff_cli.deploy.lammps.folder import check_folder

            check_folder(self._path, force=request.force)
        files = [load_model_file(path) for path in request.weights]
        self._models = [
            bead_model_from(file, str(path), DTYPES[request.dtype])
            for file, path in zip(files, request.weights, strict=True)
        ]
        self._files = files
        self.topology, self.notes = _molecule(
            Known(files[0].molecules, where, False, files[0].architecture.get("prior")), request
        )
        try:
            bound = BoundBeadModel(self._models, self.topology)  # all that can be wrong is told now
        except DataError as error:
            error.where = error.where or where
            raise
        self.plan = (
            f"{self.topology.name}, {self.topology.n_beads} beads, "
            f"{_parts(bound.has_allegro, bound.has_prior)}"
            f"{f' of {bound.n_members} members' if bound.n_members > 1 else ''}"
        )

    def told(self) -> dict[str, Any]:
        """What `--dry-run` and the summary tell."""
        return {
            "output": str(self._path),
            "family": self._files[0].family,
            "molecule": self.topology.name,
            "beads": self.topology.n_beads,
            "members": len(self._models),
        }

    @property
    def target(self) -> Path:
        """The file or folder that is written."""
        return self._path

    def carry_out(self, provenance: dict[str, Any]) -> Summary:
        """Compile, verify, keep.

        Args:
            provenance: what made it.

        Raises:
            CheckFailedError: what was written does not reproduce the model; nothing is kept.
            MissingDependencyError: there is no C++ compiler for Allegro in LAMMPS.
            StorageError: the disk is full.
        """
        first, file = self._models[0], self._files[0]
        metadata = {
            "prior": None if first.prior is None else _plain_prior(first.prior, self.inputs[0]),
            "allegro": first.architecture()["allegro"],
            "dtype": self._request.dtype,
            "temperature": trained_at(file),  # K
            "units": dict(file.units),
            "provenance": {**provenance, "model": _plain(file.provenance)},
        }
        if self._request.format == "lammps":
            return self._folder(first, metadata)
        record = write_bead_artifact(
            self._models, self.topology, self._path, metadata, force=self._request.force
        )
        data = {
            **self.told(),
            "meta": str(meta_path(self._path)),
            "verification": record.plain(),
        }
        lines = [str(self._path), str(meta_path(self._path)), f"verified: {self.plan}"]
        return Summary(data, tables=[_table(record)], lines=lines)

    def _folder(self, model: BeadModel, metadata: dict[str, Any]) -> Summary:
        from mlff_cli.deploy.lammps.folder import write_lammps_folder
        from mlff_cli.deploy.lammps.input_script import Run

        checks = write_lammps_folder(
            model,
            self.topology,
            self._path,
            metadata,
            run=Run(temperature=trained_at(self._files[0]) or Run.temperature),
            device=self._request.device,
            force=self._request.force,
        )
        files = sorted(path.name for path in self._path.iterdir())
        data = {**self.told(), "files": files, "verification": checks}
        lines = [*(str(self._path / name) for name in files), f"compiled for LAMMPS: {self.plan}"]
        return Summary(data, tables=_checked(checks), lines=lines)


def _molecule(known: Known, request: BeadRequest) -> tuple[BeadTopology, list[str]]:
    """The molecule to compile for, starting from the structure's first frame if one is given."""
    if request.structure is None:
        return known.find(request.molecule), []
    start = find_start(known, request.structure, request.molecule, "first", 1, 0)
    return dataclasses.replace(start.topology, start=start.positions[0]), list(start.notes)


def _parts(allegro: bool, prior: bool) -> str:
    if allegro and prior:
        return "Allegro and prior"
    return "Allegro alone" if allegro else "prior alone"


def _plain_prior(prior: Prior, where: Path) -> dict[str, Any]:
    """The prior as it was trained.

    Raises:
        DataError: training left the range where its forms have a meaning.
    """
    try:
        return prior_to_plain(prior.updated())
    except ValueError as error:
        raise DataError(
            f"the trained prior makes no sense: {str(error).splitlines()[0]}",
            where=str(where),
            remedy="train again with a smaller learning rate, or without `train_prior`",
        ) from error


def _plain(value: Any) -> Any:
    """Tuples as lists and keys as text, as JSON and YAML have them."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _checked(checks: dict[str, Any]) -> list[Table]:
    """What of the folder was compared with the model."""
    rows, notes = [], []
    for name, found in checks.get("prior", {}).items():
        if isinstance(found, str):
            notes.append(f"prior {name}: {found}")
        elif not found["frames"]:
            notes.append(f"prior as {name}: no frame to compare, a dihedral fades in all of them")
        else:
            rows += [
                [f"prior as {name}, {what}", f"{found[what]:.1e}", str(found["frames"])]
                for what in ("energy", "forces")
            ]
    if "allegro" in checks:
        rows.append(["Allegro's export, forces", f"{checks['allegro']['forces']:.1e}", "1"])
    columns = ["in LAMMPS against the model", "largest relative deviation", "frames"]
    return [Table("Verification", columns, rows, notes)] if rows or notes else []


def _table(record: VerificationRecord) -> Table:
    rows = [[c.name, f"{c.largest:.1e}", f"{c.tolerance:.0e}", c.unit] for c in record.checks]
    title = f"Verification on {record.molecules[0]}"
    return Table(title, ["compared", "largest deviation", "allowed", "unit"], rows)
