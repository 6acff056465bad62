"""A training step of Allegro on beads, beside nequip's own model with the same weights.

    python -m tests.benchmarks.bench_bead_training                     # a minute or two
    python -m tests.benchmarks.bench_bead_training --device cuda
    python -m tests.benchmarks.bench_bead_training -o docs/benchmarks  # keep the result

A step is energy, forces, and the gradient of the forces' mean squared error. Beads lie at random
at the density of C-alphas in a globule. Both models run by turns in one process, medians; on a
processor with one thread, in time of the process, so that other work does not count.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch import Tensor

from mlff_cli.potentials.allegro import SIZES, Allegro, AllegroSpec
from mlff_cli.potentials.bead_edges import edges_of

TYPES = [f"T{k}" for k in range(20)]
VOLUME = 140.0  # of a bead, cubic angstrom
BATCHES = ((64, 6), (2, 76))  # molecules, beads of each; nequip's own needs 3 GB for large
REPEATS = 5
WARM_UP = 2
COLUMNS = (
    "size",
    "weights",
    "batch",
    "edges",
    "step (ms)",
    "nequip's own (ms)",
    "ratio",
    "energy and forces (ms)",
)
Model = Callable[[Tensor, Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def beads(molecules: int, n: int, cutoff: float, device: torch.device) -> Batch:
    """Positions, types, edges and reference forces."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(molecules * n, 3, generator=generator, dtype=torch.float64)
    x *= (VOLUME * n) ** (1 / 3)
    types = torch.randint(len(TYPES), (len(x),), generator=generator)
    edges = edges_of(x, torch.arange(molecules).repeat_interleave(n), cutoff)
    forces = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x.to(device), types.to(device), edges.to(device), forces.to(device)


def step(model: Model, batch: Batch, train: bool) -> None:
    """Energy and forces, and where it trains the gradient of the loss."""
    positions, types, edges, reference = batch
    x = positions.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, types, edges).sum(), x, create_graph=train)
    if train:
        (gradient + reference).square().mean().backward()


def median_ms(runs: dict[str, Callable[[], None]], device: torch.device) -> dict[str, float]:
    """Median milliseconds of each, run by turns."""
    clock = perf_counter if device.type == "cuda" else process_time
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(WARM_UP + REPEATS):
        for name, run in runs.items():
            begin = clock()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                times[name].append(1e3 * (clock() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


def row(size: str, molecules: int, n: int, device: torch.device) -> tuple[str, ...]:
    """One line of the table."""
    model = Allegro(AllegroSpec.of(size, TYPES)).to(device)
    network = model.plain_network()

    def plain(x: Tensor, types: Tensor, edges: Tensor) -> Tensor:
        energy: Tensor = network({"pos": x, "atom_types": types, "edge_index": edges})[
            "atomic_energy"
        ]
        return energy

    batch = beads(molecules, n, model.spec.cutoff, device)
    ms = median_ms(
        {
            "ours": lambda: step(model, batch, True),
            "plain": lambda: step(plain, batch, True),
            "forces": lambda: step(model, batch, False),
        },
        device,
    )
    return (
        size,
        f"{sum(p.numel() for p in model.parameters())}",
        f"{molecules} x {n}",
        f"{batch[2].shape[1]}",
        f"{ms['ours']:.1f}",
        f"{ms['plain']:.1f}",
        f"{ms['plain'] / ms['ours']:.1f}",
        f"{ms['forces']:.1f}",
    )


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("-o", "--output", type=Path, help="folder for bead_training.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    rows = []
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for size in options.sizes:
        for molecules, n in BATCHES:
            rows.append(row(size, molecules, n, device))
            print("| " + " | ".join(rows[-1]) + " |", flush=True)
    if options.output:
        found = {
            "rows": [dict(zip(COLUMNS, values, strict=True)) for values in rows],
            "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
            "versions": {p: version(p) for p in ("torch", "nequip", "nequip-allegro")},
        }
        path = options.output / "bead_training.json"
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
