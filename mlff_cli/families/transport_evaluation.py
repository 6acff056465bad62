"""Evaluation of flows between temperatures, beside the naive swap and the linear map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import UsageError
from mlff_cli.core.reporting import Reporter, Table
from mlff_cli.core.workers import available_cores
from mlff_cli.data.trajectories.topology_file import topology_from_pdb
from mlff_cli.deploy.flows.conformations import Backbone, flips, sites_of
from mlff_cli.deploy.flows.reports import (
    beats,
    energies_content,
    flips_content,
    learnt_nothing,
    plane_content,
    planes_table,
    works_content,
    works_table,
)
from mlff_cli.deploy.flows.works import Energy, Ensemble, MapWorks, energies, works
from mlff_cli.deploy.predictor import resolve_device
from mlff_cli.families.evaluation import Draw, Evaluated
from mlff_cli.families.transport_frames import evaluated_frames
from mlff_cli.families.transport_model import TransportModel, load_transport
from mlff_cli.flows.build import build_flow
from mlff_cli.flows.flow import Flow
from mlff_cli.flows.spec import FlowSpec
from mlff_cli.physics.energies import EnergyEngine
from mlff_cli.physics.ensembles.landscapes import Landscape
from mlff_cli.report.transport_figures import (
    EnergyPanel,
    Plane,
    WorkPanel,
    write_energies,
    write_triptychs,
    write_works,
)

UNITS = {"energy": "kJ/mol", "length": "nm", "free_energy": "kT", "divergence": "nat"}
NAIVE, LINEAR, FLOW = "naive swap", "linear map", "flow"
DTYPE = torch.float64
PLATFORM = "CPU"  # of OpenMM, where it computes the energies


class TransportEvaluation:
    """Evaluate a transport model (see `families.evaluation.Evaluation`).

    Args:
        model: model file or checkpoint.
        data: trajectories with frames of both temperatures, together.
        output: the JSON file, after which figures are named.
        device: auto, cpu, cuda or cuda:N.
        figures: draw them.
        bins: of each Ramachandran angle.
        discard: ps at the beginning of every trajectory that are left out.
        seed: of the frames that divergences are drawn from.

    Raises:
        UsageError: no data are given.
        DataError: the model is damaged.
    """

    def __init__(
        self,
        model: Path | str,
        data: Sequence[str | Path],
        output: Path,
        *,
        device: str,
        figures: bool,
        bins: int,
        discard: float,
        seed: int,
    ) -> None:
        if not data:
            raise UsageError(
                "no trajectory given", remedy="mlff evaluate MODEL.pt REPLICA_EXCHANGE.h5"
            )
        self.inputs = [Path(item) for item in data]
        self._device = torch.device(resolve_device(device))
        self._model = load_transport(model, self._device, DTYPE)
        self._bins, self._discard, self._seed = bins, discard, seed
        names = ("ramachandran", "energies", "works")
        self._figures = [output.with_name(f"{output.stem}_{name}.png") for name in names]
        self.figures = self._figures if figures else []
        source, target = self._model.temperatures
        self.plan = [
            f"would carry frames of {source:g} K to {target:g} K and back through {model}: "
            + ", ".join(map(str, self.inputs))
        ]
        told = [("bins", bins, 36), ("discard", discard, 0.0), ("seed", seed, 0)]
        options = [x for name, v, default in told if v != default for x in (f"--{name}", str(v))]
        self._command = ["mlff", "evaluate", str(model), *map(str, data), *options]

    def check(self) -> None:
        """See `Evaluation`.

        Raises:
            DataError: a file is of another molecule, or has no frames of a temperature.
        """
        for kelvin in self._model.temperatures:
            self._frames(kelvin)

    def carry_out(self, reporter: Reporter) -> Evaluated:
        """See `Evaluation`.

        Raises:
            DataError: a file is of another molecule or force field, or has no frames of a
                temperature.
        """
        model = self._model
        trained = set(model.file.provenance.get("inputs", {}).values())
        seen = [str(path) for path in self.inputs if sha256(path) in trained]
        notes = [
            f"{path} is what the flow was trained on: the frames that it has seen flatter it; "
            "evaluate on a run with another seed"
            for path in seen
        ]
        for note in notes:
            reporter.warning(note)
        with _engine(model, self._device, reporter) as engine:

            def energy(positions: torch.Tensor) -> torch.Tensor:
                return engine(positions)[0]

            source, target = (
                self._ensemble(kelvin, engine, energy) for kelvin in model.temperatures
            )
            total = 3 * (len(source.positions) + len(target.positions))
            with reporter.progress(total, "maps", "frames") as bar:
                maps = {
                    name: works(flow, source, target, energy, bar.advance)
                    for name, flow in self._maps(source, target).items()
                }
        if doubt := learnt_nothing(maps[FLOW], maps[LINEAR]):
            reporter.warning(doubt)
            notes.append(doubt)
        content, drawn, tables = self._judge(source, target, maps, reporter)
        beyond = beats(maps[FLOW], maps[LINEAR])
        content |= {"notes": notes, "trained_on": seen, "better_than_linear_map": beyond}
        return Evaluated(content, drawn, tables, ("torch", "openmm", "numpy"), self._command)

    def _frames(
        self, kelvin: float, engine: EnergyEngine | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        return evaluated_frames(self.inputs, self._model.molecule, kelvin, self._discard, engine)

    def _ensemble(self, kelvin: float, engine: EnergyEngine, energy: Energy) -> Ensemble:
        positions, lengths = self._frames(kelvin, engine)
        return Ensemble(kelvin, positions, lengths, energies(positions, energy))

    def _maps(self, source: Ensemble, target: Ensemble) -> dict[str, Flow]:
        """The baselines and the flow."""
        molecule = self._model.molecule
        ratio = target.kelvin / source.kelvin
        made = {}
        for name, spec in (
            (NAIVE, FlowSpec(kind="identity")),
            (LINEAR, FlowSpec(kind="linear", scaling="temperature")),
        ):
            flow = build_flow(spec, molecule, DTYPE)
            x, y = (torch.as_tensor(e.positions) for e in (source, target))
            flow.fit(x, y, ratio)
            made[name] = flow.to(self._device).eval()
        return {**made, FLOW: self._model.flow}

    def _judge(
        self,
        source: Ensemble,
        target: Ensemble,
        maps: dict[str, MapWorks],
        reporter: Reporter,
    ) -> tuple[dict[str, Any], dict[Path, Draw], list[Table]]:
        found = maps[FLOW]
        topology = topology_from_pdb(
            self._model.topology_pdb, "topology_pdb of the model", self._model.molecule.bonds
        ).topology
        sites = sites_of(topology, self._model.molecule.bonds)
        planes = self._planes(Backbone(sites), source, target, found)
        turned = {
            side: flips(sites, e.positions, c.positions)
            for side, e, c in (
                ("forward", source, found.forward),
                ("reverse", target, found.reverse),
            )
        }
        for side, f in turned.items():
            if f.hands or f.isomers:
                reporter.warning(
                    f"the {side} flow changed the hand of a residue in {f.hands} and a peptide "
                    f"bond's isomer in {f.isomers} of {f.frames} frames"
                )
        ends = f"{source.kelvin:g} K and {target.kelvin:g} K"
        content = {
            "units": UNITS,
            "temperatures": {"source": source.kelvin, "target": target.kelvin},
            "frames": {"source": len(source.positions), "target": len(target.positions)},
            "series": {"source": len(source.lengths), "target": len(target.lengths)},
            "maps": {name: works_content(w) for name, w in maps.items()},
            "energies": energies_content(source, target, found),
            "ramachandran": [plane_content(*plane) for plane in planes],
            "flips": {side: flips_content(f) for side, f in turned.items()},
        }
        n = f"{len(source.positions):,} and {len(target.positions):,} frames"
        tables = [works_table(maps, f"Maps between {ends}, {n}")]
        tables += [planes_table(planes)] if planes else []
        drawn = self._drawn(source, target, maps, planes) if self.figures else {}
        return content, drawn, tables

    def _planes(
        self, backbone: Backbone, source: Ensemble, target: Ensemble, found: MapWorks
    ) -> list[tuple[Landscape, float, str]]:
        """Of every residue: carried there, carried back, and not carried at all."""
        told = []
        for pair in range(len(backbone.pairs)):
            for what, reference, x, lengths in (
                ("transported", target, found.forward.positions, source.lengths),
                ("transported back", source, found.reverse.positions, target.lengths),
                ("not transported", target, source.positions, source.lengths),
            ):
                plane = backbone.compare(
                    reference, x, lengths, pair, bins=self._bins, seed=self._seed
                )
                told.append((plane, reference.kelvin, what))
        return told

    def _drawn(
        self,
        source: Ensemble,
        target: Ensemble,
        maps: dict[str, MapWorks],
        planes: list[tuple[Landscape, float, str]],
    ) -> dict[Path, Draw]:
        found = maps[FLOW]
        ramachandran, energy_figure, work_figure = self._figures
        rows = [
            Plane(there[0], plain[0].simulation, source.kelvin, target.kelvin)
            for there, plain in zip(planes[::3], planes[2::3], strict=True)
        ]
        kelvin = (source.kelvin, target.kelvin)
        panels = [
            EnergyPanel(here.kelvin, there.kelvin, here.energy, carried.energy, there.energy)
            for here, there, carried in (
                (source, target, found.forward),
                (target, source, found.reverse),
            )
        ]
        works_drawn = [
            WorkPanel(name, w.forward.work, w.reverse.work, w.acceptance.value, w.effective)
            for name, w in maps.items()
        ]
        title = f"{kelvin[0]:g} K to {kelvin[1]:g} K"
        drawn: dict[Path, Draw] = {
            energy_figure: partial(write_energies, panels=panels, title=title),
            work_figure: partial(write_works, panels=works_drawn, title=title),
        }
        if rows:
            drawn[ramachandran] = partial(write_triptychs, planes=rows, title=title)
        return drawn


@contextmanager
def _engine(
    model: TransportModel, device: torch.device, reporter: Reporter
) -> Iterator[EnergyEngine]:
    """What computes energies: the force field in torch, or OpenMM where that lacks a force."""
    # here, because OpenMM takes a moment, and dry runs do without it
    from mlff_cli.physics.energies import TorchEnergy
    from mlff_cli.physics.forcefield import ForceField
    from mlff_cli.physics.openmm_energies import OpenMMEnergy

    try:
        field: Any = ForceField.from_system(model.system, DTYPE).to(device)
    except UsageError as error:
        reporter.info(f"energies are computed by OpenMM: {error.message}")
        with OpenMMEnergy(model.system, available_cores(), PLATFORM) as processes:
            yield processes
    else:
        yield TorchEnergy(field)
