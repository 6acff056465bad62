"""Strict configuration: YAML files and dotted overrides, merged, then validated by a schema.

Later layers win: defaults, files in the order given, overrides. OmegaConf reads the YAML (so that
`1e-5` is a number) and resolves `${...}`; pydantic validates. An error names the file and line, or
the override, that brought the value in, and an unknown key also the nearest valid one.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.config_layers import check_parents, drop_foreign_kwargs
from mlff_cli.core.errors import ConfigError

Key = str | int
Schema = TypeVar("Schema", bound=BaseModel)
MISSING = "???"  # OmegaConf's mark for a value that the user must give
SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Loaded(Generic[Schema]):
    """A validated configuration.

    Attributes:
        model: the schema's instance.
        resolved: the merged plain values it was made from, interpolations resolved.
    """

    model: Schema
    resolved: dict[Key, Any]


def load_config(
    files: Sequence[Path | str],
    overrides: Sequence[str],
    schema: type[Schema],
    *,
    defaults: Sequence[Mapping[Any, Any]] = (),
) -> Loaded[Schema]:
    """Merge defaults, files and overrides, and validate the result.

    Args:
        files: YAML files, later ones win.
        overrides: `dotted.key=value`, as on the command line; list items by index.
        schema: pydantic model; unknown keys are errors where it forbids extras. A section whose
            model sets `kwargs_of_class` loses its `kwargs` where a later layer changes its `class`.
        defaults: plain dicts that lie under the files (presets).

    Raises:
        ConfigError: unreadable YAML, unknown key, wrong type, unresolved value; with its place.
    """
    merged: Any = {}
    places: dict[tuple[Key, ...], str] = {}
    sections = _of_class(schema)
    for layer in defaults:
        merged = merge(merged, normalise(dict(layer)))
    for file in files:
        values = read_yaml(file)
        merged = merge(drop_foreign_kwargs(merged, values, sections), values)
        places.update(_lines(Path(file)))
    parsed = [parse_override(override) for override in overrides]
    for path, value in parsed:  # all before any is laid down, so that their order does not matter
        merged = drop_foreign_kwargs(merged, _nested(path, value), sections)
    for override, (path, value) in zip(overrides, parsed, strict=True):
        check_parents(merged, path, override)
        merged = merge(merged, _nested(path, value))
        origin = f"command line ({override})"
        places.update(dict.fromkeys((path, *_paths(value, path)), origin))
    resolved = _resolve(merged, places)
    try:
        return Loaded(schema.model_validate(resolved), resolved)
    except ValidationError as error:
        raise _explain(error, schema, places, resolved) from None


def read_yaml(file: Path | str) -> dict[Key, Any]:
    """Read one YAML mapping, digit keys as integers, interpolations kept.

    Raises:
        ConfigError: missing file, broken YAML (with line), or not a mapping.
    """
    try:
        node = OmegaConf.load(file)
        values = OmegaConf.to_container(node, resolve=False)
    except OSError as error:
        if error.errno is None:  # OmegaConf's own way to refuse a lone number
            raise ConfigError("a mapping of keys is needed", where=str(file)) from None
        problem = storage_error(error, file)
        raise ConfigError(problem.message, where=str(file), remedy=problem.remedy) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"not valid YAML: {reason}", where=f"{file}{line}") from None
    except (OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"not a configuration: {_line(error)}", where=str(file)) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"a mapping of keys is needed, found a {type(values).__name__}", where=str(file)
        )
    return typing.cast("dict[Key, Any]", normalise(values))


def parse_override(text: str) -> tuple[tuple[Key, ...], Any]:
    """Split `a.b.0=value`; the value is read as YAML.

    Raises:
        ConfigError: no '=' or an empty key.
    """
    name, sign, raw = text.partition("=")
    parts = name.strip().split(".")
    if not sign or not all(parts):
        raise ConfigError(
            f"an override is key=value, found {text!r}",
            remedy="write for example trainer.epochs=20",
        )
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeError) as error:
        raise ConfigError(f"the value of {text!r} is not YAML: {_line(error)}") from None
    return tuple(_key(p) for p in parts), normalise(typing.cast("dict[Any, Any]", value)["value"])


def merge(under: Any, over: Any) -> Any:
    """Lay `over` on `under`: mappings merge key by key, a mapping of indices edits a list."""
    if isinstance(under, dict) and isinstance(over, dict):
        return {
            k: merge(under[k], over[k]) if k in under and k in over else {**under, **over}[k]
            for k in (*under, *(k for k in over if k not in under))
        }
    if isinstance(under, list) and isinstance(over, dict) and _indexes(over, under):
        return [merge(item, over[i]) if i in over else item for i, item in enumerate(under)]
    return over


def normalise(value: Any) -> Any:
    """Make digit keys integers, everywhere, so that `0`, `"0"` and `.0=` are one key."""
    if isinstance(value, dict):
        return {_key(k): normalise(v) for k, v in value.items()}
    return [normalise(v) for v in value] if isinstance(value, list) else value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Keys whose values differ, one line each, as `trainer.epochs: 10 -> 20`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new}, key=str)
        absent = "(absent)"
        return [
            line
            for k in keys
            for line in differences(
                old.get(k, absent), new.get(k, absent), f"{path}.{k}" if path else str(k)
            )
        ]
    return [] if old == new else [f"{path}: {old} -> {new}"]


def nearest(name: str, candidates: Sequence[str], n: int = 3) -> list[str]:
    """Names most like `name`, best first."""
    return difflib.get_close_matches(name, list(candidates), n=n, cutoff=0.5)


def _key(part: Any) -> Key:
    return int(part) if isinstance(part, str) and part.isdecimal() else part


def _indexes(over: dict[Key, Any], under: list[Any]) -> bool:
    return all(isinstance(k, int) and k < len(under) for k in over)


def _nested(path: tuple[Key, ...], value: Any) -> dict[Key, Any]:
    for part in reversed(path):
        value = {part: value}
    return typing.cast("dict[Key, Any]", value)


def _resolve(merged: dict[Key, Any], places: Mapping[tuple[Key, ...], str]) -> dict[Key, Any]:
    try:
        values = OmegaConf.to_container(OmegaConf.create(merged), resolve=True)
    except OmegaConfBaseException as error:
        name = str(error.full_key or "").replace("[", ".").replace("]", "")
        path = tuple(map(_key, name.split(".")))
        raise ConfigError(
            f"{_dotted(path)!r}: an interpolation cannot be resolved: {_line(error)}",
            where=_place(path, places),
        ) from None
    missing = [path for path, value in _paths(values).items() if value == MISSING]
    if missing:
        rest = "".join(
            f"\n  also: {f'{w}: ' if (w := _place(path, places)) else ''}{_dotted(path)!r}"
            for path in missing[1:]
        )
        raise ConfigError(
            f"{_dotted(missing[0])!r} must be set, it is {MISSING!r}{rest}",
            where=_place(missing[0], places),
            remedy=f"add {_dotted(missing[0])}=VALUE to the command line",
        )
    return typing.cast("dict[Key, Any]", values)


def _paths(value: Any, path: tuple[Key, ...] = ()) -> dict[tuple[Key, ...], Any]:
    """Every key and list item below `value`, with what stands there."""
    items: Iterable[tuple[Key, Any]] = ()
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
    below: dict[tuple[Key, ...], Any] = {}
    for key, item in items:
        below[(*path, key)] = item
        below.update(_paths(item, (*path, key)))
    return below


def _line(error: Exception) -> str:
    """The first line of a message; the libraries put their own bookkeeping below it."""
    return str(error).partition("\n")[0]


def _lines(file: Path) -> dict[tuple[Key, ...], str]:
    """Where every key of a YAML file stands, as 'file:line'."""
    places: dict[tuple[Key, ...], str] = {}

    def walk(node: yaml.Node | None, path: tuple[Key, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*path, _key(key.value))
                places[here] = f"{file}:{key.start_mark.line + 1}"
                walk(value, here)
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                places[(*path, i)] = f"{file}:{item.start_mark.line + 1}"
                walk(item, (*path, i))

    walk(yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), ())
    return places


def _place(
    path: tuple[Key, ...], places: Mapping[tuple[Key, ...], str], reason: str = ""
) -> str | None:
    """Where `path` was set: itself, else what was set below it, else its nearest parent.

    Below it comes first what the reason names: a rule of several keys is about those.
    """
    below = [known for known in places if known[: len(path)] == path]
    named = [places[p] for p in below if p and re.search(rf"\b{re.escape(str(p[-1]))}\b", reason)]
    parents = (places[path[:end]] for end in range(len(path), 0, -1) if path[:end] in places)
    some = [places[p] for p in below] if path else []  # of a whole configuration: any key
    return places.get(path) or next(iter((*named, *some, *parents)), None)


def _dotted(path: Sequence[Key]) -> str:
    return ".".join(str(p) for p in path)


def _explain(
    error: ValidationError,
    schema: type[BaseModel],
    places: Mapping[tuple[Key, ...], str],
    values: Mapping[Key, Any],
) -> ConfigError:
    """One ConfigError for a validation: the first problem in full, the others below it."""
    messages: list[tuple[str | None, str, str | None]] = []
    for item in error.errors(include_url=False):
        path = _real_path(item, values)
        where = _place(path, places, item["msg"])
        if item["type"] == "extra_forbidden":
            messages.append((where, f"unknown key {_dotted(path)!r}", _suggestion(path, schema)))
        elif item["type"] == "missing":
            text = f"{_dotted(path)!r} is required"
            messages.append((where, text, f"add {_dotted(path)}=VALUE to the command line"))
        else:
            reason = item["msg"].removeprefix("Value error, ")
            name = f"{_dotted(path)!r}: " if path else ""
            seen = f", found {item['input']!r}" if not isinstance(item["input"], dict) else ""
            messages.append((where, f"{name}{reason}{seen}", None))
    messages = list(dict.fromkeys(messages))
    where, text, remedy = messages[0]
    rest = "".join(
        f"\n  also: {f'{w}: ' if w else ''}{t}{f' ({r})' if r else ''}"
        for w, t, r in messages[1:SHOWN_ERRORS]
    )
    more = len(messages) - SHOWN_ERRORS
    rest += f"\n  and {more} more" if more > 0 else ""
    return ConfigError(text + rest, where=where, remedy=remedy)


def _suggestion(path: tuple[Key, ...], schema: type[BaseModel]) -> str:
    """The nearest valid key beside an unknown one, or where a key of that name stands."""
    parent, name = path[:-1], str(path[-1])
    siblings = _fields_at(schema, parent)
    near = nearest(name, siblings, n=1)
    if near:
        return f"did you mean {_dotted((*parent, near[0]))!r}?"
    elsewhere = [p for p in _all_paths(schema) if p[-1] == name]
    if elsewhere:
        return f"did you mean {_dotted(elsewhere[0])!r}?"
    return f"valid keys here: {', '.join(sorted(siblings)) or 'none'}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Pydantic models inside an annotation: itself, union members, dict values, list items."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (dict, Mapping, list, tuple, Sequence):
        return [m for a in typing.get_args(annotation) for m in _models(a)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [m for a in typing.get_args(annotation) for m in _models(a)]
    return []


def _of_class(schema: type[BaseModel]) -> dict[str, str]:
    """Sections whose `kwargs` belong to their `class`, with their default class."""
    return {
        name: str(model.model_fields["class_"].default)
        for name, field in schema.model_fields.items()
        for model in _models(field.annotation)
        if getattr(model, "kwargs_of_class", False)
    }


def _name_of(name: str, field: Any) -> str:
    return str(field.alias or name)


def _fields_at(schema: type[BaseModel], path: Sequence[Key]) -> list[str]:
    """Valid keys below `path`."""
    models = [schema]
    for part in path:
        found = [
            m
            for model in models
            for name, field in model.model_fields.items()
            if part in (name, field.alias)
            for m in _models(field.annotation)
        ]
        models = found or models  # a key of a mapping: its values' models stay
    return sorted({_name_of(n, f) for m in models for n, f in m.model_fields.items()})


def _all_paths(
    schema: type[BaseModel], path: tuple[str, ...] = (), depth: int = 5
) -> Iterator[tuple[str, ...]]:
    for name, field in schema.model_fields.items():
        here = (*path, _name_of(name, field))
        yield here
        if depth:
            for model in _models(field.annotation):
                yield from _all_paths(model, here, depth - 1)


def _real_path(item: ErrorDetails, values: Any) -> tuple[Key, ...]:
    """Pydantic's location without the names of union members that it puts between keys."""
    path: list[Key] = []
    for part in map(_key, item["loc"]):
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(part)
    return tuple(path) if item["type"] != "missing" else (*path, _key(item["loc"][-1]))
