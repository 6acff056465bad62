"""Moments of point charges against NumPy, and how they move with the molecule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mlff_cli.core.fields import FIELDS
from mlff_cli.physics.multipoles import MOMENTS, dipole, moments, quadrupole

PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))  # xx yy zz xy yz zx


def ragged(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Charges, coordinates and mask of 5 molecules of 2 to 6 atoms; NaN in the padding."""
    g = torch.Generator().manual_seed(seed)
    real = torch.arange(6) < torch.tensor([6, 2, 4, 3, 5])[:, None]
    q = torch.randn(5, 6, generator=g, dtype=torch.float64).where(real, torch.nan)
    r = 3 * torch.randn(5, 6, 3, generator=g, dtype=torch.float64)
    return q, r.where(real[..., None], torch.nan), real


def full(packed: Tensor) -> Tensor:
    """Symmetric matrices (B, 3, 3) of packed quadrupoles (B, 6)."""
    q = torch.zeros(len(packed), 3, 3, dtype=packed.dtype)
    for i, (a, b) in enumerate(PAIRS):
        q[:, a, b] = q[:, b, a] = packed[:, i]
    return q


def total(q: Tensor, real: Tensor) -> Tensor:
    return q.where(real, 0.0).sum(1)


def test_moments_are_the_sums_over_atoms() -> None:
    q, r, real = ragged()
    found_d, found_q = dipole(q, r, real), quadrupole(q, r, real)
    for b in range(5):
        n = int(real[b].sum())
        qi, ri = q[b, :n].numpy(), r[b, :n].numpy()
        np.testing.assert_allclose(found_d[b], qi @ ri, rtol=1e-13)
        second = np.einsum("i,ia,ib->ab", qi, ri, ri)
        traceless = second - np.eye(3) * np.trace(second) / 3
        np.testing.assert_allclose(found_q[b], [traceless[p] for p in PAIRS], rtol=1e-12)


def test_shapes_are_those_of_the_vocabulary() -> None:
    q, r, real = ragged()
    for name, moment in MOMENTS.items():
        assert moment(q, r, real).shape == (5, *FIELDS[name].shape(6))


def test_textbook_molecules() -> None:
    real = torch.ones(1, 3, dtype=torch.bool)
    water_q = torch.tensor([[-0.834, 0.417, 0.417]], dtype=torch.float64)  # TIP3P
    half = np.deg2rad(104.52 / 2)
    h = 0.9572 * torch.tensor([[np.sin(half), 0, np.cos(half)], [-np.sin(half), 0, np.cos(half)]])
    water = torch.cat([torch.zeros(1, 3), h]).double()[None]
    debye = float(dipole(water_q, water, real)[0, 2]) * 4.803204712570263
    assert debye == pytest.approx(2.347, abs=1e-3)  # Jorgensen et al. 1983: 2.35 D

    # CO2-like -q +2q -q along z at distance l: Q_zz = -2 q l^2 (2/3), Q_xx = Q_yy = -Q_zz / 2
    line = torch.tensor([[[0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]]], dtype=torch.float64)
    found = quadrupole(torch.tensor([[-0.3, 0.6, -0.3]], dtype=torch.float64), line, real)[0]
    zz = -0.3 * 2 * 1.16**2 * 2 / 3
    expected = torch.tensor([-zz / 2, -zz / 2, zz, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


@given(shift=st.tuples(*[st.floats(-5, 5)] * 3), seed=st.integers(0, 20))
def test_the_origin_matters_as_documented(shift: tuple[float, ...], seed: int) -> None:
    q, r, real = ragged(seed)
    t = torch.tensor(shift, dtype=torch.float64)
    c = total(q, real)[:, None]
    d = dipole(q, r, real)
    torch.testing.assert_close(dipole(q, r + t, real), d + c * t)
    moved = d[:, :, None] * t + t[:, None] * d[:, None] + c[..., None] * t[:, None] * t
    moved -= torch.eye(3) * moved.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    torch.testing.assert_close(
        full(quadrupole(q, r + t, real)), full(quadrupole(q, r, real)) + moved
    )


def test_neutral_dipoles_do_not_know_the_origin_but_ions_do() -> None:
    q, r, real = ragged()
    t = torch.tensor([10.0, -3.0, 2.0], dtype=torch.float64)
    neutral = q - (total(q, real) / real.sum(1))[:, None]
    torch.testing.assert_close(dipole(neutral, r + t, real), dipole(neutral, r, real))
    cation = neutral + 1 / real.sum(1)[:, None]
    torch.testing.assert_close(dipole(cation, r + t, real), dipole(cation, r, real) + t)


def test_moments_turn_with_the_molecule() -> None:
    q, r, real = ragged()
    random = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turn = torch.linalg.qr(random).Q  # reflections included
    torch.testing.assert_close(dipole(q, r @ turn.T, real), dipole(q, r, real) @ turn.T)
    turned = turn @ full(quadrupole(q, r, real)) @ turn.T
    torch.testing.assert_close(full(quadrupole(q, r @ turn.T, real)), turned)
    trace = quadrupole(q, r, real)[:, :3].sum(1)
    torch.testing.assert_close(trace, torch.zeros_like(trace))


def test_only_wanted_moments_are_made_and_gradients_reach_charges() -> None:
    q, r, real = ragged()
    q = q.requires_grad_(True)
    batch = {"coord": r, "numbers": real.long()}
    assert moments(q, batch, {"energy", "forces"}) == {}
    found = moments(q, batch, {"dipole", "quadrupole", "energy"})
    assert set(found) == {"dipole", "quadrupole"}
    (slope,) = torch.autograd.grad(found["dipole"][:, 0].sum(), q, retain_graph=True)
    torch.testing.assert_close(slope, r[..., 0].where(real, 0.0))
    (slope,) = torch.autograd.grad(found["quadrupole"].square().sum(), q)
    assert torch.isfinite(slope).all()


def test_float32_charges_are_summed_in_float64() -> None:
    q, r, real = ragged()
    exact = dipole(q.float().double(), r.float().double(), real)
    found = dipole(q.float(), r.float(), real)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exact, rtol=1e-13, atol=0)
