"""Free energy of phi and psi: coarse-grained models beside the all-atom reference.

    python compare_maps.py out/reference.npz out/10/prior.h5 out/*/*/model.pt -o out/divergence.png
    python compare_maps.py ... --check out/10/optimal/simulation.h5

One simulation of a prior gives the distribution of every model: its frame t weighs

    w_t = exp(-(E_model(R_t) - E_prior(R_t)) / kT),    independent frames left: (sum w)^2 / sum w^2

of those there are, as a share. Simulations of single models (`--check`) say whether that holds.

Two measures, both Jensen-Shannon divergences in nats of 36 x 36 cells:

- blocks: all frames. The reference is cut into blocks of 1 ns; half of them, drawn many times, are
  compared with the other half (the floor) and with as many independent frames of a simulation,
  whole replicas. Frames that are correlated fill a basin well and say as little as few frames about
  how much each basin weighs; floor and divergence share that.
- independent (`--check` alone): equal numbers of independent frames of both sides, and the floor of
  two halves of the reference, as `mlff evaluate` has them. 40 ns hold some 750: too few to tell
  good models apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from matplotlib.figure import Figure

from mlff_cli.data.model_file import load_model_file
from mlff_cli.deploy.beads.artifact import bead_potential_of
from mlff_cli.physics.ensembles.decorrelation import decorrelated, statistical_inefficiency
from mlff_cli.physics.ensembles.divergence import compare, jensen_shannon
from mlff_cli.physics.ensembles.free_energy import free_energy
from mlff_cli.physics.ensembles.histograms import circle, grid_cells
from mlff_cli.physics.internal_coordinates import dihedrals
from mlff_cli.potentials.bead_topology import BeadTopology

BEADS = np.array([[0, 1, 2, 4], [1, 2, 4, 5]])  # of C N CA CB C N: phi, psi
BINS = 36
KT = 0.0019872041 * 300  # kcal/mol
KJ = 4.184  # per kcal
INTERVAL = 0.2  # ps, of the reference
BLOCK = 1000.0  # ps
FORGETTING = 15.0  # ps of a simulation that are left out: it began at frames of the reference
DRAWS = 100
COLOURS = {"basic": "#c8553d", "optimal": "#3b6c8f"}
FAINT = "#8b97a5"


class Runs:
    """Several runs of one length.

    Args:
        angles: (runs, frames, 2) phi and psi.
        interval: ps between frames.
        weights: (runs, frames) of frames; None: all alike.
    """

    def __init__(
        self, angles: np.ndarray, interval: float, weights: np.ndarray | None = None
    ) -> None:
        self.angles, self.interval = angles, interval
        axes = (circle(BINS), circle(BINS))
        phi, psi = (angles[..., k] for k in range(2))
        self.cells = grid_cells([phi.ravel(), psi.ravel()], axes).reshape(phi.shape)
        self.weights = np.ones(phi.shape) if weights is None else weights
        self.g = max(
            statistical_inefficiency([np.stack([np.cos(x), np.sin(x)], 1) for x in angle])
            for angle in (phi, psi)
        )

    def weighted(self, weights: np.ndarray) -> Runs:
        """The same frames, each counted so often."""
        return Runs(self.angles, self.interval, weights)

    def independent(self) -> np.ndarray:
        """Cells of frames that are independent of each other."""
        return self.cells.ravel()[decorrelated([self.cells.shape[1]] * len(self.cells), self.g)]

    def counts(self, runs: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Weight in every cell."""
        cells, weights = self.cells[runs].ravel(), self.weights[runs].ravel()
        return np.bincount(cells, weights, minlength=BINS * BINS)

    @property
    def share(self) -> float:
        """Of the frames that the weights leave."""
        w = self.weights
        return float(w.sum() ** 2 / (w**2).sum() / w.size)

    @property
    def n_effective(self) -> float:
        """How many independent frames they are worth."""
        return self.cells.size / self.g * self.share


