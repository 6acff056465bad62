"""Replica exchange through a flow beside plain replica exchange, at equal numbers of energies.

    python -m tests.benchmarks flow_exchange                    # with the linear map: untrained
    python -m tests.benchmarks flow_exchange --flow flow.pt --data rex.h5 -o docs/benchmarks

ACE-ALA-NME (Amber14, OBC2) at the flow's two temperatures, by default 300 and 450 K. Both runs have
the same replicas, steps and attempts; a proposal through the flow costs two energies, which are
counted. A round trip is two passages of a replica from one end of the ladder to the other. With one
pair of temperatures every swap is a passage.

Ensembles are compared by Kolmogorov and Smirnov's test on frames a statistical inefficiency apart
(of the backbone its slowest part's): energies, and cosines and sines of phi and psi, of the run
with the flow beside the plain one. With --md, beside plain dynamics at each temperature that never
exchanges. With --data, its frames (a long replica exchange) are swapped once through the flow as
well, and compared with others of them that were not: that needs no dynamics to reach equilibrium.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import ks_2samp

from mlff_cli.data.trajectories.topology_file import topology_from_pdb
from mlff_cli.deploy.flows.conformations import Backbone, sites_of
from mlff_cli.families.transport_exchange import flow_exchange
from mlff_cli.families.transport_frames import evaluated_frames
from mlff_cli.families.transport_model import TransportModel, load_transport
from mlff_cli.physics.energies import TorchEnergy
from mlff_cli.physics.ensembles.decorrelation import decorrelated, statistical_inefficiency
from mlff_cli.physics.forcefield import ForceField
from mlff_cli.physics.replica_exchange import swap
from mlff_cli.stages.sample import Options, run
from tests.transport_files import sample, untrained

ALPHA = 1e-3  # of all tests together
CONTROL = "plain exchange beside plain dynamics"  # tells what the tests themselves are worth
COLUMNS = ("exchange", "acceptance", "round trips", "energies", "round trips per 1e6 energies")


class Judge:
    """Energies and backbones of positions.

    Args:
        model: whose molecule they are.
    """

    def __init__(self, model: TransportModel) -> None:
        bonds = model.molecule.bonds
        topology = topology_from_pdb(model.topology_pdb, "the model", bonds).topology
        self._backbone = Backbone(sites_of(topology, bonds))
        self._engine = TorchEnergy(ForceField.from_system(model.system))

    def energies(self, x: np.ndarray) -> np.ndarray:
        """(n,) kJ/mol of positions (n, N, 3)."""
        return self._engine(torch.as_tensor(x, dtype=torch.float64))[0].numpy()

    def observables(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """What distributions are compared of."""
        found = {"energy": self.energies(x)}
        phi, psi = self._backbone.angles(x, 0).T
        for name, angle in (("phi", phi), ("psi", psi)):
            found |= {f"cos {name}": np.cos(angle), f"sin {name}": np.sin(angle)}
        return found


def exchanged(path: Path, options: Options) -> dict[str, Any]:
    """A run, and how its exchange went."""
    found = run(None, path, options).data["exchange"]
    energies = sum(found["energy_evaluations"].values())
    trips = sum(found["trips"]) / 2
    return {
        "acceptance": found["acceptance"],
        "attempted": found["attempted"],
        "round_trips": trips,
        "energies": found["energy_evaluations"],
        "round_trips_per_1e6_energies": 1e6 * trips / energies,
    }


def dynamics(folder: Path, options: Options, time: float) -> list[Path]:
    """Plain dynamics at each temperature for itself."""
    paths = []
    for kelvin in options.temperatures:
        alone = {"temperatures": (kelvin,), "time": time}
        path = folder / f"md_{kelvin:g}.h5"
        run(None, path, Options(**{**options.__dict__, **alone}))
        paths.append(path)
    return paths


def ensembles_of_runs(
    judge: Judge, model: TransportModel, plain: Sequence[Path], mapped: Path
) -> list[dict[str, Any]]:
    """P values of decorrelated frames of two runs, at both temperatures.

    Args:
        judge: what is compared.
        model: of the flow.
        plain: file of both temperatures, or one for each in the model's order.
        mapped: the run through the flow.
    """
    rows = []
    for k, kelvin in enumerate(model.temperatures):
        sides = []
        for path in (plain[k % len(plain)], mapped):
            x, lengths = evaluated_frames([path], model.molecule, kelvin)
            values = judge.observables(x)
            ends = np.cumsum(lengths)[:-1]
            g = {k: statistical_inefficiency(np.split(v, ends)) for k, v in values.items()}
            slowest = max(g[name] for name in g if name != "energy")  # the backbone's
            g = {name: g[name] if name == "energy" else slowest for name in g}
            sides.append({k: v[decorrelated(lengths, g[k])] for k, v in values.items()})
        rows += _tested(kelvin, sides[0], sides[1])
    return rows


def ensembles_of_swaps(
    judge: Judge, model: TransportModel, flow: Path, data: Path, seed: int
) -> list[dict[str, Any]]:
    """P values of frames that were swapped once, beside others that were not."""
    kelvin = np.array(sorted(model.temperatures))
    mapped, _ = flow_exchange(flow, kelvin, model.forcefield)
    rng = np.random.default_rng(seed)
    drawn = []
    for t in kelvin:
        x, lengths = evaluated_frames([data], model.molecule, float(t))
        # whole stretches of time on either side: neighbours in time would make them alike
        drawn.append([np.concatenate(part) for part in _halves(x, lengths, rng)])
    n = min(len(side[0]) for side in drawn)
    x = np.stack([side[0][rng.permutation(len(side[0]))[:n]] for side in drawn], axis=1)
    energies = np.stack([judge.energies(x[:, k]) for k in range(2)], axis=1)
    proposal = mapped.propose(x, energies, judge.energies)
    done = np.array(
        [
            mapped.accepted(swap(e, kelvin, 0, rng, proposal.of_ladder(k, 1))[0])
            for k, e in enumerate(energies)
        ]
    )
    after = np.where(done[:, None, None, None], proposal.positions, x)
    print(f"swapped once: {n} pairs, {done.mean():.3f} done")
    rows = []
    for k, t in enumerate(kelvin):
        other = judge.observables(drawn[k][1])
        rows += _tested(float(t), other, judge.observables(after[:, k]))
    return rows


def _halves(
    x: np.ndarray, lengths: tuple[int, ...], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Blocks of every series, by turns on one side and the other."""
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for k, series in enumerate(np.split(x, np.cumsum(lengths)[:-1])):
        for i, block in enumerate(np.array_split(series, max(2, len(series) // 25))):
            g = 2  # frames of a block that count
            sides[(i + k) % 2].append(block[:: max(1, len(block) // g)][:g])
    return sides


def _tested(
    kelvin: float, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    return [
        {
            "kelvin": kelvin,
            "observable": name,
            "frames": [len(a[name]), len(b[name])],
            "p": float(ks_2samp(a[name], b[name]).pvalue),
        }
        for name in a
    ]


def _print(told: str, rows: list[dict[str, Any]]) -> bool:
    worst = min(rows, key=lambda r: r["p"])
    bound = ALPHA / len(rows)
    unchanged = worst["p"] > bound
    print(f"{told}: {'unchanged' if unchanged else 'CHANGED'}, smallest p {worst['p']:.3g} of "
          f"{len(rows)} ({worst['observable']} at {worst['kelvin']:g} K, {worst['frames']} frames, "
          f"bound {bound:.1g})")  # fmt: skip
    return unchanged


def main() -> int:
    """Run, print, and keep the result where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flow", type=Path, help="model file; without it the linear map is made")
    parser.add_argument("--data", type=Path, help="long replica exchange with both temperatures")
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--time", type=float, default=20.0, help="ps of every replica")
    parser.add_argument("--equilibration", type=float, default=10.0, help="ps")
    parser.add_argument("--md", type=float, help="ps of plain dynamics of every replica")
    parser.add_argument("--exchange-interval", type=float, default=0.5, help="ps")
    parser.add_argument("--compile", action="store_true", help="faster; needs g++")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="folder of the JSON file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flow = args.flow or untrained(folder / "linear.pt", args.data or sample(folder / "rex.h5"))
        model = load_transport(flow, "cpu", torch.float64)
        options = Options(
            temperatures=model.temperatures,
            peptide="ACE-ALA-NME",
            time=args.time,
            equilibration=args.equilibration,
            interval=args.exchange_interval,
            exchange_interval=args.exchange_interval,
            friction=5.0,
            engine="torch",
            replicas=args.replicas,
            device="cpu",
            compile=args.compile,
            seed=args.seed,
        )
        plain = exchanged(folder / "plain.h5", options)
        told = {**options.__dict__, "flow": flow}
        mapped = exchanged(folder / "mapped.h5", Options(**told))
        judge = Judge(model)
        through = folder / "mapped.h5"
        tests = {"plain exchange": ensembles_of_runs(judge, model, [folder / "plain.h5"], through)}
        if args.md:
            alone = dynamics(folder, options, args.md)
            tests["plain dynamics"] = ensembles_of_runs(judge, model, alone, through)
            tests[CONTROL] = ensembles_of_runs(judge, model, alone, folder / "plain.h5")
        if args.data:
            tests["frames swapped once"] = ensembles_of_swaps(
                judge, model, flow, args.data, args.seed
            )
    print(" | ".join(COLUMNS))
    for which, found in (("plain", plain), ("through the flow", mapped)):
        print(f"{which} | {found['acceptance'][0]:.3f} | {found['round_trips']:.0f} | "
              f"{sum(found['energies'].values()):,} | "
              f"{found['round_trips_per_1e6_energies']:.2f}")  # fmt: skip
    key = "round_trips_per_1e6_energies"
    ratio = mapped[key] / plain[key] if plain[key] else float("inf")
    print(f"ratio of round trips at equal energies: {ratio:.2f}")
    unchanged = [_print(f"ensembles, {k}", rows) or k == CONTROL for k, rows in tests.items()]
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        content = {
            "flow": model.spec.kind,
            "temperatures": model.temperatures,
            "replicas": 2 * args.replicas,
            "time_ps": args.time,
            "dynamics_ps": args.md,
            "plain": plain,
            "mapped": mapped,
            "ratio": ratio if np.isfinite(ratio) else None,
            "ks": tests,
            "machine": {"processor": platform.processor(), "cores": os.cpu_count()},
            "versions": {p: version(p) for p in ("mlff-cli", "torch", "openmm", "numpy")},
        }
        low, high = sorted(model.temperatures)
        path = args.output / f"flow_exchange_{model.spec.kind}_{low:g}_{high:g}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
    if not mapped["acceptance"][0]:  # then tests of ensembles say nothing
        print("no swap was done through the flow")
        return 1
    return 0 if all(unchanged) else 1


if __name__ == "__main__":
    raise SystemExit(main())
