"""`mlff calc-sae` beside PyPI aimnet's `calc_sae`: time and peak memory over the size of the file.

    python -m tests.benchmarks.bench_calc_sae            # minutes, 1.3 GB of disk
    python -m tests.benchmarks.bench_calc_sae --sizes 100000 --repeats 1
    python -m tests.benchmarks.bench_calc_sae --peer-python OTHER_VENV/bin/python -o docs/benchmarks

Both run as whole processes, by turns, on the same files and all of their molecules. This process
holds nothing large: on Linux a child's peak memory starts at its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

SIZES = (500_000, 1_000_000, 2_000_000)
REPEATS = 3
TARGET_RATIO = 5.0
TARGET_MB = 400.0
WRITE = "import sys; from tests import synthetic as s; s.write_large(sys.argv[1], int(sys.argv[2]))"
PEER_VERSION = "import aimnet.train.calc_sae, importlib.metadata as m; print(m.version('aimnet'))"
COLUMNS = (
    "molecules",
    "file (MB)",
    "mlff (s)",
    "aimnet (s)",
    "ratio",
    "mlff peak (MB)",
    "aimnet peak (MB)",
    "largest difference (eV)",
    "load",
)


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command; wall time in s and peak resident memory in MB of that process alone."""
    start = perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed with {process.returncode}:\n{messages}")
    return perf_counter() - start, usage.ru_maxrss / 1024


def peer_version(python: str) -> str | None:
    """Version of aimnet behind an interpreter; None, with the reason printed, without it."""
    found = subprocess.run(
        [python, "-c", PEER_VERSION], capture_output=True, text=True, check=False
    )
    if found.returncode:
        reason = found.stderr.strip().splitlines()[-1]
        print(f"peer left out: {reason} ({python}; `make bench-peers` or --peer-python)")
        return None
    return found.stdout.strip()


def read(path: Path) -> dict[int, float]:
    """Both tools write one line 'Z: eV' per element."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {int(z): float(e) for z, e in (line.split(":") for line in lines)}


def compare(folder: Path, n: int, repeats: int, peer: str | None) -> dict[str, Any]:
    """One size of file: medians of both tools, and how far their energies lie apart."""
    data, ours, theirs = folder / f"{n}.h5", folder / "ours.yaml", folder / "theirs.yaml"
    subprocess.run([sys.executable, "-c", WRITE, str(data), str(n)], check=True)
    commands = {
        "mlff": [
            *(sys.executable, "-m", "mlff_cli", "calc-sae", str(data), str(ours)),
            *("--force", "--no-progress"),
        ]
    }
    if peer:
        commands["aimnet"] = [
            *(peer, "-m", "aimnet.train.calc_sae", "--samples", "0", str(data), str(theirs))
        ]
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(measure(command))
    row: dict[str, Any] = {"molecules": n, "file_mb": data.stat().st_size / 1e6}
    row["load"] = os.getloadavg()[1]  # five minutes: what else the machine was doing
    for name, values in runs.items():
        row[f"{name}_s"] = statistics.median(seconds for seconds, _ in values)
        row[f"{name}_all_s"] = [seconds for seconds, _ in values]
        row[f"{name}_peak_mb"] = max(peak for _, peak in values)
    if peer:
        a, b = read(ours), read(theirs)
        row["ratio"] = row["aimnet_s"] / row["mlff_s"]
        row["difference_ev"] = max(abs(a[z] - b[z]) for z in a.keys() | b.keys())
    data.unlink()
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the printed table; a missing peer leaves dashes."""
    formats = {
        "molecules": "{:,}",
        "file_mb": "{:.0f}",
        "mlff_s": "{:.2f}",
        "aimnet_s": "{:.2f}",
        "ratio": "{:.1f}",
        "mlff_peak_mb": "{:.0f}",
        "aimnet_peak_mb": "{:.0f}",
        "difference_ev": "{:.1e}",
        "load": "{:.1f}",
    }
    return [form.format(row[key]) if key in row else "-" for key, form in formats.items()]


def markdown(result: dict[str, Any]) -> str:
    """The result as a page that says how it was made."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in result["rows"])]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return (
        "# Self-atomic energies: time and memory\n\n"
        f"Written by `{result['command']}`.\n\n{table}\n\n"
        f"Whole processes, medians of {result['repeats']} runs by turns, peak memory the largest "
        f"of them; {result['cpus']} CPU cores, {versions}. The files are contiguous HDF5 with "
        "positions, forces and charges; ours also hashes all of it for its provenance record.\n"
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print and return the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=lambda s: [int(n) for n in s.split(",")], default=SIZES)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--work", type=Path, help="folder for the files (default: temporary)")
    parser.add_argument("-o", "--output", type=Path, help="folder for calc_sae.json and .md")
    options = parser.parse_args(arguments)
    found = peer_version(options.peer_python)
    result: dict[str, Any] = {
        "command": "python -m tests.benchmarks.bench_calc_sae",
        "repeats": options.repeats,
        "cpus": os.cpu_count(),
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "h5py")},
            "aimnet": found or "absent",
        },
        "rows": [],
    }
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        print("  ".join(COLUMNS))
        for n in options.sizes:
            row = compare(Path(folder), n, options.repeats, found and options.peer_python)
            result["rows"].append(row)
            print("  ".join(c.rjust(len(t)) for c, t in zip(cells(row), COLUMNS, strict=True)))
    peaks = [row["mlff_peak_mb"] for row in result["rows"]]
    ratios = [row["ratio"] for row in result["rows"] if "ratio" in row]
    print(f"peak memory {min(peaks):.0f} to {max(peaks):.0f} MB (target: below {TARGET_MB:.0f})")
    if ratios:
        print(f"{min(ratios):.1f} to {max(ratios):.1f} x faster (target: {TARGET_RATIO:.0f})")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "calc_sae.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.output / "calc_sae.md").write_text(markdown(result))
    return result


if __name__ == "__main__":
    main()