def reference_of(path: Path) -> tuple[Runs, Runs]:
    """The runs of a mapped set, and the same in blocks."""
    with np.load(path) as cg:
        angles = dihedrals(cg["R"].astype(np.float64), BEADS)
        n_runs = len(np.unique(cg["source"]))
    runs = Runs(angles.reshape(n_runs, -1, 2), INTERVAL)
    blocks = Runs(angles.reshape(-1, round(BLOCK / INTERVAL), 2), INTERVAL)
    blocks.g = runs.g
    return runs, blocks


def simulation_of(path: Path) -> tuple[Runs, np.ndarray, np.ndarray]:
    """Every replica a run; also positions (frames, n, 3) in angstrom and energies in kcal/mol."""
    with h5py.File(path) as file:
        time = file["particles/all/position/time"][:]
        kept = time > FORGETTING
        x = 10.0 * file["particles/all/position/value"][:][kept].astype(np.float64)
        energy = file["observables/potential_energy/value"][:][kept] / KJ
    times = np.unique(time[kept])
    angles = dihedrals(x, BEADS).reshape(len(times), -1, 2).swapaxes(0, 1)
    return Runs(angles, float(times[1] - times[0])), x, energy


def weights_of(model: Path, x: np.ndarray, energy: np.ndarray, n_replicas: int) -> np.ndarray:
    """(replicas, frames) weights of frames that were drawn with other energies."""
    file = load_model_file(model)
    topology = BeadTopology.from_plain(file.molecules[0])
    potential = bead_potential_of(file, topology, "full", torch.device("cpu"))
    own = [potential(part)[0].detach() for part in torch.from_numpy(x).split(2048)]
    difference = (torch.cat(own).numpy() - energy) / KT
    w = np.exp(difference.min() - difference)
    return np.asarray(w.reshape(-1, n_replicas).T)


