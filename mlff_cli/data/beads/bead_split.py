"""Training and validation frames: stretches of a trajectory, so that neighbours stay together.

Frames that follow one another are alike; a frame that is validated on between two that are trained
on would flatter the model. The frames of every molecule are cut into stretches, of which a share is
chosen by a seeded hash:

    length of a stretch = max(1, V_k / n_k),     n_k = min(STRETCHES, max(1, V_k / SHORT)),

V_k = T_k val_fraction: a molecule of T_k frames has about n_k stretches to validate on. Where they
would be shorter than `SHORT`, there are fewer of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlff_cli.core.artifacts import atomic_path
from mlff_cli.core.errors import ConfigError
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.mixing import key, mix

STRETCHES = 10
SHORT = 5  # frames
FORMAT = "mlff-bead-split-1"


@dataclass(frozen=True, eq=False)
class FrameSplit:
    """Numbers of frames, ascending.

    Attributes:
        train: frames to train on.
        validation: frames to validate on.
        by: what was kept together, in words.
        shortest: frames of the shortest stretches.
    """

    train: np.ndarray
    validation: np.ndarray
    by: str
    shortest: int = 1

    def save(self, path: Path, frames: BeadFrames) -> None:
        """Keep which rows of which file are which, replacing what is there.

        Raises:
            StorageError: the disk is full or the folder is not writable.
        """
        chosen = np.zeros(len(frames), dtype=bool)
        chosen[self.validation] = True
        with atomic_path(path, force=True) as temporary:
            np.savez(
                temporary,
                format=np.array(FORMAT),
                by=np.array(self.by),
                paths=np.array([str(p) for p in frames.paths]),
                path=frames.file,
                row=frames.row,
                validation=chosen,
            )


def split_frames(
    frames: BeadFrames, fraction: float, seed: int, stretch: int | None = None
) -> FrameSplit:
    """Put a share of every molecule's frames into validation.

    Args:
        frames: of all files.
        fraction: of every molecule's frames, in (0, 1); a molecule of one frame is trained on.
        seed: of the choice.
        stretch: frames that stay together; None chooses.

    Raises:
        ConfigError: the fraction is out of range, or no frame would be left on one side.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError(
            f"training.val_fraction must lie between 0 and 1, found {fraction}",
            remedy="set it to 0.1",
        )
    held_out = np.zeros(len(frames), dtype=bool)
    lengths = []
    order = np.argsort(frames.molecule, kind="stable")  # by molecule, then as in the files
    edges = np.searchsorted(frames.molecule[order], np.arange(len(frames.molecules) + 1))
    for k in range(len(frames.molecules)):
        own = order[edges[k] : edges[k + 1]]
        if len(own) < 2:
            continue
        length = stretch or _length(round(len(own) * fraction))
        length = min(length, max(1, len(own) // 2))
        count = -(-len(own) // length)
        wanted = min(max(1, round(count * fraction)), count - 1)
        rank = mix(key(seed, k) ^ mix(np.arange(count, dtype="uint64")))
        of = np.arange(len(own)) // length
        held_out[own] = np.isin(of, np.argsort(rank, kind="stable")[:wanted])
        lengths.append(length)
    if not held_out.any() or held_out.all():
        raise ConfigError(
            f"{len(frames)} frames of {len(frames.molecules)} molecules cannot be divided into "
            "training and validation: a molecule needs two",
            remedy="use more frames",
        )
    shortest, longest = min(lengths), max(lengths)
    span = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    by = f"stretches of {span} frame{'s' * (longest > 1)} of every molecule"
    return FrameSplit(np.flatnonzero(~held_out), np.flatnonzero(held_out), by, shortest)


def _length(validated: int) -> int:
    """Frames of a stretch, where so many frames are to be validated on.

    >>> [_length(v) for v in (1, 4, 10, 60, 1000)]
    [1, 4, 5, 6, 100]
    """
    stretches = min(STRETCHES, max(1, validated // SHORT))
    return max(1, validated // stretches)
