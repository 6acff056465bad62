"""Evaluation of coarse-grained models: forces part by part, and simulations by free energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlff_cli.coarse.forces.force_map import GAS_CONSTANT
from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import Reporter
from mlff_cli.data.beads.bead_split_file import held_out_rows
from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.model_file import load_model_file
from mlff_cli.deploy.artifact import read_metadata
from mlff_cli.deploy.beads.ensembles import (
    Compared,
    Wanted,
    compare_ensembles,
    native_structure,
)
from mlff_cli.deploy.beads.force_comparison import ForceComparison, chosen_rows, compare_forces
from mlff_cli.deploy.beads.forces import Forces, forces_by_part, forces_of_artifact
from mlff_cli.deploy.beads.models import bead_model_from
from mlff_cli.deploy.beads.reports import (
    force_content,
    force_table,
    landscape_arrays,
    landscape_content,
    landscape_table,
    modes_of,
    told,
    write_arrays,
)
from mlff_cli.deploy.predictor import ARTIFACT_SUFFIX, resolve_device
from mlff_cli.families.evaluation import Draw, Evaluated
from mlff_cli.potentials.bead_topology import BeadTopology, find_molecule
from mlff_cli.report.bead_parity import ForcePanel, write_force_parity
from mlff_cli.report.free_energies import write_planes, write_profiles

UNITS = {"energy": "kcal/mol", "length": "A", "force": "kcal/mol/A", "divergence": "nat"}
MOST_BINS = 720  # of an axis, half a degree


@dataclass(frozen=True)
class Asked:
    """What is to be evaluated beside the forces; see the options of `mlff evaluate`."""

    simulation: tuple[Path, ...] = ()
    reference: Path | None = None
    molecule: str | None = None
    native: Path | None = None
    temperature: float | None = None
    bins: int = 36
    discard: float = 0.0
    lag: int = 10
    seed: int = 0
    split: Path | None = None


class BeadEvaluation:
    """Evaluate a coarse-grained model (see `families.evaluation.Evaluation`).

    Args:
        model: `.jpt` artifact, model file or checkpoint.
        data: coarse-grained sets; the first one has the molecule that was simulated, and is the
            reference where no other is given.
        output: the JSON file, after which the others are named.
        device: auto, cpu, cuda or cuda:N.
        figures: draw them.
        asked: what else.

    Raises:
        UsageError: options contradict each other.
        DataError: a set is damaged, or there is nothing to compare.
    """

    def __init__(
        self,
        model: Path | str,
        data: Sequence[str | Path],
        output: Path,
        *,
        device: str,
        figures: bool,
        asked: Asked,
    ) -> None:
        _check_options(data, asked)
        self._path, self._asked, self._device = Path(model), asked, resolve_device(device)
        self._data = [Path(item) for item in data]
        self._with_forces = [_has_forces(path) for path in self._data]
        if not any(self._with_forces) and not asked.simulation:
            raise DataError(
                "the set has no forces to compare with",
                where=str(self._data[0]),
                remedy="project forces with `mlff project-forces`, or give a --simulation",
            )
        named = (asked.reference, asked.native, asked.split)
        others = [*asked.simulation, *(p for p in named if p)]
        self.inputs = [*self._data, *others]
        several = len(self._data) > 1
        self._parity = [
            output.with_name(f"{output.stem}_forces{f'_{i}' if several else ''}.png")
            if figures and has
            else None
            for i, has in enumerate(self._with_forces)
        ]
        self._landscapes = output.with_name(f"{output.stem}_landscapes.npz")
        self._planes = output.with_name(f"{output.stem}_planes.png")
        self._profiles = output.with_name(f"{output.stem}_profiles.png")
        drawn = [self._planes, self._profiles] if figures else []
        ensembles = [self._landscapes, *drawn] if asked.simulation else []
        self.figures = [*(p for p in self._parity if p), *ensembles]
        self.plan = [
            f"would compare forces of {model} with {path}"
            for path, has in zip(self._data, self._with_forces, strict=True)
            if has
        ]
        self.plan += [
            f"would compare {path} with {asked.reference or self._data[0]}"
            for path in asked.simulation
        ]

    def check(self) -> None:
        """See `Evaluation`; binds the model to every molecule."""
        forces_of = self._forces_of()
        for path, has in zip(self._data, self._with_forces, strict=True):
            with CGSet(path) as cg:
                for topology in self._chosen(cg).values() if has else ():
                    forces_of(topology)
        if self._asked.simulation:
            self._simulated()

    def carry_out(self, reporter: Reporter) -> Evaluated:
        """See `Evaluation`.

        Raises:
            UsageError: a temperature must be chosen.
            DataError: a file is damaged, or of another molecule.
            NumericalError: a predicted force is not finite.
        """
        asked, results, tables, drawn = self._asked, [], [], dict[Path, Draw]()
        for path, figure, has in zip(self._data, self._parity, self._with_forces, strict=True):
            if not has:
                reporter.warning(f"{path} has no forces: none are compared")
                continue
            found = self._forces(path, reporter)
            results.append(
                {
                    "data": str(path),
                    "split": asked.split and str(asked.split),
                    **force_content(found),
                    "figure": figure and figure.name,
                }
            )
            tables.append(force_table(found, f"{path}{', held out' if asked.split else ''}"))
            if figure is not None:
                drawn[figure] = partial(_draw_forces, found=found, title=path.stem)
        content: dict[str, Any] = {"units": UNITS, "results": results, "ensembles": None}
        if asked.simulation:
            compared, wanted = self._ensembles(reporter)
            content["ensembles"] = {
                **landscape_content(compared),
                "molecule": wanted.topology.name,
                "reference": str(wanted.reference),
                "simulation": list(map(str, wanted.simulation)),
                "landscapes": self._landscapes.name,
                "figures": [p.name for p in self.figures if p in (self._planes, self._profiles)],
            }
            tables.append(landscape_table(compared))
            title = f"{wanted.topology.name}, {compared.kelvin:g} K"
            draw: dict[Path, Draw] = {
                self._landscapes: partial(write_arrays, arrays=landscape_arrays(compared)),
                self._planes: partial(write_planes, landscapes=compared.planes, title=title),
                self._profiles: partial(write_profiles, landscapes=compared.profiles, title=title),
            }
            drawn |= {path: draw[path] for path in self.figures if path in draw}
        return Evaluated(content, drawn, tables, ("torch", "nequip"), self._command())

    def _command(self) -> list[str]:
        asked = self._asked
        given: dict[str, Any] = {"--reference": asked.reference, "--molecule": asked.molecule}
        given |= {"--native": asked.native, "--temperature": asked.temperature}
        given |= {"--split": asked.split}
        more = [w for path in asked.simulation for w in ("--simulation", str(path))]
        more += [w for name, v in given.items() if v is not None for w in (name, str(v))]
        for name in ("bins", "discard", "lag", "seed"):
            if getattr(asked, name) != getattr(Asked, name):
                more += [f"--{name}", f"{getattr(asked, name):g}"]
        return ["mlff", "evaluate", str(self._path), *map(str, self._data), *more]

    def _forces_of(self) -> Any:
        """What makes a molecule's forces: `forces_of(topology)`."""
        if self._path.suffix != ARTIFACT_SUFFIX:
            model = bead_model_from(load_model_file(self._path), str(self._path))
            return lambda topology: forces_by_part(model, topology, self._device)
        made = BeadTopology.from_plain(read_metadata(self._path)["molecule"])
        forces = forces_of_artifact(self._path, self._device)

        def of(topology: BeadTopology) -> Forces:
            if topology.types != made.types:
                raise DataError(
                    f"the artifact is of the molecule {made.name!r} with {made.n_beads} beads, "
                    f"found {topology.name!r} with {topology.n_beads}",
                    where=str(self._path),
                    remedy=f"choose it with --molecule {made.name}, or evaluate the model file",
                )
            return forces

        return of

    def _chosen(self, cg: CGSet) -> dict[int, BeadTopology]:
        return chosen_rows(cg, self._asked.temperature, self._asked.molecule)[2]

    def _forces(self, path: Path, reporter: Reporter) -> ForceComparison:
        """Forces of one set."""
        asked = self._asked
        only = None if asked.split is None else held_out_rows(asked.split, path)
        with CGSet(path) as cg:
            rows = chosen_rows(cg, asked.temperature, asked.molecule, only)[0]
            with reporter.progress(len(rows), "forces", "frames") as bar:
                found = compare_forces(
                    cg,
                    self._forces_of(),
                    kelvin=asked.temperature,
                    molecule=asked.molecule,
                    only=only,
                    advance=bar.advance,
                )
        if only is None and self._was_trained_on(path):
            found.notes.append(
                f"{path} is what the model was trained on: errors are of frames that it has seen; "
                "pass --split with the split.npz of its run folder to look at those held out"
            )
        for note in found.notes:
            reporter.warning(note)
        return found

    def _was_trained_on(self, path: Path) -> bool:
        if self._path.suffix == ARTIFACT_SUFFIX:
            inputs = (read_metadata(self._path).get("provenance") or {}).get("inputs", {})
        else:
            inputs = load_model_file(self._path).provenance.get("inputs", {})
        return sha256(path) in set(inputs.values())

    def _simulated(self) -> tuple[BeadTopology, BeadMolecule | None]:
        """The molecule that was simulated, with its mapping where the set has one."""
        with CGSet(self._data[0]) as cg:
            chosen = self._chosen(cg)
            names = list(chosen.values())
            topology = find_molecule(names, self._asked.molecule, str(self._data[0]))
            k = next(k for k, t in chosen.items() if t is topology)
            return topology, cg.molecules[k] if len(cg.molecules) else None

    def _ensembles(self, reporter: Reporter) -> tuple[Compared, Wanted]:
        """Simulation and reference."""
        asked = self._asked
        topology, mapping = self._simulated()
        wanted = Wanted(
            simulation=asked.simulation,
            reference=asked.reference or self._data[0],
            topology=topology,
            mapping=mapping,
            native=native_structure(asked.native, topology, mapping),
            kelvin=asked.temperature,
            bins=asked.bins,
            discard=asked.discard,
            lag=asked.lag,
            seed=asked.seed,
        )
        compared = compare_ensembles(wanted, GAS_CONSTANT, reporter)
        for note in compared.notes:
            reporter.warning(note)
        return compared, wanted


