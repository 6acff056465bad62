"""A training of milliseconds with what a coarse-grained one has.

A prior that is pre-trained, a network on top of it, irreducible noise, a relative error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlff_cli.core.reporting import Reporter
from mlff_cli.data.model_file import ModelFile
from mlff_cli.report.curves import plot_curves
from mlff_cli.training.distributed import World
from mlff_cli.training.fit import Fitted, Run, fit
from mlff_cli.training.losses import build_loss
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.settings_loss import LossSection
from mlff_cli.training.task import Pretraining, Task

N, BATCHES, BATCH = 60, 5, 12
NOISE = 2.0


class Chain(nn.Module):
    """Force of a bond: a harmonic prior and a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = nn.ParameterDict(
            {
                "k": nn.Parameter(torch.tensor(50.0, dtype=torch.float64)),
                "r0": nn.Parameter(torch.tensor(3.0, dtype=torch.float64)),
            }
        )
        self.network = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()

    def of_prior(self, r: Tensor) -> Tensor:
        """Its force (n,)."""
        return -self.prior["k"] * (r - self.prior["r0"])

    def forward(self, r: Tensor) -> Tensor:
        """The whole force (n,)."""
        return self.of_prior(r) + self.network(r[:, None] - 3.8)[:, 0]


@dataclass(frozen=True)
class Frames:
    """Some frames."""

    tensors: dict[str, Tensor]
    labels: frozenset[str] = frozenset({"energy"})

    def __len__(self) -> int:
        return len(self.tensors["r"])

    def to(self, device: torch.device) -> Frames:
        return self


class Errors:
    """F_rmse and F_relative from sums of squares."""

    def __init__(self) -> None:
        self.units = {"F_rmse": "kcal/mol/A", "F_relative": ""}
        self._sums = torch.zeros(3, dtype=torch.float64)  # n, e^2, F^2

    def update(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        e, f = predicted["energy"].detach() - batch["energy"], batch["energy"]
        count = torch.tensor(float(len(f)), dtype=torch.float64)
        self._sums = self._sums + torch.stack([count, e.square().sum(), f.square().sum()])

    def reduce(self, world: World) -> None:
        world.sum_(self._sums)

    def compute(self) -> dict[str, float]:
        n, e, f = self._sums.tolist()
        return {"F_rmse": (e / n) ** 0.5, "F_relative": (e / f) ** 0.5} if n else {}

    def state(self) -> Tensor:
        return self._sums.clone()

    def load(self, state: Tensor) -> None:
        self._sums = state.clone()

    def merge(self, states: Tensor) -> Tensor:
        return states.sum(dim=0)


def frames(first: int, last: int) -> Frames:
    generator = torch.Generator().manual_seed(11)
    r = 3.8 + 0.2 * torch.randn(2 * N, generator=generator, dtype=torch.float64)
    noise = NOISE * torch.randn(2 * N, generator=generator, dtype=torch.float64)
    force = -80.0 * (r - 3.8) + 20.0 * (r - 3.8) ** 2 + noise
    n = last - first
    tensors = {"r": r[first:last], "energy": force[first:last]}
    tensors["energy_mask"] = torch.ones(n, dtype=torch.bool)
    tensors["n_atoms"] = torch.ones(n, dtype=torch.int64)
    return Frames(tensors)


def chain_task(world: World | None = None, *, pretrain: bool = True, **limits: Any) -> Task:
    """Learn the force of a bond; every process takes its share of each batch."""
    world = world or World()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = Chain()

    def own(first: int, last: int) -> list[Frames]:
        edges = [first + (last - first) * i // world.size for i in range(world.size + 1)]
        a, b = edges[world.rank], edges[world.rank + 1]
        return [frames(a, b)] if b > a else []

    def batch(step: int) -> list[Frames]:
        start = (step % BATCHES) * BATCH
        return own(start, start + BATCH)

    def objective() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for part in own(0, N):
            t = part.tensors
            share = (model.of_prior(t["r"]) - t["energy"]).square().sum() / N
            share.backward()
            total += share.detach()
        return total

    pretraining = Pretraining(
        "prior",
        list(model.prior.values()),
        objective,
        report=lambda: [("k", f"{model.prior['k'].item():.3g}")],
        **limits,
    )
    loss = LossSection.model_validate(
        {"kwargs": {"components": {"energy": {"weight": 1.0, "fn": "mse_loss_fn"}}}}
    )
    return Task(
        model=model,
        epoch_length=BATCHES,
        train_batch=batch,
        n_validation=2,
        validation_batch=lambda i: frames(N + i * 30, N + i * 30 + 30),
        predict=lambda m, b, training: {"energy": m(b.tensors["r"])},
        loss=build_loss(loss, ["energy"]),
        new_metrics=Errors,
        measured=("F_rmse", "F_relative"),
        watch=("F_rmse", "F_relative"),
        name_samples=lambda step: f"frames of step {step}",
        part_of=lambda name: name.partition(".")[0],
        pretraining=pretraining if pretrain else None,
        noise_bound={"F_rmse": NOISE},
        samples="frames",
    )


STAGES: tuple[dict[str, Any], ...] = (
    {
        "name": "AdaBelief",
        "epochs": 3,
        "optimizer": {
            "class": "AdaBelief",
            "kwargs": {"lr": 1e-2},
            "force_no_train": [r"^prior\."],
        },
        "scheduler": {"class": "CosineAnnealingScheduler", "warmup_steps": 4},
    },
    {
        "name": "Yogi",
        "epochs": 2,
        "optimizer": {
            "class": "Yogi",
            "kwargs": {"lr": 5e-3},
            "param_groups": {"prior": {"re": r"^prior\.", "lr_scale": 0.1}},
        },
        "scheduler": {"class": "CosineAnnealingScheduler", "warmup_steps": "20 %"},
    },
)


def chain_settings(stages: tuple[dict[str, Any], ...] = STAGES, **more: Any) -> TrainingSettings:
    return TrainingSettings.model_validate(
        {
            "stages": stages,
            "trainer": {"ema_decay": 0.9, "gradient_clip_by": "none"},
            "log_frequency": {"train": 2},
            **more,
        }
    )


def train_chain(
    folder: Path,
    reporter: Reporter,
    settings: TrainingSettings | None = None,
    task: Task | None = None,
    world: World | None = None,
) -> Fitted:
    """Train in a folder, or go on there."""
    settings = settings or chain_settings()

    def snapshot(weights: dict[str, Tensor], training: dict[str, Any]) -> ModelFile:
        return ModelFile(
            weights, {}, "chain", {}, species=[], fidelities=[], sae={}, provenance={},
            training=training,
        )  # fmt: skip

    folder.mkdir(exist_ok=True)
    world = world or World()
    run = Run(
        folder=folder,
        task=task or chain_task(world),
        settings=settings,
        snapshot=snapshot,
        fingerprint={"config": settings.model_dump(mode="json", by_alias=True)},
        workers=0,
        world=world,
    )
    return fit(run, reporter, plot_curves, resume=True)
