"""Errors of bead forces as a stream: of all components, and per bead, type and residue.

    RMSE^2   = mean over components of (f - F)^2                    kcal/mol/angstrom
    relative = RMSE / RMS of F
    cosine   = sum f . F / sqrt(sum f . f  sum F . F)

F reference, f predicted. Sums over frames are kept for every bead, everything else follows from
them, so that memory does not grow with frames. The cosine is that of all components laid end to
end; of a model without forces it does not exist. `zero` is the model that predicts no force: its
RMSE is the RMS of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.verdicts import force_verdict

ZERO = "zero"


@dataclass(frozen=True)
class Sums:
    """Sums over frames of one molecule; every array has a row per bead.

    Attributes:
        frames: how many.
        reference: (n,) of F . F.
        predicted: (n,) of f . f.
        product: (n,) of f . F.
        square: (n, 3) of (f - F)^2, per component.
    """

    frames: int
    reference: np.ndarray
    predicted: np.ndarray
    product: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray, predicted: np.ndarray) -> Sums:
        """Of frames (T, n, 3)."""
        F, f = np.asarray(reference, np.float64), np.asarray(predicted, np.float64)
        FF, ff, fF = (np.einsum("tnx,tnx->n", a, b) for a, b in ((F, F), (f, f), (f, F)))
        return cls(len(F), FF, ff, fF, ((f - F) ** 2).sum(axis=0))

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.frames + other.frames,
            self.reference + other.reference,
            self.predicted + other.predicted,
            self.product + other.product,
            self.square + other.square,
        )


@dataclass(frozen=True)
class ForceErrors:
    """Errors of some beads of some frames.

    Attributes:
        n: components of force, three per bead and frame.
        rmse: kcal/mol/angstrom.
        by_component: of x, y and z, kcal/mol/angstrom.
        rms: of the reference, kcal/mol/angstrom.
        cosine: None where either has no force.
    """

    n: int
    rmse: float
    by_component: tuple[float, float, float]
    rms: float
    cosine: float | None

    @property
    def relative(self) -> float | None:
        """RMSE over RMS of the reference; None where the reference has no force."""
        return self.rmse / self.rms if self.rms > 0 else None

    @classmethod
    def of(cls, parts: Sequence[tuple[Sums, np.ndarray]]) -> ForceErrors:
        """Of sums and the beads among them that count."""
        n = 3 * sum(s.frames * len(beads) for s, beads in parts)
        square = np.sum([s.square[beads].sum(axis=0) for s, beads in parts], axis=0)
        totals = [
            sum(float(getattr(s, name)[beads].sum()) for s, beads in parts)
            for name in ("reference", "predicted", "product")
        ]
        norm = np.sqrt(totals[0] * totals[1])
        x, y, z = (float(v) for v in np.sqrt(3 * square / n))
        return cls(
            n=n,
            rmse=float(np.sqrt(square.sum() / n)),
            by_component=(x, y, z),
            rms=float(np.sqrt(totals[0] / n)),
            cosine=float(totals[2] / norm) if norm > 0 else None,
        )

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found: dict[str, Any] = {"n": self.n, "rmse": self.rmse, "rms_reference": self.rms}
        found["cosine"] = self.cosine
        if self.relative is not None:
            found |= {"relative": self.relative, "verdict": force_verdict(self.relative)}
        return {**found, "rmse_xyz": list(self.by_component)}


@dataclass(frozen=True)
class Labels:
    """What the beads of a molecule are called, (n,) each."""

    types: tuple[str, ...]
    residues: tuple[str, ...]
    names: tuple[str, ...]


class BeadErrors:
    """Errors of several models ("modes") on frames of several molecules.

    Args:
        labels: of each molecule.
        modes: names of the models; `ZERO` is always there.
    """

    def __init__(self, labels: Mapping[int, Labels], modes: Sequence[str]) -> None:
        self.labels = dict(labels)
        self.modes = tuple(dict.fromkeys((*modes, ZERO)))
        self._sums: dict[tuple[str, int], Sums] = {}

    def add(
        self,
        molecule: int,
        reference: np.ndarray,
        predicted: Mapping[str, np.ndarray],
        where: str = "",
    ) -> None:
        """Count frames of one molecule.

        Args:
            molecule: its number.
            reference: F (T, n, 3) kcal/mol/angstrom.
            predicted: f (T, n, 3) of every mode but `ZERO`.
            where: file and rows, for messages.

        Raises:
            NumericalError: a predicted force is not finite.
        """
        for mode in self.modes:
            f = np.zeros_like(reference) if mode == ZERO else predicted[mode]
            if not np.isfinite(f).all():
                t, bead = np.argwhere(~np.isfinite(f).all(-1))[0]
                raise NumericalError(
                    f"the force of mode {mode!r} on bead {bead} is not finite (frame {t} of these)",
                    where=where,
                    remedy="look for beads at one place; the weights may hold NaN, too",
                )
            sums = Sums.of(reference, f)
            known = self._sums.get((mode, molecule))
            self._sums[mode, molecule] = sums if known is None else known + sums

    def overall(self, mode: str) -> ForceErrors:
        """Of all beads of all molecules."""
        return ForceErrors.of([(s, np.arange(len(s.reference))) for s in self._of(mode).values()])

    def by(self, what: str, mode: str) -> dict[str, ForceErrors]:
        """By "types" or "residues" of the beads, names ascending."""
        parts: dict[str, list[tuple[Sums, np.ndarray]]] = {}
        for molecule, sums in self._of(mode).items():
            names = np.array(getattr(self.labels[molecule], what), dtype=str)
            for name in np.unique(names):
                parts.setdefault(str(name), []).append((sums, np.flatnonzero(names == name)))
        return {name: ForceErrors.of(parts[name]) for name in sorted(parts)}

    def of_beads(self, mode: str, molecule: int) -> list[ForceErrors]:
        """Of every bead of a molecule, in order."""
        sums = self._sums[mode, molecule]
        return [ForceErrors.of([(sums, np.array([k]))]) for k in range(len(sums.reference))]

    def of_molecule(self, mode: str, molecule: int) -> ForceErrors:
        """Of all beads of a molecule."""
        sums = self._sums[mode, molecule]
        return ForceErrors.of([(sums, np.arange(len(sums.reference)))])

    @property
    def molecules(self) -> list[int]:
        """Molecules that frames were counted of, ascending."""
        return sorted({molecule for _, molecule in self._sums})

    def frames(self, molecule: int) -> int:
        """Frames of a molecule."""
        return self._sums[ZERO, molecule].frames

    def _of(self, mode: str) -> dict[int, Sums]:
        return {k: s for (m, k), s in sorted(self._sums.items()) if m == mode}
