"""Free energy of phi and psi by the number of frames, for two force maps.

    python compare_maps.py out -o out/divergence.png

Reads OUT/STRIDE/MAP/evaluation.json (`mlff evaluate`), the simulations beside them and
OUT/prior/evaluation.json. The divergence is that of Jensen and Shannon in 36 x 36 cells, in nats,
beside the one that two halves of the reference have (the floor):

- blocks: frames in blocks as long as their correlation. Equally many blocks on both sides.
- single: one frame of every block, equally many on both sides.

All replicas began in one conformation. The share of the alpha basin (phi < 0, psi within 60 degrees
of -40) in windows of a simulation says whether they still remember it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from matplotlib.figure import Figure

from mlff_cli.physics.internal_coordinates import dihedrals

BEADS = np.array([[0, 1, 2, 4], [1, 2, 4, 5]])  # of C N CA CB C N: phi, psi
ALPHA = (np.radians(-40.0), np.radians(60.0))  # psi: middle, half a width
WINDOW = 10.0  # ps
FRAMES = 200_000
COLOURS = {"basic": "#c8553d", "optimal": "#3b6c8f"}
FAINT = "#8b97a5"


def alpha(positions: np.ndarray) -> np.ndarray:
    """Whether conformations (n, 6, 3) lie in the alpha basin, (n,)."""
    phi, psi = dihedrals(positions.astype(np.float64), BEADS).T
    away = np.angle(np.exp(1j * (psi - ALPHA[0])))
    return np.asarray((phi < 0) & (np.abs(away) < ALPHA[1]))


def windows(path: Path) -> list[float]:
    """Share of the alpha basin in successive windows of a simulation."""
    with h5py.File(path) as file:
        time = file["particles/all/position/time"][:]
        inside = alpha(file["particles/all/position/value"][:])
    window = np.ceil(time / WINDOW - 1e-9).astype(int)
    return [float(inside[window == k].mean()) for k in np.unique(window[window > 0])]


def row(path: Path) -> dict[str, Any]:
    """What one evaluation says of phi and psi."""
    found = json.loads(path.read_text())
    plane = next(p for p in found["ensembles"]["planes"] if "phi" in p["variables"][0])
    return {
        **{k: plane[k] for k in ("divergence", "divergence_std", "floor", "ratio", "block")},
        "rms_difference": plane["rms_difference"],
        "single": {k: plane["independent"][k] for k in ("divergence", "floor", "ratio", "frames")},
        "alpha_in_windows": windows(path.with_name("simulation.h5")),
    }


def draw(rows: list[dict[str, Any]], prior: dict[str, Any], path: Path) -> None:
    """Divergence over its floor against frames."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("blocks", "single"), ("blocks", "single frames"), strict=True
    ):
        for name, colour in COLOURS.items():
            mine = [r for r in rows if r["map"] == name]
            y = [r["ratio"] if key == "blocks" else r["single"]["ratio"] for r in mine]
            axes.plot([r["frames"] for r in mine], y, marker="o", ms=4, color=colour, label=name)
        alone = prior["ratio"] if key == "blocks" else prior["single"]["ratio"]
        for value, style, told in (
            (1.0, "-", "floor of the reference"),
            (3.0, "--", "3 x floor"),
            (alone, ":", "prior alone"),
        ):
            axes.axhline(value, color=FAINT, ls=style, lw=1)
            side = "top" if value == 1.0 else "bottom"
            axes.annotate(told, (0.99, value), xycoords=("axes fraction", "data"), ha="right",
                          va=side, fontsize=7, color=FAINT)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="frames", title=title)
        axes.set_yticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
        frames = sorted({r["frames"] for r in rows})
        axes.set_xticks(frames, [f"{n:,}".replace(",", " ") for n in frames])
        axes.minorticks_off()
        axes.set_ylim(0.8, prior["ratio"] * 1.4)
    figure.axes[0].set_ylabel("divergence of phi and psi / floor")
    figure.axes[0].legend(frameon=False, fontsize=8, title="force map", title_fontsize=8)
    figure.savefig(path, dpi=170)


def main() -> None:
    """Collect, tell, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    found = asked.folder.glob("*/*/evaluation.json")
    rows = [
        {"map": path.parts[-2], "frames": FRAMES // int(path.parts[-3]), **row(path)}
        for path in found
    ]
    rows.sort(key=lambda r: (r["map"], r["frames"]))
    prior = row(asked.folder / "prior" / "evaluation.json")
    with np.load(asked.folder / "1" / "mapped.npz") as cg:
        share = float(alpha(cg["R"]).mean())
    print(f"reference: alpha basin {share:.3f}; floor {prior['floor']:.4f} (blocks), "
          f"{prior['single']['floor']:.3f} (single)")  # fmt: skip
    for r in [*rows, {"map": "prior", "frames": 0, **prior}]:
        shares = " ".join(f"{a:.2f}" for a in r["alpha_in_windows"])
        print(f"{r['map']:8} {r['frames']:7} blocks {r['divergence']:.4f} = {r['ratio']:5.2f} x, "
              f"single {r['single']['divergence']:.3f} = {r['single']['ratio']:.2f} x, "
              f"free energies off by {r['rms_difference']:.2f} kcal/mol, alpha "
              f"{shares}")  # fmt: skip
    draw(rows, prior, asked.output)
    told = {"alpha_of_reference": share, "prior": prior, "rows": rows}
    asked.output.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
