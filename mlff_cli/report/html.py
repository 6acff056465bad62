"""A page that needs nothing but itself: figures inside, no script, no font or file from elsewhere.

Content goes in as sections of blocks; everything that is text is escaped here.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Protocol


class Block(Protocol):
    """Anything that can be shown."""

    def html(self) -> str:
        """Its HTML."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str

    def html(self) -> str:
        """A paragraph."""
        return f"<p>{escape(self.text)}</p>"


@dataclass(frozen=True)
class Cards:
    """A row of numbers with captions: (caption, value, unit)."""

    items: Sequence[tuple[str, str, str]]

    def html(self) -> str:
        """One card per number."""
        cards = "".join(
            f'<div class="card"><div class="value">{escape(value)}'
            f'<span class="unit">{escape(unit)}</span></div>'
            f'<div class="caption">{escape(caption)}</div></div>'
            for caption, value, unit in self.items
        )
        return f'<div class="cards">{cards}</div>'


@dataclass(frozen=True)
class Mark:
    """A word of judgement in a table: `look` is good, doubtful, bad, or "" for neither."""

    word: str
    look: str = ""


@dataclass(frozen=True)
class DataTable:
    """A table; its digits have one width. With `wrap`, sentences in it break into lines."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    wrap: bool = False

    def html(self) -> str:
        """A table that scrolls inside itself on narrow screens."""
        head = "".join(f"<th scope='col'>{escape(c)}</th>" for c in self.columns)
        body = "".join(
            "<tr>" + "".join(self._cell(value) for value in row) + "</tr>" for row in self.rows
        )
        # outside what scrolls: a caption wraps, and would be cut off with the table
        caption = f'<p class="title">{escape(self.caption)}</p>' if self.caption else ""
        label = f' aria-label="{escape(self.caption)}"' if self.caption else ""
        look = ' class="wrap"' if self.wrap else ""
        return (
            f'{caption}<div class="scroll"><table{look}{label}><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    @staticmethod
    def _cell(value: Any) -> str:
        if value is None:
            return '<td class="number">&ndash;</td>'
        if isinstance(value, Mark):
            return f'<td><span class="{escape(value.look)}">{escape(value.word)}</span></td>'
        if isinstance(value, bool):
            look, word = ("good", "yes") if value else ("bad", "no")
            return f'<td><span class="{look}">{word}</span></td>'
        if isinstance(value, int | float):
            text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
            return f'<td class="number">{text}</td>'
        return f"<td>{escape(str(value))}</td>"


PER_INCH = 96  # points of a page, as browsers count them
PER_METRE = PER_INCH / 0.0254


@dataclass(frozen=True)
class Image:
    """A PNG inside the page."""

    png: bytes
    caption: str

    def html(self) -> str:
        """A figure with its caption."""
        data = base64.b64encode(self.png).decode("ascii")
        text = escape(self.caption)
        width = _points(self.png)
        return (
            f'<figure><div class="scroll"><img alt="{text}" width="{width}" '
            f'src="data:image/png;base64,{data}"></div>'
            f"<figcaption>{text}</figcaption></figure>"
        )


def _points(png: bytes) -> int:
    """Width at which text has the size that it was drawn with, whatever the pixels.

    A PNG has its pixels at a fixed place, and pixels per metre in a chunk of their own.
    """
    pixels = int.from_bytes(png[16:20], "big")
    at = png.find(b"pHYs", 0, png.find(b"IDAT")) + 4
    density = int.from_bytes(png[at : at + 4], "big") if at > 4 else 0
    return round(pixels * PER_METRE / density) if density else pixels


@dataclass(frozen=True)
class Fold:
    """Text that is there for those who open it: a configuration, a provenance record."""

    title: str
    text: str

    def html(self) -> str:
        """A closed fold."""
        return (
            f"<details><summary>{escape(self.title)}</summary>"
            f"<pre>{escape(self.text)}</pre></details>"
        )


@dataclass
class Section:
    """A titled part of the page."""

    title: str
    subtitle: str = ""
    blocks: list[Block] = field(default_factory=list)

    def html(self, anchor: str) -> str:
        """The section with an anchor to link to."""
        subtitle = f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else ""
        content = "\n".join(block.html() for block in self.blocks)
        return (
            f'<section id="{anchor}"><h2>{escape(self.title)}</h2>{subtitle}\n{content}</section>'
        )


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        title: of the page.
        subtitle: below it.
        sections: in order; more than one get a table of contents.
    """
    links = "".join(
        f'<a href="#part{i}">{escape(section.title)}</a>' for i, section in enumerate(sections)
    )
    contents = f"<nav>{links}</nav>" if len(sections) > 1 else ""
    body = "\n".join(section.html(f"part{i}") for i, section in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p>{contents}</header>
{body}
</main>
</body>
</html>
"""


STYLE = """
:root { --ink: #1d2733; --soft: #5c6875; --line: #dde3e9; --paper: #ffffff; --ground: #f5f7f9;
  --accent: #23648f; --good: #2c7a4b; --doubtful: #8a6410; --bad: #b3402a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --soft: #9aa7b4; --line: #333d48; --paper: #1b2229; --ground: #12171c;
    --accent: #7db8de; --good: #6fc492; --doubtful: #d9b45b;
    --bad: #ee8b76; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: clamp(1rem, 4vw, 3rem) clamp(.8rem, 3vw, 2rem); }
h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
.subtitle { color: var(--soft); margin: 0 0 1rem; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .4rem .9rem; margin: 0 0 1.2rem; font-size: .92rem; }
a { color: var(--accent); text-decoration: none; overflow-wrap: anywhere; }
a:hover { text-decoration: underline; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: clamp(.9rem, 3vw, 1.6rem); margin: 0 0 1.2rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: .7rem;
  margin: .6rem 0 1.1rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; }
.value { font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.unit { font-size: .8rem; font-weight: 400; color: var(--soft); margin-left: .3rem; }
.caption { font-size: .82rem; color: var(--soft); }
.scroll { overflow-x: auto; margin: .8rem 0 1.1rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
.title { color: var(--soft); margin: .8rem 0 -.4rem; font-size: .86rem; overflow-wrap: anywhere; }
th, td { text-align: left; padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.wrap td { white-space: normal; vertical-align: top; }
.wrap td:first-child, .wrap td span { white-space: nowrap; }
.number { font-variant-numeric: tabular-nums; }
.good { color: var(--good); font-weight: 600; }
.doubtful { color: var(--doubtful); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
figure { margin: .8rem 0 1.1rem; }
figure .scroll { margin: 0; }
img { max-width: max(100%, 44rem); height: auto; display: block; margin: 0 auto; background: #fff;
  border-radius: 6px; padding: 4px; }
figcaption { color: var(--soft); font-size: .84rem; margin-top: .35rem; }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow: auto; max-height: 28rem; font-size: .8rem; line-height: 1.45;
  background: var(--ground); padding: .8rem; border-radius: 6px; }
@media print { section { break-inside: avoid; } details { display: none; } }
"""
