"""Accuracy on 3BPA after a fixed CPU budget, beside PyPI mace-torch trained for the same.

    python -m tests.benchmarks.bench_3bpa FOLDER --minutes 20 --peer-python PEERS/bin/python
    python -m tests.benchmarks.bench_3bpa FOLDER --minutes 1     # ours alone, to see that it works

FOLDER holds 3bpa_train_300K.xyz and 3bpa_train_mixedT.xyz of github.com/davkovacs/BOTNet-datasets
(MIT), folder dataset_3BPA: there they are train_300K.xyz and train_mixedT.xyz, either name is
found. Trained is on 450 frames at 300 K, validated on the other 50, tested on the frames of mixed
temperatures whose positions are not among those 500.

The budget is CPU seconds, user and system, of the whole training process on one thread, because
wall time depends on what else a machine does. Two short runs tell how many epochs fit, the start
of the process included; then both programs train at the same time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from mlff_cli.core.units import KCAL_MOL
from mlff_cli.data.sae import read_sae

SOURCE = "https://github.com/davkovacs/BOTNet-datasets, folder dataset_3BPA"
CONFIG = Path(__file__).parents[2] / "examples" / "3bpa" / "train.yaml"
TRAINED, SPLIT_SEED = 450, 0
RESULT = "3bpa"
PROBES = (1, 3)  # epochs of the two short runs
PEER_VERSION = "import mace.cli.run_train, importlib.metadata as m; print(m.version('mace-torch'))"
# Found with the validation set, see docs/benchmarks/3bpa.md. The energies that MACE sees are those
# less ours of single atoms, so that float32 holds them; it asks for what it adds to them: nothing.
PEER_SETTINGS = {
    "model": "MACE",
    "num_channels": 32,
    "max_L": 0,
    "r_max": 5.0,
    "batch_size": 2,
    "lr": 0.01,
    "E0s": "{1: 0.0, 6: 0.0, 7: 0.0, 8: 0.0}",
    "ema_decay": 0.99,
    "swa_lr": 0.001,
    "eval_interval": 2,
    "default_dtype": "float32",
}


@dataclass(frozen=True)
class Frames:
    """The three sets.

    Attributes:
        train: frames at 300 K.
        val: frames at 300 K.
        test: frames at mixed temperatures.
    """

    train: list[Atoms]
    val: list[Atoms]
    test: list[Atoms]


@dataclass(frozen=True)
class Used:
    """What a process took.

    Attributes:
        cpu_s: user and system time of it and its children.
        wall_s: wall time.
    """

    cpu_s: float
    wall_s: float


def read_frames(folder: Path) -> Frames:
    """Read and split the files; raises FileNotFoundError where one is missing."""

    def read(name: str) -> list[Atoms]:
        for path in (folder / f"3bpa_{name}", folder / name):
            if path.exists():
                return list(ase.io.read(path, ":"))
        raise FileNotFoundError(f"{folder} has no {name}; get it from {SOURCE}")

    known, mixed = read("train_300K.xyz"), read("train_mixedT.xyz")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(known))
    seen = {frame.positions.tobytes() for frame in known}
    return Frames(
        train=[known[i] for i in order[:TRAINED]],
        val=[known[i] for i in order[TRAINED:]],
        test=[frame for frame in mixed if frame.positions.tobytes() not in seen],
    )


def run(command: Sequence[str | Path], log: Path) -> Used:
    """Run a command on one thread; its messages go to `log`."""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    start = perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | one,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = "\n".join(log.read_text().splitlines()[-20:])
        raise SystemExit(f"{log.stem} ended with exit code {process.returncode}:\n{tail}")
    return Used(usage.ru_utime + usage.ru_stime, perf_counter() - start)


def epochs_within(budget: float, train: Callable[[int, str], Used]) -> tuple[int, dict[int, float]]:
    """Epochs of which a run takes `budget` CPU seconds, from two short runs and a straight line."""
    times = {n: train(n, f"{n}_epochs").cpu_s for n in PROBES}
    short, long = PROBES
    per_epoch = (times[long] - times[short]) / (long - short)
    start = times[short] - short * per_epoch
    epochs = int((budget - start) / per_epoch)
    if epochs < long:
        raise SystemExit(f"{budget:.0f} s are less than {long} epochs and a start: {times}")
    return epochs, times


def root_mean_square(values: Sequence[Any]) -> float:
    """Over all numbers in equal arrays."""
    return float(np.sqrt(np.mean(np.square(values))))


class Ours:
    """`mlff train` with the example's configuration."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder, self.config = folder, config
        self.command: list[str | Path] = [sys.executable, "-m", "mlff_cli"]

    def prepare(self) -> None:
        """Grouped HDF5 of every set, atomic energies of the training set."""
        for name in ("train", "val", "test"):
            source, target = self.folder / f"{name}.xyz", self.folder / f"{name}.h5"
            command = [*self.command, "convert", source, "-o", target, "--force"]
            run(command, self.folder / "convert.log")
        files = (self.folder / "train.h5", self.folder / "sae.yaml")
        run([*self.command, "calc-sae", *files, "--force"], self.folder / "sae.log")

    def train(self, epochs: int, name: str = "final") -> Used:
        """Train so many epochs; files are called after `name`."""
        name = f"mlff_{name}"
        command = [
            *(*self.command, "train", "--no-progress", "--force", "--resume", "never"),
            *("--config", self.config, "--save", self.folder / f"{name}.pt"),
            f"data.fidelity_datasets.0={self.folder}/train.h5",
            f"data.val_fidelity_datasets={{0: {self.folder}/val.h5}}",
            f"data.sae.energy.files.0={self.folder}/sae.yaml",
            f"trainer.epochs={epochs}",
        ]
        return run(command, self.folder / f"{name}.log")

    def errors(self, data: str) -> dict[str, float]:
        """Errors on a set, by `mlff evaluate`."""
        output = self.folder / f"mlff_{data}.json"
        command = [
            *(*self.command, "evaluate", self.folder / "mlff_final.pt", self.folder / f"{data}.h5"),
            *("--units", "eV", "--no-figures", "--force", "-o", output),
        ]
        run(command, self.folder / "mlff_evaluate.log")
        (result,) = json.loads(output.read_text())["results"]
        found = {name: 1e3 * result["errors"][name]["rmse"] for name in ("energy", "forces")}
        return {"energy_mev": found["energy"], "forces_mev_a": found["forces"]}


