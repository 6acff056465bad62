"""Threads that stay on one core."""

from __future__ import annotations

import os
import threading

import pytest

from mlff_cli.core import affinity
from mlff_cli.core.affinity import on_core, quiet_cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system does not place threads"
)


def test_a_thread_and_those_it_starts_stay_on_the_core_and_the_rest_does_not() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    seen: dict[str, set[int]] = {}

    def look(name: str) -> None:
        seen[name] = os.sched_getaffinity(0)

    with on_core(core):
        look("caller")
        started = threading.Thread(target=look, args=("started",))
        started.start()
        started.join()
    assert seen == {"caller": {core}, "started": {core}}
    assert os.sched_getaffinity(0) == before


def test_it_is_undone_after_an_error() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ValueError, match="oops"), on_core(min(before)):
        raise ValueError("oops")
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("core", [None, 10**6])
def test_no_core_and_one_that_is_not_there_change_nothing(core: int | None) -> None:
    before = os.sched_getaffinity(0)
    with on_core(core):
        assert os.sched_getaffinity(0) == before


def test_every_pair_gets_an_allowed_core_and_all_are_used() -> None:
    allowed = os.sched_getaffinity(0)
    cores = quiet_cores(2 * len(allowed))
    assert sorted(cores) == sorted([*allowed, *allowed])


def test_the_idlest_core_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    ticks = int(affinity.LOOK * os.sysconf("SC_CLK_TCK"))
    looks = iter([dict.fromkeys(allowed, 7), {c: 7 + (c == allowed[-1]) * ticks for c in allowed}])
    monkeypatch.setattr(affinity, "_idle_ticks", lambda: next(looks))
    assert quiet_cores(1) == [allowed[-1]]