def _draw_forces(path: Path, found: ForceComparison, title: str) -> None:
    errors = found.errors
    panels = [
        ForcePanel(mode, found.reference, found.predicted[mode], told(errors.overall(mode)))
        for mode in modes_of(errors)
        if mode in found.predicted
    ]
    by_type = {
        mode: {name: e.rmse for name, e in errors.by("types", mode).items()}
        for mode in modes_of(errors)
    }
    write_force_parity(path, panels, by_type, found.noise_bound, f"Forces of {title}")


def _check_options(data: Sequence[str | Path], asked: Asked) -> None:
    rules = (
        (bool(data), "a coarse-grained set is needed", "mlff evaluate MODEL CG.npz"),
        (
            2 <= asked.bins <= MOST_BINS,
            f"--bins must be 2 to {MOST_BINS}, found {asked.bins}",
            "36 are cells of 10 degrees; more need more frames than a simulation has",
        ),
        (asked.discard >= 0, f"--discard must be 0 ps or more, found {asked.discard:g}", None),
        (asked.lag >= 1, f"--lag must be 1 frame or more, found {asked.lag}", None),
        (
            bool(asked.simulation) or not (asked.reference or asked.native),
            "--reference and --native belong to a simulation, none is given",
            "pass the simulation with --simulation",
        ),
    )
    for holds, message, remedy in rules:
        if not holds:
            raise UsageError(message, remedy=remedy)


def _has_forces(path: Path) -> bool:
    with CGSet(path) as cg:
        return cg.has_forces
