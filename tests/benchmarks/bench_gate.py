"""The energy gate at work: its cost, and a run that explodes with and without it.

    python -m tests.benchmarks.bench_gate cost       share of a training step that the gate takes
    python -m tests.benchmarks.bench_gate recovery   docs/figures/gate_recovery.png and its numbers

Alanine dipeptide, 300 to 450 K, `ic-spline`. The explosion: in one step of the run every weight is
displaced at random, so that forward energies are those of the seed's failure (2.6e5 kJ/mol). What
follows is the training as it is, behind the gate in its two modes and without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.gate_log import read_gate_log
from mlff_cli.data.gate_records import BatchRecord
from mlff_cli.families.base import Inputs
from mlff_cli.families.configure import configure
from mlff_cli.training.distributed import World
from mlff_cli.training.fit import build_stepper
from mlff_cli.training.gate_journal import GATE_LOG
from mlff_cli.training.step import Stepper
from mlff_cli.training.task import Batch, Task
from tests.transport_frames import write_frames

RUNS = {
    "gate, safe": ("gate.mode=safe",),
    "gate, seed's": ("gate.mode=seed",),
    "no gate": ("use_energy_gating=false",),
}
FLOW = (  # networks that see every coordinate: a displaced one makes anything
    "flow.conditioning=all",
    "flow.splines=all",
    "flow.transforms=4",
    "flow.hidden=[48]",
    "training.weight_decay=0",
    "training.batches_per_epoch=25",
    "trainer.ema_decay=null",
    "scheduler.class=ConstantLR",
    "scheduler.kwargs={factor: 1.0}",
    "trainer.gradient_clip=10",
)
WANTED = 2.6e5  # kJ/mol, median of the forward energies after the displacement


def prepared(file: Path, *overrides: str) -> tuple[Task, Stepper]:
    """A training as `mlff train` makes it."""
    family, settings = configure("ic_300_450", (), (f"data={file}", *overrides), "m")
    cpu = torch.device("cpu")
    inputs = Inputs(None, None, cpu, torch.float32, "bench", World(), split_seed=0)
    task = family.prepare(settings, inputs, NullReporter()).task
    return task, build_stepper(task, settings, World())


# -- cost -----------------------------------------------------------------------------------------


def cost(file: Path, repeats: int) -> None:
    """CPU time of the gate beside that of a step."""
    for batch in (16, 64, 256):
        task, stepper = prepared(file, f"training.batch_size={batch}")
        assert task.journal is not None
        parts = task.train_batch(0)
        steps = []
        predicted = {k: v.detach() for k, v in task.predict(task.model, parts[0], True).items()}
        for n in range(repeats):
            start = time.process_time()
            stepper(n, parts)
            steps.append(time.process_time() - start)
            task.journal.close(n, epoch=1, at_end=True, lr=1.0, warmup=False, grad_norm=1.0)
        at_work = [
            _gate_seconds(task, predicted, parts[0], lift, 30 * repeats) for lift in (0, 1e3)
        ]
        notes = []
        for n in range(5 * repeats):
            start = time.process_time()
            task.journal.see(predicted, parts[0].tensors)
            task.journal.judge(lambda: True, World())
            task.journal.close(n, epoch=1, at_end=True, lr=1.0, warmup=False, grad_norm=1.0)
            notes.append(time.process_time() - start)
        step, j = statistics.median(steps), statistics.median(notes)
        named = {"gate, energies below E_cut": at_work[0], "above it": at_work[1], "records": j}
        told = [f"{k} {1e3 * v:.3f} ms ({100 * v / step:.2f} %)" for k, v in named.items()]
        print(f"batch {batch:3d}: step {1e3 * step:.1f} ms; {', '.join(told)}")


def _gate_seconds(
    task: Task, predicted: Mapping[str, torch.Tensor], batch: Batch, lift: float, repeats: int
) -> float:
    """CPU time that the gate adds to the loss of both directions, there and back.

    Args:
        task: whose gate it is.
        predicted: of the batch.
        batch: says E_max.
        lift: kJ/mol added to the energies.
        repeats: of which the median counts.
    """
    gate, found = task.loss.gate, []  # type: ignore[attr-defined]
    for _ in range(repeats):
        U = (predicted["fwd_U"] + lift).requires_grad_()
        log_det = predicted["fwd_logdet"].clone().requires_grad_()
        E_max = batch.tensors["E_max"]
        times = []
        for gated in (True, False):
            start = time.process_time()
            energy, volume = gate.terms(U, log_det, 0.3, E_max) if gated else (0.3 * U, log_det)
            (energy - volume).mean().backward()
            times.append(time.process_time() - start)
        found.append(2 * (times[0] - times[1]))
    return statistics.median(found)


# -- recovery -------------------------------------------------------------------------------------


def displaced(task: Task, size: float, seed: int) -> None:
    """Displace every weight at random, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def find_size(task: Task, seed: int) -> float:
    """Displacement after which the median forward energy is `WANTED`."""
    weights = {k: v.clone() for k, v in task.model.state_dict().items()}
    batch = task.train_batch(0)[0]
    low, high = 1e-3, 3.0
    for _ in range(20):
        size = (low * high) ** 0.5
        displaced(task, size, seed)
        U = task.predict(task.model, batch, False)["fwd_U"].detach()
        task.model.load_state_dict(weights)
        below = float(U[torch.isfinite(U)].median()) < WANTED
        low, high = (size, high) if below else (low, size)
    return float(size)


