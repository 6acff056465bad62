"""A training step and energy plus forces of AIMNet2, beside PyPI aimnet's model.

16 molecules of 27 atoms at the published size with two charge channels; a step is energy, forces,
charges and the gradient of a loss of all three. Models run by turns in one process.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
import yaml
from torch import Tensor, nn

from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import PRESETS, AIMNet2Spec

MOLECULES, ATOMS = 16, 27
REPEATS = 15
FIDELITIES = 3
Data = dict[str, Tensor]


def structures() -> Data:
    """Atoms on a jittered grid: every molecule as crowded as a real one."""
    axis = torch.arange(3.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3) * 1.4
    elements = torch.tensor([1, 6, 7, 8])
    return {
        "coord": grid + 0.1 * torch.randn(MOLECULES, ATOMS, 3),
        "numbers": elements[torch.randint(4, (MOLECULES, ATOMS))],
        "charge": torch.zeros(MOLECULES),
        "mult": torch.ones(MOLECULES),
    }


def loss(out: Data) -> Tensor:
    """Squares of everything that training compares with labels."""
    names = ("energy", "forces", "charges", "spin_charges")
    return torch.stack([out[name].square().mean() for name in names if name in out]).sum()


def ours(model: AIMNet2, data: Data, train: bool) -> None:
    """One evaluation or one step of our model."""
    out = energy_and_forces(model, data, train)
    if train:
        loss(out).backward()


def peer() -> nn.Module | None:
    """PyPI aimnet's model with its own force module; None where it is not installed."""
    spec = importlib.util.find_spec("aimnet")
    if spec is None or spec.origin is None:
        return None
    from aimnet.config import build_module
    from aimnet.modules import Forces

    config = yaml.safe_load((Path(spec.origin).parent / "models/aimnet2.yaml").read_text())
    config["kwargs"]["num_charge_channels"] = 2
    return Forces(build_module(config))


def candidates(data: Data) -> dict[str, Callable[[bool], None]]:
    """Every model as a function of whether to take a gradient."""
    offset = 200 * (torch.arange(MOLECULES) % FIDELITIES)[:, None]
    mixed = {**data, "numbers": data["numbers"] + offset}
    single = AIMNet2(AIMNet2Spec())
    multi = AIMNet2(AIMNet2Spec(num_fidelities=FIDELITIES))
    small = AIMNet2(AIMNet2Spec(**{**PRESETS["small"], "num_fidelities": FIDELITIES}))
    found: dict[str, Callable[[bool], None]] = {
        "mlff, one fidelity": lambda train: ours(single, data, train),
        "mlff, three fidelities": lambda train: ours(multi, mixed, train),
        "mlff, small preset": lambda train: ours(small, mixed, train),
    }
    other = peer()
    if other is None:
        print("aimnet is not installed (make bench-peers): no ratio")
        return found

    def run_peer(train: bool) -> None:
        out = other({name: values.clone() for name, values in data.items()})
        if train:
            loss(out).backward()

    return {"aimnet": run_peer, **found}


def main() -> None:
    """Molecules per second, medians of repeats taken by turns."""
    torch.manual_seed(0)
    models = candidates(structures())
    for train, title in ((True, "training step"), (False, "energy and forces")):
        times: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(REPEATS):
            for name, call in models.items():
                start = perf_counter()
                call(train)
                times[name].append(perf_counter() - start)
        rates = {name: MOLECULES / statistics.median(t[2:]) for name, t in times.items()}
        for name, rate in rates.items():
            ratio = f"{rate / rates['aimnet']:6.2f} x aimnet" if "aimnet" in rates else ""
            print(f"{title:18s} {name:24s} {rate:8.1f} molecules/s {ratio}")


if __name__ == "__main__":
    main()
