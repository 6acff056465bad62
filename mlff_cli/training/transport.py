"""Loss and figures of merit of a flow between two temperatures (`flows.objective` has the theory).

    L = a_f L_fwd + a_i L_inv + a_s L_sym        while training, behind the gate
    excess = L_fwd + L_inv - <data>              of validations: raw energies of all samples

Components of both are logged: `fwd_energy`, `fwd_logdet`, `inv_energy`, `inv_logdet` and `data`,
the constant beta_s <U>_s + beta_t <U>_t of the samples themselves. Their signed sum is the excess
in nats; of training batches it is that of gated terms. Of validations there are, with the reduced
works

    w_F = beta_t U(f(x)) - ln|det df/dx| - beta_s U(x),        w_R likewise of the inverse

also the effective sample sizes ESS = <e^-w>^2 / <e^-2w> of both directions and the share of
accepted swaps <min(1, e^-(w_F + w_R))> of pairs of one frame of each side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mlff_cli.flows.gating import Gate
from mlff_cli.flows.objective import Transported, loss_terms
from mlff_cli.training.distributed import World
from mlff_cli.training.losses import LossValue, MultiTaskLoss

NAMES = ("fwd_energy", "fwd_logdet", "inv_energy", "inv_logdet", "data")
SIGNS = (1.0, -1.0, 1.0, -1.0, -1.0)  # of the components in the excess
SOURCE, TARGET = "source", "target"
E_MAX = "E_max"  # of a batch that is trained on


def found_in(predicted: Mapping[str, Tensor], direction: str) -> Transported:
    """Samples behind the map, of direction "fwd" or "inv"."""
    return Transported(predicted[f"{direction}_U"], predicted[f"{direction}_logdet"])


def tensors_of(fwd: Transported, inv: Transported) -> dict[str, Tensor]:
    """Both directions as a task's predictions."""
    return {
        "fwd_U": fwd.U,
        "fwd_logdet": fwd.log_det,
        "inv_U": inv.U,
        "inv_logdet": inv.log_det,
    }


