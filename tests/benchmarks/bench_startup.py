"""How long `mlff --help` takes beside importing the libraries it cannot do without."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 9
PEER = [sys.executable, "-c", "import typer, rich.console, rich.table"]
OURS = [sys.executable, "-m", "mlff_cli", "--help"]


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> dict[str, float]:
    """Alternate both commands, so that a noisy machine hits both, and compare medians."""
    times = [(_seconds(OURS), _seconds(PEER)) for _ in range(REPEATS)]
    ours, peer = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"mlff --help {ours:.3f} s, importing typer and rich {peer:.3f} s: {ours / peer:.2f} x")
    return {"help_s": ours, "imports_s": peer, "ratio": ours / peer}


if __name__ == "__main__":
    main()