class Peer:
    """`mace_run_train` of mace-torch, in its own interpreter."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.python = folder, python

    def prepare(self) -> None:
        """The same sets; energies are what is left of them after the atomic ones."""
        atomic = read_sae(self.folder / "sae.yaml")
        for name in ("train", "val", "test"):
            frames = ase.io.read(self.folder / f"{name}.xyz", ":")
            for frame in frames:
                frame.info["REF_energy"] -= sum(atomic[z] for z in frame.numbers)
            ase.io.write(self.folder / f"{name}_residual.xyz", frames)

    def train(self, epochs: int, name: str = "final") -> Used:
        """Train so many epochs; files are called after `name`."""
        name = f"mace_{name}"
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        command = [
            *(self.python, "-m", "mace.cli.run_train", "--name=model", f"--work_dir={folder}"),
            f"--train_file={self.folder}/train_residual.xyz",
            f"--valid_file={self.folder}/val_residual.xyz",
            *(f"--{key}={value}" for key, value in PEER_SETTINGS.items()),
            *("--device=cpu", "--seed=0", "--ema", "--amsgrad", "--plot=False"),
            "--skip_evaluate_heads=Default",  # its closing table of the training set costs time
            f"--max_num_epochs={epochs}",
            *("--swa", f"--start_swa={max(1, epochs * 3 // 4)}")[: 2 * (epochs > 1)],
        ]
        return run(command, self.folder / f"{name}.log")

    def errors(self, data: str) -> dict[str, float]:
        """Errors on a set, from what `mace_eval_configs` writes."""
        output = self.folder / f"mace_{data}.xyz"
        command = [
            *(self.python, "-m", "mace.cli.eval_configs", "--device=cpu"),
            *(f"--configs={self.folder}/{data}_residual.xyz", f"--output={output}"),
            f"--model={self.folder}/mace_final/model_stagetwo.model",
            f"--default_dtype={PEER_SETTINGS['default_dtype']}",
        ]
        run(command, self.folder / "mace_evaluate.log")
        frames = ase.io.read(output, ":")
        energy = [f.info["MACE_energy"] - f.info["REF_energy"] for f in frames]
        forces = [f.arrays["MACE_forces"] - f.arrays["REF_forces"] for f in frames]
        return {
            "energy_mev": 1e3 * root_mean_square(energy),
            "forces_mev_a": 1e3 * root_mean_square(forces),
        }


def peer_version(python: str | None) -> str | None:
    """Version of mace-torch behind an interpreter; None, with the reason printed, without it."""
    if python is None:
        print("peer left out: no --peer-python with mace-torch")
        return None
    found = subprocess.run(
        [python, "-c", PEER_VERSION], capture_output=True, text=True, check=False
    )
    if found.returncode:
        print(f"peer left out: {found.stderr.strip().splitlines()[-1]} ({python})")
        return None
    return found.stdout.strip().splitlines()[-1]


def write_frames(folder: Path, frames: Frames) -> None:
    """The sets as extended XYZ with `REF_` labels, which both programs read."""
    for name in ("train", "val", "test"):
        labelled = []
        for frame in getattr(frames, name):
            bare = Atoms(frame.numbers, frame.positions)
            bare.info["REF_energy"] = frame.get_potential_energy()
            bare.arrays["REF_forces"] = frame.get_forces()
            labelled.append(bare)
        ase.io.write(folder / f"{name}.xyz", labelled)


def compete(programs: dict[str, Ours | Peer], budget: float) -> list[dict[str, Any]]:
    """Count epochs, train all programs at the same time, evaluate: one row each."""

    def train(item: tuple[str, Ours | Peer]) -> dict[str, Any]:
        name, program = item
        epochs, probes = epochs_within(budget, program.train)
        epochs -= 1 - epochs % 2  # MACE validates epochs 0, 2, ...: so the last one, too
        print(f"{name}: {epochs} epochs (CPU s of short runs: {probes})", flush=True)
        used = program.train(epochs)
        return {"program": name, "epochs": epochs, "probes_s": probes, **asdict(used)}

    for program in programs.values():
        program.prepare()
    with ThreadPoolExecutor(len(programs)) as pool:
        rows = list(pool.map(train, programs.items()))
    for row in rows:
        for data in ("val", "test"):
            row[data] = programs[row["program"]].errors(data)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    lines = [
        "| program | CPU (s) | epochs | set | energy (meV) | forces (meV/A) | energy (kcal/mol) "
        "| forces (kcal/mol/A) |",
        "|---" * 8 + "|",
    ]
    for data, title in (("test", "mixed T, test"), ("val", "300 K, validation")):
        for row in rows:
            e, f = row[data]["energy_mev"], row[data]["forces_mev_a"]
            kcal = [f"{value / 1e3 / KCAL_MOL:.2f}" for value in (e, f)]
            cells = [row["program"], f"{row['cpu_s']:.0f}", str(row["epochs"]), title]
            lines.append("| " + " | ".join([*cells, f"{e:.1f}", f"{f:.1f}", *kcal]) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, Any] | None:
    """Run, print and return the comparison; None where there is no data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", help=f"of the data, from {SOURCE}")
    parser.add_argument("--minutes", type=float, default=20.0, help="CPU time of each program")
    parser.add_argument("--peer-python", help="interpreter with mace-torch")
    parser.add_argument("--config", type=Path, default=CONFIG, help="ours, instead of the example")
    parser.add_argument("--work", type=Path, help="folder to keep models and logs in")
    parser.add_argument("-o", "--output", type=Path, help="folder for 3bpa.json")
    options = parser.parse_args(arguments)
    if options.folder is None:
        print(f"3BPA left out: name the folder of its files, from {SOURCE}")
        return None
    frames = read_frames(options.folder)
    peer = peer_version(options.peer_python)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        write_frames(folder, frames)
        programs: dict[str, Ours | Peer] = {"mlff": Ours(folder, options.config)}
        if peer:
            programs["mace-torch"] = Peer(folder, options.peer_python)
        rows = compete(programs, 60 * options.minutes)
    command = f"python -m tests.benchmarks.bench_3bpa FOLDER --minutes {options.minutes:g}"
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command + (" --peer-python PYTHON" if peer else ""),
        "frames": {name: len(values) for name, values in vars(frames).items()},
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {
            "Python": platform.python_version(),
            "torch": version("torch"),
            "mlff-cli": version("mlff-cli"),
            "mace-torch": peer or "absent",
        },
        "peer_settings": PEER_SETTINGS,
        "rows": rows,
    }
    print(table(rows))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{RESULT}.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    main()
