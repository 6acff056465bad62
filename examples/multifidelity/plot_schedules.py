"""Draw the learning rate of every schedule in a file of schedules, without training.

    python plot_schedules.py schedules.yaml -o ../../docs/figures/schedules.png

Schedules that watch the validation loss are shown what is usual: it falls for the first half of
the run and stalls then.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from mlff_cli.core.config import read_yaml
from mlff_cli.report.lr_curve import plot_schedules
from mlff_cli.training.schedules import course
from mlff_cli.training.settings_schedules import SchedulerSection, named_schedule


def stalling(epochs: int, batches: int) -> dict[int, float]:
    """A validation loss at every epoch's end that no longer falls after half of the run."""
    return {(e + 1) * batches: math.exp(-6 * min(e / epochs, 0.5)) for e in range(epochs)}


def courses(file: Path, lr: float, epochs: int, batches: int) -> dict[str, list[float]]:
    """The learning rate of every iteration, by the schedule's name."""
    validation = stalling(epochs, batches)
    return {
        str(name): course(
            SchedulerSection.model_validate(named_schedule(f"{file}:{name}")),
            lr,
            epochs * batches,
            batches,
            validation,
        )
        for name in read_yaml(file)
    }


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="YAML of named schedules")
    parser.add_argument("-o", "--output", type=Path, default=Path("schedules.png"))
    parser.add_argument("--lr", type=float, default=1e-3, help="optimizer.kwargs.lr")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batches", type=int, default=50, help="iterations per epoch")
    given = parser.parse_args()
    found = courses(given.file, given.lr, given.epochs, given.batches)
    plot_schedules(given.output, found, given.batches)
    print(f"{len(found)} schedules: {given.output}")


if __name__ == "__main__":
    main()
