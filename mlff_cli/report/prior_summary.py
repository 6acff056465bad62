"""What `mlff fit-prior` says when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlff_cli.coarse.priors.prior_entries import Fitted, PriorFit
from mlff_cli.core.reporting import Summary, Table
from mlff_cli.data.beads.prior_forms import Cosine, Form, Fourier, Harmonic, SoftSphere


def prior_summary(
    fit: PriorFit,
    frames: int,
    paired: int,
    temperature: float,
    notes: list[str],
    outputs: list[Path],
) -> Summary:
    """What was fitted, as a table of the pooled terms and as plain values.

    Args:
        fit: all entries.
        frames: used.
        paired: of them, those of which pairs were counted.
        temperature: K.
        notes: what the user was told.
        outputs: files that were written.
    """
    entries = [
        {
            "term": f.kind,
            "types": list(f.types),
            "form": f.entry.parameters.form,
            "samples": f.entry.samples,
            "overlap": f.overlap,
            "range": list(f.range) if f.range else None,
        }
        for f in fit.fitted
    ]
    rows = [_row(f, fit) for f in fit.fitted if f.label == "pooled"]
    columns = ["term", "samples", "pooled parameters", "types of their own", "pooled types"]
    few = [
        f"{kind}: {', '.join(types[:8])}{f' and {len(types) - 8} more' if len(types) > 8 else ''} "
        "with too few samples for parameters of their own"
        for kind, types in fit.few.items()
    ]
    data = {
        "outputs": [str(p) for p in outputs],
        "frames": frames,
        "frames_of_pairs": paired,
        "temperature": temperature,
        "entries": entries,
        "pooled_for_want_of_samples": fit.few,
        "broken_bonds": fit.broken,
        "warnings": notes,
    }
    lines = [*(f"wrote {p}" for p in outputs), f"{frames} frames at {temperature:g} K"]
    if paired < frames:
        lines.append(f"distances of pairs were counted in {paired} of these frames")
    return Summary(data, [Table("Prior", columns, rows, few)], lines)


def _row(f: Fitted, fit: PriorFit) -> list[Any]:
    own = sum(1 for g in fit.fitted if g.kind == f.kind and g.label != "pooled")
    return [f.kind, f.entry.samples, _words(f.entry.parameters), own, len(fit.few.get(f.kind, []))]


def _words(form: Form) -> str:
    """Parameters in a few words."""
    if isinstance(form, Harmonic):
        return f"k {form.k:.4g} kcal/mol/A^2, r0 {form.r0:.4g} A"
    if isinstance(form, SoftSphere):
        return f"sigma {form.sigma:.4g} A, eps {form.epsilon:.4g} kcal/mol"
    if isinstance(form, Fourier):
        return f"series of order {len(form.a)}"
    if isinstance(form, Cosine):
        return "k " + ", ".join(f"{k:.3g}" for k in form.k) + " kcal/mol"
    return f"cubic spline of {len(form.values)} knots"
