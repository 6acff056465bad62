"""How wrong a prediction of one molecule is.

    e = mean over the molecule's values of h(y - y')          per: molecule
    e = mean of h(y - y') / sqrt(N)                           per: sqrt_atom
    e = mean of h((y - y') / N)                               per: atom

    h(r) = r^2                                                squared
    h(r) = r^2 / 2 where |r| < delta, else delta (|r| - delta / 2)        Huber (1964)

N counts the molecule's atoms. A label with one value or vector per atom is averaged over its real
atoms; padding and molecules without the label are taken out before anything is computed, so that
whatever they hold, NaN included, reaches neither values nor gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.fields import FIELDS
from mlff_cli.training.allowlist import Allowlist
from mlff_cli.training.settings_loss import ComponentKwargs, Per

PREFIXES = ("aimnet2mult.train.loss", "aimnet.train.loss", "mlff_cli.training.losses")
Penalty = Callable[[Tensor], Tensor]  # h, element by element


def squared(r: Tensor) -> Tensor:
    """r^2."""
    return r.square()


def huber(r: Tensor, delta: float) -> Tensor:
    """r^2 / 2 near zero, linear beyond `delta`."""
    return functional.huber_loss(r, torch.zeros_like(r), reduction="none", delta=delta)


@dataclass(frozen=True)
class MolecularError:
    """The error e of one label.

    Attributes:
        label: which label; its shape is the vocabulary's.
        penalty: h.
        per: what the error of a whole molecule is related to.
    """

    label: str
    penalty: Penalty = squared
    per: Per = "molecule"

    def __call__(self, y: Tensor, y_true: Tensor | float, n_atoms: Tensor, mask: Tensor) -> Tensor:
        """Errors (B,) float64; zero where `mask` (B,) is false.

        Args:
            y: prediction (B, ...).
            y_true: label (B, ...), or one number for all.
            n_atoms: (B,).
            mask: (B,) which molecules count.
        """
        counted = _trailing(mask, y)
        if "N" in FIELDS[self.label].dims:
            real = torch.arange(y.shape[1], device=y.device) < n_atoms[:, None]  # [b, i]
            counted = counted & _trailing(real, y)
        r = torch.where(counted, y - y_true, 0.0)  # before h: its slope at NaN would be NaN
        if self.per == "atom":
            r = r / _trailing(n_atoms, r)
        h = self.penalty(r).flatten(1) if r.dim() > 1 else self.penalty(r)[:, None]  # [b, values]
        # of an atom or of the molecule; from the vocabulary, because a compiled step's sizes are
        # symbols, which float() would turn into the numbers of its first batch
        values = math.prod(d for d in FIELDS[self.label].dims if isinstance(d, int))
        total = h.sum(dim=1, dtype=torch.float64)
        if "N" in FIELDS[self.label].dims:
            return total / (n_atoms * values)
        if self.per == "sqrt_atom":
            return total / (n_atoms.sqrt() * values)
        return total / values


def _trailing(values: Tensor, like: Tensor) -> Tensor:
    """`values` with dimensions of length 1 behind, as many as `like` has."""
    return values.reshape(*values.shape, *[1] * (like.dim() - values.dim()))


@dataclass(frozen=True)
class Function:
    """A loss function of the configuration.

    Attributes:
        huber: whether its penalty is Huber's.
        per: for labels of the whole molecule.
    """

    huber: bool
    per: Per


FUNCTIONS: Allowlist[Function] = Allowlist(
    "loss.kwargs.components.*.fn",
    PREFIXES,
    {
        "energy_loss_fn": Function(False, "sqrt_atom"),
        "peratom_loss_fn": Function(False, "atom"),
        "mse_loss_fn": Function(False, "molecule"),
        "huber_loss_fn": Function(True, "molecule"),
        "dipole_loss_fn": Function(False, "molecule"),
        "quadrupole_loss_fn": Function(False, "molecule"),
    },
)


def molecular_error(
    label: str, fn: str | None, kwargs: ComponentKwargs, where: str
) -> MolecularError:
    """The error that a component of the configuration describes.

    Args:
        label: what it is about.
        fn: its function's name; None takes the label's usual one.
        kwargs: its arguments.
        where: configuration key of the arguments.

    Raises:
        ConfigError: unknown function, or an argument that it or the label does not take.
    """
    of_atoms = "N" in FIELDS[label].dims
    usual = "energy_loss_fn" if label == "energy" else "mse_loss_fn"
    function = FUNCTIONS.find(fn or ("peratom_loss_fn" if of_atoms else usual))
    if kwargs.per is not None and of_atoms:
        raise ConfigError(
            f"{where}.per: {label} are averaged over the atoms already, found {kwargs.per!r}",
            remedy="leave it out",
        )
    if (kwargs.delta is None) == function.huber:
        unit = FIELDS[label].unit
        raise ConfigError(
            f"{where}.delta is the error from which huber_loss_fn grows linearly, found "
            f"{kwargs.delta} for {fn or usual}",
            remedy=f"set {where}.delta, in {unit}" if kwargs.delta is None else "leave it out",
        )
    penalty = squared if kwargs.delta is None else partial(huber, delta=kwargs.delta)
    per: Per = "molecule" if of_atoms else kwargs.per or function.per
    return MolecularError(label, penalty, per)
