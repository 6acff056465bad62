"""Fixtures of the whole suite."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def hang_up() -> Iterator[None]:
    """Hang-ups as a terminal has them: under nohup the suite inherits that they are ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
