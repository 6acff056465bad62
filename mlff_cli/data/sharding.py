"""One batch divided between processes: every molecule exactly once, about the same work for each.

    work of a share = (molecules) x (atoms of its largest)        what is computed, padding included

The molecules are sorted by size and cut into runs such that the largest work is as small as runs
allow. A share may be empty when there are fewer molecules than processes.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.data.sampling import Pick


def share(pick: Pick, n_atoms: np.ndarray, rank: int, size: int) -> Pick:
    """What one of `size` processes computes of a batch; a pure function.

    Args:
        pick: the whole batch, fidelities (b,) and indices (b,).
        n_atoms: (b,) atoms of its molecules.
        rank: which share.
        size: number of processes.

    Returns:
        Fidelities and indices of the share, which may be empty; the shares of all ranks together
        are the batch.
    """
    if size == 1:
        return pick
    fidelity, index = pick
    order = np.lexsort((index, fidelity, n_atoms))
    edges = even_runs(n_atoms[order], size)
    mine = order[edges[rank] : edges[rank + 1]]
    return fidelity[mine], index[mine]


def even_runs(sizes: np.ndarray, parts: int) -> np.ndarray:
    """Cut ascending sizes into runs whose largest (length x largest size) is as small as possible.

    Args:
        sizes: (b,) ascending.
        parts: number of runs.

    Returns:
        Edges (parts + 1,) from 0 to b; the first runs are empty when b < parts, else none is.
    """
    low, high = int(sizes[-1]) if len(sizes) else 0, int(sizes.sum()) + 1
    high = max(high, len(sizes) * low)
    while low < high:  # the smallest limit that `parts` runs can keep
        middle = (low + high) // 2
        low, high = (low, middle) if len(_runs(sizes, middle)) <= parts else (middle + 1, high)
    edges = [first for first, _ in reversed(_runs(sizes, low))] + [len(sizes)]
    while len(edges) <= min(parts, len(sizes)):  # fewer runs sufficed: nobody need be idle
        longest = int(np.argmax(np.diff(edges)))
        edges.insert(longest + 1, (edges[longest] + edges[longest + 1]) // 2)
    return np.array([0] * (parts + 1 - len(edges)) + edges)


def _runs(sizes: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """Runs (first, last) from the end, each as long as its largest size allows."""
    runs = []
    last = len(sizes)
    while last:
        first = max(0, last - max(1, limit // int(sizes[last - 1])))
        runs.append((first, last))
        last = first
    return runs
