"""How far a command is: a live bar on a terminal, a plain line now and then elsewhere.

    training ━━━━━━━━━━━━━━━━━━━━━━━━ 1234/20000 steps 0:41 ETA 10:24
    loss=0.0123, lr=0.002, molecules/s=1450, fid0/E_rmse=3.21

Whatever the width, a line neither wraps nor loses the time left: the bar gives way first, then the
words. Fields come in the order of their weight; those for which there is no room are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mlff_cli.core.reporting import duration

PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal, ...
PLAIN_SHARE = 0.05  # ... or this share of the time since the start, so that long logs stay short
PLAIN_LONGEST = 600.0  # seconds that nobody should wait for a sign of life
REFRESHES = 2  # of the bar per second
BAR_WIDTHS = (24, 12, 0)
FIELD_LINES = 2  # below the bar
SETTLED = 8  # steps from which on the first ones no longer count


def cell(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Pace:
    """Steps done, and seconds left at the pace of the later half of them.

    The first steps are often slow (compiling, cold files) and then do not count; what comes between
    steps (a validation) does.

    Args:
        total: steps in all; None: unknown.
        now: the time, in seconds.
    """

    def __init__(self, total: int | None, now: float) -> None:
        self.total = total
        self.done = self._before = 0
        self._start = self._last = now
        self._from = self._next = (now, 0)  # time and steps of this session

    def skip(self, n: int) -> None:
        """Count steps that were done in an earlier session."""
        self.done += n
        self._before += n

    def advance(self, n: int, now: float) -> None:
        """Count steps that are done now."""
        self.done += n
        self._last = now
        here = self.done - self._before
        if here >= max(SETTLED, 2 * self._next[1]):
            self._from, self._next = self._next, (now, here)

    def elapsed(self, now: float) -> float:
        """Seconds since the start."""
        return now - self._start

    def left(self, now: float) -> float | None:
        """Seconds until the end; None where nobody can know."""
        steps = self.done - self._before - self._from[1]
        if not self.total or steps <= 0:
            return None
        expected = (self._last - self._from[0]) / steps * max(0, self.total - self.done)
        return max(0.0, expected - (now - self._last))


class Bar:
    """A live bar with the fields behind or below it.

    Args:
        console: a terminal.
        total: steps in all; None: unknown.
        name: what is being done.
        unit: of the steps.
    """

    def __init__(self, console: Console, total: int | None, name: str, unit: str) -> None:
        self._console = console
        self._name, self._unit = name, unit
        self._fields: dict[str, Any] = {}
        self._pace = Pace(total, time.monotonic())
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=REFRESHES,
            redirect_stdout=False,  # results go where the shell sends them
        )

    def __enter__(self) -> Bar:
        self._pace = Pace(self._pace.total, time.monotonic())
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def skip(self, n: int) -> None:
        """Count steps that were done before; they tell nothing about the pace."""
        self._pace.skip(n)

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Move the bar; without fields the last ones stay."""
        self._pace.advance(n, time.monotonic())
        if fields:  # a new dict: the other thread may be reading the old one
            self._fields = fields | {k: v for k, v in self._fields.items() if k not in fields}

    def _render(self) -> Text:
        utf8 = self._console.encoding.lower().startswith("utf")
        signs = ("\u2501", "\u2501") if utf8 else ("#", "-")
        return layout(
            self._name,
            self._unit,
            self._pace,
            time.monotonic(),
            self._fields,
            self._console.width,
            signs,
        )


