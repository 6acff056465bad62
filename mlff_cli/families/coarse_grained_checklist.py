"""The checklist of a coarse-grained training's data: files, split, forces and batches."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlff_cli.core.checks import Check, checks_of_files
from mlff_cli.core.errors import MLFFError
from mlff_cli.data.beads.bead_feed import BeadFeed
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.bead_split import FrameSplit
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.families.coarse_grained_options import chosen_files
from mlff_cli.families.coarse_grained_settings import CoarseGrainedSettings

PACKAGES = ("nequip", "nequip-allegro", "e3nn")
HUGE = 1000.0  # kcal/mol/angstrom: no bead force at room temperature
FEW = 100  # frames of a molecule that a split of a tenth leaves too few of
LOOKED_AT = 2000  # frames whose forces are looked at
BATCHES = 64  # of the first epoch that are looked at


@dataclass(frozen=True)
class BeadInspection:
    """Looks at the data of a training that is ready to run.

    Attributes:
        settings: the configuration.
        frames: of all files.
        split: of them.
        feed: draws the batches.
        noise: in a force component, at most, kcal/mol/angstrom; None where not known.
    """

    settings: CoarseGrainedSettings
    frames: BeadFrames
    split: FrameSplit
    feed: BeadFeed
    noise: float | None

    def heavy_steps(self) -> list[int]:
        """Steps of the first epoch whose batches hold most beads."""
        steps = min(BATCHES, self.feed.epoch_length)
        n = self.frames.n_beads
        beads = [int(n[self.feed.sampler.batch(s)[1]].sum()) for s in range(steps)]
        return [int(np.argmax(beads))]

    def checks(self) -> list[Check]:
        """All findings."""
        return [*self._files(), self._split(), self._forces(), self._noise(), *self._packages()]

    def _packages(self) -> list[Check]:
        if not self.settings.model.use_allegro:
            return []
        versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
        return [Check("Allegro", ", ".join(versions))]

    def _files(self) -> list[Check]:
        found = []
        for f, path in enumerate(self.frames.paths):
            own = self.frames.file == f
            n = len(np.unique(self.frames.molecule[own]))
            text = f"{own.sum()} frames of {n} molecule{'s' * (n > 1)}"
            found.append(Check(str(path), text))
        return found

    def _split(self) -> Check:
        trained = np.bincount(
            self.frames.molecule[self.split.train], minlength=len(self.frames.molecules)
        )
        few = int(np.argmin(trained))
        text = (
            f"{len(self.split.train)} train, {len(self.split.validation)} validation, "
            f"{self.split.by}"
        )
        if trained[few] < FEW:
            name = self.frames.molecules[few].name
            return Check(
                "split",
                f"{text}; {trained[few]} training frames of {name}",
                "warning",
                "add frames of it: a force map's noise needs thousands to average out",
            )
        if self.split.shortest == 1 and self.settings.data.split_stretch is None:
            return Check(
                "split",
                text,
                "warning",
                "validated frames lie alone between trained ones, which flatters the model where "
                "frames follow closely: raise data.split_stretch or training.val_fraction",
            )
        return Check("split", text)

    def _forces(self) -> Check:
        train = self.split.train
        frames = self.frames.padded(train[:: max(1, len(train) // LOOKED_AT)])
        real = np.arange(frames.F.shape[1]) < frames.n_beads[:, None]
        forces = frames.F[real].astype(np.float64)
        rms, most = float(np.sqrt(np.square(forces).mean())), float(np.abs(forces).max())
        text = f"{rms:.3g} kcal/mol/A root mean square per component, {most:.3g} at most"
        if most > HUGE:
            return Check("forces", text, "warning", "look the set over with `mlff check`")
        return Check("forces", text)

    def _noise(self) -> Check:
        if self.noise is None:
            return Check("noise of the forces", "not known: no report of `mlff project-forces`")
        return Check("noise of the forces", f"at most {self.noise:.3g} kcal/mol/A per component")


def diagnose(settings: CoarseGrainedSettings, error: MLFFError) -> list[Check]:
    """What can be said of the files one by one, where `prepare` ended with an error."""
    return checks_of_files(lambda: chosen_files(settings), _told, error)


def _told(path: Path) -> str:
    with CGSet(path) as cg:
        forces = "" if cg.has_forces else ", no forces"
        n = len(cg.layouts)
        return f"{cg.n_frames} frames of {n} molecule{'s' * (n > 1)}{forces}"