def by_blocks(blocks: Runs, other: Runs | None, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of the divergence; the floor's where there is no other."""
    rng = np.random.default_rng(seed)
    half = len(blocks.cells) // 2
    found = []
    for _ in range(DRAWS):
        drawn = rng.permutation(len(blocks.cells))
        if other is None:
            q = blocks.counts(drawn[half:])
        else:
            share = min(1.0, 0.5 * blocks.n_effective / other.n_effective)
            n = max(1, round(share * len(other.cells)))
            q = other.counts(rng.permutation(len(other.cells))[:n])
        found.append(jensen_shannon(blocks.counts(drawn[:half]), q))
    return float(np.mean(found)), float(np.std(found))


def measure(runs: Runs, blocks: Runs) -> dict[str, Any]:
    """What is told of any distribution."""
    mean, std = by_blocks(blocks, runs)
    return {
        "blocks": mean,
        "blocks_std": std,
        "independent_frames": runs.n_effective,
        "share": runs.share,
        "ps_per_independent_frame": runs.g * runs.interval,
    }


def frames_needed(frames: np.ndarray, divergence: np.ndarray, limit: float) -> float | None:
    """Where the curve falls below the limit for good, its logarithms joined by straight lines."""
    above = np.flatnonzero(divergence > limit)
    if not len(above):
        return float(frames[0])
    k = above[-1]
    if k == len(frames) - 1:
        return None
    x, y = np.log(frames[k : k + 2]), np.log(divergence[k : k + 2])
    return float(np.exp(x[0] + (np.log(limit) - y[0]) / (y[1] - y[0]) * (x[1] - x[0])))


def draw(
    rows: list[dict[str, Any]],
    counts: dict[str, np.ndarray],
    floor: float,
    prior: float,
    path: Path,
) -> None:
    """Divergence against frames, and planes of free energy."""
    figure = Figure(figsize=(3.6 + 2.4 * len(counts), 3.3), layout="constrained")
    left, *planes = figure.subplots(1, 1 + len(counts), width_ratios=[1.6, *[1] * len(counts)])
    for force_map, colour in COLOURS.items():
        mine = [r for r in rows if r["map"] == force_map]
        x, y, dy = ([r[k] for r in mine] for k in ("frames", "blocks", "blocks_std"))
        left.errorbar(x, y, dy, marker="o", ms=4, capsize=2, color=colour, label=force_map)
    for value, style, told in (
        (floor, "-", "floor"),
        (3 * floor, "--", "3 x floor"),
        (prior, ":", "prior alone"),
    ):
        left.axhline(value, color=FAINT, ls=style, lw=1)
        left.annotate(told, (0.99, value), xycoords=("axes fraction", "data"), ha="right",
                      va="bottom", fontsize=7, color=FAINT)  # fmt: skip
    left.set(xscale="log", yscale="log", xlabel="frames trained on")
    left.set_ylabel("Jensen-Shannon divergence (nats)")
    left.legend(frameon=False, fontsize=8, title="force map", title_fontsize=8)
    edges = np.degrees(circle(BINS).edges)
    for axes, (title, found) in zip(planes, counts.items(), strict=True):
        f = free_energy(found.reshape(BINS, BINS), KT)
        shown = np.where(np.isfinite(f), f, np.nan).T
        image = axes.pcolormesh(edges, edges, shown, vmin=0, vmax=5, rasterized=True)
        axes.set(xlabel=r"$\phi$", aspect="equal", xticks=[-180, 0, 180], yticks=[-180, 0, 180])
        axes.set_title(title, fontsize=9)
    planes[0].set_ylabel(r"$\psi$")
    figure.colorbar(image, ax=planes, shrink=0.8, label="kcal/mol")
    figure.savefig(path, dpi=170)


def main() -> None:
    """Measure, tell, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reference", type=Path, help="mapped set of all frames")
    parser.add_argument("simulation", type=Path, help="of the prior alone")
    parser.add_argument("models", type=Path, nargs="+", help=".../STRIDE/MAP/model.pt")
    parser.add_argument("--check", type=Path, nargs="*", default=[], help="simulations of models")
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)

    reference, blocks = reference_of(asked.reference)
    floor, floor_std = by_blocks(blocks, None)
    print(f"reference: {reference.cells.size} frames, {reference.n_effective:.0f} independent "
          f"(one each {reference.g * reference.interval:.0f} ps)")  # fmt: skip
    print(f"floor {floor:.5f} +- {floor_std:.5f} nats, three times {3 * floor:.5f}")
    runs, x, energy = simulation_of(asked.simulation)
    told = {"prior": measure(runs, blocks)}
    counts = {"all atoms": blocks.counts(), "prior alone": runs.counts()}

    rows = []
    for path in asked.models:
        stride, force_map = path.parts[-3:-1]
        frames = reference.cells.size // int(stride)
        own = runs.weighted(weights_of(path, x, energy, len(runs.cells)))
        rows.append({"map": force_map, "frames": frames, **measure(own, blocks)})
        counts[f"{force_map}, {frames} frames"] = own.counts()
    rows.sort(key=lambda row: row["frames"])
    for path in asked.check:
        own, *_ = simulation_of(path)
        literal = compare(reference.independent(), own.independent(), BINS * BINS)
        told[str(path)] = {**measure(own, blocks), "independent": literal.divergence.mean,
                           "independent_floor": literal.floor.mean}  # fmt: skip

    for name, row in [*told.items(), *((f"{r['map']} {r['frames']}", r) for r in rows)]:
        more = f", independent {row['independent']:.3f}" if "independent" in row else ""
        value = (
            f"{row['blocks']:.5f} +- {row['blocks_std']:.5f} ({row['blocks'] / floor:.1f} x floor)"
        )
        print(f"{name:30} {value}, {row['independent_frames']:.0f} independent frames{more}")
    needed = {}
    for force_map in COLOURS:
        mine = [r for r in rows if r["map"] == force_map]
        y = (np.array([r[key] for r in mine], float) for key in ("frames", "blocks"))
        needed[force_map] = frames_needed(*y, 3 * floor)
    print(f"frames needed for three times the floor: {needed}")
    most = max(row["frames"] for row in rows)
    shown = {k: v for k, v in counts.items() if "frames" not in k or f" {most} " in k}
    draw(rows, shown, floor, told["prior"]["blocks"], asked.output)
    kept = {"floor": floor, "floor_std": floor_std, "frames_needed": needed, "rows": rows, **told,
            "reference_independent": reference.n_effective}  # fmt: skip
    asked.output.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
