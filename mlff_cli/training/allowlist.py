"""Names of classes and functions that a configuration may use.

A YAML names a class as other programs do ("torch.optim.AdamW"); here the name is looked up in a
table. Nothing that a file names is ever imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlff_cli.core.config import nearest
from mlff_cli.core.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Allowlist(Generic[T]):
    """A table of what a key may name.

    Attributes:
        key: the configuration key, for messages.
        prefixes: modules that may stand before a name; the bare name is always allowed.
        table: what each name means.
    """

    key: str
    prefixes: tuple[str, ...]
    table: Mapping[str, T]

    def find(self, name: str) -> T:
        """What `name` means.

        Raises:
            ConfigError: the name is not in the table.
        """
        module, _, short = name.rpartition(".")
        known = not module or module in self.prefixes
        if known and short in self.table:
            return self.table[short]
        near = nearest(short, list(self.table))
        raise ConfigError(
            f"{self.key}: unknown name {name!r}",
            remedy=f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(self.table)}",
        )
