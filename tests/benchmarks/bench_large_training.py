"""Training on data larger than memory: peak memory, time waiting for batches, validation, logging.

    python -m tests.benchmarks.bench_large_training [--work FOLDER] [-o docs/benchmarks]

Writes random molecules of 10 to 40 atoms with energies and forces into several files, trains one
epoch of 200 batches through `mlff train`, the small preset, and removes the data. The molecules are
rotated copies of a few thousand conformers with exact labels: what is measured is reading.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import h5py
import numpy as np
import psutil

from mlff_cli.core.workers import available_cores
from mlff_cli.data.grouped_hdf5 import FORMAT, UNIT_ATTRIBUTES
from mlff_cli.data.sae import write_sae
from tests.synthetic import grow_molecule, pair_potential, self_energy

SIZES = range(10, 41)  # atoms per molecule
PARENTS, CONFORMERS = 40, 8  # different molecules per size, and distortions of each
BLOCK = 4096  # molecules written at a time
BYTES_PER_ATOM, BYTES_PER_MOLECULE = 28, 16  # coord, forces, numbers; energy, charge, mult
BATCHES, POLL_SECONDS = 200, 0.1
SPARE = 1.5  # times the data must be free on the disk
RESULT = "large_training"


def conformers(size: int, seed: int) -> dict[str, np.ndarray]:
    """Distorted random molecules of one size with exact energies and forces."""
    rng = np.random.default_rng([3, seed, size])
    numbers = rng.choice([1, 6, 7, 8], size=(PARENTS, size))
    rest = np.stack([grow_molecule(z, rng) for z in numbers])
    coord = np.repeat(rest, CONFORMERS, axis=0)
    coord += 0.05 * rng.normal(size=coord.shape)
    numbers = np.repeat(numbers, CONFORMERS, axis=0)
    energy, forces = pair_potential(coord, numbers, strength=0.1)
    energy += self_energy(numbers).sum(axis=1)
    return {"coord": coord, "numbers": numbers, "energy": energy, "forces": forces}


def write_file(
    path: Path, known: dict[int, dict[str, np.ndarray]], per_size: int, seed: int, gzip: bool
) -> None:
    """One file of `per_size` molecules of every size, copies of the known ones."""
    turns = np.random.default_rng([4, seed])
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT, **UNIT_ATTRIBUTES, "level_of_theory": "synthetic"})
        for size, base in known.items():
            group = file.create_group(f"{size:03d}")
            filters: dict[str, Any] = {"compression": "gzip", "shuffle": True} if gzip else {}
            arrays = {}
            for name, shape, dtype in (
                ("coord", (size, 3), "f4"),
                ("numbers", (size,), "i4"),
                ("energy", (), "f8"),
                ("forces", (size, 3), "f4"),
                ("charge", (), "f4"),
                ("mult", (), "f4"),
            ):
                chunks = {"chunks": (min(256, per_size), *shape), **filters} if gzip else {}
                arrays[name] = group.create_dataset(name, (per_size, *shape), dtype, **chunks)
            for start in range(0, per_size, BLOCK):
                rows = slice(start, min(start + BLOCK, per_size))
                n = rows.stop - start
                pick = turns.integers(len(base["energy"]), size=n)
                turn = np.linalg.qr(turns.normal(size=(3, 3)))[0].astype("f4")
                for name in ("coord", "forces"):
                    arrays[name][rows] = base[name].astype("f4")[pick] @ turn
                arrays["numbers"][rows] = base["numbers"][pick]
                arrays["energy"][rows] = base["energy"][pick]
                arrays["charge"][rows] = np.zeros(n, "f4")
                arrays["mult"][rows] = np.ones(n, "f4")


def write_data(folder: Path, gigabytes: float, files: int, gzip: bool) -> int:
    """Training files, a small validation file, atomic energies; returns molecules written."""
    per_molecule = [BYTES_PER_ATOM * n + BYTES_PER_MOLECULE for n in SIZES]
    per_size = round(gigabytes * 1e9 / files / sum(per_molecule))
    known = {size: conformers(size, 0) for size in SIZES}
    for i in range(files):
        write_file(folder / f"part_{i:02d}.h5", known, per_size, i, gzip)
    unseen = {size: conformers(size, 1) for size in SIZES}
    write_file(folder / "val.h5", unseen, 20, files, gzip)
    write_sae(folder / "sae.yaml", {z: float(self_energy(z)) for z in (1, 6, 7, 8)}, force=True)
    return files * per_size * len(SIZES)


class Watched:
    """Peak memory of a process and its children, sampled by a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.peak = 0
        self._process = psutil.Process(process.pid)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self.peak = max(self.peak, sum(p.memory_info().rss for p in family))
            except psutil.Error:
                return
            sleep(POLL_SECONDS)


