"""Print the errors of several `mlff evaluate` results as one table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

SHOWN = {
    "energy": "energy",
    "energy_per_atom": "energy/atom",
    "forces": "forces",
    "charges": "charges",
}


def main() -> None:
    """Read the JSON files named on the command line."""
    print(f"  {'fidelity':8s} {'level of theory':16s} {'molecules':>9s}", end="")
    print("".join(f" {f'{title} MAE':>16s} {'RMSE':>8s}" for title in SHOWN.values()))
    for name in sys.argv[1:]:
        for result in json.loads(Path(name).read_text())["results"]:
            print(f"  {result['fidelity']:<8d} {result['level_of_theory']:16s}", end="")
            print(f" {result['molecules']:9d}", end="")
            for quantity in SHOWN:
                errors = result["errors"].get(quantity)
                mae, rmse = (f"{errors[k]:.3f}" for k in ("mae", "rmse")) if errors else ("-", "-")
                print(f" {mae:>16s} {rmse:>8s}", end="")
            print()


if __name__ == "__main__":
    main()