class TransportLoss(MultiTaskLoss):
    """The loss of both directions; sums and counts are those of samples.

    Args:
        betas: of source and target, mol/kJ.
        gate: what counts of training batches; None: everything.
        forward: a_f.
        inverse: a_i.
        symmetric: a_s; L_sym is taken of each part of a batch.
    """

    def __init__(
        self,
        betas: tuple[float, float],
        gate: Gate | None,
        *,
        forward: float = 1.0,
        inverse: float = 1.0,
        symmetric: float = 0.0,
    ) -> None:
        nn.Module.__init__(self)  # its components are no errors of labels
        self.terms = ()
        self.names = NAMES
        self.labels = ()
        self.register_buffer("shares", torch.tensor(SIGNS, dtype=torch.float64), persistent=False)
        self.betas = betas
        self.gate = gate
        self.strengths = (forward, inverse, symmetric)

    def objective(self, sums: Tensor, counts: Tensor, whole: Tensor) -> Tensor:
        """a_f L_fwd + a_i L_inv of a part (see `MultiTaskLoss`)."""
        forward, inverse, _ = self.strengths
        mean = sums / whole.clamp(min=1)
        return forward * (mean[0] - mean[1]) + inverse * (mean[2] - mean[3])

    def forward(
        self,
        predicted: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        whole: Tensor | None = None,
    ) -> LossValue:
        """Loss of samples behind the map (see `MultiTaskLoss`).

        Args:
            predicted: as `tensors_of` makes them.
            batch: `source_energy` and `target_energy` (B,) kJ/mol; `E_max` (B,) where the batch is
                trained on.
            whole: (C,) counts of the whole batch, where this is a part of it.
        """
        beta_s, beta_t = self.betas
        E_max = batch.get(E_MAX)
        gate = None if E_max is None else self.gate
        sums = []
        for direction, beta in (("fwd", beta_t), ("inv", beta_s)):
            found = found_in(predicted, direction)
            terms = loss_terms(found, beta, gate, math.inf if E_max is None else E_max)
            sums += [term.sum(dtype=torch.float64) for term in terms]
        data = beta_s * batch["source_energy"].double() + beta_t * batch["target_energy"].double()
        stacked = torch.stack([*sums, data.sum()])
        counts = torch.full_like(stacked, float(len(data)), requires_grad=False)
        whole = counts if whole is None else whole
        total = self.objective(stacked, counts, whole)
        if symmetric := self.strengths[2]:
            n = len(data)
            total = total + symmetric * (n / whole[0]) * ((sums[1] + sums[3]) / n).square()
        return LossValue(total, stacked.detach(), counts)

    def counts(self, batches: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """(C,) samples of several batches together."""
        n = sum(len(batch[SOURCE]) for batch in batches)
        device = batches[0][SOURCE].device
        return torch.full((len(NAMES),), float(n), dtype=torch.float64, device=device)


# of each direction: samples, sum of w, ln sum e^-w, ln sum e^-2w; then pairs and acceptances
_SIZE = 10
UNITS = {"excess_nats": "nats", "acceptance": "", "ess_fwd": "", "ess_inv": ""}


class TransportMetrics:
    """Excess, acceptance and effective sample sizes of validation frames, from raw energies.

    Batches that are trained on are passed over: of them the gate's log tells.

    Args:
        betas: of source and target, mol/kJ.
        device: where the batches are.

    Attributes:
        units: see `task.Metrics`.
    """

    def __init__(self, betas: tuple[float, float], device: torch.device) -> None:
        self.units = dict(UNITS)
        self._betas = betas
        self._state = _nothing(device)

    @torch.no_grad()
    def update(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a batch (see `task.Metrics`)."""
        if E_MAX in batch:
            return
        added = _nothing(self._state.device)
        here = works(predicted, batch, self._betas)
        for k, w in enumerate(here):
            added[4 * k : 4 * k + 4] = torch.stack([
                w.new_tensor(float(len(w))),
                w.sum(),
                torch.logsumexp(-w, 0),
                torch.logsumexp(-2 * w, 0),
            ])  # fmt: skip
        log_p = -(here[0] + here[1])
        added[8] = len(log_p)
        added[9] = torch.where(log_p < 0, log_p.exp(), 1.0).sum()
        self._state = self.merge(torch.stack([self._state, added]))

    def reduce(self, world: World) -> None:
        """Take in what the other processes saw (see `task.Metrics`)."""
        if world.size > 1:
            stacked = self._state.new_zeros(world.size, _SIZE)
            stacked[world.rank] = self._state
            world.sum_(stacked)
            self._state = self.merge(stacked)

    def compute(self) -> dict[str, float]:
        """All figures that have data; waits for the device."""
        n, w_f, a_f, b_f, m, w_i, a_i, b_i, pairs, accepted = self._state.tolist()
        if not n:
            return {}
        found = {"excess_nats": w_f / n + w_i / m, "acceptance": accepted / pairs}
        for name, one, two, count in (("ess_fwd", a_f, b_f, n), ("ess_inv", a_i, b_i, m)):
            found[name] = math.exp(2 * one - two) / count if one > -math.inf else 0.0
        return found

    def state(self) -> Tensor:
        """What was accumulated (see `task.Metrics`)."""
        return self._state.clone()

    def load(self, state: Tensor) -> None:
        """Continue from `state`."""
        self._state = state.to(self._state).reshape(_SIZE).clone()

    def merge(self, states: Tensor) -> Tensor:
        """The state of all data of several states (R, ...)."""
        sums = states.sum(0)
        logs = torch.logsumexp(states, 0)
        is_log = torch.zeros(_SIZE, dtype=torch.bool, device=states.device)
        is_log[[2, 3, 6, 7]] = True
        return torch.where(is_log, logs, sums)


def works(
    predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor], betas: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Reduced works w_F and w_R (B,) in float64; +inf where map or energy failed."""
    reduced = []
    for direction, here, there, energy in (
        ("fwd", betas[0], betas[1], "source_energy"),
        ("inv", betas[1], betas[0], "target_energy"),
    ):
        found = found_in(predicted, direction)
        w = there * found.U.double() - found.log_det.double() - here * batch[energy].double()
        reduced.append(torch.where(torch.isnan(w), math.inf, w))
    return reduced[0], reduced[1]


def _nothing(device: torch.device) -> Tensor:
    state = torch.zeros(_SIZE, dtype=torch.float64, device=device)
    state[[2, 3, 6, 7]] = -math.inf
    return state
