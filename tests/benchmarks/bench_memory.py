"""Memory of training steps: the estimate beside what a process really takes on a CPU.

Every case is a process of its own that trains on synthetic molecules through the real family and
stepper. Measured is the highest resident memory of four steps, less what the process had before
them, with its weights.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.sae import write_sae
from mlff_cli.families.base import Inputs
from mlff_cli.families.configure import configure
from mlff_cli.training.distributed import World
from mlff_cli.training.fit import build_stepper
from mlff_cli.training.memory import StepMemory
from tests.synthetic import self_energy, write_dataset

STEPS = 4
# preset, molecules per batch, atoms of the smallest and of the largest molecule, other settings
CASES: tuple[tuple[str, int, int, int, tuple[str, ...]], ...] = (
    ("default", 16, 27, 27, ()),
    ("default", 64, 27, 27, ()),
    ("default", 128, 27, 27, ()),
    ("default", 256, 10, 10, ()),
    ("default", 24, 60, 60, ()),
    ("default", 96, 5, 40, ()),
    ("default", 96, 5, 40, ("data.samplers.train.kwargs.split=3",)),
    ("default", 64, 27, 27, ("trainer.ema_decay=0.99", "optimizer.class=torch.optim.SGD")),
    ("default", 64, 27, 27, ("trainer.precision=bf16",)),
    ("default", 96, 27, 27, ("data.y=[energy]", "loss.kwargs.components.forces.weight=0",
                             "loss.kwargs.components.charges.weight=0",
                             "loss.kwargs.components.spin_charges.weight=0")),
    ("default", 2, 5, 5, ()),
    ("small", 4, 5, 5, ()),
    ("small", 32, 12, 12, ()),
    ("small", 64, 27, 27, ()),
    ("small", 256, 27, 27, ()),
    ("small", 96, 5, 40, ("data.samplers.train.kwargs.split=1",)),
    ("small", 512, 12, 12, ("model.num_charge_channels=2",)),
)  # fmt: skip


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(r.split()[1]) << 10 for r in rows if r.startswith(f"{name}:"))


def measure(folder: Path, preset: str, overrides: Sequence[str]) -> dict[str, float]:
    """Estimate and measured memory of this process, in bytes."""
    data = (
        f"data.fidelity_datasets.0={folder / 'data.h5'}",
        f"data.sae.energy.files.0={folder / 'sae.yaml'}",
    )
    family, settings = configure(preset, [], [*data, *overrides], "model")
    inputs = Inputs(None, None, torch.device("cpu"), torch.float32, "bench", World(), 0)
    task = family.prepare(settings, inputs, NullReporter()).task
    stepper = build_stepper(task, settings, World())
    memory = StepMemory(
        task,
        stepper.optimizer,
        average=stepper.average is not None,
        precision=settings.trainer.precision,
    )
    batches = [task.train_batch(step) for step in range(STEPS)]
    estimate = max((memory.of(parts) for parts in batches), key=lambda e: e.total)
    before = resident("VmRSS")
    for step, parts in enumerate(batches):
        stepper(step, parts)
    return {"estimate": estimate.total, "measured": resident("VmHWM") - before + estimate.weights}


def run_case(preset: str, batch: int, low: int, high: int, more: Sequence[str]) -> dict[str, float]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data.h5", 2 * batch, sizes=range(low, high + 1))
        write_sae(folder / "sae.yaml", {z: float(self_energy(z)) for z in (1, 6, 7, 8)})
        sampler = "data.samplers.train.kwargs"
        size = (f"{sampler}.batch_mode=molecules", f"{sampler}.batch_size={batch}")
        module = ("-m", "tests.benchmarks.bench_memory")
        command = [sys.executable, *module, name, preset, *size, *more]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Print a table; fails when an estimate is off by more than a third."""
    ratios = []
    print("preset    molecules  atoms   MB estimated  MB measured  ratio")
    for preset, batch, low, high, more in CASES:
        found = run_case(preset, batch, low, high, more)
        ratios.append(found["estimate"] / found["measured"])
        atoms = f"{low}-{high}" if low < high else f"{low}"
        estimate, measured = found["estimate"] / 2**20, found["measured"] / 2**20
        row = f"{preset:9} {batch:9}  {atoms:6} {estimate:13.0f} {measured:12.0f} {ratios[-1]:6.2f}"
        print(f"{row}  {' '.join(more)}", flush=True)
    print(
        f"median ratio {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}"
    )
    return int(max(abs(r - 1) for r in ratios) > 0.33)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])))
    else:
        sys.exit(main())
