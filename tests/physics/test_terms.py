"""Terms: one direction, and what is refused."""

import sys
from subprocess import run

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.physics.terms import APART, Terms


def chain(n, reverse=False):
    """A linear chain of n beads, all pairs."""
    rows = {w: np.arange(n - w + 1)[:, None] + np.arange(w) for w in (2, 3, 4)}
    if reverse:
        rows = {w: r[:, ::-1] for w, r in rows.items()}
    i, j = np.triu_indices(n, 2)
    pairs = np.stack([j, i] if reverse else [i, j], 1)
    return Terms(n, rows[2], rows[3], rows[4], pairs, j - i)


def same(a, b):
    names = ("bonds", "angles", "dihedrals", "pairs", "separation")
    return a.n_beads == b.n_beads and all(
        np.array_equal(getattr(a, n), getattr(b, n)) for n in names
    )


def test_a_chain_read_backwards_is_the_same():
    assert same(chain(7), chain(7, reverse=True))


def test_pairs_are_chosen_by_separation():
    terms = chain(9)
    near, far = terms.pairs_between(2, 5), terms.pairs_between(6)
    assert len(near) + len(far) == len(terms.pairs) == 28
    assert (np.diff(near)[:, 0] <= 5).all()
    assert (np.diff(far)[:, 0] >= 6).all()


def test_beads_apart_belong_to_the_far_pairs():
    terms = Terms(2, pairs=[[1, 0]], separation=[APART])
    assert terms.pairs_between(6).tolist() == [[0, 1]]
    assert terms.pairs_between(2, 5).shape == (0, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bonds": [[0, 3]]}, "0 to 2"),
        ({"bonds": [[-1, 1]]}, "0 to 2"),
        ({"angles": [[0, 1, 0]]}, "once in each"),
        ({"bonds": [[0, 1, 2]]}, "rows of 2"),
        ({"bonds": [[0, 1], [1, 0]]}, "twice"),
        ({"pairs": [[0, 2]]}, "needs a separation"),
        ({"pairs": [[0, 2]], "separation": [1]}, "2 residues or more"),
    ],
)
def test_impossible_terms_are_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        Terms(3, **wrong)


def test_torch_is_not_imported():
    code = "import sys, mlff_cli.physics.terms; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
