"""A prior from distributions: one entry for all types together, and one for each type with data.

| term            | types               | parametric | spline          | wall                     |
|-----------------|---------------------|------------|-----------------|--------------------------|
| bond            | a b                 | harmonic   | spline          | spline only              |
| angle           | * b *               | fourier    | spline          | both                     |
| dihedral        | * b c *             | cosine     | periodic_spline | none: a circle           |
| excluded_volume | a b                 | soft_sphere| soft_sphere     | itself                   |
| repulsion       | a b                 | soft_sphere| soft_sphere     | itself                   |

Disulfides always get an entry of their own, as the pooled bond is as short as the chain's.

Dihedrals of D-amino acids are pooled as their mirror images, so that the pooled curve is that of L;
types of D with few samples take its mirror image. Where L and D meet there is no such law: these
types are left out of the pool, fitted however few their samples are, and flat below `FEWEST`.

A wall begins where the sampled range ends, that of an angle before pi - asin(damping), where
dihedrals become singular:

    1/2 k (q - high)^2,   k = STIFF kT/s^2,   s: standard deviation of the samples
    angles:               k (pi - high)^2/2 >= CLIMB kT
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlff_cli.coarse.priors.chirality import flat_form, hand, mirror_form, mirrored
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
from mlff_cli.coarse.priors.prior_entries import TERMS, Fitted, PriorFit
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.prior_file import PAIR_TERMS, Entry
from mlff_cli.data.beads.prior_forms import Form, SoftSphere, Wall

FEWEST = 100  # samples that a distribution needs at all
BROKEN = 2.0  # times the median: no bond is stretched so far
COINCIDENT = 0.1  # angstrom: no two beads that stand for atoms are bonded so closely
DAMPING = 0.2  # sine of an angle below which its dihedrals fade
LAST_ANGLE = float(np.pi - np.arcsin(DAMPING))
STIFF = 4.0
CLIMB = 10.0
POOR = 0.85  # overlap below which a form does not describe its distribution


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
        pooled = merged(_one_hand(parts) if kind == "dihedral" else parts, POOLED)
        if kind in PAIR_TERMS:
            _fit_pairs(pooled, parts, kt, by_type, min_samples, result)
            continue
        if pooled.n < FEWEST:
            raise DataError(
                f"a distribution needs {FEWEST} samples or more, all {kind}s together have "
                f"{pooled.n}",
                remedy="use more frames",
            )
        common = _fit(pooled, kt, form)
        enough = max(min_samples, FEWEST) if by_type else np.inf
        special = []
        if kind == "bond":
            special = [_fit(h, kt, form) for h in _disulfides(distributions, parts, result)]
        elif kind == "dihedral":
            special = _other_hands(parts, common, kt, form, enough, result)
        result.fitted += [common, *special]
        if not by_type or len(parts) == 1:
            continue  # one type: the pooled entry is its own
        done = {f.histogram.types for f in special if f.histogram is not None}
        for histogram in parts:
            if histogram.types in done:
                continue
            if histogram.n >= enough:
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
    if histogram.n and histogram.quantile(0.5) < COINCIDENT:
        raise DataError(
            f"half of the {'-'.join(histogram.types)} bonds are shorter than {COINCIDENT:g} A: "
            "these beads lie in one place",
            remedy="look the set over with `mlff check`, and make it again",
        )
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


def _one_hand(parts: list[Histogram]) -> list[Histogram]:
    """Dihedrals as those of L-amino acids; all as they are where few are of one hand."""
    known = [(hand(h.types), h) for h in parts]
    one = [mirrored(h) if side == "D" else h for side, h in known if side != "mixed"]
    return one if sum(h.n for h in one) >= FEWEST else parts


def _other_hands(
    parts: list[Histogram],
    common: Fitted,
    kt: float,
    form: str,
    enough: float,
    result: PriorFit,
) -> list[Fitted]:
    """Entries of dihedrals for which the pooled curve, that of L, is wrong."""
    found, said = [], dict[str, list[str]]()
    for h in parts:
        side = hand(h.types)
        if side == "L":
            continue
        label = "-".join(h.types)
        if h.n >= (enough if side == "D" else FEWEST):
            found.append(_fit(h, kt, form))
            continue
        said.setdefault(side, []).append(label)
        change = mirror_form if side == "D" else flat_form
        curve = change(common.entry.parameters)
        types = _pattern("dihedral", h.types)
        covered = overlap(h, curve, kt) if h.n >= FEWEST else None
        found.append(Fitted("dihedral", types, label, Entry(types, curve, None, h.n), h, covered))
    if found:
        result.notes.append(
            "dihedral: those of D-amino acids are pooled as their mirror images, those between L "
            "and D are not pooled"
        )
    for side, what in (("D", "the mirror image of the pooled curve"), ("mixed", "no curve")):
        if side in said:
            shown, more = said[side][:6], len(said[side]) - 6
            result.notes.append(
                f"dihedral {', '.join(shown)}{f' and {more} more' if more > 0 else ''}: too few "
                f"samples, {what} instead"
            )
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