def run_one(
    file: Path, overrides: Sequence[str], steps: int, at: int, seed: int
) -> list[BatchRecord]:
    """Records of a training whose weights are displaced at step `at`."""
    task, stepper = prepared(file, *FLOW, "training.batch_size=32", *overrides)
    assert task.journal is not None
    with tempfile.TemporaryDirectory() as folder:
        task.journal.open(Path(folder), None)
        for n in range(steps):
            if n == at:
                displaced(task, find_size(task, seed), seed)
            try:
                stepper(n, task.train_batch(n))
            except NumericalError as error:
                print(f"  ended at step {n + 1}: {error}")
                break
            norm = float(stepper.gradient_norm)
            task.journal.close(n, epoch=n + 1, at_end=True, lr=0.0, warmup=False, grad_norm=norm)
        records = read_gate_log(Path(folder) / GATE_LOG)
    return [r for r in records if isinstance(r, BatchRecord)]


def recovery(file: Path, steps: int, at: int, out: Path, seed: int, more: Sequence[str]) -> None:
    """Run all three, print their ends and draw them."""
    found = {}
    for name, own in RUNS.items():
        print(name)
        records = found[name] = run_one(file, (*own, *more), steps, at, seed)
        middle = [(r.fwd.q50, r.fwd.q95) for r in records]
        last = [r.fwd.q50 for r in records[-20:] if r.fwd.q50 is not None]
        start = middle[at - 1][0] or 0.0
        back = [k for k, m in enumerate(middle) if k > at and m[0] is not None and m[0] <= start]
        print(
            json.dumps({
                "before": middle[at - 1],
                "after the displacement": middle[at] if len(middle) > at else None,
                "worst median": max(m[0] for m in middle if m[0] is not None),
                "first below the start": back[0] + 1 if back else None,
                "median of the last 20": statistics.median(last),
                "excess of the last": records[-1].excess_nats,
                "skipped": sum(r.skipped or 0 for r in records),
            })
        )  # fmt: skip
    draw(found, at, out)


def draw(found: dict[str, list[BatchRecord]], at: int, out: Path) -> None:
    """Median and 95 % quantile of forward energies by step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = ("#2d5f8b", "#4f8f5b", "#c8553d")
    for (name, records), color in zip(found.items(), colors, strict=True):
        x = [r.step or 0 for r in records]
        for key, style, label in (("q50", "-", f"{name}: median"), ("q95", ":", "95 %")):
            y = [getattr(r.fwd, key) for r in records]
            axes.plot(x, [float("nan") if v is None else v for v in y], style, color=color,
                      lw=1.3, label=label if key == "q50" else None)  # fmt: skip
    axes.axvline(at + 1, color="#8a94a0", lw=0.8)
    axes.text(at + 6, 0.98, "weights displaced", transform=axes.get_xaxis_transform(),
              va="top", fontsize=8.5, color="#3b4754")  # fmt: skip
    for (_, records), color in zip(found.items(), colors, strict=True):
        if len(records) < max(map(len, found.values())):
            end = (records[-1].step or 0) + 1, records[-1].fwd.q50 or 0.0
            axes.plot(*end, "x", color=color)
            axes.annotate("ended: not finite", end, color=color, fontsize=8.5, va="center",
                          xytext=(6, 0), textcoords="offset points",
                          bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
    axes.set_yscale("symlog", linthresh=100.0)
    axes.set_ylim(bottom=-300.0)
    axes.set_yticks([-100, 0, 100, 1e4, 1e6, 1e8, 1e10, 1e12])
    axes.set_xlabel("step")
    axes.set_ylabel("U(f(x)), kJ/mol (dotted: 95 % quantile)")
    axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    print(out)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="cost", choices=("cost", "recovery"))
    parser.add_argument("--data", type=Path, help="trajectory of `mlff sample`; else made frames")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--at", type=int, default=30, help="step of the displacement")
    parser.add_argument("--seed", type=int, default=1, help="of the displacement")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/gate_recovery.png"))
    parser.add_argument("--set", nargs="*", default=[], help="key=value of the configuration")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.data or write_frames(Path(folder) / "remd.h5", n=200)
        if arguments.what == "cost":
            cost(file, arguments.repeats)
        else:
            recovery(
                file, arguments.steps, arguments.at, arguments.out, arguments.seed, arguments.set
            )


if __name__ == "__main__":
    main()
