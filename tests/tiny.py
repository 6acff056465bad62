"""Small untrained potentials for tests of laws, which hold for any weights."""

from __future__ import annotations

import torch
from torch import Tensor

from mlff_cli.data.model_file import ModelFile
from mlff_cli.physics.dispersion import D3BJ
from mlff_cli.physics.dispersion_parameters import D3Parameters
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.potentials.total import TotalPotential

SPECIES = (1, 6, 7, 8)
SAE = {1: -13.587234, 6: -1029.476123, 7: -1485.234567, 8: -2041.789012}
WATER = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]


def tiny_spec(**changes: object) -> AIMNet2Spec:
    """An AIMNet2 with some thousand parameters and two charge channels."""
    sizes = {
        "nfeature": 4,
        "ncomb_v": 3,
        "hidden": ((24, 16), (24, 16), (24, 16, 16)),
        "aim_size": 16,
        "energy_hidden": (12,),
        "num_charge_channels": 2,
    }
    return AIMNet2Spec.model_validate({**sizes, **changes})


def tiny_network(seed: int = 0, **changes: object) -> AIMNet2:
    """Random weights in every parameter, so that nothing is zero by its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AIMNet2(tiny_spec(**changes))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


def tiny_potential(
    dispersion: D3Parameters | None = None, dtype: torch.dtype = torch.float64, seed: int = 0
) -> TotalPotential:
    """Network, atomic energies and, if asked for, dispersion."""
    d3 = None if dispersion is None else D3BJ(dispersion, SPECIES)
    return TotalPotential(tiny_network(seed).to(dtype), SAE, SPECIES, d3).eval()


def tiny_model_file(
    levels: tuple[str | None, ...] = ("pbe/def2-svp", "gfn2-xtb", "gfn1-xtb"), seed: int = 0
) -> ModelFile:
    """A model file as training writes it."""
    network = tiny_network(seed, num_fidelities=len(levels))
    return ModelFile(
        weights=network.state_dict(),
        architecture=network.spec().model_dump(mode="json"),
        family="multifidelity",
        config={"seed": seed},
        species=list(SPECIES),
        fidelities=[
            {
                "index": k,
                "dataset": f"fid{k}.h5",
                "level_of_theory": level,
                "species": list(SPECIES),
            }
            for k, level in enumerate(levels)
        ],
        sae={k: {z: e - k for z, e in SAE.items()} for k in range(len(levels))},
        provenance={"command": "mlff train", "inputs": {}, "seed": seed, "versions": {}},
    )


def molecules(n: int = 4, seed: int = 0, n_atoms: int = 5) -> dict[str, Tensor]:
    """Random compact clusters of the tiny species, float64."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(2.0)] * 3)[:n_atoms] * 1.3  # [i, xyz] A
    noise = 0.15 * torch.randn(n, n_atoms, 3, generator=generator, dtype=torch.float64)
    picks = torch.randint(len(SPECIES), (n, n_atoms), generator=generator)
    return {
        "coord": grid.to(torch.float64) + noise,
        "numbers": torch.tensor(SPECIES)[picks],
        "charge": torch.tensor([0.0, 1.0, -1.0, 0.0], dtype=torch.float64)[:n],
        "mult": torch.tensor([1.0, 2.0, 2.0, 3.0], dtype=torch.float64)[:n],
    }
