"""Edges of ragged batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.potentials.bead_edges import COINCIDENT, edges_of, edges_within, pairs_of

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def by_hand(x, molecule, cutoff):
    n = len(x)
    return [
        (i, j)
        for i in range(n)
        for j in range(n)
        if i != j
        and molecule[i] == molecule[j] >= 0
        and COINCIDENT < float((x[i] - x[j]).norm()) < cutoff
    ]


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 999), st.floats(0.5, 4.0))
def test_they_are_all_ordered_pairs_within_the_cutoff(lengths, seed, cutoff):
    molecule = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    molecule[molecule == 1] = -1  # beads that are not there
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(molecule), 3, generator=generator, dtype=torch.float64)
    edges = edges_of(x, molecule, cutoff)
    assert edges.T.tolist() == [list(pair) for pair in by_hand(x, molecule.tolist(), cutoff)]


def test_beads_without_a_place_and_coincident_beads_have_no_edges():
    x = torch.tensor(
        [[0.0, 0, 0], [0, 0, 0], [1, 0, 0], [float("nan"), 0, 0], [float("inf"), 0, 0]]
    )
    edges = edges_of(x, torch.zeros(5, dtype=int), 12.0)
    assert edges.T.tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]


@pytest.mark.parametrize("n", [0, 1])
def test_few_beads_have_none(n):
    assert edges_of(torch.zeros(n, 3), torch.zeros(n, dtype=int), 12.0).shape == (2, 0)


def test_torchscript_gives_the_same():
    molecule = torch.tensor([0, 0, 0, 1, 1, -1, -1, 2])
    x = torch.randn(8, 3)
    assert torch.equal(torch.jit.script(edges_of)(x, molecule, 2.0), edges_of(x, molecule, 2.0))
    pairs = pairs_of(molecule)
    assert torch.equal(edges_within(x, pairs, 2.0), edges_of(x, molecule, 2.0))
