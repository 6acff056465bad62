"""AIMNet2 against a second implementation: loops over atoms, in the words of the formulas."""

import math

import pytest
import torch

from mlff_cli.core.units import COULOMB
from tests.potentials.aimnet2_cases import make_batch, make_model, one, same


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def geometry(r, spec):
    """Lists g[i][j] (n_g,) and u[i][j] (3,) of the neighbours j of every i."""
    eta = (spec.nshifts / (spec.rc - spec.rmin)) ** 2
    mu = [spec.rmin + k * (spec.rc - spec.rmin) / spec.nshifts for k in range(spec.nshifts)]
    g, u = [], []
    for i in range(len(r)):
        g.append({})
        u.append({})
        for j in range(len(r)):
            d = float((r[j] - r[i]).norm())
            if i == j or d >= spec.rc:
                continue
            f = 0.5 * (math.cos(math.pi * d / spec.rc) + 1)
            g[i][j] = torch.tensor(
                [math.exp(-eta * (d - m) ** 2) * f for m in mu], dtype=torch.float64
            )
            u[i][j] = (r[j] - r[i]) / d
    return g, u


def invariants(feature, agh, g, u):
    """S (a, g) and V (a, h) of every atom; feature[j] is (a, g)."""
    n_a, n_g, n_h = agh.shape
    rows = []
    for i in range(len(g)):
        s = torch.zeros(n_a, n_g, dtype=torch.float64)
        v = torch.zeros(n_a, n_h, dtype=torch.float64)
        for a in range(n_a):
            field = torch.zeros(n_g, 3, dtype=torch.float64)
            for j in g[i]:
                for k in range(n_g):
                    s[a, k] += feature[j][a, k] * g[i][j][k]
                    field[k] += feature[j][a, k] * g[i][j][k] * u[i][j]
            for h in range(n_h):
                mixed = sum(agh[a, k, h] * field[k] for k in range(n_g))
                v[a, h] = (mixed**2).sum()
        rows.append(torch.cat([s.flatten(), v.flatten()]))
    return torch.stack(rows)


def energy_charges(model, molecule):
    spec = model.spec()
    p = {name: value.detach() for name, value in model.state_dict().items()}
    r, numbers = molecule["coord"][0], molecule["numbers"][0]
    z, k = numbers % spec.fidelity_offset, int(numbers[0]) // spec.fidelity_offset
    readout = k if spec.use_fidelity_readouts else 0
    n, c, n_g = len(z), spec.num_charge_channels, spec.nshifts
    charge, mult = float(molecule["charge"][0]), float(molecule["mult"][0])
    target = [charge] if c == 1 else [(charge + s * (mult - 1)) / 2 for s in (1, -1)]
    g, u = geometry(r, spec)

    a = p["afv.weight"][119 * k + z]
    q = torch.zeros(n, c, dtype=torch.float64)
    last = len(spec.hidden) - 1
    for i, sizes in enumerate(spec.hidden):
        feature = a.view(n, -1, n_g if spec.d2features else 1).expand(n, -1, n_g)
        x = torch.cat([a, invariants(feature, p["conv_a.agh"], g, u)], dim=1)
        if i:
            of_charges = invariants(q.view(n, c, 1).expand(n, c, n_g), p["conv_q.agh"], g, u)
            x = torch.cat([x, q, of_charges], dim=1)
        for layer in range(len(sizes)):
            name = f"mlps.{i}.hidden.{layer}"
            x = gelu(x @ p[f"{name}.weight"].T + p[f"{name}.bias"])
        out = x @ p[f"mlps.{i}.out.weight"].T + p[f"mlps.{i}.out.bias"]
        if i < last:
            w, b = (p[f"charge_readouts.{i}.{kind}"][readout] for kind in ("weight", "bias"))
            qf = x @ w.T + b
            if i:
                qf, out = gelu(qf), gelu(out)
            q = q + qf[:, :c]
            f = qf[:, c:] ** 2
            for channel in range(c):
                missing = target[channel] - q[:, channel].sum()
                q[:, channel] += f[:, channel] * missing / (f[:, channel].sum() + 1e-6)
            a = a + out
        else:
            aim = gelu(out)

    x = aim
    for layer in range(len(spec.energy_hidden)):
        name = f"outputs.energy_mlp.hidden.{layer}"
        x = gelu(x @ p[f"{name}.weight"][readout].T + p[f"{name}.bias"][readout])
    name = "outputs.energy_mlp.out"
    energy = (x @ p[f"{name}.weight"][readout].T + p[f"{name}.bias"][readout]).sum()
    energy = energy + p["outputs.atomic_shift.shifts.weight"][119 * readout + z].sum()
    charges = q.sum(1)
    for i in range(n):
        for j in range(i):
            d = float((r[i] - r[j]).norm())
            x = (d / spec.coulomb_rc) ** 2
            near = math.exp(1 - 1 / (1 - x)) if x < 1 else 0.0
            energy = energy + COULOMB * (1 - near) * charges[i] * charges[j] / d
    return energy, charges, q[:, 0] - q[:, 1] if c == 2 else 0 * charges


@pytest.mark.parametrize(
    "options",
    [
        {"num_charge_channels": 1},
        {"num_charge_channels": 2},
        {"num_charge_channels": 2, "d2features": False},
        {"num_charge_channels": 1, "use_fidelity_readouts": False},
        {"num_charge_channels": 2, "hidden": ((9,), (8, 7))},
        {"num_charge_channels": 1, "hidden": ((9,), (8,), (8,), (7, 7)), "rmin": 0.5, "rc": 4.0},
    ],
)
def test_against_loops(options):
    model = make_model(3, num_fidelities=2, **options)
    batch = make_batch([6, 4, 1], seed=5, fidelities=[1, 0, 1])
    out = model(batch)
    for i in range(3):
        molecule = one(batch, i)
        n = molecule["numbers"].shape[1]
        energy, charges, spin = energy_charges(model, molecule)
        same(out["energy"][i], energy, 1e-10)
        same(out["charges"][i, :n], charges, 1e-10)
        same(out["spin_charges"][i, :n], spin, 1e-10)
