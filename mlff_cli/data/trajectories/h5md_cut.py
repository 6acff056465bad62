"""The first frames of an H5MD file of ours as a file of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mlff_cli.data.trajectories.frames import CHUNK_BYTES
from mlff_cli.data.trajectories.h5md_layout import ELEMENTS, TABLES
from mlff_cli.data.trajectories.h5md_writer import write_h5md


def write_first_frames(source: Path, output: Path, n_frames: int) -> None:
    """Write the first frames of a file that `create_h5md` made; an existing output is replaced.

    Args:
        source: the file; of an interrupted run, too.
        output: the new file.
        n_frames: how many.

    Raises:
        StorageError: the disk is full.
    """
    with h5py.File(source, "r") as file:
        found = {
            name: file[f"{element.group}/value"]
            for name, element in ELEMENTS.items()
            if element.group and f"{element.group}/value" in file
        }
        step = file["particles/all/position"]
        arrays = {"step": step["step"], "time": step["time"], **found}
        tables: dict[str, np.ndarray] = {}
        if TABLES in file:
            file[TABLES].visititems(
                lambda name, data: (
                    tables.update({name: data[()]}) if isinstance(data, h5py.Dataset) else None
                )
            )
        bonds = file.get("connectivity/bonds")
        attrs = {k: v.item() if isinstance(v, np.generic) else v for k, v in file.attrs.items()}
        frame = sum(data.nbytes // len(data) for data in arrays.values())
        size = max(1, CHUNK_BYTES // frame)

        def pieces() -> Iterator[dict[str, np.ndarray]]:
            for row in range(0, n_frames, size):
                rows = slice(row, min(row + size, n_frames))
                yield {name: data[rows] for name, data in arrays.items()}

        write_h5md(
            output,
            found,
            n_frames,
            file["particles/all/species"][()],
            pieces(),
            bonds=None if bonds is None else bonds[()],
            attrs=attrs,
            tables=tables,
            dtype=str(found["position"].dtype),
            force=True,
        )
