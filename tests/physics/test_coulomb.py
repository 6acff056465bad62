"""Long-range Coulomb energy against the double sum, and its limits."""

import math

import pytest
import torch

from mlff_cli.core.units import COULOMB
from mlff_cli.physics.coulomb import coulomb_simple
from mlff_cli.physics.cutoffs import cosine_cutoff, exponential_cutoff


def dense(coord):
    """Distances and pairs of one molecule (N, 3)."""
    pairs = ~torch.eye(len(coord), dtype=torch.bool)[None]
    d = torch.cdist(coord[None], coord[None], compute_mode="donot_use_mm_for_euclid_dist")
    return d.masked_fill(~pairs, 1.0), pairs


@pytest.mark.parametrize("rc", [4.6, 2.0])
def test_against_the_double_sum(rc):
    rng = torch.Generator().manual_seed(1)
    coord = 8.0 * torch.rand(12, 3, generator=rng, dtype=torch.float64)
    q = torch.randn(1, 12, generator=rng, dtype=torch.float64)
    expected = 0.0
    for i in range(12):
        for j in range(12):
            d = math.dist(coord[i].tolist(), coord[j].tolist())
            if i != j:
                x = (d / rc) ** 2
                f = math.exp(1.0 - 1.0 / (1.0 - x)) if x < 1.0 else 0.0
                expected += 7.199822739 * (1.0 - f) * float(q[0, i] * q[0, j]) / d
    found = float(coulomb_simple(q, *dense(coord), rc))
    assert found == pytest.approx(expected, rel=1e-9)


def test_two_charges_beyond_the_short_range():
    d, pairs = dense(torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]], dtype=torch.float64))
    q = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    assert float(coulomb_simple(q, d, pairs, 4.6)) == pytest.approx(-COULOMB / 10.0, rel=1e-14)
    assert pytest.approx(14.399645478, rel=1e-9) == COULOMB


def test_float32_charges_are_summed_in_float64():
    d, pairs = dense(torch.rand(6, 3) * 9.0)
    assert coulomb_simple(torch.rand(1, 6), d, pairs, 4.6).dtype == torch.float64


@pytest.mark.parametrize("cutoff", [cosine_cutoff, exponential_cutoff])
def test_cutoffs_go_from_one_to_zero(cutoff):
    rc = 4.6
    d = torch.linspace(0.0, 2.0 * rc, 201, dtype=torch.float64, requires_grad=True)
    f = cutoff(d, rc)
    (slope,) = torch.autograd.grad(f.sum(), d, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), d)
    assert f[0].item() == pytest.approx(1.0)
    assert not f[d > rc].any()
    assert (f.diff() <= 0.0).all()
    assert slope.isfinite().all()
    assert curvature.isfinite().all()
    assert not slope[d > rc].any()
