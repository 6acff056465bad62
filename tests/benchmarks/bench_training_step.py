"""A training step and energy plus forces of AIMNet2, beside PyPI aimnet's model.

    python -m tests.benchmarks.bench_training_step                     # minutes: it compiles
    python -m tests.benchmarks.bench_training_step --no-compile
    python -m tests.benchmarks.bench_training_step --device cuda       # 32 molecules, tf32 and bf16
    python -m tests.benchmarks.bench_training_step -o docs/benchmarks  # keep the result

Molecules of 27 atoms at the published size with two charge channels; a step is energy, forces,
charges and the gradient of a loss of all three. Models run by turns in one process, medians. The
share of time in matrix products comes from torch.profiler: aten's mm, addmm, bmm and baddbmm.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mlff_cli.families.multifidelity import predict
from mlff_cli.potentials.aimnet2.derivatives import energy_and_forces
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import PRESETS, AIMNet2Spec
from mlff_cli.training.compiled import CompiledBackward
from mlff_cli.training.losses import LossValue
from mlff_cli.training.precision import Precision, matrix_products, mixed

ATOMS = 27
MOLECULES = {"cpu": 16, "cuda": 32}
REPEATS = 15
WARM_UP = 2
FIDELITIES = 3
TARGETS = {"cpu": 1.4, "cuda": 3.0}  # times aimnet, training with one fidelity
TARGET_SHARE = 0.65
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
COLUMNS = ("model", "training (molecules/s)", "x aimnet", "matrix products", "energy and forces")
Data = dict[str, Tensor]
Step = Callable[[bool], object]


def structures(molecules: int, device: torch.device) -> Data:
    """Atoms on a jittered grid: every molecule as crowded as a real one."""
    axis = torch.arange(3.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3) * 1.4
    elements = torch.tensor([1, 6, 7, 8])
    data = {
        "coord": grid + 0.1 * torch.randn(molecules, ATOMS, 3),
        "numbers": elements[torch.randint(4, (molecules, ATOMS))],
        "charge": torch.zeros(molecules),
        "mult": torch.ones(molecules),
    }
    return {name: values.to(device) for name, values in data.items()}


def loss(out: Data) -> Tensor:
    """Squares of everything that training compares with labels."""
    names = ("energy", "forces", "charges", "spin_charges")
    return torch.stack([out[name].square().mean() for name in names if name in out]).sum()


class Squares(nn.Module):
    """The same loss as a compiled step takes it."""

    def forward(self, predicted: Data, batch: Data, whole: Tensor) -> LossValue:
        total = loss(predicted)
        return LossValue(total, total.detach().reshape(1), whole)


def ours(model: AIMNet2, data: Data, precision: Precision = "full") -> Step:
    """Our model, operation by operation."""

    def run(train: bool) -> None:
        with matrix_products(precision, data["coord"].device):
            with mixed(precision, data["coord"].device):
                out = energy_and_forces(model, data, train)
            if train:
                loss(out).backward()

    return run


def compiled(model: AIMNet2, data: Data, precision: Precision = "full") -> Step:
    """Our model's compiled training step; energy and forces stay as they are."""
    device = data["coord"].device
    task: Any = SimpleNamespace(model=model, loss=Squares(), predict=predict)
    with matrix_products(precision, device):
        backward = CompiledBackward(task, precision)
    batch: Any = SimpleNamespace(tensors=data, labels=frozenset({"energy", "forces", "charges"}))
    whole = torch.ones(1, device=device)
    plain = ours(model, data, precision)

    def run(train: bool) -> None:
        if not train:
            return plain(False)
        with matrix_products(precision, device):
            backward(batch, whole)
        return None

    return run


def peer(data: Data) -> Step | None:
    """PyPI aimnet's model with its own force module; None where it is not installed."""
    spec = importlib.util.find_spec("aimnet")
    if spec is None or spec.origin is None:
        return None
    from aimnet.config import build_module
    from aimnet.modules import Forces

    config = yaml.safe_load((Path(spec.origin).parent / "models/aimnet2.yaml").read_text())
    config["kwargs"]["num_charge_channels"] = 2
    model = Forces(build_module(config)).to(data["coord"].device)

    def run(train: bool) -> None:
        out = model({name: values.clone() for name, values in data.items()})
        if train:
            loss(out).backward()

    return run


