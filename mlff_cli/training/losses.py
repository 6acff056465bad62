"""Losses of labels that some molecules have and others do not.

    L = sum_c w_c l_c,      l_c = 1/n_c sum_{m has label c} e_c(m),      sum_c w_c = 1       MTLoss

n_c counts the molecules of the batch that have the label; a component that none has adds nothing
and takes nothing from the others. The errors e are those of `loss_errors`.

    L = sum_c w_c [exp(-s_c) (l_c + floor) + s_c]                                        MTAdaWLoss

learns the logarithms s_c of the components' variances with the model (Kendall, Gal, Cipolla,
CVPR 2018, equation 7 doubled). It begins as MTLoss and comes to rest where exp(s_c) = l_c: there
component c has the share w_c of the gradient, whatever its unit and size. The floor keeps the
weight of a component without any error finite. A component without labels leaves s_c alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import LABELS
from mlff_cli.physics.multipoles import MOMENTS
from mlff_cli.training.allowlist import Allowlist
from mlff_cli.training.loss_errors import PREFIXES, MolecularError, molecular_error
from mlff_cli.training.settings_loss import Component, LossSection

FLOOR = 1e-12  # of l_c in MTAdaWLoss, in the squared unit of the component
WEIGHTS_LR = 1e-3  # of s_c; aimnet2mult's adaptive weights change by this share per step
WEIGHTS_GROUP = "loss_weights"  # name of the optimizer's group that holds s_c
PULLED = ("charges", "spin_charges")  # predictions of which zero is a sensible guess


@dataclass(frozen=True)
class Term:
    """One component of a loss.

    Attributes:
        name: of the component.
        error: of one molecule.
        weight: its share; shares need not sum to 1.
        scale: where a learned weight starts; None: at the share.
        missing: compares the molecules WITHOUT the label with zero.
    """

    name: str
    error: MolecularError
    weight: float
    scale: float | None = None
    missing: bool = False


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


class MultiTaskLoss(nn.Module, ABC):
    """Weighted sum of masked components; on the device that `to` puts it on.

    Args:
        terms: the components; those of weight 0 are left out.

    Attributes:
        names: of the components, in the order of sums and counts.
        labels: of the components.
        shares: (C,) w_c.

    Raises:
        ConfigError: no component has a positive weight.
    """

    shares: Tensor

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        active = [term for term in terms if term.weight > 0]
        self.terms = tuple(sorted(active, key=lambda term: term.missing))  # those come last
        scale = sum(term.weight for term in self.terms if not term.missing)
        if not scale:
            raise ConfigError(
                "the loss has no component with a positive weight",
                remedy="set loss.kwargs.components.energy.weight=1",
            )
        self.names = tuple(term.name for term in self.terms)
        self.labels = tuple(term.error.label for term in self.terms)
        shares = torch.tensor([t.weight / scale for t in self.terms], dtype=torch.float64)
        self.register_buffer("shares", shares, persistent=False)

    @abstractmethod
    def objective(self, sums: Tensor, counts: Tensor, whole: Tensor) -> Tensor:
        """What is minimised, scalar, for a part of a batch.

        Args:
            sums: (C,) errors summed over the part's molecules, with their graph.
            counts: (C,) how many they are.
            whole: (C,) how many the whole batch has.
        """

    @property
    def learned_names(self) -> tuple[str, ...]:
        """Names of logged weights, as weight_energy; none where weights are fixed."""
        return ()

    def weights(self) -> dict[str, float]:
        """Learned weights by `learned_names`; waits for the device."""
        return {}

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups of learned parameters for an optimizer of learning rate `lr`."""
        return []

    def forward(
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
        sums = []
        for term in self.terms:
            label = term.error.label
            if label in predicted:
                y_true = 0.0 if term.missing else batch[label]
                mask = _counted(term, batch)
                sums.append(term.error(predicted[label], y_true, n_atoms, mask).sum())
            else:  # nobody in the batch has the label, so it was not predicted
                sums.append(torch.zeros((), dtype=torch.float64, device=n_atoms.device))
        stacked, counts = torch.stack(sums), self.counts([batch])
        total = self.objective(stacked, counts, counts if whole is None else whole)
        return LossValue(total, stacked.detach(), counts)

    def counts(self, batches: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """(C,) molecules that each component counts in several batches together."""
        per_batch = [torch.stack([_counted(t, b).sum() for t in self.terms]) for b in batches]
        return torch.stack(per_batch).sum(dim=0)

    def parts(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Components w_c l_c (C,) by their shares, which sum to the loss that is reported.

        Learned weights do not enter: numbers from different times of a run stay comparable.
        """
        return self.shares.to(sums.device) * sums / counts.clamp(min=1)


def _counted(term: Term, batch: Mapping[str, Tensor]) -> Tensor:
    """Which molecules (B,) a component counts."""
    mask = batch[f"{term.error.label}_mask"]
    return ~mask if term.missing else mask


@final
class FixedLoss(MultiTaskLoss):
    """MTLoss: every component keeps its share."""

    def objective(self, sums: Tensor, counts: Tensor, whole: Tensor) -> Tensor:
        """Sum of w_c l_c (see `MultiTaskLoss`)."""
        return (self.shares * sums / whole.clamp(min=1)).sum()


@final
class AdaptiveLoss(MultiTaskLoss):
    """MTAdaWLoss: the components' weights w_c exp(-s_c) are learned.

    Args:
        terms: the components. One of missing labels keeps its weight: it is no measurement.
        lr: learning rate of s_c.

    Attributes:
        log_variance: s_c of the components that are no missing labels, which come first.
    """

    def __init__(self, terms: Sequence[Term], lr: float = WEIGHTS_LR) -> None:
        super().__init__(terms)
        self.lr: Final = lr
        learned = [
            0.0 if term.scale is None else math.log(share / term.scale)
            for term, share in zip(self.terms, self.shares.tolist(), strict=True)
            if not term.missing
        ]
        self.log_variance = nn.Parameter(torch.tensor(learned, dtype=torch.float64))

    def _s(self) -> Tensor:
        """Of all components (C,); those of missing labels stay at zero."""
        return functional.pad(self.log_variance, (0, len(self.terms) - len(self.log_variance)))

    def objective(self, sums: Tensor, counts: Tensor, whole: Tensor) -> Tensor:
        """Sum of w_c [exp(-s_c) (l_c + floor) + s_c], by molecules (see `MultiTaskLoss`)."""
        s = self._s()
        terms = torch.exp(-s) * (sums + FLOOR * counts) + s * counts
        return (self.shares * terms / whole.clamp(min=1)).sum()

    @property
    def learned_names(self) -> tuple[str, ...]:
        """Names of logged weights (see `MultiTaskLoss`)."""
        return tuple(f"weight_{term.name}" for term in self.terms if not term.missing)

    @torch.no_grad()
    def weights(self) -> dict[str, float]:
        """Weights w_c exp(-s_c) (see `MultiTaskLoss`)."""
        values = (self.shares * torch.exp(-self._s())).tolist()
        return dict(zip(self.learned_names, values, strict=False))

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group with s_c, which decays to nothing (see `MultiTaskLoss`)."""
        group = {"name": WEIGHTS_GROUP, "lr": self.lr, "lr_ratio": self.lr / lr}
        return [{**group, "weight_decay": 0.0, "params": [self.log_variance]}]


COMBINATIONS: Allowlist[type[MultiTaskLoss]] = Allowlist(
    "loss.class", PREFIXES, {"MTLoss": FixedLoss, "MTAdaWLoss": AdaptiveLoss}
)


def build_loss(section: LossSection, available: Sequence[str]) -> MultiTaskLoss:
    """The loss that a configuration describes.

    Args:
        section: `loss` of the configuration.
        available: labels that are read.

    Raises:
        ConfigError: unknown function or label, arguments that do not fit together.
    """
    kind = COMBINATIONS.find(section.class_)
    terms = []
    for name, component in section.kwargs.components.items():
        where = f"loss.kwargs.components.{name}"
        label = _label(name, component, f"{where}.kwargs")
        if component.weight > 0 and label not in available:
            raise ConfigError(
                f"loss component {name!r} needs the label {label!r}, which data.y does not list",
                remedy=f"add it to data.y, or set {where}.weight=0",
            )
        error = molecular_error(label, component.fn, component.kwargs, f"{where}.kwargs")
        terms.append(Term(name, error, component.weight, component.scale))
    terms += [_pull(term, section) for term in terms if _regularization(term.name, section)]
    if kind is AdaptiveLoss:
        return AdaptiveLoss(terms, section.kwargs.lr or WEIGHTS_LR)
    learned = {f"components.{t.name}.scale": t.scale for t in terms} | {"lr": section.kwargs.lr}
    for key, value in learned.items():
        if value is not None:
            raise ConfigError(
                f"loss.kwargs.{key} is for learned weights, found {value} with fixed ones",
                remedy="leave it out, or set loss.class=MTAdaWLoss",
            )
    return FixedLoss(terms)


def _label(name: str, component: Component, where: str) -> str:
    """The label that a component is about."""
    kwargs = component.kwargs
    function = (component.fn or "").rpartition(".")[2]
    implied = function.removesuffix("_loss_fn")  # dipole_loss_fn says what it is about
    label = kwargs.key_true or (implied if implied in MOMENTS else name)
    predicted = kwargs.key_pred or label
    if label not in LABELS or not (
        predicted == label or (label in MOMENTS, predicted) == (True, "charges")
    ):
        raise ConfigError(
            f"{where}: a component compares a label with its prediction, found key_true={label!r} "
            f"and key_pred={predicted!r}",
            remedy=f"use one of {', '.join(LABELS)} for both",
        )
    return label


def _regularization(name: str, section: LossSection) -> float:
    return section.kwargs.components[name].kwargs.missing_label_regularization


def _pull(term: Term, section: LossSection) -> Term:
    """The component that pulls predictions of molecules without the label to zero."""
    label, strength = term.error.label, _regularization(term.name, section)
    if label not in PULLED:
        raise ConfigError(
            f"loss.kwargs.components.{term.name}.kwargs.missing_label_regularization: zero is no "
            f"sensible guess of {label}, found {strength}",
            remedy=f"leave it out; it is for {' and '.join(PULLED)}",
        )
    return Term(f"{term.name}_missing", term.error, strength * term.weight, missing=True)