def layout(
    name: str,
    unit: str,
    pace: Pace,
    now: float,
    fields: dict[str, Any],
    width: int,
    signs: tuple[str, str] = ("#", "-"),
) -> Text:
    """The bar as text of at most 1 + FIELD_LINES lines, none wider than `width` columns.

    Args:
        name: what is being done.
        unit: of the steps.
        pace: how far it is.
        now: the time, in seconds.
        fields: by name, the weightiest first.
        width: columns there are.
        signs: done and to do.
    """
    head, bar = _head(name, unit, pace, now, width)
    lines = _pack([f"{k}={cell(v)}" for k, v in fields.items()], width)
    if len(lines) == 1 and len(head) + bar + 2 + len(lines[0]) < width:
        head, lines = f"{head} {lines[0]}", []
    text = Text(no_wrap=True, overflow="crop", end="")
    text.append(head[: len(name)])
    if bar:
        assert pace.total
        full = round(bar * min(1.0, pace.done / pace.total))
        text.append(" ").append(signs[0] * full, "green").append(signs[1] * (bar - full), "dim")
    text.append(head[len(name) :])
    for line in lines[:FIELD_LINES]:
        text.append(f"\n{line}", "dim")
    return text


def _head(name: str, unit: str, pace: Pace, now: float, width: int) -> tuple[str, int]:
    """First line without its bar, beginning with `name` or nothing, and the bar's width."""
    count = f"{pace.done}/{pace.total}" if pace.total else f"{pace.done}"
    elapsed, left = duration(pace.elapsed(now)), pace.left(now)
    eta = "" if left is None or pace.done >= (pace.total or 0) else f" ETA {duration(left)}"
    full = f"{name} {count} {unit} {elapsed}".replace("  ", " ") + eta
    for bar in BAR_WIDTHS if pace.total else (0,):
        if len(full) + bar + (bar > 0) < width:
            return full, bar
    for text in (f"{name} {count} {elapsed}{eta}", f"{name} {count}{eta}"):
        if len(text) < width:
            return text, 0
    room = max(0, width - 1 - len(f" {count}{eta}"))
    return (f"{name[:room]} {count}{eta}" if room > 2 else eta.strip() or count)[: width - 1], 0


def _pack(words: list[str], width: int) -> list[str]:
    """Words in lines, separated by commas; too long ones are left out."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) < width:
            lines[-1] += f", {word}"
        elif len(word) < width and len(lines) < FIELD_LINES:
            lines.append(word)
    return lines


class Lines:
    """Progress as plain lines, rarer the longer it takes; a field is said when it has changed.

    Args:
        say: prints a line.
        total: steps in all; None: unknown.
        name: what is being done.
        unit: of the steps.
    """

    def __init__(self, say: Callable[[str], None], total: int | None, name: str, unit: str) -> None:
        self._say = say
        self._name, self._unit = name, unit
        self._fields: dict[str, Any] = {}
        self._told: dict[str, Any] = {}
        self._pace = Pace(total, time.monotonic())
        self._said = 0

    def __enter__(self) -> Lines:
        self._next = time.monotonic()
        self._pace = Pace(self._pace.total, self._next)
        self._next += PLAIN_INTERVAL
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None and self._pace.done > self._said:
            self._line(time.monotonic())

    def skip(self, n: int) -> None:
        """Count steps that were done before; they tell nothing about the pace."""
        self._pace.skip(n)
        self._said += n

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Count, and say so when the last line is old enough."""
        now = time.monotonic()
        self._pace.advance(n, now)
        self._fields = fields | {k: v for k, v in self._fields.items() if k not in fields}
        if now >= self._next:
            self._line(now)

    def _line(self, now: float) -> None:
        pace = self._pace
        elapsed, left = pace.elapsed(now), pace.left(now)
        self._said = pace.done
        self._next = now + min(max(PLAIN_INTERVAL, PLAIN_SHARE * elapsed), PLAIN_LONGEST)
        parts = [f"{self._name}: {pace.done}"]
        if pace.total:
            parts[0] += f"/{pace.total} ({100 * pace.done / pace.total:.0f} %)"
        parts[0] += f" {self._unit}".rstrip()
        parts.append(f"elapsed {duration(elapsed)}")
        if left is not None and pace.total and pace.done < pace.total:
            parts.append(f"ETA {duration(left)}")
        new = {k: v for k, v in self._fields.items() if self._told.get(k) != v}
        parts += [f"{k}={cell(v)}" for k, v in new.items()]
        self._told.update(new)
        self._say(", ".join(parts))
