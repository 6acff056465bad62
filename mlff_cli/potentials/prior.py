"""Prior of a bead model: the energy that is known before learning, with trainable parameters.

    U(R) = sum_terms w_term sum_i [U_form(q_i; parameters of the types of i) + wall(q_i)]
    a dihedral's energy times fade(sin theta_1) fade(sin theta_2)                   F = -dU/dR

Forms and their limits: `physics.bonded`, `physics.splines`. Energies in kcal/mol, lengths in
angstrom, angles in radian. A prior is bound to a molecule once (`Prior.bind`), which looks every
term up; several bound molecules join into one without padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.prior_file import PriorFile
from mlff_cli.physics import bonded
from mlff_cli.physics.terms import APART, Terms
from mlff_cli.potentials.prior_tables import FormTable


@dataclasses.dataclass(frozen=True, eq=False)
class BoundTerms:
    """Terms of one molecule, or of several, with the parameters that each one takes.

    Attributes:
        n_beads: of all molecules.
        beads: (t, w) int64 beads of the terms, per table of the prior.
        rows: (t,) int64 which parameters a term takes, per table.
        molecule: (n_beads,) int64 which molecule a bead belongs to; None where there is only one.
        n_molecules: how many there are.
    """

    n_beads: int
    beads: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    molecule: Tensor | None = None
    n_molecules: int = 1

    @property
    def n_terms(self) -> int:
        """Terms of all kinds."""
        return sum(len(rows) for rows in self.rows)

    def to(self, device: torch.device | str) -> BoundTerms:
        """The same on another device."""
        return dataclasses.replace(
            self,
            beads=tuple(beads.to(device) for beads in self.beads),
            rows=tuple(rows.to(device) for rows in self.rows),
            molecule=None if self.molecule is None else self.molecule.to(device),
        )

    @staticmethod
    def join(several: Sequence[BoundTerms], stride: int | None = None) -> BoundTerms:
        """Single molecules, bound to one prior, whose beads lie one after the other.

        Args:
            several: one or more.
            stride: beads from the start of one to the next, as in frames (B, stride, 3) laid flat,
                whose padding no term meets. None: they follow without a gap.
        """
        sizes = torch.tensor([stride or one.n_beads for one in several])
        starts = (sizes.cumsum(0) - sizes).tolist()
        tables = range(len(several[0].rows))
        device = several[0].rows[0].device if several[0].rows else torch.device("cpu")
        return BoundTerms(
            int(sizes.sum()),
            tuple(
                torch.cat([o.beads[t] + start for o, start in zip(several, starts, strict=True)])
                for t in tables
            ),
            tuple(torch.cat([one.rows[t] for one in several]) for t in tables),
            torch.repeat_interleave(torch.arange(len(several)), sizes).to(device),
            len(several),
        )


class Prior(nn.Module):
    """Energy and forces of bead chains.

    The parameters of the forms are trained; walls, ends of splines, cores and cutoffs are not. It
    computes in float64 until `.to(torch.float32)`.

    Args:
        file: the prior.

    Attributes:
        file: what it was made of.
    """

    def __init__(self, file: PriorFile) -> None:
        super().__init__()
        self.file = file
        self._entries: dict[
            str, tuple[str, list[int]]
        ] = {}  # of each table: term, rows in the file
        self.tables = nn.ModuleDict()
        for name, term in file.terms.items():
            for row, entry in enumerate(term.entries):
                key = f"{name}_{FormTable.kind(entry.parameters)}"
                self._entries.setdefault(key, (name, []))[1].append(row)
        for key, (name, rows) in self._entries.items():
            self.tables[key] = FormTable([file.terms[name].entries[row] for row in rows])

    def bind(self, terms: Terms, types: Sequence[str]) -> BoundTerms:
        """Look up the parameters of every term of a molecule.

        Args:
            terms: of the molecule.
            types: (n_beads,) names of the beads' types, each among the prior's species.

        Raises:
            DataError: a type is not among the species, no entry is for the types of a term, or
                there is not one type per bead.
        """
        if len(types) != terms.n_beads:
            raise DataError(f"{terms.n_beads} beads need as many types, found {len(types)}")
        self._check_types(types)
        beads = {name: self._beads(name, terms) for name in self.file.terms}
        entry = {name: self._look_up(name, rows, types) for name, rows in beads.items()}
        chosen, rows = [], []
        for name, entries in self._entries.values():
            mine = np.isin(entry[name], entries)
            chosen.append(torch.from_numpy(beads[name][mine]))
            rows.append(torch.from_numpy(np.searchsorted(entries, entry[name][mine])))
        return BoundTerms(terms.n_beads, tuple(chosen), tuple(rows))

    def energies(
        self, positions: Tensor, bound: BoundTerms, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Energy of each kind of term, its weight included; the shapes are those of `forward`."""
        x = positions.to(self.dtype)
        shape = x.shape[:-2] if bound.molecule is None else (*x.shape[:-2], bound.n_molecules)
        total = {name: x.new_zeros(shape) for name in self.file.terms}
        for key, beads, rows in zip(self._entries, bound.beads, bound.rows, strict=True):
            if not len(rows):
                continue
            name = self._entries[key][0]
            energy = self._table(key, x, beads, rows, mask) * self.file.terms[name].weight
            if bound.molecule is None:
                total[name] = total[name] + energy.sum(-1)
            else:
                total[name] = total[name].index_add(-1, bound.molecule[beads[:, 0]], energy)
        return total

    def forward(self, positions: Tensor, bound: BoundTerms, mask: Tensor | None = None) -> Tensor:
        """Energy.

        Args:
            positions: (..., n_beads, 3) in angstrom, as (B, n_beads, 3) for frames of one molecule.
            bound: terms of these beads.
            mask: (..., n_beads) True or 1 for beads that are there; a term of one that is not is
                left out, whatever its position holds. None: all are there.

        Returns:
            (...) in kcal/mol; (..., n_molecules) for molecules that were joined.
        """
        x = positions.to(self.dtype)
        shape = x.shape[:-2] if bound.molecule is None else (*x.shape[:-2], bound.n_molecules)
        return sum(self.energies(positions, bound, mask).values(), start=x.new_zeros(shape))

    def energy_and_forces(
        self,
        positions: Tensor,
        bound: BoundTerms,
        mask: Tensor | None = None,
        *,
        differentiable: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Energy as `forward` gives it, and forces (..., n_beads, 3) in kcal/mol/angstrom.

        Args:
            positions: see `forward`.
            bound: see `forward`.
            mask: see `forward`.
            differentiable: keep the graph, to train on forces.
        """
        with torch.enable_grad():
            x = positions if positions.requires_grad else positions.detach().requires_grad_()
            energy = self(x, bound, mask)
            if not bound.n_terms:
                return energy, torch.zeros_like(x)
            (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=differentiable)
        return (energy, -gradient) if differentiable else (energy.detach(), -gradient)

    def updated(self) -> PriorFile:
        """The prior with the parameters as they are now.

        Raises:
            ValueError: training took one where the form has no meaning, as a spring below zero.
        """
        terms = dict(self.file.terms)
        for key, (name, rows) in self._entries.items():
            entries = list(terms[name].entries)
            for row, form in zip(rows, self._form_table(key).forms(), strict=True):
                entries[row] = dataclasses.replace(entries[row], parameters=form)
            terms[name] = dataclasses.replace(terms[name], entries=tuple(entries))
        return dataclasses.replace(self.file, terms=terms)

    def cutoffs(self) -> list[np.ndarray | None]:
        """Of each table: (E,) angstrom from which on the energies of its entries are exactly zero.

        None where an energy has no end.
        """
        tables = [self._form_table(key) for key in self._entries]
        return [t.get("cutoff").cpu().numpy() if "cutoff" in t.fixed else None for t in tables]

    def named_tables(self) -> list[tuple[str, FormTable]]:
        """Term and table, in the order of `BoundTerms.beads`."""
        return [(name, self._form_table(key)) for key, (name, _) in self._entries.items()]

    @property
    def dtype(self) -> torch.dtype:
        """The type it computes in."""
        return next((p.dtype for p in self.parameters()), torch.float64)

    def _form_table(self, key: str) -> FormTable:
        table = self.tables[key]
        assert isinstance(table, FormTable)
        return table

    def _table(
        self, key: str, x: Tensor, beads: Tensor, rows: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Energies (..., t) of the terms of one table, without their weight."""
        p = x.index_select(-2, beads.flatten()).reshape(
            *x.shape[:-2], *beads.shape, 3
        )  # [..., t, w, 3]
        valid = None
        if mask is not None:
            there = mask.to(torch.bool).index_select(-1, beads.flatten())
            valid = there.reshape(*mask.shape[:-1], *beads.shape).all(-1)  # [..., t]
            # NaN * 0 is NaN backwards: the inputs are replaced, not only the results
            safe = torch.tensor(bonded.SAFE[: beads.shape[1]], dtype=x.dtype, device=x.device)
            p = torch.where(valid[..., None, None], p, safe)
        q, factor = _coordinate(p, self.file.damping)
        energy = self._form_table(key)(q, rows)
        if factor is not None:
            energy = energy * factor
        return energy if valid is None else torch.where(valid, energy, 0.0)

    def _beads(self, name: str, terms: Terms) -> np.ndarray:
        separation = self.file.terms[name].separation
        if separation is not None:
            low, high = separation
            return terms.pairs_between(low, APART if high is None else high)
        rows: np.ndarray = getattr(terms, f"{name}s")
        return rows

    def _check_types(self, types: Sequence[str]) -> None:
        """Entries of `*` would stand in for any name, a misspelt one and another table's, too."""
        unknown = sorted(set(types) - set(self.file.species))
        if unknown:
            known = self.file.species
            raise DataError(
                f"types of beads are those of the prior's species {', '.join(known[:6])}"
                f"{f' and {len(known) - 6} more' if len(known) > 6 else ''}, found "
                f"{', '.join(unknown[:6])}{f' and {len(unknown) - 6} more' if unknown[6:] else ''} "
                f"(bead {list(types).index(unknown[0])})",
                remedy="fit it to data that hold these types, or add them to `species` of the "
                "file: they then take the entries of `*`",
            )

    def _look_up(self, name: str, beads: np.ndarray, types: Sequence[str]) -> np.ndarray:
        """Entry (t,) of every term."""
        term = self.file.terms[name]
        names, number = np.unique(np.asarray(types, dtype=str), return_inverse=True)
        sizes = (len(names),) * beads.shape[1]
        codes = np.ravel_multi_index(tuple(number[beads].T), sizes)
        kinds, inverse = np.unique(codes, return_inverse=True)
        entry = np.empty(len(kinds), dtype=np.int64)
        for k, kind in enumerate(zip(*np.unravel_index(kinds, sizes), strict=True)):
            chain = tuple(str(names[i]) for i in kind)
            row = term.find(chain)
            if row is None:
                where = beads[np.flatnonzero(inverse == k)[0]]
                raise DataError(
                    f"the prior has no {name} for {'-'.join(chain)} (beads {where.tolist()})",
                    remedy="fit it to data that hold these types, or give it an entry for `*`",
                )
            entry[k] = row
        return entry[inverse]


def _coordinate(p: Tensor, damping: float) -> tuple[Tensor, Tensor | None]:
    """Distance, angle or dihedral (..., t) of points [..., t, w, 3], and a factor of its energy."""
    points = p.unbind(-2)
    if len(points) == 2:
        return bonded.distance(*points), None
    if len(points) == 3:
        return bonded.angle(*points), None
    phi, sine_b, sine_c = bonded.dihedral(*points)
    return phi, bonded.fade(sine_b, damping) * bonded.fade(sine_c, damping)
