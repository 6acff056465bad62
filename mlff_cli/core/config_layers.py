"""What a later layer of a configuration may not keep from, or ask of, the layers below it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mlff_cli.core.errors import ConfigError


def drop_foreign_kwargs(
    under: Mapping[Any, Any], over: Mapping[Any, Any], sections: Mapping[str, str]
) -> dict[Any, Any]:
    """Take away arguments of a class that the next layer replaces.

    Args:
        under: the layers so far, merged.
        over: the next layer.
        sections: names of the sections whose `kwargs` belong to their `class`, and the class that
            each is of where nothing says so.

    Returns:
        `under`, without the `kwargs` of sections that get another class.

    >>> below = {"scheduler": {"class": "StepLR", "kwargs": {"step_size": 3}, "warmup_steps": 9}}
    >>> drop_foreign_kwargs(below, {"scheduler": {"class": "LinearLR"}}, {"scheduler": ""})
    {'scheduler': {'class': 'StepLR', 'warmup_steps': 9}}
    """
    kept = dict(under)
    for name, default in sections.items():
        old, new = under.get(name), over.get(name)
        if not isinstance(old, dict) or not isinstance(new, dict) or "class" not in new:
            continue
        names = [str(c).rpartition(".")[2] for c in (old.get("class", default), new["class"])]
        if names[0] != names[1]:
            kept[name] = {key: value for key, value in old.items() if key != "kwargs"}
    return kept


def check_parents(merged: Any, path: Collection[str | int], override: str) -> None:
    """Refuse an override below a text: it would silently take the text's place.

    Args:
        merged: the layers so far, merged.
        path: keys of the override.
        override: as the user wrote it.

    Raises:
        ConfigError: some key on the way holds a text.
    """
    value = merged
    for depth, part in enumerate(path):
        if isinstance(value, str):
            name = ".".join(str(p) for p in list(path)[:depth])
            raise ConfigError(
                f"{override!r} needs keys below {name!r}, which is {value!r}",
                remedy=f"set {name} as a whole, or write its keys in a file",
            )
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return
