"""The prior of one molecule as TorchScript can compile it: every term with its own parameters.

    U(R) = sum_tables w_table sum_i [U_form(q_i) + wall(q_i)] fade_i            one table: one form

The formulas and their limits are those of `physics.bonded` and `physics.splines`, the numbers those
of `Prior`, whose tables are looked up once, here, for good: parameters are constants. Pairs beyond
their cutoff, where energy and forces are exactly zero, are left out where they are many.
"""
# ruff: noqa: UP006, UP035, UP045

from types import MappingProxyType
from typing import Callable, List, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn

from mlff_cli.physics import bonded
from mlff_cli.physics.splines import cubic_spline, periodic_spline
from mlff_cli.potentials.prior import BoundTerms, Prior
from mlff_cli.potentials.prior_tables import FormTable, bends

MANY = 512  # pairs of one table: from here on looking for the near ones costs less than it saves


class ScriptedPrior(nn.Module):
    """Energy of the prior for frames of one molecule.

    Args:
        prior: where the parameters are taken from, as they are now; it is not changed.
        bound: terms of one molecule, bound to it.

    Attributes:
        n_beads: n of the molecule.
    """

    def __init__(self, prior: Prior, bound: BoundTerms) -> None:
        super().__init__()
        if bound.molecule is not None:
            raise ValueError("terms of one molecule are scripted, found several joined")
        self.n_beads = bound.n_beads
        tables: List[nn.Module] = []
        for (name, table), beads, rows in zip(
            prior.named_tables(), bound.beads, bound.rows, strict=True
        ):
            if len(rows):
                weight = prior.file.terms[name].weight
                tables.append(_bound_table(table, beads, rows, weight, prior.file.damping))
        self.tables = nn.ModuleList(tables)

    def forward(self, positions: Tensor) -> Tensor:
        """Energy (B,) in kcal/mol of positions (B, n, 3) in angstrom; the type is theirs."""
        energy = torch.zeros_like(positions[:, 0, 0])
        for table in self.tables:
            energy = energy + table(positions)
        return energy


def _bound_table(
    table: FormTable, beads: Tensor, rows: Tensor, weight: float, damping: float
) -> nn.Module:
    p = {n: table.get(n).detach().double() for n in (*table.trained, *table.fixed)}
    if table.form == "soft_sphere" and len(rows) >= MANY:
        return NearPairs(beads, {n: v[rows] for n, v in p.items()}, weight)
    wall = None
    if table.walled:
        k, low, high = (table.get(f"wall_{n}").double()[rows] for n in ("k", "low", "high"))
        wall = Wall(k, low, high)
    return BoundTable(beads, _form(table.form, p, rows), wall, weight, damping)


