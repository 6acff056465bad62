"""The recorded command line gives the same options back, and names nothing that changes no byte."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.command_line import NO_PART, command_line


@dataclasses.dataclass(frozen=True)
class Options:
    """Of every kind."""

    noise: float = 0.0
    temperatures: tuple[float, ...] = (300.0,)
    frames: int | None = None
    table: Path | None = None
    by_type: bool = True
    termini: bool = False
    workers: int = 1
    scheduler: str | None = None
    force: bool = False
    dry_run: bool = False


@given(
    noise=st.floats(allow_nan=False),
    temperatures=st.lists(st.floats(allow_nan=False), min_size=1, max_size=4),
)
def test_numbers_read_back_as_themselves(noise: float, temperatures: list[float]) -> None:
    options = Options(noise, tuple(temperatures))
    told = command_line(["mlff"], options, Options(), flags={"temperatures": "kelvin"})
    words = shlex.split(told)
    found = dict(zip(words[1::2], words[2::2], strict=True))
    assert float(found.get("--noise", "0")) == noise
    listed = found.get("--kelvin", "300").split(",")
    assert [float(x) for x in listed] == temperatures


def test_what_is_as_always_is_not_told() -> None:
    assert command_line(["mlff", "check"], Options(), Options()) == "mlff check"


def test_flags_numbers_of_numpy_and_names_with_spaces() -> None:
    options = Options(
        np.float64(0.1), frames=7, table=Path("a b.yaml"), by_type=False, termini=True
    )
    told = command_line(["mlff", Path("x y")], options, Options(), leave_out=["frames"])
    assert told == "mlff 'x y' --noise 0.1 --table 'a b.yaml' --no-by-type --termini"


def test_who_works_is_not_told() -> None:
    options = Options(workers=8, scheduler="tcp://a:1", force=True, dry_run=True)
    assert command_line(["mlff"], options, Options()) == "mlff"
    assert {f.name for f in dataclasses.fields(Options)} >= NO_PART
