"""Prior files: the energy of a bead model that is known before learning, as YAML with units.

    format: mlff-prior
    version: 1
    units: {energy: kcal/mol, length: angstrom, angle: radian}
    temperature: 300.0                    K of the data, null where unknown
    mapping: ca
    form: parametric                      or spline: what the fit was asked for
    species: [ALA, GLY]
    damping: 0.2                          sine of an angle below which its dihedrals fade
    terms:
      bond:
        weight: 1.0
        entries:
        - types: ['*', '*']
          parameters: {form: harmonic, k: 120.0, r0: 3.8}
          wall: {k: 200.0, low: 3.5, high: 4.1}
          samples: 12000
      repulsion:
        weight: 1.0
        separation: [6, null]             residues from bead to bead of a pair; null: any, and none
        entries: [...]
    provenance: {...}

A term's parameters are those of the entry that names most of its bead types; `*` stands for any, a
term read backwards is the same term, and of two entries alike the first one counts.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from mlff_cli.core.artifacts import storage_error, write_text
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.prior_forms import STRICT, Form, Wall

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

FORMAT, VERSION = "mlff-prior", 1
UNITS = {"energy": "kcal/mol", "length": "angstrom", "angle": "radian"}
ANY = "*"
# beads of a term, forms it may have
_SHAPE: dict[str, tuple[int, tuple[str, ...]]] = {
    "bond": (2, ("harmonic", "spline")),
    "angle": (3, ("fourier", "spline")),
    "dihedral": (4, ("cosine", "periodic_spline")),
    "repulsion": (2, ("soft_sphere",)),
    "excluded_volume": (2, ("soft_sphere",)),
}
PAIR_TERMS = ("repulsion", "excluded_volume")
WALLED = ("bond", "angle")
SEPARATION = {"repulsion": (6, None), "excluded_volume": (2, 5)}  # the usual ones
_REMEDY = "let `mlff fit-prior` write the file, or mend this place"


@dataclass(frozen=True, config=STRICT)
class Entry:
    """One row of a term.

    Attributes:
        types: names of the beads, `*` for any; in either direction.
        parameters: of one functional form.
        wall: added outside the sampled range; bonds and angles only.
        samples: values it was fitted to, 0 where unknown.
    """

    types: tuple[str, ...]
    parameters: Form
    wall: Wall | None = None
    samples: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Term:
    """One kind of interaction.

    Attributes:
        weight: factor of its energy.
        separation: smallest and largest number of residues from one bead of a pair to the other
            along the chain, both included; None as the largest takes also pairs that no bonds
            join. Pair terms only.
        entries: its parameters by bead types.
    """

    weight: Annotated[float, Field(ge=0.0)] = 1.0
    separation: tuple[Annotated[int, Field(ge=2)], int | None] | None = None
    entries: Annotated[tuple[Entry, ...], Field(min_length=1)]

    def find(self, types: Sequence[str]) -> int | None:
        """Row of the entry for these bead types, None where none fits."""
        fits = []
        for named in itertools.product((True, False), repeat=len(types)):
            pattern = tuple(t if n else ANY for t, n in zip(types, named, strict=True))
            row = self._rows.get(_one_way(pattern))
            if row is not None:
                fits.append((-sum(named), row))
        return min(fits)[1] if fits else None

    @functools.cached_property
    def _rows(self) -> dict[tuple[str, ...], int]:
        return {_one_way(e.types): row for row, e in enumerate(self.entries)}


def _named(values: Any) -> Any:
    if isinstance(values, Mapping):
        for name in values:
            if name not in _SHAPE:
                near = difflib.get_close_matches(str(name), list(_SHAPE), n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_SHAPE)}"
                raise ValueError(f"unknown term {name!r}; {hint}")
    return values


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PriorFile:
    """A prior as a file holds it.

    Attributes:
        temperature: K of the data it was fitted to, None where unknown.
        mapping: name of the mapping.
        form: what the fit was asked for; entries say what they are.
        species: names of bead types.
        damping: sine of an angle below which the dihedrals around it fade; 0 never.
        terms: what it is made of, by name.
        provenance: what made the file.
    """

    temperature: Annotated[float, Field(gt=0.0)] | None = None
    mapping: str = "unknown"
    form: Literal["parametric", "spline"] = "parametric"
    species: tuple[str, ...]
    damping: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    terms: Annotated[dict[str, Term], BeforeValidator(_named)]
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if len(set(self.species)) < len(self.species) or ANY in self.species:
            raise ValueError(f"species are named once each, and none is {ANY!r}")
        for name, term in self.terms.items():
            _check_term(name, term, self.species)
        return self


_KEYS = [
    f.name
    for kind in (PriorFile, Term, Entry, Wall, *typing.get_args(typing.get_args(Form)[0]))
    for f in dataclasses.fields(kind)
]


def read_prior(path: Path | str) -> PriorFile:
    """Read a prior file, strictly.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is not a prior file, other units, an unknown key or an impossible value; names
            file, line and key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise storage_error(error, path) from error
    except UnicodeDecodeError as error:
        raise DataError("not a text file", where=str(path), remedy=_REMEDY) from error
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise DataError(f"not YAML: {reason}", where=f"{path}{line}", remedy=_REMEDY) from error
    return prior_from_plain(values, str(path), text)


