"""Weights as a start: what is taken over, created and dropped, and that nothing is silent.

Laws: every tensor of either side has a fate, the numbers add up, and the arguments stay as they
are. Maps of fidelities that contradict themselves are refused.
"""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.training.settings_transfer import TransferSection
from mlff_cli.training.transfer import Blocks, Start, Transfer, plan_transfer
from mlff_cli.training.transfer_fidelities import choose_starts, keep_energies, level_warnings


def stacked(n: int, rows: int = 3) -> Tensor:
    """Blocks that hold 10 k + row, in two columns."""
    block = torch.arange(rows, dtype=torch.float32)
    return torch.cat([block + 10 * k for k in range(n)]).unsqueeze(1).repeat(1, 2)


@given(st.integers(1, 4), st.lists(st.integers(0, 3), min_size=1, max_size=5), st.data())
def test_blocks_come_from_where_they_are_said_to(
    count: int, wanted: list[int], data: st.DataObject
) -> None:
    take = tuple(k % count for k in wanted)
    created = data.draw(st.frozensets(st.sampled_from(range(len(take)))))
    own = {"table": torch.zeros(3 * len(take), 2), "w": torch.zeros(4)}
    loaded = {"table": stacked(count), "w": torch.ones(4)}
    before = {
        k: v.clone() for k, v in (own | {f"loaded {k}": v for k, v in loaded.items()}).items()
    }
    done = plan_transfer(own, loaded, {"table": Blocks(count, take, created)}, where="a.pt")
    for i, k in enumerate(take):
        assert torch.equal(done.state["table"].chunk(len(take))[i], loaded["table"].chunk(count)[k])
    assert torch.equal(done.state["w"], loaded["w"])
    # every own number is loaded or created, every unused one of the file is dropped
    assert done.count("loaded")[1] + done.count("created")[1] == 6 * len(take) + 4
    assert done.count("created")[1] == 6 * len(created)
    assert done.count("dropped")[1] == 6 * (count - len(set(take)))
    assert done.count("initial") == (0, 0)
    for name, value in before.items():
        side = loaded if name.startswith("loaded ") else own
        assert torch.equal(side[name.removeprefix("loaded ")], value)


def test_several_are_not_repeated_into_more_without_being_told() -> None:
    own, loaded = {"table": torch.zeros(12, 2)}, {"table": stacked(2)}
    with pytest.raises(ConfigError, match=r"table: \(6, 2\) in the file, \(12, 2\) here"):
        plan_transfer(own, loaded, {}, where="a.pt")


MISFITS = [
    ({"w": torch.zeros(6, 3)}, r"b: not in the file, \(4,\) here"),
    ({"w": torch.zeros(6, 3), "b": torch.zeros(4), "c": torch.zeros(1)}, r"c: \(1,\) in the file"),
    ({"w": torch.zeros(4, 3), "b": torch.zeros(4)}, r"w: \(4, 3\) in the file, \(6, 3\) here"),
    ({"w": torch.zeros(18), "b": torch.zeros(4)}, r"w: \(18,\) in the file"),
]


@pytest.mark.parametrize(("loaded", "message"), MISFITS)
def test_what_does_not_fit_is_refused_with_both_shapes(
    loaded: dict[str, Tensor], message: str
) -> None:
    own = {"w": torch.zeros(6, 3), "b": torch.zeros(4)}
    with pytest.raises(ConfigError, match=message) as caught:
        plan_transfer(own, loaded, {}, where="a.pt")
    assert caught.value.where == "a.pt"
    assert "transfer.partial=true" in str(caught.value)


def test_partial_loads_what_fits_and_accounts_for_the_rest() -> None:
    own = {"w": torch.full((2, 2), 5.0), "b": torch.full((3,), 5.0), "new": torch.full((1,), 5.0)}
    loaded = {"w": torch.ones(2, 2), "b": torch.ones(4), "old": torch.ones(7)}
    done = plan_transfer(own, loaded, {}, where="a.pt", partial=True)
    assert torch.equal(done.state["w"], loaded["w"])
    assert torch.equal(done.state["b"], own["b"])
    assert (done.count("loaded"), done.count("initial")) == ((1, 4), (2, 4))
    assert done.count("dropped") == (2, 11)
    reasons = {n: i.why for i in done.items for n in i.names if i.fate == "initial"}
    assert reasons["b"] == "(4,) in the file, (3,) here"
    with pytest.raises(ConfigError, match="no tensor of the file fits"):
        plan_transfer({"w": torch.zeros(2)}, {"x": torch.ones(2)}, {}, where="a", partial=True)