def candidates(data: Data, compile_too: bool) -> dict[str, Step]:
    """Every model as a function of whether to take a gradient."""
    device = data["coord"].device
    offset = 200 * (torch.arange(len(data["coord"]), device=device) % FIDELITIES)[:, None]
    mixture = {**data, "numbers": data["numbers"] + offset}

    def model(**options: object) -> AIMNet2:
        return AIMNet2(AIMNet2Spec.model_validate(options)).to(device)

    found: dict[str, Step] = {}
    other = peer(data)
    if other is None:
        print("aimnet is not installed (make bench-peers): no ratio")
    else:
        found["aimnet"] = other
    kinds: list[tuple[str, Callable[..., Step]]] = [("", ours)]
    if compile_too:
        kinds.append((", compiled", compiled))
    precisions: tuple[Precision, ...] = (
        ("full", "tf32", "bf16") if device.type == "cuda" else ("full",)
    )
    for suffix, kind in kinds:
        for precision in precisions:
            name = f"mlff, one fidelity{suffix}" + (f", {precision}" if precision != "full" else "")
            found[name] = kind(model(), data, precision)
        name = f"mlff, three fidelities{suffix}"
        found[name] = kind(model(num_fidelities=FIDELITIES), mixture)
    found["mlff, small preset"] = ours(
        model(**{**PRESETS["small"], "num_fidelities": FIDELITIES}), mixture
    )
    return found


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """An error where a step makes the host wait for the device."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def rates(
    models: dict[str, Step],
    train: bool,
    data: Data,
    repeats: int,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Molecules per second, medians of repeats taken by turns."""
    device = data["coord"].device
    for name, call in models.items():
        for _ in range(WARM_UP):
            call(train)
        if name.startswith("mlff"):
            with no_waiting(device):
                call(train)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats):
        for name, call in models.items():
            wait(device)
            start = clock()
            call(train)
            wait(device)
            times[name].append(clock() - start)
    return {name: len(data["coord"]) / statistics.median(t) for name, t in times.items()}


def share_of_products(step: Step, device: torch.device) -> float:
    """Share of a training step's time that matrix products take."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as found:
        for _ in range(3):
            step(True)
        wait(device)
    total = products = 0.0
    for event in found.key_averages():
        own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        total += own
        products += own if event.key in PRODUCTS else 0.0
    return products / total


def markdown(result: dict[str, Any]) -> str:
    """The result as a page that says how it was made."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in result["rows"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return (
        f"# A training step of AIMNet2 ({result['device']})\n\n"
        f"Written by `{result['command']}` on {result['date']}.\n\n{table}\n\n"
        f"{result['molecules']} molecules of {ATOMS} atoms, medians of {result['repeats']} steps "
        f"by turns, {result['clock']} time of {result['threads']} threads, load "
        f"{result['load']:.1f}; {versions}.\n"
    )


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the printed table; a missing peer leaves dashes."""
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
    rate, forces = f"{row['training']:.1f}", f"{row['forces']:.1f}"
    return row["model"], rate, ratio, f"{100 * row['products']:.0f} %", forces


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print and return the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=sorted(MOLECULES), default="cpu")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--molecules", type=int)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own number)")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="the time that the processor spent on this process: with --threads 1 on a machine "
        "that others use, too",
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for training_step_DEVICE.*")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = process_time if options.cpu_time else perf_counter
    torch.manual_seed(0)
    data = structures(options.molecules or MOLECULES[options.device], device)
    models = candidates(data, not options.no_compile)
    training = rates(models, True, data, options.repeats, clock)
    forces = rates(models, False, data, options.repeats, clock)
    rows: list[dict[str, Any]] = []
    for name, step in models.items():
        row = {"model": name, "training": training[name], "forces": forces[name]}
        row["products"] = share_of_products(step, device)
        if "aimnet" in training:
            row["ratio"] = training[name] / training["aimnet"]
        rows.append(row)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    installed = importlib.util.find_spec("aimnet") is not None
    result = {
        "command": f"python -m tests.benchmarks.bench_training_step --device {options.device}",
        "date": date.today().isoformat(),
        "device": gpu or f"CPU, {platform.machine()}",
        "molecules": len(data["coord"]),
        "repeats": options.repeats,
        "clock": "CPU" if options.cpu_time else "wall",
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],  # what else the machine was doing
        "versions": {
            "torch": version("torch"),
            "aimnet": version("aimnet") if installed else "absent",
        },
        "rows": rows,
    }
    print(markdown(result))
    print(
        f"targets: one fidelity {TARGETS[options.device]} x aimnet or more, matrix products "
        f"{100 * TARGET_SHARE:.0f} % or more"
    )
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        stem = options.output / f"training_step_{options.device}"
        stem.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
        stem.with_suffix(".md").write_text(markdown(result))
    return result


if __name__ == "__main__":
    main()
