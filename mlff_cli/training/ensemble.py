"""An ensemble: the same training from several seeds on the same split."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlff_cli.training.settings import TrainingSettings


@dataclass(frozen=True)
class Member:
    """One training of an ensemble.

    Attributes:
        seed: of its initial weights and its batches.
        loss: its best validation loss.
        step: when that was.
        metrics: of its best validation, by name.
    """

    seed: int
    loss: float
    step: int
    metrics: Mapping[str, float]


def member_settings(settings: TrainingSettings, seed: int) -> TrainingSettings:
    """The settings of an ensemble's member.

    Trackers show it by itself, in the ensemble's group; a folder of checkpoints outside its run
    folder, which all members would share, gets one for each.
    """
    wandb, checkpoint = settings.wandb, settings.checkpoint
    own = Path(checkpoint.dirname)
    if own.is_absolute() or ".." in own.parts:
        checkpoint = checkpoint.model_copy(update={"dirname": str(own / f"seed_{seed}")})
    init = wandb.init.model_copy(
        update={
            "group": wandb.init.group or settings.run_name,
            "name": f"{wandb.init.name or settings.run_name}_seed_{seed}",
        }
    )
    return settings.model_copy(
        update={
            "seed": seed,
            "wandb": wandb.model_copy(update={"init": init}),
            "checkpoint": checkpoint,
        }
    )


def best(members: Sequence[Member]) -> Member:
    """The member of the smallest validation loss; the first of equals."""
    return min(members, key=lambda member: member.loss)


def statistics_of(members: Sequence[Member]) -> dict[str, Any]:
    """What `ensemble.json` holds: every member, the best one, and their spread.

    The spread is the sample standard deviation, absent for a single member.
    """
    names = [n for n in members[0].metrics if all(n in m.metrics for m in members)]
    return {
        "members": [
            {"seed": m.seed, "loss": m.loss, "step": m.step, "metrics": dict(m.metrics)}
            for m in members
        ],
        "best_seed": best(members).seed,
        "loss": spread([m.loss for m in members]),
        "metrics": {n: spread([m.metrics[n] for m in members]) for n in names},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation, smallest and largest of some values."""
    found = {"mean": statistics.fmean(values), "min": min(values), "max": max(values)}
    if len(values) > 1:
        found["std"] = statistics.stdev(values)
    return found
