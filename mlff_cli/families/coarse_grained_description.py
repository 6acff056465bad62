"""A coarse-grained training in words, and its molecules as a model file keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlff_cli.data.beads.bead_feed import BeadFeed
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.bead_split import FrameSplit
from mlff_cli.deploy.beads.molecules import molecules_of
from mlff_cli.potentials.bead_model import BeadModel


def plain_molecules(frames: BeadFrames) -> tuple[list[dict[str, Any]], list[str]]:
    """Plain values of every molecule, under the names that are unlike; what masses assume."""
    plain, notes = dict[int, dict[str, Any]](), dict[str, None]()
    for f in range(len(frames.paths)):
        own = [(k, m) for k, m in enumerate(frames.molecules) if m.file == f]
        known = molecules_of(frames.set_of(f))
        notes |= dict.fromkeys(known.notes if own else ())
        plain |= {k: {**known[m.number].plain(), "name": m.name} for k, m in own}
    return [plain[k] for k in sorted(plain)], list(notes)


def description_rows(
    frames: BeadFrames,
    split: FrameSplit,
    feed: BeadFeed,
    model: BeadModel,
    force: float,
    noise: float | None,
) -> list[tuple[str, str]]:
    """The training in words."""
    sizes: Sequence[int] = [len(m.types) for m in frames.molecules]
    span = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    kelvin = "unknown temperature" if frames.temperature is None else f"{frames.temperature:g} K"
    where = "in memory" if frames.in_memory else "on disk"
    n, files = len(frames.molecules), len(frames.paths)
    rows = [
        (
            "frames",
            f"{len(split.train)} train, {len(split.validation)} validation, {kelvin} ({files} "
            f"file{'s' * (files > 1)} {where})",
        ),
        ("molecules", f"{n} of {span} beads, {len(frames.type_names)} types"),
        ("split by", split.by),
        ("forces to learn", f"{force:.3g} kcal/mol/A per component, what the prior leaves"),
    ]
    if noise is not None:
        rows.append(("noise of the forces", f"at most {noise:.3g} kcal/mol/A per component"))
    if model.prior is not None:
        rows.append(("prior", ", ".join(model.prior.file.terms)))
    size = sum(p.numel() for p in model.parameters())
    return [
        *rows,
        ("parameters", f"{size}"),
        ("batch", f"{feed.batch_size} frames"),
        ("batches per epoch", f"{feed.epoch_length}"),
    ]
