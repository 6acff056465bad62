"""Delta learning: what is left of forces without the prior's."""

import dataclasses

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import CGBlock
from mlff_cli.potentials import prior_delta
from mlff_cli.potentials.prior import Prior
from mlff_cli.potentials.prior_delta import prior_forces, subtract_prior
from tests.potentials.prior_cases import PARAMETRIC, chain, chain_terms, chain_types

MOLECULES = [(chain_terms(n), chain_types(n, n)) for n in (8, 5)]


def block(k, T, seed=0):
    n = MOLECULES[k][0].n_beads
    R = chain(n, seed, frames=T).numpy().astype(np.float32)
    F = np.random.default_rng(seed).normal(size=R.shape).astype(np.float32)
    told = {"source": np.zeros(T, int), "frame": np.arange(T), "temperature": np.full(T, 300.0)}
    return CGBlock(k, R, F=F, **told)


def test_the_prior_and_what_is_left_are_the_forces():
    blocks = [block(0, 4), block(1, 3, 1), block(0, 2, 2)]
    left = list(subtract_prior(blocks, PARAMETRIC, MOLECULES.__getitem__))
    prior = Prior(PARAMETRIC)
    for before, after in zip(blocks, left, strict=True):
        _, F = prior_forces(prior, prior.bind(*MOLECULES[before.molecule]), before.R)
        assert after.F.dtype == np.float32
        assert np.allclose(after.F + F, before.F, atol=1e-4)
        assert np.abs(after.F - before.F).max() > 0.1
        assert (after.molecule, after.R is before.R) == (before.molecule, True)


def test_pieces_change_nothing(monkeypatch):
    prior = Prior(PARAMETRIC)
    bound = prior.bind(*MOLECULES[0])
    R = block(0, 7).R
    whole = prior_forces(prior, bound, R)
    monkeypatch.setattr(prior_delta, "TERMS_AT_ONCE", 2 * bound.n_terms)
    for a, b in zip(whole, prior_forces(prior, bound, R), strict=True):
        assert a == pytest.approx(b, rel=1e-12)
        assert a.dtype == np.float64


def test_no_frames():
    prior = Prior(PARAMETRIC)
    energy, forces = prior_forces(prior, prior.bind(*MOLECULES[0]), np.zeros((0, 8, 3)))
    assert energy.shape == (0,)
    assert forces.shape == (0, 8, 3)


def test_a_set_without_forces_is_refused():
    bare = dataclasses.replace(block(0, 2), F=None)
    with pytest.raises(DataError, match="found none") as caught:
        list(subtract_prior([bare], PARAMETRIC, MOLECULES.__getitem__))
    assert "project-forces" in caught.value.remedy
