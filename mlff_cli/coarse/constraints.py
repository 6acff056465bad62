"""Rigid groups of atoms: what constraints join, merged."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def constraint_groups(n_atoms: int, pairs: np.ndarray) -> np.ndarray:
    """Atoms that constraints connect, in groups; an atom without constraints is a group of its own.

    Args:
        n_atoms: N.
        pairs: (k, 2) constrained pairs of atoms.

    Returns:
        (N,) group of every atom, numbered from 0 in the order of their first atoms.
    """
    i, j = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(n_atoms, n_atoms))
    labels = connected_components(graph, directed=False)[1]
    _, first, groups = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    found: np.ndarray = order[groups]
    return found