def test_misfits_beyond_a_screenful_are_counted() -> None:
    own = {f"w{i}": torch.zeros(1) for i in range(20)}
    with pytest.raises(ConfigError, match="and 13 more"):
        plan_transfer(own, {"other": torch.zeros(1)}, {}, where="a.pt")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_of_a_diverged_training_are_refused(bad: float) -> None:
    with pytest.raises(DataError, match="w holds numbers that are not finite"):
        plan_transfer({"w": torch.zeros(1)}, {"w": torch.tensor([bad])}, {}, where="a.pt")


def test_the_own_precision_counts_and_rounding_is_said() -> None:
    wide = torch.tensor([0.1], dtype=torch.float64)
    down = plan_transfer({"w": torch.zeros(1)}, {"w": wide}, {}, where="a.pt")
    assert down.state["w"].dtype == torch.float32
    assert any("rounded to float32" in note for note in down.notes)
    up = plan_transfer({"w": torch.zeros_like(wide)}, {"w": wide.float()}, {}, where="a.pt")
    assert up.state["w"].dtype == torch.float64
    assert not up.notes


def test_report_is_plain_complete_and_readable() -> None:
    own = {"table": torch.zeros(9, 2), "a": torch.zeros(2), "b": torch.zeros(2)}
    loaded = {"table": stacked(2), "a": torch.ones(2), "b": torch.ones(2)}
    tables = {"table": Blocks(2, (0, 1, 0), frozenset({2}))}
    done = plan_transfer(
        own, loaded, tables, where="a.pt", part_of=lambda n: "tables" if n == "table" else "rest"
    )
    start = Start(2, 0, False, "dft", "xtb")
    shifted = Start(0, 0, True, "xtb", "xtb", "total", {6: -0.25})
    done = Transfer(done.file, done.state, done.items, [shifted, start], ["noted"], ["heard"])
    plain = done.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["fidelities"][0]["shifts"] == {"6": -0.25}
    assert {n for item in plain["items"] for n in item["names"]} == set(own)
    table = done.table()
    assert [row[:4] for row in table.rows] == [
        ["loaded", "tables", 1, "12"],
        ["loaded", "rest", 2, "4"],
        ["created", "fidelity 2", 1, "6"],
    ]
    assert table.rows[2][4] == "table (a copy of fidelity 0 of the file)"
    rows = dict(done.rows())
    assert (
        rows["start from"] == "a.pt: 16 numbers in 3 tensors loaded, 6 numbers in 1 tensors created"
    )
    assert rows["start of fidelity 2"] == "new, starts as fidelity 0 (xtb)"
    assert "by up to 0.25 eV to keep total energies" in rows["start of fidelity 0"]


def test_a_model_takes_the_start() -> None:
    model = nn.Linear(2, 1)
    loaded = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
    plan_transfer(model.state_dict(), loaded, {}, where="a.pt").apply(model)
    assert torch.equal(model.weight, loaded["weight"])
    assert model.weight.requires_grad


# -- fidelities -----------------------------------------------------------------------------------


def options(**values: object) -> TransferSection:
    return TransferSection.model_validate(values)


def sources(starts: list[Start]) -> list[tuple[int, bool]]:
    return [(s.source, s.continued) for s in starts]