def train(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """One epoch through the command line; what it said and what it took."""
    command = [
        *(sys.executable, "-m", "mlff_cli", "train", "--preset", "small", "--json"),
        *("--save", str(folder / "model.pt"), "--force", "--resume", "never", "--no-progress"),
        f"data.fidelity_datasets.0={folder}/part_*.h5",
        f"data.val_fidelity_datasets={{0: {folder}/val.h5}}",
        f"data.sae.energy.files.0={folder}/sae.yaml",
        f"data.samplers.train.kwargs.batches_per_epoch={BATCHES}",
        *("trainer.epochs=1", "optimizer.kwargs.lr=1e-4", *overrides),
    ]
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watched = Watched(process)
        printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"mlff train ended with exit code {process.returncode}")
    return {
        "whole command (s)": perf_counter() - start,
        "peak memory (MB)": watched.peak / 1e6,
        "seconds": json.loads(printed)["seconds"],
    }


def report(result: dict[str, Any]) -> str:
    """The result as a page."""
    facts = {name: value for name, value in result.items() if name != "seconds"}
    loop = sum(result["seconds"].values())
    rows = [(k, f"{v:,.1f}" if isinstance(v, float) else f"{v}") for k, v in facts.items()]
    rows.append(("start, reading and splitting (s)", f"{result['whole command (s)'] - loop:,.1f}"))
    rows += [(k, f"{v:,.2f} s, {v / loop:.2%} of the loop") for k, v in result["seconds"].items()]
    body = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        "# Training on data larger than memory\n\n"
        "Written by `python -m tests.benchmarks.bench_large_training`. One epoch of "
        f"{BATCHES} batches of 4096 atoms, the small preset, through `mlff train`; peak memory is "
        "the sum of resident sets of the process and its children.\n\n"
        f"| | |\n|---|---|\n{body}\n"
    )


def main() -> None:
    """Write the data, train, print, and remove the data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder for the data; else a temporary one")
    parser.add_argument("--gigabytes", type=float, default=12.0)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--gzip", action="store_true", help="chunks as `mlff convert` writes them")
    parser.add_argument("-o", "--output", type=Path, help="folder to keep the result in")
    parser.add_argument("override", nargs="*", help="of the training configuration")
    options = parser.parse_args()
    free = shutil.disk_usage(options.work or tempfile.gettempdir()).free
    if free < SPARE * options.gigabytes * 1e9:
        print(f"left out: {options.gigabytes} GB of data do not fit into {free / 1e9:.0f} GB")
        return
    folder = Path(tempfile.mkdtemp(prefix="mlff_large_", dir=options.work))
    try:
        start = perf_counter()
        molecules = write_data(folder, options.gigabytes, options.files, options.gzip)
        size = sum(p.stat().st_size for p in folder.glob("part_*.h5"))
        print(f"{molecules} molecules, {size / 1e9:.2f} GB, {perf_counter() - start:.0f} s")
        result = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "data (GB)": size / 1e9,
            "files": options.files,
            "layout": "gzip, chunks of 256" if options.gzip else "contiguous",
            "molecules": molecules,
            "cores": available_cores(),
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "load before": os.getloadavg()[0],
            "python": platform.python_version(),
            "options": " ".join(options.override) or "defaults",
            **train(folder, options.override),
        }
    finally:
        shutil.rmtree(folder)
    text = report(result)
    print(text)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{RESULT}.md").write_text(text, encoding="utf-8")
        (options.output / f"{RESULT}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
