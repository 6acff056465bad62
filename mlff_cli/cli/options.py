"""Options that mean the same everywhere, declared once, and what they carry into a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer

from mlff_cli.core.errors import UsageError

COMMON = "Common"
MAX_SEED = 2**63 - 1  # what every generator takes

Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing output.", rich_help_panel=COMMON)
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=MAX_SEED, help="Seed of every random choice.", rich_help_panel=COMMON
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print a machine-readable summary.", rich_help_panel=COMMON),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Only warnings and errors.", rich_help_panel=COMMON)
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="More details.", rich_help_panel=COMMON)
]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="No progress bars.", rich_help_panel=COMMON)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Validate, print the plan, touch nothing.", rich_help_panel=COMMON
    ),
]
Workers = Annotated[
    int,
    typer.Option("--workers", min=0, help="Processes; 0 takes every core.", rich_help_panel=COMMON),
]
FewWorkers = Annotated[
    int,
    typer.Option(
        "--workers", min=0, help="Local processes; 0 takes every core.", rich_help_panel=COMMON
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Work on a running Dask cluster, as tcp://node:8786.",
        rich_help_panel=COMMON,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel=COMMON)
]


@dataclass(frozen=True)
class Talk:
    """How a command speaks: what `--json -q -v --no-progress` said."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_progress: bool = False

    @property
    def verbosity(self) -> int:
        """-1 quiet, 0 normal, 1 detailed."""
        return -1 if self.quiet else int(self.verbose)


def talking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Talk`; it receives them together as `talk`."""
    shared = {"json": Json, "quiet": Quiet, "verbose": Verbose, "no_progress": NoProgress}
    hints = get_type_hints(command, include_extras=True)
    own = [
        p.replace(annotation=hints[p.name])
        for p in inspect.signature(command).parameters.values()
        if p.name != "talk"
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(n, keyword, default=False, annotation=a) for n, a in shared.items()]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        talk = Talk(**{name: values.pop(name) for name in shared})
        command(**values, talk=talk)

    wrapper.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return wrapper


def comma_list(values: list[str] | None) -> list[str]:
    """Repeated options and comma-separated lists are one thing: `--a 1,2 --a 3` is 1, 2, 3."""
    return [v.strip() for value in values or [] for v in value.split(",") if v.strip()]


def pair(option: str, text: str) -> tuple[float, float]:
    """Two numbers from 'low,high'.

    Raises:
        UsageError: it is anything else.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} takes two numbers, found {text!r}", remedy=f"write {option} 2,98"
        ) from None
    return low, high


def number(option: str, text: str, meant: str = "a number") -> float:
    """A number.

    Args:
        option: the option's name.
        text: what it was given.
        meant: what the option takes, in words.

    Raises:
        UsageError: it is anything else.
    """
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} takes {meant}, found {text!r}") from None


def numbers(option: str, values: list[str] | None) -> tuple[float, ...]:
    """The numbers of a comma-separated or repeated option.

    Raises:
        UsageError: one of them is no number.
    """
    return tuple(number(option, text, "numbers") for text in comma_list(values))


def choice(option: str, text: str, choices: tuple[str, ...]) -> Any:
    """`text`, if it is one of the choices.

    Raises:
        UsageError: it is not.
    """
    if text not in choices:
        raise UsageError(f"{option} takes {' or '.join(choices)}, found {text!r}")
    return text


def truth(option: str, text: str | None) -> bool | None:
    """A boolean that takes a value, as the seed's command line has it.

    Raises:
        UsageError: the value is neither true nor false.
    """
    if text is None:
        return None
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise UsageError(f"{option} takes true or false, found {text!r}")
    return words[text.lower()]
