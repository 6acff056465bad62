"""Reading the JSON that `mlff evaluate` writes, for everything that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from mlff_cli.core.errors import DataError

FORMAT = "mlff-evaluation"  # a version follows
COARSE = "coarse-grained"
TRANSPORT = "transport"


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Errors(_Part):
    unit: str
    n: int
    mae: float
    rmse: float
    r2: float | None


class _Result(_Part):
    fidelity: int
    data: str
    molecules: int
    errors: dict[str, _Errors]


class _Units(_Part):
    energy: str


class _Evaluation(_Part):
    model: str
    units: _Units
    results: list[_Result]
    provenance: dict[str, Any]


class _ForceErrors(_Part):
    n: int
    rmse: float
    rms_reference: float
    cosine: float | None


class _BeadResult(_Part):
    data: str
    frames: int
    noise_bound: float | None
    errors: dict[str, _ForceErrors]
    by_type: dict[str, dict[str, _ForceErrors]]


class _Landscape(_Part):
    variables: list[str]
    divergence: float | None


class _Ensembles(_Part):
    molecule: str
    temperature: float
    planes: list[_Landscape]
    profiles: list[_Landscape]
    figures: list[str]


class _BeadEvaluation(_Part):
    model: str
    results: list[_BeadResult]
    ensembles: _Ensembles | None
    provenance: dict[str, Any]


class _Value(_Part):
    value: float | None
    error: float | None


class _Sides(_Part):
    forward: float | None
    reverse: float | None


class _FreeEnergy(_Part):
    bar: _Value | None


class _Map(_Part):
    acceptance: _Value
    excess_nats: _Value
    ess: _Sides
    free_energy: _FreeEnergy


class _Temperatures(_Part):
    source: float
    target: float


class _Frames(_Part):
    source: int
    target: int


class _Plane(_Part):
    variables: list[str]
    what: str
    temperature: float


class _Flips(_Part):
    frames: int
    hands_changed: int
    isomers_changed: int


class _TransportEvaluation(_Part):
    model: str
    temperatures: _Temperatures
    frames: _Frames
    maps: dict[str, _Map]
    energies: dict[str, dict[str, float | None]]
    ramachandran: list[_Plane]
    flips: dict[str, _Flips]
    notes: list[str] = []
    provenance: dict[str, Any]

    @field_validator("maps")
    @classmethod
    def _has_the_flow(cls, maps: dict[str, _Map]) -> dict[str, _Map]:
        if "flow" not in maps:
            raise ValueError("the flow itself is not among the maps")
        return maps


FAMILIES: dict[str, type[_Part]] = {
    "multifidelity": _Evaluation,
    COARSE: _BeadEvaluation,
    TRANSPORT: _TransportEvaluation,
}


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of an evaluation file, checked for what a reader relies on.

    Raises:
        DataError: it is no JSON, no evaluation, or incomplete.
    """
    remedy = "pass the JSON that `mlff evaluate` wrote"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})", where=str(path), remedy=remedy) from error
    found = str(content.get("format", "")) if isinstance(content, dict) else ""
    if not found.startswith(FORMAT):
        raise DataError(
            f"not an evaluation: format is {found or 'missing'!r}", where=str(path), remedy=remedy
        )
    family = content.get("family", "multifidelity")  # what has none is older than the second
    if family not in FAMILIES:
        raise DataError(
            f"evaluations of the family {family!r} are not known", where=str(path), remedy=remedy
        )
    try:
        FAMILIES[family].model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise DataError(
            f"the evaluation is damaged: {name}: {first['msg']}", where=str(path), remedy=remedy
        ) from error
    checked: dict[str, Any] = content
    return checked
