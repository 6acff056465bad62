"""The checklist of a transport training's data: files, frames, energies and the gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlff_cli.core.checks import Check, checks_of_files
from mlff_cli.core.errors import MLFFError
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.data.trajectories.frame_choice import frame_temperatures
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.families.transport_data import Recorded, chosen_files
from mlff_cli.families.transport_settings import TransportSettings
from mlff_cli.flows.gating import Gate

FEW = 1000  # frames of a temperature that a flow of thousands of parameters learns by heart


@dataclass(frozen=True)
class TransportInspection:
    """Looks at the data of a training that is ready to run.

    Attributes:
        recorded: frames of both temperatures.
        gate: with its thresholds.
        on: whether it is in use.
        batch: frames of each temperature in a batch.
    """

    recorded: Recorded
    gate: Gate
    on: bool
    batch: int

    def heavy_steps(self) -> list[int]:
        """Every batch is as large as any other."""
        return [0]

    def checks(self) -> list[Check]:
        """All findings."""
        return [self._frames(), self._energies(), self._gate()]

    def warnings(self) -> list[str]:
        """What a training says at its beginning.

        Thresholds that regularize the data itself, and batches of frames that repeat.
        """
        found = []
        gate = self._gate()
        if self.on and gate.verdict == "warning":
            found.append(f"energy gate {gate.finding}; {gate.remedy}")
        fewest = min(len(self.recorded.source), len(self.recorded.target))
        if self.batch > fewest:
            found.append(
                f"a batch of {self.batch} draws from {fewest} frames, so that they repeat within "
                "it; lower training.batch_size or sample more"
            )
        return found

    def _frames(self) -> Check:
        both = (self.recorded.source, self.recorded.target)
        text = ", ".join(f"{len(e)} of {e.kelvin:g} K" for e in both)
        if min(map(len, both)) < FEW:
            return Check(
                "frames", text, "warning", "sample longer: few frames are learned by heart"
            )
        return Check("frames", text)

    def _energies(self) -> Check:
        words = []
        for ensemble in (self.recorded.source, self.recorded.target):
            low, middle, high = np.quantile(ensemble.energy, [0.001, 0.5, 0.999])
            words.append(f"{middle:.1f} ({low:.1f} to {high:.1f}) at {ensemble.kelvin:g} K")
        return Check("energies", f"{', '.join(words)} kJ/mol, as the engine has them")

    def _gate(self) -> Check:
        gate = self.gate
        text = f"{gate.mode if self.on else 'off'}, E_cut {gate.E_cut:g}, E_max {gate.E_max:g}"
        beyond = [
            float((e.energy > gate.E_cut).mean())
            for e in (self.recorded.source, self.recorded.target)
        ]
        if self.on and max(beyond) > 0.001:
            return Check(
                "energy gate",
                f"{text}; {100 * max(beyond):.3g} % of the frames themselves lie above E_cut",
                "warning",
                "set E_cut=auto: thresholds are of a molecule's energies",
            )
        if not self.on:
            return Check(
                "energy gate", text, "warning", "leave use_energy_gating on: runs diverge without"
            )
        return Check("energy gate", text)


def diagnose(settings: TransportSettings, error: MLFFError) -> list[Check]:
    """What can be said of the files one by one, where `prepare` ended with an error."""
    return checks_of_files(lambda: chosen_files(settings), _told, error)


def _told(path: Path) -> str:
    with H5MDTrajectory(path) as trajectory:
        kelvin = Temperatures.of(frame_temperatures(trajectory))
        return (
            f"{trajectory.n_frames} frames of {trajectory.n_atoms} atoms, {kelvin} K, "
            f"constraints {trajectory.facts.get('constraints')}"
        )
