"""Works of maps between ensembles of springs, whose free energies and acceptances are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mlff_cli.core.errors import NumericalError
from mlff_cli.deploy.flows.works import Ensemble, MapWorks, energies, works
from mlff_cli.flows.flow import Flow
from mlff_cli.physics.replica_exchange import K_B

COLD, HOT, ATOMS, STIFF = 300.0, 480.0, 5, 300.0
INTERNAL = 3 * ATOMS - 3
EXACT = -0.5 * INTERNAL * math.log(HOT / COLD)  # -ln(Z_t / Z_s)


class Stretch(Flow):
    """Stretches about the centre by a factor; ln|det| on 3N-3 coordinates."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.factor * (x - x.mean(1, keepdim=True))
        return y, (INTERNAL * self.factor.log()).expand(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x = (y - y.mean(1, keepdim=True)) / self.factor
        return x, (-INTERNAL * self.factor.log()).expand(len(y))

    def fit(self, source: Tensor, target: Tensor, ratio: float | None = None) -> None:
        """Nothing."""


def energy(x: Tensor) -> Tensor:
    """U = k/2 sum (x - centre)^2."""
    return 0.5 * STIFF * (x - x.mean(1, keepdim=True)).square().sum((1, 2))


def ensemble(kelvin: float, n: int, seed: int, lengths: tuple[int, ...] | None = None) -> Ensemble:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, ATOMS, 3)) * math.sqrt(K_B * kelvin / STIFF)
    return Ensemble(kelvin, x, lengths or (n,), energies(x, energy))


def carried(factor: float, n: int = 3000) -> MapWorks:
    return works(Stretch(factor), ensemble(COLD, n, 0), ensemble(HOT, n, 1), energy)


def test_the_exact_map() -> None:
    found = carried(math.sqrt(HOT / COLD))
    assert found.acceptance.value == pytest.approx(1.0, abs=1e-9)
    assert found.excess.value == pytest.approx(0.0, abs=1e-9)
    assert found.effective == pytest.approx((1.0, 1.0))
    assert found.free_energy.value == pytest.approx(EXACT, abs=1e-8)
    assert [e.value for e in found.one_sided] == pytest.approx([EXACT, EXACT], abs=1e-8)


@pytest.mark.parametrize("factor", [1.0, 1.15, 1.4])
def test_other_maps_tell_the_same_free_energy(factor: float) -> None:
    """Different works, one dF: inside the errors that are told."""
    found = carried(factor)
    assert found.free_energy.value == pytest.approx(EXACT, abs=4.5 * found.free_energy.error)
    assert 0 < found.free_energy.error < 0.15
    assert found.forward.round_trip < 1e-12
    assert found.acceptance.value < 0.999


def test_reweighting_gives_the_target() -> None:
    """Mean energies of 3/2 (N-1) k_B T at either end, from frames of the other."""
    found = carried(1.15)
    for inverse, kelvin, c in ((False, HOT, found.forward), (True, COLD, found.reverse)):
        expected = 0.5 * INTERNAL * K_B * kelvin
        assert found.reweighted(c.energy, inverse=inverse) == pytest.approx(expected, rel=0.03)
        assert abs(c.energy.mean() / expected - 1) > 0.04  # not without weights


def test_frames_that_come_twice_are_told_as_dependent() -> None:
    """Every frame repeated ten times: g is ten, and errors are those of a tenth of the frames."""
    single = ensemble(COLD, 400, 3)
    x = np.repeat(single.positions, 10, axis=0)
    repeated = Ensemble(COLD, x, (len(x),), energies(x, energy))
    target = ensemble(HOT, 400, 4)
    one, many = (works(Stretch(1.1), e, target, energy) for e in (single, repeated))
    assert many.forward.inefficiency == pytest.approx(10, rel=0.3)
    assert many.acceptance.value == pytest.approx(one.acceptance.value, rel=1e-9)
    assert many.acceptance.error == pytest.approx(one.acceptance.error, rel=0.2)


def test_a_failed_energy_counts_for_its_own_frame() -> None:
    source, target = ensemble(COLD, 300, 5), ensemble(HOT, 300, 6)

    def failing(x: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x)) == 7, torch.inf, energy(x))

    whole = works(Stretch(1.2), source, target, energy)
    found = works(Stretch(1.2), source, target, failing)
    assert np.flatnonzero(~np.isfinite(found.forward.work)).tolist() == [7]
    others = np.arange(300) != 7
    np.testing.assert_array_equal(found.forward.work[others], whole.forward.work[others])
    assert found.excess.value == math.inf
    assert found.acceptance.value < whole.acceptance.value


def test_frames_without_energy_are_refused() -> None:
    source = ensemble(COLD, 30, 0)
    source.energy[3] = np.nan
    with pytest.raises(NumericalError, match="sample 3"):
        works(Stretch(1.2), source, ensemble(HOT, 30, 1), energy)
