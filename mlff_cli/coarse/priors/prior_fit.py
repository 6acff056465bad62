"""A prior from distributions: one entry for all types together, and one for each type with data.

| term            | types               | parametric | spline          | wall                     |
|-----------------|---------------------|------------|-----------------|--------------------------|
| bond            | a b                 | harmonic   | spline          | spline only              |
| angle           | * b *               | fourier    | spline          | both                     |
| dihedral        | * b c *             | cosine     | periodic_spline | none: a circle           |
| excluded_volume | a b                 | soft_sphere| soft_sphere     | itself                   |
| repulsion       | a b                 | soft_sphere| soft_sphere     | itself                   |

Disulfides always get an entry of their own, as the pooled bond is as short as the chain's.

A wall begins where the sampled range ends, that of an angle before pi - asin(damping), where
dihedrals become singular:

    1/2 k (q - high)^2,   k = STIFF kT/s^2,   s: standard deviation of the samples
    angles:               k (pi - high)^2/2 >= CLIMB kT
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mlff_cli.coarse.priors.distributions import (
    POOLED,
    TERM_KINDS,
    Distributions,
    Histogram,
    merged,
)
from mlff_cli.coarse.priors.form_fits import (
    NARROWEST,
    fit_cosine,
    fit_fourier,
    fit_harmonic,
    fit_periodic_spline,
    fit_spline,
    sampled_range,
)
from mlff_cli.coarse.priors.pair_repulsion import fit_soft_sphere, fit_types
from mlff_cli.coarse.priors.prior_curves import boltzmann
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.prior_file import PAIR_TERMS, SEPARATION, Entry, Term
from mlff_cli.data.beads.prior_forms import Form, SoftSphere, Wall

TERMS = ("bond", "angle", "dihedral", "excluded_volume", "repulsion")
FEWEST = 100  # samples that a distribution needs at all
BROKEN = 2.0  # times the median: no bond is stretched so far
DAMPING = 0.2  # sine of an angle below which its dihedrals fade
LAST_ANGLE = float(np.pi - np.arcsin(DAMPING))
STIFF = 4.0
CLIMB = 10.0
POOR = 0.85  # overlap below which a form does not describe its distribution


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
        straight: share of the samples beyond `LAST_ANGLE`.
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
        broken: {types: bonds that were left out, longer than `BROKEN` medians}.
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


def fit_prior(
    distributions: Distributions,
    kt: float,
    *,
    form: str = "parametric",
    by_type: bool = True,
    min_samples: int = 1000,
) -> PriorFit:
    """Fit every term that the distributions hold.

    Args:
        distributions: of the set.
        kt: kcal/mol.
        form: "parametric" or "spline".
        by_type: also fit every residue type.
        min_samples: samples that a type needs for an entry of its own.

    Raises:
        DataError: a distribution has fewer than `FEWEST` samples.
        NumericalError: a distribution that the form cannot describe at all.
    """
    result = PriorFit()
    for kind in TERMS:
        parts = distributions.of(kind)
        if not parts:
            continue
        if kind == "bond":
            parts = [_unbroken(h, result) for h in parts]
        pooled = merged(parts, POOLED)
        if kind in PAIR_TERMS:
            _fit_pairs(pooled, parts, kt, by_type, min_samples, result)
            continue
        if pooled.n < FEWEST:
            raise DataError(
                f"a distribution needs {FEWEST} samples or more, all {kind}s together have "
                f"{pooled.n}",
                remedy="use more frames",
            )
        result.fitted.append(_fit(pooled, kt, form))
        across = _disulfides(distributions, parts, result) if kind == "bond" else []
        for histogram in across:
            result.fitted.append(_fit(histogram, kt, form))
        if not by_type or len(parts) == 1:
            continue  # one type: the pooled entry is its own
        done = {h.types for h in across}
        for histogram in parts:
            if histogram.types in done:
                continue
            if histogram.n >= max(min_samples, FEWEST):
                result.fitted.append(_fit(histogram, kt, form))
            else:
                result.few.setdefault(kind, []).append("-".join(histogram.types))
    _judge(result)
    return result


def _fit(histogram: Histogram, kt: float, form: str) -> Fitted:
    kind = histogram.kind
    span = sampled_range(histogram)
    low, high = span.low, span.high
    wall = None
    if kind.name == "angle":
        low, high = min(low, LAST_ANGLE - 0.1), min(high, LAST_ANGLE)
    k = STIFF * kt / max(span.spread, NARROWEST[kind.unit]) ** 2
    if kind.name == "angle":
        wall = Wall(max(k, 2.0 * CLIMB * kt / (np.pi - high) ** 2), low, high)
    elif kind.name == "bond" and form == "spline":
        margin = NARROWEST["A"]
        low, high = min(low, span.mean - margin), max(high, span.mean + margin)
        wall = Wall(k, low, high)
    parameters = _parameters(histogram, kt, form, low, high)
    straight = kind.name == "angle" and histogram.counts[kind.centres > LAST_ANGLE].sum()
    return Fitted(
        kind.name,
        (types := _pattern(kind.name, histogram.types)),
        "pooled" if set(types) == {"*"} else "-".join(histogram.types),
        Entry(types, parameters, wall, histogram.n),
        histogram,
        overlap(histogram, parameters, kt, wall),
        (span.low, span.high),
        float(straight / histogram.n),
    )


def _parameters(histogram: Histogram, kt: float, form: str, low: float, high: float) -> Form:
    name = histogram.kind.name
    if form == "spline":
        if name == "dihedral":
            return fit_periodic_spline(histogram, kt)
        return fit_spline(histogram, kt, low, high)
    if name == "bond":
        return fit_harmonic(histogram, kt)
    return fit_fourier(histogram, kt) if name == "angle" else fit_cosine(histogram, kt)


def overlap(histogram: Histogram, form: Form, kt: float, wall: Wall | None = None) -> float:
    """1 - sum |p_fit - p_data| / 2 over bins wide enough to be filled."""
    kind, filled = histogram.kind, np.flatnonzero(histogram.counts)
    bins = int(np.clip(histogram.n ** (1.0 / 3.0), 10, 60))
    low, high = kind.low, kind.high
    if kind.unit == "A":  # what lies outside of the samples is not part of them
        low, high = kind.edges[filled[0]], kind.edges[filled[-1] + 1]
    edges, counts = histogram.coarse(bins, low, high)
    fine, _ = histogram.coarse(kind.n_bins, low, high)
    p = boltzmann(kind, form, kt, fine, wall)
    shares = np.add.reduceat(p, np.searchsorted(fine, edges[:-1] - 1e-9))
    return float(1.0 - 0.5 * np.abs(shares - counts / counts.sum()).sum())


def _pattern(kind: str, types: tuple[str, ...]) -> tuple[str, ...]:
    """Types of all beads of a term, from those that its type is made of."""
    width = {"angle": 3, "dihedral": 4}.get(kind, 2)
    if types == POOLED:
        return ("*",) * width
    return ("*", *types, "*") if width > 2 else types


def _unbroken(histogram: Histogram, result: PriorFit) -> Histogram:
    # without a median all are beyond the last bin
    kept = histogram.below(BROKEN * histogram.quantile(0.5)) if histogram.n else histogram
    if kept.beyond:
        result.broken["-".join(histogram.types)] = kept.beyond
    return kept


def _disulfides(
    distributions: Distributions, parts: list[Histogram], result: PriorFit
) -> list[Histogram]:
    """Bonds of the types that disulfides join: they need entries of their own, few as they are."""
    found = []
    for bridge in distributions.of("disulfide"):
        own = [h for h in parts if h.types == bridge.types]
        if own:
            result.notes.append(
                f"bond {'-'.join(bridge.types)}: disulfides and neighbours in the chain are of the "
                "same types and share one term"
            )
        whole = merged([_unbroken(bridge, result), *own], bridge.types)
        if whole.n >= FEWEST:
            found.append(replace(whole, kind=TERM_KINDS["bond"]))
    return found


def _fit_pairs(
    pooled: Histogram,
    parts: list[Histogram],
    kt: float,
    by_type: bool,
    min_samples: int,
    result: PriorFit,
) -> None:
    name = pooled.kind.name
    if pooled.n >= FEWEST:
        sphere = fit_soft_sphere(pooled, kt)
        span = pooled.quantile(0.01), pooled.quantile(1.0)
    else:
        local = [f for f in result.fitted if f.kind == "excluded_volume"]
        if not local or not isinstance(local[0].entry.parameters, SoftSphere):
            result.notes.append(
                f"{name}: {pooled.n} distances below {pooled.kind.high:g} A are too few, and no "
                "others can stand in: the term is left out"
            )
            return
        sphere, span = local[0].entry.parameters, None
        result.notes.append(
            f"{name}: {pooled.n} distances below {pooled.kind.high:g} A are too few: sigma is that "
            "of the excluded volume"
        )
    any_type = ("*", "*")
    shown = pooled if pooled.n else None
    result.fitted.append(
        Fitted(name, any_type, "pooled", Entry(any_type, sphere, None, pooled.n), shown, None, span)
    )
    if not by_type or len(parts) == 1 or pooled.n < FEWEST:
        return
    spheres = fit_types(parts, sphere, kt, max(min_samples, FEWEST))
    for s in spheres:
        entry = Entry(s.types, s.sphere, None, s.samples)
        result.fitted.append(Fitted(name, s.types, "-".join(s.types), entry, s.histogram, None))
    enough = {t for s in spheres for t in s.types}
    few = sorted({t for h in parts for t in h.types} - enough)
    if few:
        result.few[name] = few


def _judge(result: PriorFit) -> None:
    """Say what does not fit."""
    poor = [f for f in result.fitted if f.overlap is not None and f.overlap < POOR]
    if poor:
        worst = ", ".join(f"{f.kind} {f.label} ({f.overlap:.0%})" for f in poor[:6])
        more = f" and {len(poor) - 6} more" if len(poor) > 6 else ""
        result.notes.append(
            f"the fitted form covers less than {POOR:.0%} of the samples of {worst}{more}: look at "
            "the figure, or use `--form spline`"
        )
    for f in result.fitted:
        if f.straight > 0.01:
            result.notes.append(
                f"angle {f.label}: {f.straight:.1%} of the samples lie behind the wall, which "
                f"begins at {np.degrees(LAST_ANGLE):.0f} degrees, where dihedrals become singular"
            )
