"""The command line that makes the same bytes again, for provenance records."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

# who does the work and what becomes of an existing file do not change what is written
NO_PART = frozenset(("force", "dry_run", "workers", "scheduler"))


def command_line(
    words: Sequence[str | Path],
    options: Any,
    plain: Any,
    leave_out: Collection[str] = (),
    flags: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A command in the shell's words; every number in it reads back as itself.

    Names of outputs belong in neither `words` nor the options that are named: the same inputs
    give the same bytes, whatever they are written to.

    Args:
        words: the command and its arguments.
        options: a dataclass; `field_name` becomes `--field-name`, a tuple `a,b`.
        plain: the same with its defaults, which are not written.
        leave_out: fields that are not written, beside `NO_PART`.
        flags: of fields whose flag is called otherwise.

    >>> @dataclasses.dataclass
    ... class Options:
    ...     noise: float = 0.0
    ...     by_type: bool = True
    >>> command_line(["mlff", "fit", "a b.npz"], Options(0.12345678, False), Options())
    "mlff fit 'a b.npz' --noise 0.12345678 --no-by-type"
    """
    found = [str(word) for word in words]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        silent = field.name in NO_PART or field.name in leave_out
        if silent or value is None or value == getattr(plain, field.name):
            continue
        flag = flags.get(field.name, field.name.replace("_", "-"))
        if isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            found += [f"--{flag}", _text(value)]
    return shlex.join(found)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, float):  # the shortest digits that read back as the same number
        return repr(float(value)).removesuffix(".0")
    return str(value)
