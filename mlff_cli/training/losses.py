"""Losses of labels that some molecules have and others do not.

    L = sum_c w_c / n_c sum_{m has label c} e_c(m),        sum_c w_c = 1
    energy_loss_fn:   e(m) = (E - E')^2 / sqrt(N_m)
    peratom_loss_fn:  e(m) = mean over atoms and components of (y - y')^2
    mse_loss_fn:      e(m) = mean over all values of (y - y')^2

n_c counts the molecules of the batch that have the label; a component that none has adds nothing
and takes nothing from the others. Padding never counts, so that batches of any make-up agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import LABELS
from mlff_cli.training.allowlist import Allowlist, not_yet
from mlff_cli.training.settings_loss import Component, LossSection

Error = Callable[[Tensor, Tensor, Tensor], Tensor]  # prediction, label, n_atoms -> (B,)


def energy_error(y: Tensor, y_true: Tensor, n_atoms: Tensor) -> Tensor:
    """Squared error of a molecule's energy by the square root of its atoms (B,)."""
    return (y - y_true).square() / n_atoms.sqrt()


def mean_squared_error(y: Tensor, y_true: Tensor, n_atoms: Tensor) -> Tensor:
    """Mean squared error (B,) over a molecule's values; of (B, N, ...) those of real atoms."""
    squared = (y - y_true).square()
    if squared.dim() == 1:
        return squared
    real = torch.arange(y.shape[1], device=y.device) < n_atoms[:, None]  # [b, i]
    per_atom = squared.flatten(2).mean(dim=2) if squared.dim() > 2 else squared  # [b, i]
    return torch.where(real, per_atom, 0.0).sum(dim=1) / n_atoms


_PREFIXES = ("aimnet2mult.train.loss", "aimnet.train.loss", "mlff_cli.training.losses")
ERRORS: Allowlist[Error] = Allowlist(
    "loss.kwargs.components.*.fn",
    _PREFIXES,
    {
        "energy_loss_fn": energy_error,
        "peratom_loss_fn": mean_squared_error,
        "mse_loss_fn": mean_squared_error,
    },
    later=("dipole_loss_fn", "quadrupole_loss_fn", "huber_loss_fn"),
)
COMBINATIONS = Allowlist("loss.class", _PREFIXES, {"MTLoss": "fixed"}, later=("MTAdaWLoss",))


@dataclass(frozen=True)
class LossValue:
    """A batch's loss.

    Attributes:
        total: what is minimised, scalar with its graph.
        sums: (C,) errors summed over the molecules that have the label, detached, float64.
        counts: (C,) how many they are.
    """

    total: Tensor
    sums: Tensor
    counts: Tensor


class MultiTaskLoss:
    """Weighted sum of masked components.

    Args:
        components: per name (label, error, weight); weights are scaled to sum 1.

    Attributes:
        names: of the components, in the order of sums and counts.
        labels: of the components.
    """

    def __init__(self, components: Mapping[str, tuple[str, Error, float]]) -> None:
        active = {name: c for name, c in components.items() if c[2] > 0}
        if not active:
            raise ConfigError(
                "the loss has no component with a positive weight",
                remedy="set loss.kwargs.components.energy.weight=1",
            )
        scale = sum(weight for _, _, weight in active.values())
        self.names = tuple(active)
        self.labels = tuple(label for label, _, _ in active.values())
        self._errors = tuple(error for _, error, _ in active.values())
        self._weights = torch.tensor(
            [w / scale for _, _, w in active.values()], dtype=torch.float64
        )

    def __call__(
        self,
        predicted: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        whole: Tensor | None = None,
    ) -> LossValue:
        """Loss of predictions against a batch with labels and masks.

        Args:
            predicted: by label.
            batch: labels, masks and n_atoms.
            whole: (C,) counts of the whole batch where this is a part of it: the losses of all
                parts then sum to that of the whole.
        """
        n_atoms = batch["n_atoms"].to(torch.float64)
        sums, counts = [], []
        for label, error in zip(self.labels, self._errors, strict=True):
            mask = batch[f"{label}_mask"]
            counts.append(mask.sum())
            if label in predicted:
                e = error(predicted[label], batch[label], n_atoms)
                sums.append(torch.where(mask, e, 0.0).sum().double())
            else:  # nobody in the batch has the label, so it was not predicted
                sums.append(torch.zeros((), dtype=torch.float64, device=n_atoms.device))
        stacked, n = torch.stack(sums), torch.stack(counts)
        total = self.parts(stacked, n if whole is None else whole).sum()
        return LossValue(total, stacked.detach(), n)

    def counts(self, batches: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """(C,) molecules with each component's label in several batches together."""
        per_batch = [
            torch.stack([b[f"{label}_mask"].sum() for label in self.labels]) for b in batches
        ]
        return torch.stack(per_batch).sum(dim=0)

    def parts(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Weighted components (C,), which sum to the loss."""
        return self._weights.to(sums.device) * sums / counts.clamp(min=1)


def build_loss(section: LossSection, available: Sequence[str]) -> MultiTaskLoss:
    """The loss that a configuration describes.

    Args:
        section: `loss` of the configuration.
        available: labels that are read.

    Raises:
        ConfigError: unknown function or label, a feature that comes later.
    """
    COMBINATIONS.find(section.class_)
    built = {}
    for name, component in section.kwargs.components.items():
        label = _label(name, component)
        if component.weight > 0 and label not in available:
            raise ConfigError(
                f"loss component {name!r} needs the label {label!r}, which data.y does not list",
                remedy=f"add it to data.y, or set loss.kwargs.components.{name}.weight=0",
            )
        default = "energy_loss_fn" if label == "energy" else "peratom_loss_fn"
        built[name] = (label, ERRORS.find(component.fn or default), component.weight)
    return MultiTaskLoss(built)


def _label(name: str, component: Component) -> str:
    """The label that a component is about."""
    where = f"loss.kwargs.components.{name}.kwargs"
    kwargs = dict(component.kwargs)
    regularization = kwargs.pop("missing_label_regularization", 0.0)
    if regularization:
        raise not_yet(f"{where}.missing_label_regularization", regularization, "leave it out")
    label = str(kwargs.pop("key_true", name))
    predicted = kwargs.pop("key_pred", label)
    if kwargs:
        raise ConfigError(f"unknown key {where}.{next(iter(kwargs))}")
    if predicted != label or label not in LABELS:
        raise ConfigError(
            f"{where}: a component compares a label with its prediction, found key_true={label!r} "
            f"and key_pred={predicted!r}",
            remedy=f"use one of {', '.join(LABELS)} for both",
        )
    return label