class BoundTable(nn.Module):
    """Energy of the terms of one form.

    Args:
        beads: (t, w) int64.
        form: energies of the terms by distance, angle or dihedral.
        wall: added to them.
        weight: factor of the sum.
        damping: of dihedrals near collinear beads.
    """

    beads: Tensor

    def __init__(
        self,
        beads: Tensor,
        form: nn.Module,
        wall: Optional[nn.Module],
        weight: float,
        damping: float,
    ) -> None:
        super().__init__()
        # a column of beads at a time: (w, t) in memory
        self.register_buffer("beads", beads.t().contiguous())
        coordinates = {2: Distances(), 3: Angles(), 4: Dihedrals(damping)}
        self.coordinate = coordinates[beads.shape[1]]
        self.form, self.wall, self.weight = form, wall, float(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Energy (B,) of positions (B, n, 3)."""
        w, t = self.beads.shape
        p = x.index_select(1, self.beads.flatten()).reshape(-1, w, t, 3)  # [b, w, t, xyz]
        q, factor = self.coordinate(p)
        energy = self.form(q)  # [b, t]
        if self.wall is not None:
            energy = energy + self.wall(q)
        if factor is not None:
            energy = energy * factor
        total: Tensor = energy.sum(1) * self.weight
        return total


class NearPairs(nn.Module):
    """Energy of many soft spheres: only pairs within their cutoff are looked at.

    Args:
        beads: (t, 2) int64.
        parameters: (t,) each, of `bonded.soft_sphere`.
        weight: factor of the sum.
    """

    first: Tensor
    second: Tensor
    epsilon: Tensor
    sigma: Tensor
    core: Tensor
    onset: Tensor
    cutoff: Tensor

    def __init__(self, beads: Tensor, parameters: Mapping[str, Tensor], weight: float) -> None:
        super().__init__()
        self.register_buffer("first", beads[:, 0].clone())
        self.register_buffer("second", beads[:, 1].clone())
        for name in ("epsilon", "sigma", "core", "onset", "cutoff"):
            self.register_buffer(name, parameters[name].clone())
        self.weight = float(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Energy (B,) of positions (B, n, 3)."""
        frozen = x.detach()
        apart = frozen.index_select(1, self.second) - frozen.index_select(1, self.first)
        near = (apart.square().sum(-1) < self.cutoff.square()).nonzero()  # [p, (b, t)]
        frame, t = near[:, 0], near[:, 1]
        start = frame * x.shape[1]
        flat = x.flatten(0, 1)
        a = flat.index_select(0, start + self.first[t])
        b = flat.index_select(0, start + self.second[t])
        r = bonded.distance(a, b)
        energy = bonded.soft_sphere(
            r, self.epsilon[t], self.sigma[t], self.core[t], self.onset[t], self.cutoff[t]
        )
        return torch.zeros_like(x[:, 0, 0]).index_add(0, frame, energy) * self.weight


class Distances(nn.Module):
    """Distances (B, t) of points (B, 2, t, 3)."""

    def forward(self, p: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """Coordinates and, where there is one, a factor of their energy."""
        return bonded.distance(p[:, 0], p[:, 1]), None


class Angles(nn.Module):
    """Angles (B, t) of points (B, 3, t, 3)."""

    def forward(self, p: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """Coordinates and, where there is one, a factor of their energy."""
        return bonded.angle(p[:, 0], p[:, 1], p[:, 2]), None


class Dihedrals(nn.Module):
    """Dihedrals (B, t) of points (B, 4, t, 3), and how far they fade."""

    def __init__(self, damping: float) -> None:
        super().__init__()
        self.damping = float(damping)

    def forward(self, p: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """Coordinates and, where there is one, a factor of their energy."""
        phi, sine_b, sine_c = bonded.dihedral(p[:, 0], p[:, 1], p[:, 2], p[:, 3])
        return phi, bonded.fade(sine_b, self.damping) * bonded.fade(sine_c, self.damping)


class _Rows(nn.Module):
    """Parameters of every term as buffers."""

    def __init__(self, **columns: Tensor) -> None:
        super().__init__()
        for name, values in columns.items():
            self.register_buffer(name, values.clone())


class Harmonic(_Rows):
    """Springs."""

    k: Tensor
    r0: Tensor

    def forward(self, q: Tensor) -> Tensor:
        """Energies (B, t)."""
        return bonded.harmonic(q, self.k, self.r0)


class Fourier(_Rows):
    """Fourier series."""

    a: Tensor
    b: Tensor

    def forward(self, q: Tensor) -> Tensor:
        """Energies (B, t)."""
        return bonded.fourier(q, self.a, self.b)


class Cosine(_Rows):
    """Periodic torsions."""

    k: Tensor
    gamma: Tensor

    def forward(self, q: Tensor) -> Tensor:
        """Energies (B, t)."""
        return bonded.cosine(q, self.k, self.gamma)


class SoftSphere(_Rows):
    """Repulsions."""

    epsilon: Tensor
    sigma: Tensor
    core: Tensor
    onset: Tensor
    cutoff: Tensor

    def forward(self, q: Tensor) -> Tensor:
        """Energies (B, t)."""
        return bonded.soft_sphere(q, self.epsilon, self.sigma, self.core, self.onset, self.cutoff)


class Spline(_Rows):
    """Splines with two ends; terms share them by rows."""

    rows: Tensor
    low: Tensor
    high: Tensor
    values: Tensor
    m: Tensor

    def forward(self, q: Tensor) -> Tensor:
        """Energies (B, t)."""
        return cubic_spline(q, self.rows, self.low, self.high, self.values, self.m)


class PeriodicSpline(_Rows):
    """Splines of dihedrals; terms share them by rows."""

    rows: Tensor
    values: Tensor
    m: Tensor

    def forward(self, q: Tensor) -> Tensor:
        """Energies (B, t)."""
        return periodic_spline(q, self.rows, self.values, self.m)


class Wall(nn.Module):
    """Springs outside the sampled range."""

    k: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, k: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        for name, values in (("k", k), ("low", low), ("high", high)):
            self.register_buffer(name, values)

    def forward(self, q: Tensor) -> Tensor:
        """Energies (B, t)."""
        return bonded.wall(q, self.k, self.low, self.high)


def _form(name: str, p: Mapping[str, Tensor], rows: Tensor) -> _Rows:
    """The parameters that each term takes; splines are shared, not repeated."""
    if name == "spline":
        return Spline(rows=rows, low=p["low"], high=p["high"], values=p["values"], m=bends(p))
    if name == "periodic_spline":
        return PeriodicSpline(rows=rows, values=p["values"], m=bends(p))
    return _GATHERED[name](**{parameter: values[rows] for parameter, values in p.items()})


_GATHERED: Mapping[str, Callable[..., _Rows]] = MappingProxyType(
    {"harmonic": Harmonic, "fourier": Fourier, "cosine": Cosine, "soft_sphere": SoftSphere}
)
