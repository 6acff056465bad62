"""Soft spheres from low percentiles of the distances of beads that are not bonded.

    U(r) = eps (sigma/r)^4 S(r),    sigma = r_q,    eps = kT

r_q is the distance below which the share q = 0.5 % of the pairs within `CONTACT` lies, of those six
residues apart or more for the repulsion and of those two to five apart for the excluded volume.
Only eps sigma^4 matters, so that eps = kT is a choice of scale: a pair at r_q pays kT, at r_q/2 it
pays 16 kT and does not pass, at the usual contact, 1.3 r_q, it pays kT/3. It is no inversion, as
the distances of two beads depend on all the others: the percentile is one that gives back the sigma
of simulated chains.

One pair of residues sits where its fold puts it, which says nothing of other folds. So sigma is
taken of every residue type a with all its partners, sigma_a*, and of all pairs, sigma_**, and

    sigma_ab = sigma_a* + sigma_b* - sigma_**,     within 25 % of sigma_**

which is the mean of two radii, were every sigma the mean of two radii.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.coarse.priors.distributions import Histogram
from mlff_cli.data.beads.prior_forms import SoftSphere

QUANTILE = 0.005
SPREAD = 0.25  # how far a type's sigma may be from the pooled one
LEAST = 0.02  # angstrom; of beads that lie on each other


def fit_soft_sphere(histogram: Histogram, kt: float) -> SoftSphere:
    """Sigma of a histogram of distances within `CONTACT`; see the module."""
    return SoftSphere.of(kt, max(histogram.quantile(QUANTILE), LEAST))


@dataclass(frozen=True)
class TypedSphere:
    """Soft sphere of a pair of types.

    Attributes:
        types: names, `*` for any.
        sphere: its parameters.
        samples: distances of these types.
        histogram: that its sigma was fitted to; None where sigma follows from those of its types.
    """

    types: tuple[str, str]
    sphere: SoftSphere
    samples: int
    histogram: Histogram | None = None


def fit_types(
    parts: Sequence[Histogram], pooled: SoftSphere, kt: float, min_samples: int
) -> list[TypedSphere]:
    """Soft spheres of pairs of types.

    Args:
        parts: histograms of pairs of types.
        pooled: of all of them.
        kt: kcal/mol.
        min_samples: fewer samples of a type leave it to the pooled sphere.

    Returns:
        For types a, b with enough samples: (a, "*"), then (a, b) with a <= b.
    """
    single: dict[str, float] = {}
    found = []
    low, high = (1.0 - SPREAD) * pooled.sigma, (1.0 + SPREAD) * pooled.sigma

    def sphere(sigma: float) -> SoftSphere:
        return SoftSphere.of(kt, float(np.clip(sigma, low, high)))

    for name in sorted({t for h in parts for t in h.types}):
        own = [h for h in parts if name in h.types]
        whole = Histogram(own[0].kind, (name, "*"), np.sum([h.counts for h in own], axis=0))
        if whole.n >= min_samples:
            single[name] = fit_soft_sphere(whole, kt).sigma
            found.append(TypedSphere((name, "*"), sphere(single[name]), whole.n, whole))
    samples = {h.types: h.n for h in parts}
    for a in single:
        for b in single:
            if a <= b:
                sigma = single[a] + single[b] - pooled.sigma
                found.append(TypedSphere((a, b), sphere(sigma), samples.get((a, b), 0)))
    return found
