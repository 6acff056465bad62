"""Force matching of a prior alone: gradients, shares, and parameters that come back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.prior_file import PriorFile, Term
from mlff_cli.data.beads.prior_forms import Cosine, Fourier, Harmonic, SoftSphere
from mlff_cli.potentials.prior import BoundTerms, Prior
from mlff_cli.potentials.prior_objective import PriorObjective
from mlff_cli.potentials.prior_store import PriorStore
from mlff_cli.training.distributed import World
from mlff_cli.training.pretraining import Minimiser
from mlff_cli.training.task import Pretraining
from tests.families.bead_sets import write_chains
from tests.potentials.prior_cases import PARAMETRIC, SPECIES, chain_terms, chain_types, pooled

SIZES = (6, 9)
SPHERE = SoftSphere.of(0.5, 6.0, cutoff=12.0)  # core and onset are not trained


def known(bond: float, r0: float, a: float, b: float, k: float, sigma: float) -> PriorFile:
    """A prior whose parameters forces determine."""
    return PriorFile(
        species=SPECIES,
        terms={
            "bond": Term(entries=(pooled(2, Harmonic(bond, r0)),)),
            "angle": Term(entries=(pooled(3, Fourier((a,), (b,))),)),
            "dihedral": Term(entries=(pooled(4, Cosine((k,), (0.4,))),)),
            "repulsion": Term(
                separation=(3, None),
                entries=(pooled(2, dataclasses.replace(SPHERE, sigma=sigma)),),
            ),
        },
    )


TRUE, START = known(80.0, 3.8, 2.0, 1.0, 1.5, 6.0), known(60.0, 3.7, 0.5, 0.2, 0.6, 5.0)


def bound_to(prior: Prior, k: int) -> BoundTerms:
    return prior.bind(chain_terms(SIZES[k]), chain_types(SIZES[k], k))


def frames(folder: Path, prior: PriorFile, n: int = 10) -> BeadFrames:
    return BeadFrames([write_chains(folder / "CG.npz", SIZES, n, prior=prior, attract=False)])


def test_the_loss_is_the_mean_square_over_all_components(tmp_path: Path) -> None:
    data, prior = frames(tmp_path, TRUE), Prior(START)
    index = np.arange(3, 17)
    value = float(PriorObjective(prior, lambda k: bound_to(prior, k), data, index)())
    square, n = 0.0, 0
    for k in range(2):
        for _, R, F in data.of_molecule(k, index):
            x = torch.from_numpy(R.astype(np.float64))
            forces = prior.energy_and_forces(x, bound_to(prior, k))[1].numpy()
            square, n = square + ((forces - F) ** 2).sum(), n + F.size
    assert value == pytest.approx(square / n, rel=1e-12)


def test_shares_of_processes_and_their_gradients_sum_to_the_whole(tmp_path: Path) -> None:
    data, prior = frames(tmp_path, TRUE), Prior(START)
    index = np.arange(len(data))
    values, slopes = [], []
    for size in (1, 3):
        total = 0.0
        prior.zero_grad()
        for rank in range(size):
            own = PriorObjective(
                prior, lambda k: bound_to(prior, k), data, index, rank=rank, size=size
            )
            total += float(own())
        values.append(total)
        slopes.append([p.grad.clone() for p in prior.parameters() if p.grad is not None])
    assert values[1] == pytest.approx(values[0], rel=1e-12)
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_l_bfgs_gives_known_parameters_back(tmp_path: Path) -> None:
    """The loss falls in every iteration, to the parameters that made the data."""
    data, prior = frames(tmp_path, TRUE), Prior(START)
    objective = PriorObjective(prior, lambda k: bound_to(prior, k), data, np.arange(len(data)))
    task = Pretraining("prior", list(prior.parameters()), objective, steps=200)
    minimiser = Minimiser(task, nn.ModuleList([prior]), World())
    minimiser.start()
    while not minimiser.finished:
        minimiser.step()
    losses = minimiser.losses
    assert all(b <= a for a, b in zip(losses, losses[1:], strict=False))
    assert losses[-1] < 1e-8 * losses[0]
    found = prior.updated().terms
    spring = found["bond"].entries[0].parameters
    assert (spring.k, spring.r0) == pytest.approx((80.0, 3.8), rel=1e-4)
    angle, torsion = found["angle"].entries[0].parameters, found["dihedral"].entries[0].parameters
    assert (*angle.a, *angle.b) == pytest.approx((2.0, 1.0), rel=1e-3)
    assert (*torsion.k, *torsion.gamma) == pytest.approx((1.5, 0.4), rel=1e-3)
    sphere = found["repulsion"].entries[0].parameters
    # epsilon and sigma^4 enter as a product
    assert sphere.epsilon * sphere.sigma**4 == pytest.approx(0.5 * 6.0**4, rel=1e-3)


def test_stored_forces_are_the_prior_s_in_memory_and_on_disk(tmp_path: Path) -> None:
    path = write_chains(tmp_path / "CG.npz", SIZES, 20, prior=PARAMETRIC, attract=False)
    prior = Prior(PARAMETRIC)
    for limit, keep in ((1 << 40, True), (1 << 40, False), (0, True)):
        with BeadFrames([path], in_memory_bytes=limit) as data:
            store = PriorStore(prior, lambda k: bound_to(prior, k), data, keep=keep)
            index = np.array([25, 3, 38])
            energy, forces = store(index)
            padded = data.padded(index)
            np.testing.assert_allclose(forces, padded.F, rtol=1e-4, atol=1e-4)
            x = torch.from_numpy(padded.R[1, : SIZES[0]].astype(np.float64))
            assert energy[1] == pytest.approx(float(prior(x, bound_to(prior, 0)).detach()))
