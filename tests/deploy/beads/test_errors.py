"""Errors of bead forces: what was put in, from a stream, for every way of grouping."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.core.errors import NumericalError
from mlff_cli.deploy.beads.errors import ZERO, BeadErrors, ForceErrors, Labels, Sums

LABELS = {
    0: Labels(("A", "B", "A"), ("ALA", "GLY", "ALA"), ("CA",) * 3),
    1: Labels(("B", "B"), ("GLY", "SER"), ("CA",) * 2),
}


def forces(n: int, frames: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 10.0, (frames, n, 3))


def counted(noise: float = 3.0, pieces: int = 1) -> tuple[BeadErrors, dict[int, np.ndarray]]:
    found, deviations = BeadErrors(LABELS, ["full"]), {}
    for k, n in ((0, 3), (1, 2)):
        F = forces(n, seed=k)
        d = np.random.default_rng(10 + k).normal(0.0, noise, F.shape)
        deviations[k] = d
        for rows in np.array_split(np.arange(len(F)), pieces):
            found.add(k, F[rows], {"full": F[rows] + d[rows]})
    return found, deviations


def test_the_rmse_is_what_was_added() -> None:
    found, d = counted()
    everything = np.concatenate([d[0].ravel(), d[1].ravel()])
    overall = found.overall("full")
    assert overall.n == everything.size
    assert overall.rmse == pytest.approx(np.sqrt((everything**2).mean()))
    assert found.of_molecule("full", 1).rmse == pytest.approx(np.sqrt((d[1] ** 2).mean()))
    each = [e.rmse for e in found.of_beads("full", 0)]
    assert np.allclose(each, np.sqrt((d[0] ** 2).mean(axis=(0, 2))))
    b = np.concatenate([d[0][:, 1].ravel(), d[1].ravel()])
    assert found.by("types", "full")["B"].rmse == pytest.approx(np.sqrt((b**2).mean()))
    assert list(found.by("residues", "full")) == ["ALA", "GLY", "SER"]
    xyz = np.sqrt((np.concatenate([d[0].reshape(-1, 3), d[1].reshape(-1, 3)]) ** 2).mean(axis=0))
    assert np.allclose(overall.by_component, xyz)


def test_the_zero_model_has_the_references_own_size() -> None:
    found, _ = counted()
    zero = found.overall(ZERO)
    assert zero.rmse == pytest.approx(zero.rms)
    assert zero.relative == pytest.approx(1.0)
    assert zero.cosine is None
    assert zero.rms == pytest.approx(found.overall("full").rms)


def test_pieces_of_a_stream_make_no_difference() -> None:
    whole, pieces = counted()[0], counted(pieces=7)[0]
    for mode in whole.modes:
        assert whole.overall(mode).rmse == pytest.approx(pieces.overall(mode).rmse, rel=1e-12)
        assert whole.overall(mode).n == pieces.overall(mode).n


def test_squared_errors_of_groups_add_up_to_the_whole() -> None:
    found, _ = counted()
    whole = found.overall("full")
    for what in ("types", "residues"):
        groups = found.by(what, "full").values()
        assert sum(g.n for g in groups) == whole.n
        assert sum(g.n * g.rmse**2 for g in groups) == pytest.approx(whole.n * whole.rmse**2)


def test_the_cosine_does_not_see_the_size() -> None:
    F = forces(4)
    for factor, expected in ((0.5, 1.0), (3.0, 1.0), (-1.0, -1.0)):
        errors = ForceErrors.of([(Sums.of(F, factor * F), np.arange(4))])
        assert errors.cosine == pytest.approx(expected)
        assert errors.relative == pytest.approx(abs(factor - 1))
    other = np.random.default_rng(9).normal(size=F.shape)
    assert abs(ForceErrors.of([(Sums.of(F, other), np.arange(4))]).cosine or 0) < 0.15


@pytest.mark.parametrize(
    ("share", "word"), [(0.1, "good"), (0.28, "fair"), (0.4, "between fair and poor"), (1, "poor")]
)
def test_relative_errors_have_the_seeds_words(share: float, word: str) -> None:
    F = forces(4)
    told = ForceErrors.of([(Sums.of(F, (1 + share) * F), np.arange(4))]).plain()
    assert told["relative"] == pytest.approx(share)
    assert told["verdict"] == word


def test_no_reference_force_no_relative_error() -> None:
    nothing = np.zeros((5, 2, 3))
    told = ForceErrors.of([(Sums.of(nothing, nothing + 1), np.arange(2))]).plain()
    assert told["rmse"] == 1.0
    assert "relative" not in told
    assert told["cosine"] is None


def test_a_force_that_is_not_finite_names_the_bead() -> None:
    found = BeadErrors(LABELS, ["prior"])
    bad = forces(2)
    bad[3, 1] = np.nan
    with pytest.raises(NumericalError, match=r"mode 'prior' on bead 1 is not finite \(frame 3"):
        found.add(1, forces(2), {"prior": bad}, "CG.npz")
