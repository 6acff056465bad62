"""Priors of every form and the chains that they are tried on."""

import numpy as np
import torch

from mlff_cli.data.beads.prior_file import ANY, SEPARATION, Entry, PriorFile, Term
from mlff_cli.data.beads.prior_forms import (
    Cosine,
    Fourier,
    Harmonic,
    PeriodicSpline,
    SoftSphere,
    Spline,
    Wall,
)
from mlff_cli.physics.terms import Terms

SPECIES = ("ALA", "GLY", "TRP")


def chain_terms(n):
    """Terms of a linear chain of n beads."""
    rows = {w: np.arange(max(0, n - w + 1))[:, None] + np.arange(w) for w in (2, 3, 4)}
    i, j = np.triu_indices(n, 2)
    return Terms(n, rows[2], rows[3], rows[4], np.stack([i, j], 1), j - i)


def chain_types(n, seed=0):
    return [SPECIES[k] for k in np.random.default_rng(seed).integers(0, 3, n)]


def chain(n, seed=0, frames=None):
    """Positions (n, 3), or (frames, n, 3), of random chains of about the geometry of C-alphas."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(frames or 1, n, 3)) + 0.8 * rng.normal(size=(frames or 1, 1, 3))
    length = 3.8 * rng.uniform(0.9, 1.1, (frames or 1, n, 1))
    x = torch.from_numpy((steps * length / np.linalg.norm(steps, axis=-1)[..., None]).cumsum(1))
    return x if frames else x[0]


def pooled(width, form, wall=None):
    return Entry((ANY,) * width, form, wall)


REPULSION = {
    "repulsion": Term(
        weight=0.8,
        separation=SEPARATION["repulsion"],
        entries=(
            pooled(2, SoftSphere.of(0.9, 5.0)),
            Entry(("TRP", "TRP"), SoftSphere.of(1.2, 6.0)),
        ),
    ),
    "excluded_volume": Term(
        separation=SEPARATION["excluded_volume"],
        entries=(pooled(2, SoftSphere.of(0.7, 4.5, cutoff=7.0)),),
    ),
}
PARAMETRIC = PriorFile(
    species=SPECIES,
    terms={
        "bond": Term(
            weight=1.5,
            entries=(
                pooled(2, Harmonic(90.0, 3.8), Wall(200.0, 3.6, 4.0)),
                Entry(("ALA", "GLY"), Harmonic(110.0, 3.81)),
            ),
        ),
        "angle": Term(
            entries=(
                pooled(3, Fourier((1.0, -0.5, 0.2), (0.3, 0.1, 0.0)), Wall(60.0, 1.3, 2.6)),
                Entry((ANY, "GLY", ANY), Fourier((0.4,), (0.9,))),
            ),
        ),
        "dihedral": Term(
            weight=0.7,
            entries=(
                pooled(4, Cosine((1.0, 0.5), (0.2, -1.0))),
                Entry((ANY, "ALA", "GLY", ANY), Cosine((0.3, 0.2, 0.4), (0.0, 1.0, 2.0))),
            ),
        ),
        **REPULSION,
    },
)
SPLINES = PriorFile(
    species=SPECIES,
    form="spline",
    terms={
        "bond": Term(
            entries=(
                pooled(2, Spline(3.5, 4.1, (9.0, 2.0, 0.0, 2.5, 8.0)), Wall(200.0, 3.5, 4.1)),
                Entry(("ALA", "GLY"), Spline(3.6, 4.0, (4.0, 0.0, 5.0), slopes=(-90.0, 80.0))),
            )
        ),
        "angle": Term(
            entries=(
                pooled(3, Spline(1.4, 2.6, (3.0, 0.0, 1.0, 0.5, 4.0)), Wall(60.0, 1.4, 2.6)),
                Entry((ANY, "GLY", ANY), Fourier((0.4,), (0.9,))),
            )
        ),
        "dihedral": Term(entries=(pooled(4, PeriodicSpline((0.0, 1.0, 0.3, 2.0, 0.5, 0.1))),)),
        **REPULSION,
    },
)
PRIORS = {"parametric": PARAMETRIC, "spline": SPLINES}
