"""Writes coarse-grained data sets (`cg_npz` has the layout) as a stream, whole or not at all.

Blocks of frames come in any number; memory holds one of them. The same content, the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import atomic_path, check_writable
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import BeadMolecule, CGBlock
from mlff_cli.data.beads.cg_npz import FORMAT, FORMAT_VERSION, PER_FRAME, PER_MOLECULE, UNITS
from mlff_cli.data.npz_members import NpzWriter

PADDING = "behind the real beads: R, F, species and mask are 0"
COMPRESSED = ("mapping",)  # nearly all zeros


class CGWriter:
    """Writes a coarse-grained set as a stream; it appears when the block ends without an error.

    Args:
        path: the output.
        molecules: of the set, in the order that `CGBlock.molecule` counts; read one by one, when
            the set is opened and when it is closed.
        species_table: names by species number.
        sources: {path, sha256, format, n_frames, molecule} by source number; read when the set is
            closed, as `metadata` is, so that both may be completed until then.
        metadata: plain values; format, version, units and padding are added.
        force: replace an existing file.

    Raises:
        UsageError: the output exists and `force` is off.
        DataError: no molecules, or species outside the table.
        StorageError: the disk is full.
    """

    def __init__(
        self,
        path: Path | str,
        molecules: Sequence[BeadMolecule],
        species_table: Sequence[str],
        sources: Sequence[Mapping[str, Any]],
        metadata: Mapping[str, Any],
        *,
        force: bool = False,
    ) -> None:
        check_writable(path, force=force)
        self.path = Path(path)
        self._force = force
        self._molecules = molecules
        self._species = [m.species.astype(np.int32) for m in molecules]
        if not self._species:
            raise DataError("a set needs a molecule, found none", where=str(path))
        self._n_beads = max(map(len, self._species))
        self._sources, self._species_table, self._metadata = sources, species_table, metadata
        for k, species in enumerate(self._species):
            if len(species) and not 0 <= species.min() <= species.max() < len(species_table):
                raise DataError(
                    f"species of molecule {k} must be 0 to {len(species_table) - 1}, found "
                    f"{species.min()} to {species.max()}",
                    where=str(path),
                )
        self.n_frames = 0
        self._has_forces: bool | None = None
        self._stack = ExitStack()

    def __enter__(self) -> CGWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path, force=self._force))
            self._file = stack.enter_context(NpzWriter(temporary))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if value is not None:
            self._stack.__exit__(kind, value, trace)
            return
        with self._stack:  # an error of the last step removes the file too
            self._finish()

    def append(self, block: CGBlock) -> None:
        """Add frames of one molecule.

        Raises:
            DataError: shapes that are not the molecule's, values that are not finite, or forces in
                one block and none in another.
        """
        species = self._species[block.molecule]
        shape = (len(block.R), len(species), 3)
        if self._has_forces is None:
            self._has_forces = block.F is not None
        if self._has_forces != (block.F is not None):
            raise DataError("either all frames have forces or none", where=str(self.path))
        padded = (shape[0], self._n_beads)
        for name, values in (("R", block.R), ("F", block.F)):
            if values is None:
                continue
            if values.shape != shape:
                raise DataError(
                    f"{name} of molecule {block.molecule} must have shape {shape}, found "
                    f"{values.shape}",
                    where=str(self.path),
                )
            array = np.zeros((*padded, 3), np.float32)
            with np.errstate(over="ignore"):  # told below
                array[:, : len(species)] = values
            if not np.isfinite(array).all():
                t, bead = np.argwhere(~np.isfinite(array).all(-1))[0]
                raise DataError(
                    f"{name} must be finite, bead {bead} of frame {block.frame[t]} of source "
                    f"{block.source[t]} has {values[t, bead]}",
                    where=str(self.path),
                )
            self._file.extend(name, array)
        numbers, mask = np.zeros(padded, np.int32), np.zeros(padded, np.float32)
        numbers[:, : len(species)], mask[:, : len(species)] = species, 1.0
        self._file.extend("species", numbers)
        self._file.extend("mask", mask)
        per_frame = {
            "molecule": block.molecule,
            "source": block.source,
            "frame": block.frame,
            "temperature": block.temperature,
        }
        for name, kind in PER_FRAME.items():
            self._file.extend(name, np.full(shape[0], per_frame[name], kind))
        self.n_frames += shape[0]

    def _finish(self) -> None:
        if not self.n_frames:
            raise DataError("a set needs frames, found none", where=str(self.path))
        self._file.close(self._whole(), COMPRESSED)

    def _whole(self) -> Iterator[tuple[str, np.ndarray]]:
        yield "Z", np.zeros(self._n_beads, np.int32)
        several = len(self._molecules) > 1
        for k in range(len(self._molecules)):
            molecule, suffix = self._molecules[k], f"_{k}" if several else ""
            yield f"name{suffix}", np.array(molecule.name)
            for attribute, (name, kind) in PER_MOLECULE.items():
                values = getattr(molecule, attribute)
                if values is not None:
                    yield f"{name}{suffix}", np.asarray(values, kind)
        own = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "units": dict(UNITS),
            "padding": PADDING,
        }
        texts = {
            "sources": [dict(source) for source in self._sources],
            "species_table": list(self._species_table),
            "metadata": {**self._metadata, **own},
        }
        for name, value in texts.items():
            yield name, np.array(json.dumps(value, sort_keys=True, allow_nan=False))


def write_cg(
    path: Path | str,
    molecules: Sequence[BeadMolecule],
    species_table: Sequence[str],
    sources: Sequence[Mapping[str, Any]],
    metadata: Mapping[str, Any],
    blocks: Iterable[CGBlock],
    *,
    force: bool = False,
) -> int:
    """Write blocks of frames into one file; see `CGWriter` for arguments and errors.

    Returns:
        Number of frames.
    """
    with CGWriter(path, molecules, species_table, sources, metadata, force=force) as writer:
        for block in blocks:
            writer.append(block)
    return writer.n_frames
