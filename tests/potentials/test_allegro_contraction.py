"""The grid of edges by their centres; the numbers are compared with nequip's in test_allegro."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.potentials.allegro_contraction import grid


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1)))))
def test_every_edge_has_a_place_of_its_own_in_the_row_of_its_centre(case):
    n, centres = case
    place, m = grid(torch.tensor(centres, dtype=torch.int64), n)
    assert len(set(place.tolist())) == len(centres)
    assert m == max(centres.count(i) for i in range(n))
    assert all(p // m == i for p, i in zip(place.tolist(), centres, strict=True))


def test_no_beads_have_no_grid():
    place, m = grid(torch.zeros(0, dtype=torch.int64), 0)
    assert (len(place), m) == (0, 0)


def test_centres_without_data_have_a_grid_of_even_rows():
    """Memory is estimated on meta tensors, which no operation can count."""
    centres = torch.arange(4).repeat_interleave(3)
    place, m = grid(centres.to("meta"), 4)
    assert (place.shape, place.device.type) == ((12,), "meta")
    assert m == grid(centres, 4)[1] == 3
    assert grid(centres[:11].to("meta"), 4)[1] == 3
