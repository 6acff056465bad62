"""The gate log: what is written is read again, and what cannot be a record names its line."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.data.gate_log import (
    BatchRecord,
    Direction,
    EpochRecord,
    GateLogWriter,
    epochs_of,
    read_gate_log,
)

NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def directions(draw):
    samples = draw(st.integers(0, 10**6))
    regularized = draw(st.integers(0, samples))
    clamped = draw(st.integers(0, samples - regularized))
    return Direction(
        samples=samples,
        regularized=regularized,
        clamped=clamped,
        nonfinite=draw(st.integers(0, clamped)),
        q50=draw(NUMBER),
        energy=draw(NUMBER),
        logdet=draw(NUMBER),
    )


@st.composite
def records(draw):
    batches = draw(st.integers(0, 1000))
    return draw(st.sampled_from((BatchRecord, EpochRecord)))(
        epoch=draw(st.integers(0, 10**6)),
        step=draw(st.none() | st.integers(0, 10**9)),
        mode=draw(st.sampled_from((None, "safe", "seed", "off"))),
        E_max=draw(NUMBER),
        batches=batches,
        skipped=draw(st.integers(0, batches)),
        loss=draw(NUMBER),
        warmup=draw(st.none() | st.booleans()),
        fwd=draw(directions()),
        inv=draw(directions()),
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records())
def test_a_record_is_read_as_it_was_written(record):
    assert type(record).read(json.loads(record.line())) == record


def test_a_log_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "gate.jsonl"
    written = [
        BatchRecord(epoch=1, step=1, loss=0.1 + 0.2, fwd=Direction(samples=3, q50=-1e300)),
        EpochRecord(epoch=1, step=1, loss=None, warmup=True, inv=Direction(nonfinite=0)),
    ]
    writer = GateLogWriter(path)
    for record in written:
        writer.write(record)
    assert read_gate_log(path) == written


def test_what_is_not_finite_is_null():
    record = EpochRecord(epoch=1, loss=math.nan, fwd=Direction(q50=math.inf))
    plain = json.loads(record.line(), parse_constant=lambda name: pytest.fail(name))
    assert plain["loss"] is None
    assert plain["fwd"]["q50"] is None


def test_missing_is_not_null():
    record = EpochRecord.read({"kind": "epoch", "epoch": 1, "loss": None, "fwd": {"q50": None}})
    assert not {"loss", "fwd.q50"} & record.missing
    assert {"skipped", "fwd.q95", "inv", "inv.q50"} <= record.missing
    assert EpochRecord.read(record.plain()) == record


def test_keys_of_others_are_ignored():
    assert EpochRecord.read({"epoch": 2, "host": "x"}).epoch == 2


def log(path, *lines, end="\n"):
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


GOOD = json.dumps({"kind": "epoch", "epoch": 1, "loss": 1.0})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "of kind batch or epoch"),
        ('{"epoch": 2}', "kind None"),
        ('{"kind": "step", "epoch": 2}', "kind 'step'"),
        ('{"kind": "epoch"}', "names its epoch"),
        ('{"kind": "epoch", "epoch": null}', "names its epoch"),
        ('{"kind": "epoch", "epoch": 1.5}', "`epoch` is a count"),
        pytest.param(f'{{"kind": "epoch", "epoch": 1{"0" * 400}}}', "`epoch` is a count", id="n"),
        pytest.param(
            f'{{"kind": "epoch", "epoch": 2, "fwd": {{"samples": 1{"0" * 400}}}}}',
            r"`fwd.samples` is a count up to 2\^53, found 10+\.\.\. \(401 characters\)",
            id="samples",
        ),
        pytest.param(
            f'{{"kind": "epoch", "epoch": 2, "loss": -1{"0" * 400}}}',
            "`loss` is a number that a float64 holds",
            id="loss",
        ),
        pytest.param("[" * 100_000, "is not JSON", id="deep"),
        pytest.param('{"a":' * 100_000, "is not JSON", id="deep object"),
        ('{"kind": "epoch", "epoch": 2, "skipped": -1}', "`skipped` is a count"),
        ('{"kind": "epoch", "epoch": 2, "loss": "low"}', "`loss` is a number"),
        ('{"kind": "epoch", "epoch": 2, "loss": true}', "`loss` is a number"),
        ('{"kind": "epoch", "epoch": 2, "fwd": 3}', "`fwd` is an object"),
        ('{"kind": "epoch", "epoch": 2, "inv": {"q50": "x"}}', "`inv.q50` is a number"),
        ('{"kind": "epoch", "epoch": 2, "batches": 3, "skipped": 4}', "4 of 3 batches"),
        ('{"kind": "epoch", "epoch": 2, "fwd": {"samples": 3, "clamped": 4}}', "more than its 3"),
        ('{"kind": "epoch", "epoch": ', "not JSON"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, message):
    path = log(tmp_path / "gate.jsonl", GOOD, "", line, GOOD)
    with pytest.raises(DataError, match=message) as caught:
        read_gate_log(path)
    assert caught.value.where == f"{path}, line 3"
    assert caught.value.exit_code == 3


def test_a_cut_line_is_named_and_a_resumed_run_mends_it(tmp_path):
    whole = [EpochRecord(epoch=e, step=10 * e, loss=1.0 / e) for e in (1, 2, 3)]
    text = "".join(r.line() for r in whole)
    path = tmp_path / "gate.jsonl"
    path.write_text(text[:-7], encoding="utf-8")
    with pytest.raises(DataError, match="cut off") as caught:
        read_gate_log(path)
    assert caught.value.where == f"{path}, line 3"
    writer = GateLogWriter(path, resume_after=20)
    writer.write(whole[2])
    assert path.read_text(encoding="utf-8") == text


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    path = tmp_path / "gate.jsonl"
    writer = GateLogWriter(path)
    for step in range(1, 6):
        writer.write(BatchRecord(epoch=step, step=step))
    GateLogWriter(path, resume_after=3)
    assert [r.step for r in read_gate_log(path)] == [1, 2, 3]
    GateLogWriter(path)
    assert path.read_text(encoding="utf-8") == ""


def test_an_empty_log_is_bad_data(tmp_path):
    path = tmp_path / "gate.jsonl"
    for text in ("", "\n \n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="empty") as caught:
            read_gate_log(path)
        assert caught.value.where == f"{path}, line 1"


def test_a_log_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        read_gate_log(tmp_path / "gate.jsonl")
    path = tmp_path / "binary.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        read_gate_log(path)


def test_a_last_line_needs_no_end(tmp_path):
    path = log(tmp_path / "gate.jsonl", GOOD, GOOD, end="")
    assert len(read_gate_log(path)) == 2


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "gate.jsonl"
    path.write_text('{"kind": "epoch", "epoch": 1}\n', encoding="utf-8-sig")
    assert read_gate_log(path)[0].epoch == 1


def test_nan_of_other_writers_is_read_as_what_it_says(tmp_path):
    path = log(tmp_path / "gate.jsonl", '{"kind": "epoch", "epoch": 1, "loss": NaN}')
    loss = read_gate_log(path)[0].loss
    assert loss is not None
    assert math.isnan(loss)


def test_batches_add_up_to_their_epoch():
    batch = BatchRecord(
        epoch=4,
        step=7,
        batches=1,
        skipped=0,
        loss=2.0,
        E_max=1e5,
        fwd=Direction(samples=10, regularized=2, clamped=1, q50=5.0, logdet=1.0),
    )
    skipped = replace(
        batch, step=8, skipped=1, loss=None, fwd=Direction(samples=10, clamped=10, nonfinite=4)
    )
    other = replace(batch, step=9, loss=4.0, fwd=replace(batch.fwd, q50=9.0, logdet=3.0))
    (epoch,) = epochs_of([batch, skipped, other])
    assert (epoch.epoch, epoch.step, epoch.batches, epoch.skipped) == (4, 9, 3, 1)
    assert epoch.loss == 3.0
    assert (epoch.fwd.samples, epoch.fwd.regularized, epoch.fwd.clamped) == (30, 4, 12)
    assert (epoch.fwd.q50, epoch.fwd.logdet) == (7.0, 2.0)


def test_an_epochs_own_record_counts_and_the_last_of_several():
    first = EpochRecord(epoch=1, loss=1.0)
    again = EpochRecord(epoch=1, loss=2.0)
    batch = BatchRecord(epoch=1, loss=9.0)
    later = BatchRecord(epoch=2, step=5, loss=9.0)
    resumed = BatchRecord(epoch=2, step=5, loss=8.0)
    found = epochs_of([first, batch, later, again, resumed])
    assert [(r.epoch, r.loss) for r in found] == [(1, 2.0), (2, 8.0)]
