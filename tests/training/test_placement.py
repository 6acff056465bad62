"""One process per GPU: devices and cores of all processes, decided from one list."""

from __future__ import annotations

import pytest

from mlff_cli.core.errors import MissingDependencyError, MLFFError, UsageError
from mlff_cli.training.placement import Member, cores_for, neighbours, place


def members(
    layout: dict[str, int],
    gpus: int | dict[str, int] = 0,
    *,
    device: str = "auto",
    bound: bool = False,
    told: bool = True,
) -> list[Member]:
    """Processes per host; `bound`: the launcher shows each its own GPU."""
    made: list[Member] = []
    for host, n in layout.items():
        found = gpus if isinstance(gpus, int) else gpus[host]
        for i in range(n):
            seen = [f"{host}-{g}" for g in range(found)]
            if bound:
                seen = seen[i : i + 1]
            local = (i, n) if told else (None, None)
            made.append(Member(len(made), host, *local, seen, range(8), device, "torch"))
    return made


def test_every_process_takes_the_gpu_of_its_local_rank() -> None:
    expected = ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    for device in ("auto", "cuda"):
        assert place(members({"a": 2, "b": 2}, 2, device=device)) == expected
        assert place(members({"a": 2, "b": 2}, 4, device=device)) == expected
        assert place(members({"a": 2, "b": 2}, 2, device=device, told=False)) == expected


def test_a_gpu_bound_by_the_launcher_is_the_first_that_the_process_sees() -> None:
    assert place(members({"a": 2, "b": 2}, 2, bound=True)) == ["cuda:0"] * 4


def test_cpus_need_nothing() -> None:
    assert place(members({"a": 3}, 0)) == ["cpu"] * 3
    assert place(members({"a": 3}, 2, device="cpu")) == ["cpu"] * 3


def test_a_named_gpu_is_for_one_process_per_host() -> None:
    assert place(members({"a": 1, "b": 1}, 2, device="cuda:1")) == ["cuda:1"] * 2


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (members({"a": 4}, 2), MissingDependencyError, "on a 4 processes see 2 GPUs"),
        (members({"a": 2}, 1, device="cuda"), MissingDependencyError, "ranks 0 and 1 share"),
        (members({"a": 2}, 0, device="cuda"), MissingDependencyError, "2 processes see 0 GPUs"),
        (members({"a": 1, "b": 2}, {"a": 2, "b": 1}), MissingDependencyError, "on b ranks 1"),
        (members({"a": 1, "b": 1}, {"a": 1, "b": 0}), MissingDependencyError, "rank 1 on b sees"),
        (members({"a": 1, "b": 1}, {"a": 0, "b": 1}), MissingDependencyError, "rank 0 on a sees"),
        (members({"a": 1}, 2, device="cuda:2"), MissingDependencyError, "needs GPU 2, 2 were"),
        (members({"a": 2}, 2, device="cuda:0"), UsageError, "one GPU for 2 processes on a"),
    ],
)
def test_what_cannot_be_placed_is_refused(
    given: list[Member], error: type[MLFFError], words: str
) -> None:
    with pytest.raises(error) as caught:
        place(given)
    assert words in str(caught.value)
    assert caught.value.remedy
    assert caught.value.exit_code == (2 if error is UsageError else 4)


def test_all_processes_must_be_told_the_same() -> None:
    one, two = members({"a": 2})
    other = Member(1, "b", 0, 1, [], [0], "cpu", "torch")
    with pytest.raises(UsageError, match=r"the same --device, found auto in rank 0 and cpu"):
        place([one, other])
    older = Member(1, "b", 0, 1, [], [0], "auto", "torch 1")
    with pytest.raises(UsageError, match="found torch in rank 0 and torch 1 in rank 1 on b"):
        place([one, older])
    assert place([one, two]) == ["cpu", "cpu"]


def test_neighbours_are_counted_by_host_where_the_launcher_is_silent() -> None:
    silent = members({"a": 2, "b": 1}, told=False)
    assert [neighbours(silent, r) for r in range(3)] == [(0, 2), (1, 2), (0, 1)]


def test_cores_are_divided_among_those_that_may_use_the_same() -> None:
    free = members({"a": 3, "b": 1})
    assert [cores_for(free, r) for r in range(4)] == [2, 2, 2, 8]
    bound = [Member(r, "a", r, 2, [], range(4 * r, 4 * r + 4), "cpu", "") for r in range(2)]
    assert [cores_for(bound, r) for r in range(2)] == [4, 4]
    crowd = [Member(r, "a", r, 4, [], [0], "cpu", "") for r in range(4)]
    assert cores_for(crowd, 0) == 1
