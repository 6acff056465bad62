"""Small models with random weights, and random molecules, for the tests of AIMNet2."""

from __future__ import annotations

import torch

from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec

TINY = {
    "nfeature": 3,
    "ncomb_v": 4,
    "hidden": ((12, 10), (12, 10), (12, 10, 9)),
    "aim_size": 8,
    "nshifts": 5,
    "energy_hidden": (7, 6),
}
ELEMENTS = torch.tensor([1, 6, 7, 8, 16, 17])


def make_model(seed=0, dtype=torch.float64, **options):
    """A model whose every parameter is random: no symmetry of the initial values is left."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AIMNet2(AIMNet2Spec(**{**TINY, **options})).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            model.afv.weight[0] = 0.0
            model.outputs.atomic_shift.shifts.weight[0] = 0.0
    return model


def make_batch(sizes, seed=0, dtype=torch.float64, fidelities=None, offset=200):
    """Molecules with `sizes` atoms, charged and open-shell, padded; padding at the origin."""
    rng = torch.Generator().manual_seed(seed)
    b, n = len(sizes), max(sizes)
    # atoms on a jittered grid are never closer than 0.8 A and not all within the cutoff
    cells = torch.cartesian_prod(*[torch.arange(4.0)] * 3)
    coord = torch.zeros(b, n, 3, dtype=dtype)
    numbers = torch.zeros(b, n, dtype=torch.int64)
    for i, size in enumerate(sizes):
        chosen = torch.randperm(len(cells), generator=rng)[:size]
        jitter = 0.7 * torch.rand(size, 3, generator=rng, dtype=torch.float64)
        coord[i, :size] = (1.5 * cells[chosen] + jitter).to(dtype)
        picked = torch.randint(len(ELEMENTS), (size,), generator=rng)
        numbers[i, :size] = ELEMENTS[picked] + offset * (fidelities[i] if fidelities else 0)
    return {
        "coord": coord,
        "numbers": numbers,
        "charge": torch.randint(-2, 3, (b,), generator=rng).to(dtype),
        "mult": torch.randint(1, 4, (b,), generator=rng).to(dtype),
    }


def one(batch, i):
    """Molecule `i` of a batch, without its padding."""
    n = int((batch["numbers"][i] > 0).sum())
    atoms = {key: batch[key][i : i + 1, :n] for key in ("coord", "numbers")}
    return {**atoms, **{key: batch[key][i : i + 1] for key in ("charge", "mult")}}


def same(found, expected, tolerance):
    """Assert equality relative to the size of the numbers."""
    found, expected = found.detach(), expected.detach()
    scale = float(expected.abs().max()) + 1e-3
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance * scale)
