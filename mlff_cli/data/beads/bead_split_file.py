"""Which frames of a set a training held out, from the `split.npz` of its run folder.

NPZ, written by `data.beads.bead_split`: `format`, `paths` of the sets, and per frame `path` (which
set), `row` (in it) and `validation`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.bead_split import FORMAT

ARRAYS = ("format", "paths", "path", "row", "validation")


def held_out_rows(split: Path, file: Path) -> np.ndarray:
    """Rows of a set that a training validated on, ascending.

    A set is known by its path; one that was moved, by its name, if no other has it.

    Args:
        split: `split.npz` of a run folder.
        file: the set.

    Raises:
        StorageError: the split does not exist or cannot be read.
        DataError: it is no split of bead frames, or not of this set.
    """
    remedy = "pass the split.npz of the run folder of the model"
    try:
        with np.load(split, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ARRAYS}
    except OSError as error:
        if error.errno:
            raise storage_error(error, split) from error
        raise DataError(f"no split: {error}", where=str(split), remedy=remedy) from error
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"no split of frames of beads ({error})", where=str(split), remedy=remedy
        ) from error
    if str(found["format"]) != FORMAT:
        raise DataError(
            f"the split's format is {FORMAT}, found {str(found['format'])!r}",
            where=str(split),
            remedy=remedy,
        )
    paths = [Path(str(p)) for p in found["paths"]]
    same = [k for k, p in enumerate(paths) if p.absolute() == file.absolute()]
    same = same or [k for k, p in enumerate(paths) if p.name == file.name]
    if len(same) != 1:
        raise DataError(
            f"the split is of {', '.join(map(str, paths[:4]))}, not of {file}",
            where=str(split),
            remedy="evaluate a set that the model was trained on, under its name",
        )
    chosen = (found["path"] == same[0]) & found["validation"].astype(bool)
    return np.sort(found["row"][chosen]).astype(np.int64)
