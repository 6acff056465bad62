"""Entries of a prior, with what each was fitted to."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlff_cli.coarse.priors.distributions import Histogram
from mlff_cli.data.beads.prior_file import SEPARATION, Entry, Term

TERMS = ("bond", "angle", "dihedral", "excluded_volume", "repulsion")


@dataclass(frozen=True)
class Fitted:
    """One entry and what it was fitted to.

    Attributes:
        kind: name of the term.
        types: of the entry, all beads of the term.
        label: types as a person reads them; "pooled" for all together.
        entry: of the prior.
        histogram: the samples; None where sigma came from other pairs.
        overlap: 1 - sum |p_fit - p_data| / 2, 1 where the entry alone gives back the histogram;
            None for pairs, whose distances depend on everything else.
        range: low and high of the samples.
        straight: share of the samples where dihedrals are singular.
    """

    kind: str
    types: tuple[str, ...]
    label: str
    entry: Entry
    histogram: Histogram | None
    overlap: float | None
    range: tuple[float, float] | None = None
    straight: float = 0.0


@dataclass
class PriorFit:
    """All entries of a prior.

    Attributes:
        fitted: pooled first, then by type, kind by kind.
        few: {kind: types with too few samples for an entry of their own}.
        broken: {types: bonds that were left out, too long to be bonds}.
        notes: what a user must be told.
    """

    fitted: list[Fitted] = field(default_factory=list)
    few: dict[str, list[str]] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def terms(self) -> dict[str, Term]:
        """The terms of the prior file: exact types first, then pooled."""
        found = {}
        for kind in TERMS:
            own = [f.entry for f in self.fitted if f.kind == kind]
            if own:
                found[kind] = Term(entries=tuple(own), separation=SEPARATION.get(kind))
        return found
