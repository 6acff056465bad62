"""Soft spheres from low percentiles of the distances of beads that are not bonded.

    U(r) = eps (sigma/r)^4 S(r): only eps sigma^4 matters, so that eps = kT is a choice of scale
    r_q: distance below which the share q = 1 % of the pairs within `CONTACT` lies

repulsion (6 bonds or more)   sigma such that p(r) = r^2 exp(-U/kT)/Z within `CONTACT` has its q
                              quantile at r_q: pairs far along the chain meet like free ones, and
                              what pushes them out of the near space is the repulsion
excluded volume (2-5 bonds)   sigma = r_q, U(r_q) = kT: the chain holds these pairs where they are,
                              there is no free pair to compare with, and angles and dihedrals hold
                              them already; what remains is to keep them from passing each other

One pair of residues sits where its fold puts it, which says nothing of other folds. So sigma is
taken of every residue type a with all its partners, sigma_a*, and of all pairs, sigma_**, and

    sigma_ab = sigma_a* + sigma_b* - sigma_**,     within 25 % of sigma_**

which is the mean of two radii, were every sigma the mean of two radii.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from mlff_cli.coarse.distributions import CONTACT, Histogram
from mlff_cli.coarse.prior_curves import boltzmann
from mlff_cli.data.prior_forms import SoftSphere

QUANTILE = 0.01
SPREAD = 0.25  # how far a type's sigma may be from the pooled one
LEAST = 0.5  # of r_q; where pairs are no rarer near each other than free ones would be


def fit_soft_sphere(histogram: Histogram, kt: float) -> SoftSphere:
    """Sigma of a histogram of distances within `CONTACT`; see the module."""
    r = max(histogram.quantile(QUANTILE), 2.0 * _width(histogram))
    if histogram.kind.name != "repulsion":
        return SoftSphere.of(kt, r)
    return SoftSphere.of(kt, _matching(histogram, r, kt))


def fit_types(
    parts: Sequence[Histogram], pooled: SoftSphere, kt: float, min_samples: int
) -> dict[tuple[str, str], SoftSphere]:
    """Soft spheres of pairs of types.

    Args:
        parts: histograms of pairs of types.
        pooled: of all of them.
        kt: kcal/mol.
        min_samples: fewer samples of a type leave it to the pooled sphere.

    Returns:
        For types a, b with enough samples: (a, b) with a <= b, and (a, "*").
    """
    single = {}
    for name in sorted({t for h in parts for t in h.types}):
        own = [h for h in parts if name in h.types]
        whole = Histogram(own[0].kind, (name, "*"), np.sum([h.counts for h in own], axis=0))
        if whole.n >= min_samples:
            single[name] = fit_soft_sphere(whole, kt).sigma
    low, high = (1.0 - SPREAD) * pooled.sigma, (1.0 + SPREAD) * pooled.sigma
    found = {}
    for a in single:
        found[(a, "*")] = SoftSphere.of(kt, float(np.clip(single[a], low, high)))
        for b in single:
            if a <= b:
                sigma = float(np.clip(single[a] + single[b] - pooled.sigma, low, high))
                found[(a, b)] = SoftSphere.of(kt, sigma)
    return dict(sorted(found.items()))


def _matching(histogram: Histogram, r: float, kt: float) -> float:
    """Sigma whose own quantile lies at r."""
    kind = histogram.kind
    edges = kind.edges
    inside = np.clip((r - edges[:-1]) / np.diff(edges), 0.0, 1.0)  # part of a bin below r

    def excess(sigma: float) -> float:
        return float(boltzmann(kind, SoftSphere.of(kt, sigma), kt, edges) @ inside) - QUANTILE

    least = LEAST * r
    if excess(least) <= 0.0:
        return least
    highest = 4.0 * CONTACT  # there even the last bins are empty but one
    if excess(highest) >= 0.0:
        return r
    return float(brentq(excess, least, highest, xtol=1e-6))


def _width(histogram: Histogram) -> float:
    return (histogram.kind.high - histogram.kind.low) / histogram.kind.n_bins
