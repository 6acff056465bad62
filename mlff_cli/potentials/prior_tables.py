"""Parameters of many entries of one functional form, stacked, and the energies they give."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mlff_cli.data.beads.prior_file import Entry
from mlff_cli.data.beads.prior_forms import Form, Spline
from mlff_cli.physics import bonded
from mlff_cli.physics.splines import Ends, cubic_spline, curvature_matrix, periodic_spline

Parameters = Mapping[str, Tensor]
Energy = Callable[[Tensor, Tensor, Parameters], Tensor]


def _gathered(form: Callable[..., Tensor]) -> Energy:
    """A form whose parameters are looked up for every term first."""
    return lambda q, rows, p: form(q, **{name: table[rows] for name, table in p.items()})


def bends(p: Parameters) -> Tensor:
    """h^2 U'' at the knots (E, K) of splines, m of `physics.splines`, by their parameters."""
    y = p["values"]
    if "slopes" in p:
        h = ((p["high"] - p["low"]) / (y.shape[1] - 1))[:, None]
        y = torch.cat([y, h * p["slopes"]], 1)
    return y @ p["curvature"].T


def _spline(x: Tensor, rows: Tensor, p: Parameters) -> Tensor:
    return cubic_spline(x, rows, p["low"], p["high"], p["values"], bends(p))


def _periodic_spline(phi: Tensor, rows: Tensor, p: Parameters) -> Tensor:
    return periodic_spline(phi, rows, p["values"], bends(p))


# form -> parameters that are trained, parameters that are not, energy of (q, rows, parameters)
_FORMS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], Energy]] = MappingProxyType(
    {
        "harmonic": (("k", "r0"), (), _gathered(bonded.harmonic)),
        "fourier": (("a", "b"), (), _gathered(bonded.fourier)),
        "cosine": (("k", "gamma"), (), _gathered(bonded.cosine)),
        "spline": (("values", "slopes"), ("low", "high"), _spline),
        "periodic_spline": (("values",), (), _periodic_spline),
        "soft_sphere": (
            ("epsilon", "sigma"),
            ("core", "onset", "cutoff"),
            _gathered(bonded.soft_sphere),
        ),
    }
)


class FormTable(nn.Module):
    """Energies of terms of one form, each with its own row of parameters, and their walls.

    Args:
        entries: E of them, alike in form and sizes (`kind`).
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__()
        self.entries = tuple(entries)
        first = entries[0].parameters
        self.form = first.form
        trained, fixed, _ = _FORMS[first.form]
        self.trained = tuple(n for n in trained if getattr(first, n) is not None)
        for name in self.trained:
            self.register_parameter(name, nn.Parameter(self._column(name)))
        self.fixed = list(fixed)
        for name in fixed:
            self.register_buffer(name, self._column(name))
        if first.form in ("spline", "periodic_spline"):
            ends: Ends = "periodic"
            if isinstance(first, Spline):
                ends = "clamped" if first.slopes is not None else "natural"
            values = self._column("values")
            self.register_buffer("curvature", curvature_matrix(values.shape[1], ends))
            self.fixed.append("curvature")
        self.walled = any(e.wall is not None for e in entries)
        if self.walled:
            for name, value in self._walls().items():
                self.register_buffer(name, value)

    @staticmethod
    def kind(form: Form) -> str:
        """Entries with the same text can share a table."""
        sizes = {
            f.name: len(v) if isinstance(v := getattr(form, f.name), tuple) else None
            for f in dataclasses.fields(form)
        }
        longest = max((n for n in sizes.values() if n), default=None)
        ends = "_clamped" if sizes.get("slopes") else ""
        return form.form + (f"_{longest}" if longest else "") + ends

    def forward(self, q: Tensor, rows: Tensor) -> Tensor:
        """Energies of terms.

        Args:
            q: (..., t) distances, angles or dihedrals.
            rows: (t,) int64 entry of each.

        Returns:
            (..., t) in kcal/mol.
        """
        p = {name: self.get(name) for name in (*self.trained, *self.fixed)}
        energy = _FORMS[self.form][2](q, rows, p)
        if not self.walled:
            return energy
        k, low, high = (self.get(f"wall_{n}")[rows] for n in ("k", "low", "high"))
        return energy + bonded.wall(q, k, low, high)

    def get(self, name: str) -> Tensor:
        """A parameter or buffer by name."""
        value = getattr(self, name)
        assert isinstance(value, Tensor)
        return value

    def forms(self) -> list[Form]:
        """The parameters as they are now, one form per entry."""
        columns = {name: self.get(name).detach().cpu().double() for name in self.trained}
        now: list[Form] = []
        for row, entry in enumerate(self.entries):
            values: dict[str, Any] = {name: c[row].tolist() for name, c in columns.items()}
            now.append(dataclasses.replace(entry.parameters, **values))
        return now

    def _column(self, name: str) -> Tensor:
        values = [getattr(e.parameters, name) for e in self.entries]
        return torch.tensor(values, dtype=torch.float64)

    def _walls(self) -> dict[str, Tensor]:
        """What a wall lacks is a spring of no strength, or an end at infinity."""
        rows = [
            (0.0, -math.inf, math.inf)
            if (w := e.wall) is None
            else (
                w.k,
                -math.inf if w.low is None else w.low,
                math.inf if w.high is None else w.high,
            )
            for e in self.entries
        ]
        columns = torch.tensor(rows, dtype=torch.float64).unbind(1)
        return dict(zip(("wall_k", "wall_low", "wall_high"), columns, strict=True))
