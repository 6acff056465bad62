"""Do cheap labels help? All fidelities against DFT alone, at equal DFT labels and DFT samples seen.

Both runs take the same number of steps, and every step sees the same number of DFT molecules; the
multi-fidelity run sees as many GFN2 and GFN1 molecules on top. Errors are of fidelity 0 on the
molecules of `data/test_fid0.h5`, which no training set holds. Each kind of run has the learning
rate of the embeddings that suits it: with several fidelities they start equal and should part
slowly; DFT alone does better when they move fast.

    python compare_fidelities.py            # three seeds; writes out/compare/comparison.json

Finished runs are kept: a stopped comparison continues, `rm -r out/compare` starts anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
DFT_PER_BATCH = 16
STEPS_PER_EPOCH = 100
RUNS = {
    "DFT alone": ((0,), "optimizer.param_groups.embeddings.lr=1.0e-3"),
    "all fidelities": ((0, 1, 2), "optimizer.param_groups.embeddings.lr=1.0e-4"),
}
QUANTITIES = {"energy": "energy RMSE (kcal/mol)", "forces": "force RMSE (kcal/mol/A)"}


def train_and_evaluate(mlff: str, out: Path, name: str, seed: int, epochs: int) -> dict[str, float]:
    """One training from scratch and its errors on unseen molecules.

    Returns:
        RMSE of energy and forces at fidelity 0, kcal/mol and kcal/mol/A.
    """
    fidelities, own = RUNS[name]
    stem = out / f"{name.replace(' ', '_')}_{seed}"
    overrides = [f"data.fidelity_datasets.{k}={HERE}/data/fid{k}.h5" for k in fidelities]
    overrides += [f"data.sae.energy.files.{k}={HERE}/out/sae_fid{k}.yaml" for k in fidelities]
    overrides += [f"data.fidelity_weights.{k}=1.0" for k in fidelities]
    overrides += [
        f"data.samplers.train.kwargs.batch_size={DFT_PER_BATCH * len(fidelities)}",
        f"data.samplers.train.kwargs.batches_per_epoch={STEPS_PER_EPOCH}",
        f"trainer.epochs={epochs}",
        own,
    ]
    model, errors = stem.with_suffix(".pt"), stem.with_suffix(".json")
    if not errors.exists():
        train = [mlff, "train", "--config", str(HERE / "train.yaml"), "--save", str(model)]
        train += ["--model", str(HERE / "model.yaml"), "--seed", str(seed), "--force", *overrides]
        test = [mlff, "evaluate", str(model), f"0={HERE}/data/test_fid0.h5", "-o", str(errors)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # several trainings, a core each
        with stem.with_suffix(".log").open("w") as stream:
            for command in (train, [*test, "--no-figures"]):
                subprocess.run(command, check=True, stdout=stream, stderr=stream, env=environment)
    result = json.loads(errors.read_text())["results"][0]["errors"]
    return {quantity: result[quantity]["rmse"] for quantity in QUANTITIES}


def draw(results: dict[str, list[dict[str, float]]], figure: Path) -> None:
    """One panel per quantity: every seed a dot, the mean a bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, len(QUANTITIES), figsize=(7, 3.4), layout="constrained")
    colours = ("#9aa5b1", "#1f6fb4")
    for axis, (quantity, title) in zip(axes, QUANTITIES.items(), strict=True):
        for x, runs in enumerate(results.values()):
            values = [run[quantity] for run in runs]
            axis.bar(x, statistics.mean(values), width=0.55, color=colours[x], zorder=2)
            axis.scatter([x] * len(values), values, s=22, color="black", zorder=3)
            axis.annotate(
                f"mean {statistics.mean(values):.2f}",
                (x, max(values)),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
            )
        axis.set_xticks(range(len(results)), list(results))
        axis.set_title(title, fontsize=10)
        axis.margins(y=0.15)
        axis.grid(axis="y", alpha=0.3, zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    fig.suptitle(
        "Fidelity 0 (PBE/def2-SVP) on unseen molecules; same DFT labels, same DFT samples seen",
        fontsize=10,
    )
    figure.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(figure, dpi=160, metadata={"Software": None})
    plt.close(fig)


def main() -> None:
    """Train both kinds for every seed, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mlff", default="mlff", help="the command to call")
    parser.add_argument("--out", type=Path, default=HERE / "out/compare")
    parser.add_argument("--figure", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    jobs = [(name, seed) for seed in range(args.seeds) for name in reversed(RUNS)]
    with ThreadPoolExecutor(args.jobs) as pool:
        done = pool.map(
            lambda job: train_and_evaluate(args.mlff, args.out, *job, args.epochs), jobs
        )
        by_job = dict(zip(jobs, done, strict=True))
    results = {name: [by_job[name, s] for s in range(args.seeds)] for name in RUNS}

    alone, together = results.values()
    summary: dict[str, object] = {"epochs": args.epochs, "runs": results}
    for quantity, title in QUANTITIES.items():
        ratios = [b[quantity] / a[quantity] for a, b in zip(alone, together, strict=True)]
        summary[f"{quantity}_ratio"] = ratios
        for name, runs in results.items():
            values = [run[quantity] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{title:26s} {name:15s} {statistics.mean(values):7.3f} +- {spread:.3f}")
        print(
            f"{title:26s} {'ratio':15s} {statistics.mean(ratios):7.3f}  (per seed: "
            + ", ".join(f"{r:.3f}" for r in ratios)
            + ")"
        )
    (args.out / "comparison.json").write_text(json.dumps(summary, indent=2) + "\n")
    if args.figure:
        draw(results, args.figure)
        print(f"figure: {args.figure}")


if __name__ == "__main__":
    main()
