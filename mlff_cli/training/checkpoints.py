"""Checkpoints of a run: the last one, to resume from, and the best ones by validation loss.

    checkpoints/last.pt                     model, optimizer, schedule, random state, position
    checkpoints/best_00000400_0.0123.pt     model only; step and validation loss in the name

Every checkpoint is a model file with more in it, so that `--load` and `--weights` take either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mlff_cli.core.config import differences
from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.data.model_file import ModelFile, load_model_file
from mlff_cli.training.settings import CheckpointSection

Snapshot = Callable[[dict[str, Tensor], dict[str, Any]], ModelFile]
SHOWN_DIFFERENCES = 12
NEEDED = ("step", "optimizer", "best", "fingerprint")  # what a model file or a best one lacks
LAST = "last.pt"  # the checkpoint to resume from


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
        folder: the run folder.
        section: `checkpoint` of the configuration.
        snapshot: makes a model file of weights and of the values that resuming needs.
        fingerprint: what must be the same when the run is resumed.
    """

    def __init__(
        self,
        folder: Path,
        section: CheckpointSection,
        snapshot: Snapshot,
        fingerprint: Mapping[str, Any],
    ) -> None:
        self.folder = folder / section.dirname
        self._prefix = f"{section.filename_prefix}_" if section.filename_prefix else ""
        self._keep = section.kwargs.n_saved if section.save_best else 0
        self._require_empty = section.kwargs.require_empty
        self._snapshot = snapshot
        self._fingerprint = dict(fingerprint)
        self.best: list[tuple[float, int, str]] = []  # (loss, step, file name), best first

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / LAST

    def resume(self, *, replace: bool = False, again: bool = True) -> ModelFile | None:
        """The checkpoint to continue from, or None where the run begins.

        Args:
            replace: begin anew where the run was started differently or its checkpoint is damaged.
            again: with `replace`, begin a finished run anew, too.

        Raises:
            ConfigError: it was made with another configuration, other data or another version of
                the checkpoint.
            DataError: the checkpoint is damaged.
        """
        if not self.last.exists():
            return None
        try:
            checkpoint = load_model_file(self.last, averaged=False)
            if missing := [name for name in NEEDED if name not in checkpoint.training]:
                raise DataError(
                    f"a run cannot continue from this: {', '.join(missing)} missing",
                    where=str(self.last),
                )
        except DataError as error:
            if replace:
                return None
            error.remedy = "pass --force (or --resume never) to start anew; the best checkpoints "
            error.remedy += "beside it are whole"
            raise
        changed = differences(checkpoint.training.get("fingerprint"), self._fingerprint)
        if replace and (changed or (again and checkpoint.training.get("finished"))):
            return None
        if changed:
            shown = "\n    ".join(changed[:SHOWN_DIFFERENCES])
            raise ConfigError(
                f"an unfinished run stands here that was started differently:\n    {shown}",
                where=str(self.last),
                remedy="restore what differs to continue it, or pass --force (or --resume never) "
                "to start anew",
            )
        # a run killed between dropping a file and writing `last` lists a file that is gone
        self.best = [
            tuple(b) for b in checkpoint.training["best"] if (self.folder / b[2]).is_file()
        ]
        return checkpoint

    def clear(self) -> None:
        """Remove the checkpoints of an earlier run; other runs in the same folder keep theirs.

        Raises:
            ConfigError: there are some, and `require_empty` is on.
        """
        found = self._found()
        if found and self._require_empty:
            raise ConfigError(
                f"checkpoint.kwargs.require_empty: {len(found)} checkpoints of an earlier run are "
                "in the folder",
                where=str(self.folder),
                remedy="move them away, or set require_empty to false",
            )
        self.remove()

    def remove(self) -> None:
        """Remove this run's checkpoints."""
        for path in self._found():
            path.unlink()

    def _found(self) -> list[Path]:
        best = [p for p in self.folder.glob("*.pt") if p.name.startswith(f"{self._prefix}best_")]
        return best + [self.last] * self.last.exists()

    def save_last(
        self,
        weights: dict[str, Tensor],
        training: Mapping[str, Any],
        average: dict[str, Tensor] | None = None,
    ) -> None:
        """Write the checkpoint to resume from, with the averaged weights where there are any."""
        more = {**training, "best": [list(b) for b in self.best], "fingerprint": self._fingerprint}
        checkpoint = self._snapshot(weights, more)
        checkpoint.ema = average
        checkpoint.save(self.last, force=True)

    def offer(
        self, weights: dict[str, Tensor], step: int, loss: float, metrics: Mapping[str, float]
    ) -> bool:
        """Keep the weights if they are among the best.

        Returns:
            Whether they are the very best so far.
        """
        if not self._keep or (len(self.best) == self._keep and loss >= self.best[-1][0]):
            return False
        name = f"{self._prefix}best_{step:08d}_{loss:.6g}.pt"
        found = {"step": step, "val_loss": loss, "metrics": dict(metrics)}
        self._snapshot(weights, found).save(self.folder / name, force=True)
        self.best = sorted([*self.best, (loss, step, name)])
        for _, _, dropped in self.best[self._keep :]:
            (self.folder / dropped).unlink(missing_ok=True)
        self.best = self.best[: self._keep]
        return self.best[0][2] == name

    def result(self) -> ModelFile:
        """The finished run's model: best by validation, or the last where no best are kept."""
        path = self.folder / self.best[0][2] if self.best else self.last
        return load_model_file(path)