@pytest.mark.parametrize(
    ("values", "here", "there", "expected"),
    [
        ({}, 1, 1, [(0, True)]),
        ({}, 3, 1, [(0, True), (0, False), (0, False)]),
        ({}, 2, 3, [(0, True), (1, True)]),
        ({"new_fidelities_from": 1}, 3, 2, [(0, True), (1, True), (1, False)]),
        ({"new_fidelities_from": {3: 1}}, 4, 2, [(0, True), (1, True), (0, False), (1, False)]),
        ({"fidelity_map": {0: 1, 1: 0}}, 2, 2, [(1, True), (0, True)]),
        ({"fidelity_map": {1: 0}}, 2, 1, [(0, False), (0, True)]),
        ({"fidelity_map": {}}, 2, 2, [(0, False), (0, False)]),
    ],
)
def test_fidelities_continue_others_or_copy_them(
    values: dict[str, object], here: int, there: int, expected: list[tuple[int, bool]]
) -> None:
    starts = choose_starts(options(**values), [None] * here, [None] * there)
    assert sources(starts) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fidelity_map": {2: 0}}, "this run has fidelities 0 to 1, found 2"),
        ({"fidelity_map": {0: 2}}, "the file has fidelities 0 to 1, found 2"),
        ({"fidelity_map": {0: 1, 1: 1}}, "continued once"),
        ({"new_fidelities_from": 2}, "the file has fidelities 0 to 1, found 2"),
        ({"new_fidelities_from": {1: 0}}, "fidelity 1, which is not new: it continues fidelity 1"),
    ],
)
def test_maps_that_contradict_themselves(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_starts(options(**values), [None, None], [None, None])


def warned(here: list[str | None], there: list[str | None], **values: object) -> list[str]:
    section = options(**values)
    return level_warnings(choose_starts(section, here, there), there, section)


def test_another_order_of_methods_is_said_with_the_map_that_mends_it() -> None:
    (text,) = warned(["GFN2-xTB", "pbe/def2-svp"], ["pbe/def2-svp", "gfn2-xtb"])
    assert "fidelity 0 (GFN2-xTB) continues fidelity 0 of the file (pbe/def2-svp)" in text
    assert "transfer.fidelity_map='{0: 1, 1: 0}'" in text
    assert warned(["gfn2", "pbe"], ["pbe", "gfn2"], fidelity_map={0: 1, 1: 0}) == []
    (text,) = warned(["pbe", "gfn2"], ["gfn2"])  # the new one stands before the old one
    assert "transfer.fidelity_map='{1: 0}'" in text


def test_methods_that_agree_or_are_unknown_are_not_said_to_differ() -> None:
    assert warned(["PBE/def2-SVP", None, "new"], ["pbe/def2svp", "gfn2"]) == []
    (text,) = warned(["ccsd(t)"], ["pbe"])
    assert "fidelity_map" not in text  # none would bring equals together


# E = E_network + sum_i (shift + SAE): the sum of both is what a total energy is made of.


def kept(
    here: dict[int, dict[int, float]],
    there: dict[int, dict[int, float]],
    levels: tuple[list[str | None], list[str | None]] = ([None], [None]),
    shared: bool = False,
    **values: object,
) -> tuple[list[Start], list[str]]:
    section = options(**values)
    starts = choose_starts(section, *levels)
    return keep_energies(starts, here, there, section, shared=shared)


OLD, NEW = {0: {1: -13.0, 6: -1000.0, 7: -1.0}}, {0: {1: -13.25, 6: -1000.0, 8: -2.0}}


def test_shift_and_atomic_energy_together_stay() -> None:
    starts, warnings = kept(NEW, OLD)
    assert starts[0].keeps == "total"
    assert starts[0].shifts == {1: 0.25}  # only where both know the element and it differs
    assert warnings == []
    assert kept(OLD, OLD)[0][0].keeps is None
    assert kept(NEW, {})[0][0].shifts == {}


@pytest.mark.parametrize(
    ("levels", "choice", "expected"),
    [
        ((["pbe"], ["PBE"]), "auto", "total"),
        ((["pbe"], ["gfn2"]), "auto", "residual"),
        ((["pbe"], ["gfn2"]), "total", "total"),
        ((["pbe"], ["pbe"]), "residual", "residual"),
        (([None], ["pbe"]), "auto", "total"),
    ],
)
def test_the_method_decides_unless_told(
    levels: tuple[list[str | None], list[str | None]], choice: str, expected: str
) -> None:
    starts, warnings = kept(NEW, OLD, levels, energies=choice)
    assert starts[0].keeps == expected
    assert bool(starts[0].shifts) == (expected == "total")
    assert bool(warnings) == (expected == "residual")
    assert all("0.25 eV (H)" in text for text in warnings)


def test_a_large_difference_between_unknown_methods_is_the_user_s_to_judge() -> None:
    far = {0: {1: -10.0, 6: -50.0}}
    with pytest.raises(ConfigError, match=r"up to 950 eV \(C\), and nothing says") as caught:
        kept(far, OLD)
    assert "transfer.energies=total" in str(caught.value)
    assert kept(far, OLD, energies="residual")[0][0].shifts == {}
    assert kept(far, OLD, (["pbe"], ["pbe"]))[0][0].shifts == {1: -3.0, 6: -950.0}
    with pytest.raises(ConfigError, match="the file holds none of fidelity 0"):
        kept(far, {}, energies="total")


def test_a_new_fidelity_keeps_residual_energies() -> None:
    both = NEW | {1: {1: -5.0, 6: -40.0}}
    starts, warnings = kept(both, OLD, ([None, None], [None]))
    assert (starts[1].keeps, starts[1].shifts, warnings) == (None, {}, [])


def test_shared_shifts_take_only_a_change_that_all_fidelities_share() -> None:
    levels: tuple[list[str | None], list[str | None]] = ([None, None], [None, None])
    before = {0: {1: -13.0}, 1: {1: -5.0}}
    same, _ = kept({0: {1: -13.5}, 1: {1: -5.5}}, before, levels, shared=True)
    assert [s.shifts for s in same] == [{1: 0.5}, {1: 0.5}]
    other, (text,) = kept({0: {1: -13.5}, 1: {1: -5.0}}, before, levels, shared=True)
    assert [s.shifts for s in other] == [{}, {}]
    assert "cannot make up for different changes" in text
