"""An evaluated flow as plain values and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlff_cli.core.reporting import Table
from mlff_cli.deploy.flows.conformations import Flips
from mlff_cli.deploy.flows.works import Carried, Ensemble, MapWorks
from mlff_cli.physics.ensembles.divergence import Comparison
from mlff_cli.physics.ensembles.landscapes import Landscape
from mlff_cli.physics.reweighting import Estimate

SIDES = ("forward", "reverse")
LEAST = 1e-3  # of acceptance, by which a flow must be above a baseline to be better
FINE = 2.0  # times the split-half floor, up to which a divergence is no difference


def works_content(found: MapWorks) -> dict[str, Any]:
    """What one map does, for the JSON file; null where a value is not finite."""
    each = (found.forward, found.reverse)
    free: dict[str, Any] = dict.fromkeys(("bar", *SIDES))
    if all(np.isfinite(c.work).any() for c in each):
        estimates = (found.free_energy, *found.one_sided)
        free = dict(zip(free, map(_estimate, estimates), strict=True))
    return {
        "acceptance": _estimate(found.acceptance),
        "excess_nats": _estimate(found.excess),
        "ess": dict(zip(SIDES, found.effective, strict=True)),
        "log_normal_acceptance": dict(zip(SIDES, found.log_normal, strict=True)),
        "free_energy": free,
        **{side: _carried(c) for side, c in zip(SIDES, each, strict=True)},
    }


def beats(flow: MapWorks, baseline: MapWorks) -> bool:
    """Whether more swaps are done through a flow than through a baseline, on the same frames."""
    return bool(flow.acceptance.value > baseline.acceptance.value + LEAST)


def learnt_nothing(flow: MapWorks, linear: MapWorks) -> str | None:
    """A note of a flow that the linear map equals, or None."""
    if beats(flow, linear):
        return None
    a, b = (_told(w.acceptance, 3) for w in (flow, linear))
    c, d = (_told(w.excess, 3) for w in (flow, linear))
    return (
        "the flow has learnt nothing beyond the linear map, which needs no training: acceptance "
        f"{a} beside {b}, excess {c} beside {d} nats; train longer, with more frames or a larger "
        "flow"
    )


def _carried(c: Carried) -> dict[str, Any]:
    good = np.isfinite(c.work)
    return {
        "frames": len(c.work),
        "not_finite": int((~good).sum()),
        "inefficiency": c.inefficiency,
        "mean_work": _finite(c.work.mean()),
        "log_det_mean": _finite(c.log_det.mean()),
        "log_det_std": _finite(c.log_det.std()),
        "round_trip_nm": _finite(c.round_trip),
    }


def _estimate(e: Estimate) -> dict[str, Any]:
    return {"value": _finite(e.value), "error": _finite(e.error)}


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def works_table(maps: Mapping[str, MapWorks], title: str) -> Table:
    """A row per map."""
    rows = []
    for name, found in maps.items():
        forward, reverse = found.effective
        log_normal = found.log_normal
        df = "-"
        if all(np.isfinite(c.work).any() for c in (found.forward, found.reverse)):
            df = _told(found.free_energy, 3)
        rows.append(
            [
                name,
                _told(found.acceptance, 3) if found.acceptance.value > 1e-3
                else f"{found.acceptance.value:.1e}",
                _told(found.excess, 3),
                f"{forward:.3g}, {reverse:.3g}",
                f"{log_normal[0]:.3g}, {log_normal[1]:.3g}",
                df,
            ]
        )  # fmt: skip
    notes = [
        "acceptance: of a replica-exchange swap through the map; excess: of both directions' KL "
        "divergences, 0 for a perfect map",
        "ESS: share of the frames that the weights leave, forward and reverse; log-normal: the "
        "acceptance that they stand for; dF: reduced free-energy difference from both sides (BAR)",
    ]
    columns = ["map", "acceptance", "excess, nats", "ESS", "log-normal", "dF, kT"]
    return Table(title, columns, rows, notes)


def _told(e: Estimate, digits: int) -> str:
    if not np.isfinite(e.value):
        return "infinite"
    return f"{e.value:.{digits}f} +- {e.error:.1g}"


def plane_content(one: Landscape, kelvin: float, what: str) -> dict[str, Any]:
    """A Ramachandran plane beside that of the ensemble it should be."""
    found: dict[str, Any] = {
        "variables": [v.name for v in one.variables],
        "what": what,
        "temperature": kelvin,
        "blocks": _comparison(one.comparison),
        "independent": _comparison(one.independent),
    }
    return {**found, "why": one.why} if one.why else found


def _comparison(c: Comparison | None) -> dict[str, Any] | None:
    if c is None:
        return None
    return {
        "divergence": c.divergence.mean,
        "divergence_std": c.divergence.std,
        "floor": c.floor.mean,
        "floor_std": c.floor.std,
        "ratio": _finite(c.ratio),
        "frames": c.frames,
        "block": c.block,
        "tells": c.tells,
    }


def planes_table(planes: list[tuple[Landscape, float, str]]) -> Table:
    """A row per plane."""
    rows = []
    for one, kelvin, what in planes:
        c, single = one.comparison, one.independent
        numbers = ["-"] * 3
        if c is not None:
            numbers = [
                f"{c.divergence.mean:.3g} +- {c.divergence.std:.1g}",
                f"{c.floor.mean:.3g} +- {c.floor.std:.1g}",
                _ratio(c),
            ]
        alone = ["-"] * 2
        if single is not None:
            alone = [_ratio(single), str(single.frames)]
        rows.append([f"{what} at {kelvin:g} K", one.variables[0].name.split(" ", 1)[-1], *numbers,
                     *alone])  # fmt: skip
    notes = [
        "JSD: Jensen-Shannon divergence (nat) of equal numbers of frames in independent blocks; "
        "floor: of two halves of the sampled ensemble; single: of independent frames alone; a "
        f"ratio up to {FINE:g} is no difference that the frames could show",
    ]
    columns = ["Ramachandran of", "residue", "JSD", "floor", "ratio", "single", "frames"]
    return Table("Backbone behind the flow", columns, rows, notes)


def _ratio(c: Comparison) -> str:
    return f"{c.ratio:.2f}" if c.tells else f"({c.ratio:.2f})"


def energies_content(source: Ensemble, target: Ensemble, found: MapWorks) -> dict[str, Any]:
    """Mean energies in kJ/mol: sampled, behind the flow, and reweighted."""
    content = {}
    for side, here, there, carried, inverse in (
        ("forward", source, target, found.forward, False),
        ("reverse", target, source, found.reverse, True),
    ):
        good = np.isfinite(carried.work)
        reweighted = None
        if good.any():
            values = np.where(good, carried.energy, 0.0)
            reweighted = found.reweighted(values, inverse=inverse)
        content[side] = {
            "before": float(here.energy.mean()),
            "behind": _finite(carried.energy[good].mean()) if good.any() else None,
            "reweighted": reweighted,
            "sampled": float(there.energy.mean()),
            "sampled_std": float(there.energy.std()),
        }
    return content


def flips_content(found: Flips) -> dict[str, int]:
    """Counts of what a flow must not change."""
    return {
        "frames": found.frames,
        "centres": found.centres,
        "hands_changed": found.hands,
        "peptide_bonds": found.bonds,
        "isomers_changed": found.isomers,
    }
