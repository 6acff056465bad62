"""Laws of force maps: consistency, constraints, optimality, the mean force of a known system.

The optimal map is found three more ways: by a quadratic programme per bead, by its KKT equations,
and by regression of the basic map's forces on the directions that leave W M^T alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import qpsolvers
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import null_space

from mlff_cli.coarse.forces.constraints import constraint_groups
from mlff_cli.coarse.forces.force_map import (
    GAS_CONSTANT,
    ForceMap,
    basic_map,
    mean_square,
    noise_map,
    objective,
    optimal_map,
    suggested_l2,
)
from mlff_cli.coarse.forces.gram import Gram, reduce_groups
from mlff_cli.coarse.forces.noise import add_noise, frame_noise
from mlff_cli.core.errors import DataError, NumericalError, UsageError
from tests.coarse.harmonic import Oscillators, chain

SIGMA, T = 0.15, 300.0  # angstrom, K
PAIRS = np.array([[0, 2], [3, 4], [6, 9], [9, 8]])  # rigid: of beads 0, 1 and 2
RIGID = constraint_groups(10, PAIRS)
FREE = np.arange(10)
METHODS = ("basic", "optimal", "noise")


def make(
    method: str,
    mapping: np.ndarray,
    groups: np.ndarray,
    gram: Gram,
    l2: float = 0.0,
    temperature: float = T,
) -> ForceMap:
    if method == "basic":
        return basic_map(mapping, groups)
    if method == "optimal":
        return optimal_map(mapping, groups, gram, l2)
    return noise_map(mapping, groups, gram, l2, SIGMA, temperature)


def case(groups: np.ndarray = RIGID, n_frames: int = 200, **springs: float):
    """Oscillators with their frames and their Gram matrix."""
    system = chain(groups=groups, **springs)
    x, f = system.sample(n_frames, seed=2)
    return system, x, f, Gram(groups.max() + 1).add(f, groups)


def pieces(system: Oscillators) -> tuple[np.ndarray, np.ndarray]:
    """A (n, g) and D (g, g)."""
    return system.mapping @ system.c, system.c.T @ system.c


class TestConsistency:
    @pytest.mark.parametrize("method", ["basic", "optimal"])
    @pytest.mark.parametrize("groups", [FREE, RIGID])
    @pytest.mark.parametrize("l2", [0.0, 1.0, 1e6])
    @pytest.mark.parametrize("tether", [0.0, 3.0])
    def test_w_mt_is_one(self, method, groups, l2, tether):
        system, _, _, gram = case(groups, tether=tether)
        found = make(method, system.mapping, groups, gram, l2)
        np.testing.assert_allclose(found.matrix @ system.mapping.T, np.eye(3), rtol=0, atol=1e-10)
        assert found.consistency < 1e-12

    def test_w_mt_of_a_noise_map_is_not_one_but_says_so(self):
        system, _, _, gram = case()
        found = make("noise", system.mapping, RIGID, gram)
        excess = found.matrix @ system.mapping.T - np.eye(3)
        assert found.consistency > 1e-3
        np.testing.assert_allclose(found.excess, excess, atol=1e-14)

    @pytest.mark.parametrize("method", METHODS)
    def test_weights_are_equal_within_a_group(self, method):
        system, _, _, gram = case()
        w = make(method, system.mapping, RIGID, gram).matrix
        for group in range(RIGID.max() + 1):
            assert np.ptp(w[:, group == RIGID], axis=1).max() == 0.0

    @pytest.mark.parametrize("method", METHODS)
    def test_constraint_forces_change_no_projected_force(self, method):
        system, x, f, gram = case()
        along = (x[:, PAIRS[:, 0]] - x[:, PAIRS[:, 1]]) + np.random.default_rng(3).normal(
            size=(len(x), len(PAIRS), 3)
        )
        tension = 1e3 * np.random.default_rng(4).normal(size=(len(x), len(PAIRS), 1)) * along
        added = f.copy()
        for k, (i, j) in enumerate(PAIRS):
            added[:, i] += tension[:, k]
            added[:, j] -= tension[:, k]
        again = Gram(RIGID.max() + 1).add(added, RIGID)
        before = make(method, system.mapping, RIGID, gram)
        after = make(method, system.mapping, RIGID, again)
        np.testing.assert_allclose(after.v, before.v, atol=1e-9)
        np.testing.assert_allclose(before.apply(added), before.apply(f), atol=1e-9)

    def test_basic_is_the_sum_over_what_the_support_meets(self):
        system, _, f, _ = case()
        found = basic_map(system.mapping, RIGID)
        expected = np.zeros((3, 10))
        expected[0, [0, 1, 2]] = expected[1, [3, 4]] = expected[2, [6, 7, 8, 9]] = 1.0
        np.testing.assert_allclose(found.matrix, expected, rtol=1e-15)
        np.testing.assert_allclose(found.apply(f)[:, 1], f[:, 3] + f[:, 4], atol=1e-12)

    @pytest.mark.parametrize("method", METHODS)
    def test_apply_is_w_times_f(self, method):
        system, _, f, gram = case()
        found = make(method, system.mapping, RIGID, gram)
        expected = np.einsum("ij,tjc->tic", found.matrix, f)
        np.testing.assert_allclose(found.apply(f), expected, atol=1e-11)


class TestOptimality:
    @pytest.mark.filterwarnings("ignore:The default value of raise_error")  # qpsolvers calls osqp
    @pytest.mark.parametrize("groups", [FREE, RIGID])
    @pytest.mark.parametrize("l2", [0.0, 5.0])
    @pytest.mark.parametrize("tether", [0.0, 3.0])
    def test_equals_a_quadratic_programme_per_bead(self, groups, l2, tether):
        system, _, _, gram = case(groups, tether=tether)
        a, d = pieces(system)
        found = optimal_map(system.mapping, groups, gram, l2)
        p = 2.0 * (gram.matrix + l2 * d)
        for bead, one in enumerate(np.eye(3)):
            v = qpsolvers.solve_qp(
                *(scipy.sparse.csc_matrix(p), np.zeros(len(p))),
                A=scipy.sparse.csc_matrix(a),
                b=one,
                solver="osqp",
                eps_abs=1e-9,
                eps_rel=1e-9,
                max_iter=200_000,
            )
            np.testing.assert_allclose(found.v[bead], v, atol=2e-6)

    @pytest.mark.parametrize("groups", [FREE, RIGID])
    @pytest.mark.parametrize("l2", [0.0, 5.0])
    @pytest.mark.parametrize("tether", [0.0, 3.0])
    def test_solves_the_kkt_equations(self, groups, l2, tether):
        system, _, _, gram = case(groups, tether=tether)
        a, d = pieces(system)
        p = gram.matrix + l2 * d
        system_of = np.block([[p, a.T], [a, np.zeros((3, 3))]])  # regular, even where p is not
        right = np.vstack([np.zeros((len(p), 3)), np.eye(3)])
        expected = np.linalg.solve(system_of, right)[: len(p)].T
        found = optimal_map(system.mapping, groups, gram, l2)
        np.testing.assert_allclose(found.v, expected, atol=1e-10)

    @pytest.mark.parametrize("groups", [FREE, RIGID])
    @pytest.mark.parametrize("l2", [0.0, 5.0])
    @pytest.mark.parametrize("tether", [0.0, 3.0])
    def test_is_the_regression_of_basic_forces(self, groups, l2, tether):
        """V = V_basic + B Z^T, Z the null space of A; B by least squares on the frames."""
        system, _, f, gram = case(groups, tether=tether)
        a, d = pieces(system)
        z = null_space(a)  # (g, g - n)
        y = reduce_groups(f, groups).T / np.sqrt(3.0 * len(f))  # (3T, g)
        rows = np.vstack([y, np.sqrt(l2 * d)])
        v0 = basic_map(system.mapping, groups).v
        b = np.linalg.lstsq(rows @ z, -rows @ v0.T, rcond=None)[0].T
        found = optimal_map(system.mapping, groups, gram, l2)
        np.testing.assert_allclose(found.v, v0 + b @ z.T, atol=1e-9)

    @pytest.mark.parametrize("groups", [FREE, RIGID])
    @pytest.mark.parametrize("l2", [0.0, 1e-3, 5.0, 1e5])
    def test_objective_is_never_above_the_basic_one(self, groups, l2):
        system, _, f, gram = case(groups)
        maps = [make(m, system.mapping, groups, gram, l2) for m in ("basic", "optimal")]
        basic, optimal = (objective(m, gram, l2) for m in maps)
        assert optimal < basic
        brute = (maps[1].apply(f) ** 2).sum() / (3 * len(f)) + l2 * (maps[1].matrix ** 2).sum()
        assert optimal == pytest.approx(brute, rel=1e-10)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
    def test_no_consistent_map_does_better(self, seed, l2):
        system, _, _, gram = case()
        best = optimal_map(system.mapping, RIGID, gram, l2)
        a, _ = pieces(system)
        away = np.random.default_rng(seed).normal(size=(3, len(a.T)))
        away -= away @ np.linalg.pinv(a) @ a  # away A^T = 0
        other = ForceMap(best.v + 1e-3 * away, RIGID, best.excess, "optimal")
        assert objective(other, gram, l2) > objective(best, gram, l2)

    def test_much_l2_gives_the_map_of_smallest_weights(self):
        system, _, _, gram = case()
        a, d = pieces(system)
        inner = a @ np.linalg.inv(d) @ a.T
        expected = np.linalg.solve(inner, a @ np.linalg.inv(d))
        found = optimal_map(system.mapping, RIGID, gram, 1e12).v
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_mean_squares_come_from_the_gram_matrix_alone(self):
        system, _, f, gram = case()
        for method in ("basic", "optimal"):
            found = make(method, system.mapping, RIGID, gram)
            expected = (found.apply(f) ** 2).mean(axis=(0, 2))
            np.testing.assert_allclose(mean_square(found, gram), expected, rtol=1e-12)

    def test_many_frames_reach_the_map_of_the_exact_gram(self):
        system, _, _, gram = case(n_frames=40_000)
        exact = Gram(RIGID.max() + 1).add_product(3 * system.gram, 1)
        exact.n_frames *= 1000
        exact._sum *= 1000.0
        best = optimal_map(system.mapping, RIGID, exact)
        found = optimal_map(system.mapping, RIGID, gram)
        assert objective(found, exact, 0.0) < 1.001 * objective(best, exact, 0.0)


class TestInvariance:
    @pytest.mark.parametrize("method", METHODS)
    def test_order_of_atoms(self, method):
        system, _, f, gram = case()
        found = make(method, system.mapping, RIGID, gram, 0.5)
        order = np.random.default_rng(5).permutation(10)
        place = np.argsort(order)
        groups = constraint_groups(10, place[PAIRS])
        again = Gram(groups.max() + 1).add(f[:, order], groups)
        moved = make(method, system.mapping[:, order], groups, again, 0.5)
        np.testing.assert_allclose(moved.matrix, found.matrix[:, order], atol=1e-11)
        np.testing.assert_allclose(moved.apply(f[:, order]), found.apply(f), atol=1e-9)

    @pytest.mark.parametrize("method", METHODS)
    def test_order_of_beads(self, method):
        system, _, _, gram = case()
        found = make(method, system.mapping, RIGID, gram)
        moved = make(method, system.mapping[[2, 0, 1]], RIGID, gram)
        np.testing.assert_allclose(moved.v, found.v[[2, 0, 1]], atol=1e-11)

    @pytest.mark.parametrize("method", METHODS)
    def test_order_and_pieces_of_frames(self, method):
        system, _, f, gram = case()
        found = make(method, system.mapping, RIGID, gram)
        order = np.random.default_rng(6).permutation(len(f))
        again = Gram(RIGID.max() + 1)
        for part in np.array_split(f[order], 7):
            again.add(part, RIGID)
        np.testing.assert_allclose(
            make(method, system.mapping, RIGID, again).v, found.v, atol=1e-11
        )

    @pytest.mark.parametrize("method", METHODS)
    def test_rotation(self, method):
        system, _, f, gram = case()
        turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
        again = Gram(RIGID.max() + 1).add(f @ turn, RIGID)
        found = make(method, system.mapping, RIGID, gram)
        turned = make(method, system.mapping, RIGID, again)
        np.testing.assert_allclose(turned.v, found.v, atol=1e-10)


class TestNoise:
    def test_minimises_the_force_on_noisy_beads(self):
        """Least squares over V: rows of group forces, and sqrt(s) (V A^T - 1) of the noise."""
        system, _, f, gram = case()
        a, d = pieces(system)
        s, l2 = (GAS_CONSTANT * T / SIGMA) ** 2, 0.7
        y = reduce_groups(f, RIGID).T / np.sqrt(3.0 * len(f))
        rows = np.vstack([y, np.sqrt(s) * a, np.sqrt(l2 * d)])
        right = np.vstack([np.zeros((len(y), 3)), np.sqrt(s) * np.eye(3), np.zeros_like(d)[:, :3]])
        expected = np.linalg.lstsq(rows, right, rcond=None)[0].T
        found = noise_map(system.mapping, RIGID, gram, l2, SIGMA, T)
        np.testing.assert_allclose(found.v, expected, atol=1e-10)

    def test_mean_square_is_that_of_drawn_noise(self):
        system, x, f, gram = case(n_frames=4000)
        found = make("noise", system.mapping, RIGID, gram)
        eps = frame_noise(1, 0, np.arange(len(x)), 3)
        _, forces = add_noise(found, system.mapping @ x, found.apply(f), eps)
        square = (forces**2).mean(axis=(0, 2))
        error = (forces**2).std(axis=(0, 2)) / np.sqrt(3 * len(x))
        assert (np.abs(square - mean_square(found, gram)) < 4 * error).all()

    def test_never_above_the_optimal_map_with_noise(self):
        system, _, _, gram = case()
        found, optimal = (make(m, system.mapping, RIGID, gram) for m in ("noise", "optimal"))
        assert objective(found, gram, 0.0) < objective(optimal, gram, 0.0)

    def test_little_noise_is_the_optimal_map(self):
        system, _, _, gram = case()
        found = noise_map(system.mapping, RIGID, gram, 0.0, 1e-5, T)
        np.testing.assert_allclose(found.v, optimal_map(system.mapping, RIGID, gram).v, atol=1e-5)

    @pytest.mark.parametrize(("sigma", "kelvin"), [(0.0, 300.0), (0.1, 0.0), (np.nan, 300.0)])
    def test_needs_a_width_and_a_temperature(self, sigma, kelvin):
        system, _, _, gram = case()
        with pytest.raises(UsageError, match="width above 0 angstrom"):
            noise_map(system.mapping, RIGID, gram, 0.0, sigma, kelvin)


def pulls(positions: np.ndarray, forces: np.ndarray, hessian: np.ndarray, n_bins: int = 8):
    """How many standard errors the binned mean force is off minus the gradient of the PMF.

    Bins are of the exact mean force on each bead: (n, n_bins).
    """
    exact = -np.einsum("ij,tjc->tic", hessian, positions)
    found = []
    for bead in range(positions.shape[1]):
        x, y = exact[:, bead].ravel(), (forces - exact)[:, bead].ravel()
        edges = np.quantile(x, np.linspace(0, 1, n_bins + 1)[1:-1])
        of = np.digitize(x, edges)
        parts = [y[of == k] for k in range(n_bins)]
        found.append([p.mean() / (p.std() / np.sqrt(len(p))) for p in parts])
    return np.abs(found)


class TestMeanForce:
    """Binned means of projected forces are minus the gradient of the exact PMF."""

    def projected(self, method: str, groups: np.ndarray, temperature: float = T, **springs: float):
        system, x, f, gram = case(groups, n_frames=30_000, **springs)
        found = make(method, system.mapping, groups, gram, temperature=temperature)
        positions, forces = system.mapping @ x, found.apply(f)
        if method == "noise":
            eps = frame_noise(0, 0, np.arange(len(x)), 3)
            positions, forces = add_noise(found, positions, forces, eps)
        return pulls(positions, forces, system.pmf_hessian(SIGMA if method == "noise" else 0.0))

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("groups", [FREE, RIGID])
    def test_is_minus_the_gradient_of_the_pmf(self, method, groups):
        assert self.projected(method, groups).max() < 4.5

    @pytest.mark.parametrize("method", METHODS)
    def test_without_anything_that_holds_the_whole(self, method):
        assert self.projected(method, RIGID, tether=0.0).max() < 4.5

    @pytest.mark.parametrize("temperature", [250.0, 360.0])
    def test_a_wrong_temperature_fails_in_the_noise_map(self, temperature):
        assert self.projected("noise", FREE, temperature).max() > 10

    def test_constraints_that_the_map_ignores_spoil_it(self):
        system, x, f, _ = case(RIGID, n_frames=30_000)
        found = basic_map(system.mapping, FREE)
        assert pulls(system.mapping @ x, found.apply(f), system.pmf_hessian()).max() > 10

    def test_a_rod_that_turns(self):
        """Two atoms at a fixed distance d, both held to the origin and to a third atom.

        The springs see the rod's middle only, 1/2 k (|a|^2 + |b|^2) = k |y|^2 + constant: the
        middle is Gaussian, directions are uniform, and forces on the two ends differ.
        """
        rng, n, d, k, link = np.random.default_rng(8), 30_000, 1.1, 5.0, 8.0
        middle = Oscillators(  # of the rod's middle and the third atom
            np.array([[2 * (k + link), -2 * link], [-2 * link, 2 * link + k]]),
            np.array([[1.0, 0.0]]),
            np.arange(2),
        )
        y, _ = middle.sample(n, seed=9)
        u = rng.normal(size=(n, 3))
        u *= 0.5 * d / np.linalg.norm(u, axis=1, keepdims=True)
        x = np.stack([y[:, 0] + u, y[:, 0] - u, y[:, 1]], axis=1)
        ends = -k * x[:, :2] - link * (x[:, :2] - x[:, 2:])
        third = -k * x[:, 2:] + link * (x[:, :2] - x[:, 2:]).sum(axis=1, keepdims=True)
        f = np.concatenate([ends, third], axis=1)
        mapping, groups = np.array([[0.5, 0.5, 0.0]]), np.array([0, 0, 1])
        gram = Gram(2).add(f, groups)
        for found in (basic_map(mapping, groups), optimal_map(mapping, groups, gram)):
            assert pulls(mapping @ x, found.apply(f), middle.pmf_hessian()).max() < 4.5


class TestSingular:
    def test_forces_that_add_up_to_zero_need_no_l2(self):
        """An isolated system: G is singular along the ones, and the fit is as sound as any."""
        system, _, f, gram = case(FREE, tether=0.0)
        assert np.abs(f.sum(axis=1)).max() < 1e-10
        value = np.linalg.eigvalsh(gram.matrix)
        assert value[0] < 1e-13 * value[-1] < 1e-3 * value[1]
        found = optimal_map(system.mapping, FREE, gram)
        assert found.condition < 1e5
        nearly = optimal_map(system.mapping, FREE, gram, 1e-9)
        np.testing.assert_allclose(found.v, nearly.v, atol=1e-7)

    def test_single_precision_forces_that_add_up_to_zero(self):
        system, _, f, gram = case(FREE, tether=0.0)
        single = Gram(10).add(f.astype("float32"), FREE)
        found = optimal_map(system.mapping, FREE, single)
        exact = optimal_map(system.mapping, FREE, gram)
        np.testing.assert_allclose(found.v, exact.v, atol=1e-5)

    def test_too_few_frames(self):
        system, _, f, _ = case(FREE)
        gram = Gram(10).add(f[:3], FREE)
        with pytest.raises(NumericalError, match="9 components of force of 3 frames") as caught:
            optimal_map(system.mapping, FREE, gram)
        assert f"--l2 {suggested_l2(gram, FREE):g}" in str(caught.value)
        assert caught.value.exit_code == 5

    @pytest.mark.parametrize("method", ["optimal", "noise"])
    def test_an_atom_that_feels_nothing(self, method):
        system, _, f, _ = case(FREE)
        f[:, [5, 8]] = 0.0
        with pytest.raises(NumericalError, match="no force acts on atoms 5, 8"):
            make(method, system.mapping, FREE, Gram(10).add(f, FREE))

    @pytest.mark.parametrize("method", ["optimal", "noise"])
    def test_forces_that_repeat_each_other(self, method):
        system, _, f, _ = case(FREE)
        f[:, 8] = -2.0 * f[:, 5]
        with pytest.raises(NumericalError, match="more than one set of weights"):
            make(method, system.mapping, FREE, Gram(10).add(f, FREE))

    @pytest.mark.parametrize("method", ["optimal", "noise"])
    def test_the_proposed_l2_mends_it(self, method):
        system, _, f, _ = case(FREE)
        f[:, 8] = -2.0 * f[:, 5]
        f[:, 2] = 0.0
        gram = Gram(10).add(f[:3], FREE)
        found = make(method, system.mapping, FREE, gram, suggested_l2(gram, FREE))
        assert np.isfinite(found.v).all()
        assert found.condition < 1e7

    def test_a_bead_that_feels_nothing(self):
        mapping = np.eye(2, 3)
        f = np.random.default_rng(0).normal(size=(20, 3, 3))
        f[:, 1] = 0.0
        found = optimal_map(mapping, np.arange(3), Gram(3).add(f, np.arange(3)))
        np.testing.assert_allclose(found.matrix[1], [0.0, 1.0, 0.0], atol=1e-12)

    @pytest.mark.parametrize("l2", [-1.0, np.nan, np.inf])
    def test_l2_is_a_number_from_zero(self, l2):
        system, _, _, gram = case()
        with pytest.raises(UsageError, match="--l2 must be 0 or more"):
            optimal_map(system.mapping, RIGID, gram, l2)


class TestMapping:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_group_across_two_beads_is_named(self, method):
        system, _, f, _ = case(FREE)
        groups = constraint_groups(10, np.array([[1, 2], [2, 3]]))
        gram = Gram(groups.max() + 1).add(f, groups)
        with pytest.raises(DataError, match=r"atoms 1, 2, 3 belongs to beads 0, 1") as caught:
            make(method, system.mapping, groups, gram)
        assert caught.value.exit_code == 3

    def test_an_atom_in_two_beads_is_named(self):
        with pytest.raises(DataError, match=r"atom 1 belongs to beads 0, 1"):
            basic_map(np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]), np.arange(3))

    @pytest.mark.parametrize("row", [[0.0, 0.0], [0.5, 0.6], [np.nan, 1.0]])
    def test_weights_of_a_bead_add_up_to_one(self, row):
        with pytest.raises(DataError, match="must add up to 1, found .* for bead 1"):
            basic_map(np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, *row]]), np.arange(4))

    def test_groups_are_of_the_mapped_atoms(self):
        with pytest.raises(DataError, match="4 atoms are mapped"):
            basic_map(np.eye(2, 4), np.arange(3))