def write_prior(path: Path | str, prior: PriorFile, *, force: bool = False) -> None:
    """Write a prior file atomically; numbers are written in full, so that reading gives the same.

    Raises:
        UsageError: the file exists and `force` is off.
        StorageError: the disk is full or the folder is not writable.
    """
    text = yaml.dump(
        prior_to_plain(prior),
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        default_flow_style=None,  # lists of numbers in lines
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    write_text(path, f"# prior of a coarse-grained model, written by mlff\n{text}", force=force)


def prior_to_plain(prior: PriorFile) -> dict[str, Any]:
    """Plain values, as the file and a model file hold them."""
    values = TypeAdapter(PriorFile).dump_python(prior, mode="json")
    values["terms"] = _without_none(values["terms"])
    return {"format": FORMAT, "version": VERSION, "units": dict(UNITS), **values}


def prior_from_plain(values: Any, where: str = "prior", text: str | None = None) -> PriorFile:
    """A prior from plain values.

    Args:
        values: what `prior_to_plain` gave.
        where: the file, for messages.
        text: its YAML, so that messages name the line.

    Raises:
        DataError: see `read_prior`.
    """
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DataError(f"not a prior file: it must begin with `format: {FORMAT}`", where=where)
    body = {k: v for k, v in values.items() if k not in ("format", "version", "units")}
    if values.get("version") != VERSION:
        raise DataError(
            f"version {VERSION} of the format is known, found {values.get('version')}",
            where=where,
            remedy="use the mlff that wrote the file, or a newer one",
        )
    if values.get("units") != UNITS:
        raise DataError(
            f"units must be {UNITS}, found {values.get('units')}",
            where=where,
            remedy="convert the parameters and state these units",
        )
    try:
        return TypeAdapter(PriorFile).validate_python(body)
    except ValidationError as error:
        raise _explain(error, body, where, text) from None


class _Loader(SafeLoader):
    """YAML lets the last of two equal keys win in silence; here they are refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
            seen.add(key.value)
        values: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return values


def _without_none(values: Any) -> Any:
    """Keys that say nothing are left out, `form` comes first; items of lists stay."""
    if isinstance(values, dict):
        items = sorted(values.items(), key=lambda item: item[0] != "form")
        return {k: _without_none(v) for k, v in items if v is not None}
    return [_without_none(v) for v in values] if isinstance(values, list) else values


def _one_way(types: tuple[str, ...]) -> tuple[str, ...]:
    return min(types, types[::-1])


def _check_term(name: str, term: Term, species: Sequence[str]) -> None:
    """Rules that need the term's name.

    Raises:
        ValueError: one is broken.
    """
    width, forms = _SHAPE[name]
    if (name in PAIR_TERMS) != (term.separation is not None):
        needed = "needs" if name in PAIR_TERMS else "takes no"
        raise ValueError(f"{name} {needed} `separation`")
    low, high = term.separation or (0, None)
    if high is not None and low > high:
        raise ValueError(f"{name}: separation [{low}, {high}] is empty")
    seen: set[tuple[str, ...]] = set()
    for e in term.entries:
        label = f"{name} {'-'.join(e.types)}"
        unknown = [t for t in e.types if t != ANY and t not in species]
        if len(e.types) != width:
            raise ValueError(f"{label}: {width} types are needed, found {len(e.types)}")
        if unknown:
            raise ValueError(f"{label}: {unknown[0]!r} is not among the species")
        if e.parameters.form not in forms:
            raise ValueError(f"{label}: form {' or '.join(forms)}, found {e.parameters.form}")
        if e.wall is not None and name not in WALLED:
            raise ValueError(f"{label}: only {' and '.join(WALLED)} have walls")
        if _one_way(e.types) in seen:
            raise ValueError(f"{label}: these types occur twice; read backwards they are the same")
        seen.add(_one_way(e.types))


def _explain(error: ValidationError, values: Any, where: str, text: str | None) -> DataError:
    """The first problem, with its key, line and nearest valid key."""
    items = error.errors(include_url=False)
    # a misspelt key is also a missing one: what was written comes first
    item = min(items, key=lambda i: i["type"] != "unexpected_keyword_argument")
    path: list[str | int] = []
    for part in item["loc"]:  # pydantic puts names of union members between the keys
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            if part == item["loc"][-1] and item["type"] == "missing":
                path.append(part)
            continue
        path.append(part)
    key = ".".join(map(str, path))
    reason = item["msg"].removeprefix("Value error, ")
    if item["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(str(path[-1]), _KEYS, n=1)
        reason = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    elif item["type"] == "missing":
        reason = "is required"
    elif not isinstance(item["input"], dict | tuple | list) and "found" not in reason:
        reason += f", found {item['input']!r}"
    line = _line(text, path) if text else None
    place = f"{where}:{line}" if line else where
    return DataError(f"{key}: {reason}" if key else reason, where=place, remedy=_REMEDY)


def _line(text: str, path: Sequence[str | int]) -> int | None:
    """Line on which a key stands, or its nearest parent."""
    node = yaml.compose(text, Loader=_Loader)
    line: int | None = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            pair = (node.value[part], node.value[part])
        else:
            pair = None
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line
