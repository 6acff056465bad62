"""What a set's metadata says of the force map of one of its molecules.

projected                         metadata.force_map.molecules[k]
projected first, joined then      metadata.molecules[k].force_map.molecules[0]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def force_map_report(metadata: Mapping[str, Any], k: int) -> dict[str, Any] | None:
    """The report of `mlff project-forces` on molecule k, with what it says of all of them.

    Args:
        metadata: of the set.
        k: number of the molecule.

    Returns:
        Plain values: `map`, `method`, `l2`, `noise` {sigma, temperature} where there is noise, and
        the rest of `coarse.forces.force_report`; None where nothing is said.
    """
    shared, report = _parts(metadata, k)
    return None if report is None else {**shared, **report}


def own_force_map(metadata: Mapping[str, Any], k: int) -> dict[str, Any]:
    """`force_map` as the metadata of molecule k alone has it: {force_map}, or nothing."""
    shared, report = _parts(metadata, k)
    return {} if report is None else {"force_map": {**shared, "molecules": [dict(report)]}}


def noise_bound(metadata: Mapping[str, Any], k: int) -> float | None:
    """Upper bound s^2 on the variance of a force component of molecule k that is noise.

    Args:
        metadata: of the set.
        k: number of the molecule.

    Returns:
        (kcal/mol/angstrom)^2; None where nothing is said, and where no frames were near enough to
        say more than the forces' mean square, which bounds the error of every model.
    """
    told = (force_map_report(metadata, k) or {}).get("unlearnable") or {}
    bound, total = told.get("bound"), told.get("total")
    if bound is None or (total is not None and bound >= total):
        return None
    return float(bound)


def _parts(metadata: Mapping[str, Any], k: int) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """What is said of all molecules, and of this one."""
    whole = metadata.get("force_map")
    own = (_at(metadata.get("molecules"), k) or {}).get("force_map")
    if isinstance(own, Mapping):
        whole, k = own, 0
    if not isinstance(whole, Mapping):
        return {}, None
    return {n: v for n, v in whole.items() if n != "molecules"}, _at(whole.get("molecules"), k)


def _at(values: Any, k: int) -> Mapping[str, Any] | None:
    """Element k of a list of mappings, where there is one."""
    if not isinstance(values, list) or k >= len(values) or not isinstance(values[k], Mapping):
        return None
    found: Mapping[str, Any] = values[k]
    return found
