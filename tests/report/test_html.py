"""Figures inside a page."""

from __future__ import annotations

import io
import re
import struct
import zlib

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlff_cli.report.html import Image


def png(inches: float, dpi: int) -> bytes:
    figure = Figure(figsize=(inches, 1.0))
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()


def width(data: bytes) -> int:
    (found,) = re.findall(r'width="(\d+)"', Image(data, "caption").html())
    return int(found)


@pytest.mark.parametrize("dpi", [90, 110, 170, 200])
def test_a_figure_is_as_wide_as_it_was_drawn_whatever_its_pixels(dpi: int) -> None:
    assert width(png(5.0, dpi)) == pytest.approx(5.0 * 96, abs=1)


def test_a_figure_without_a_density_has_a_point_for_each_pixel() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 33, 1, 8, 0, 0, 0, 0)
    row = zlib.compress(b"\0" + b"\x80" * 33)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")
    assert width(data) == 33
