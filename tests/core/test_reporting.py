"""Reporting: the silent reporter fulfils the protocol and keeps the warnings."""

import inspect

import pytest

from mlff_cli.core.reporting import (
    NullProgress,
    NullReporter,
    Progress,
    Reporter,
    Summary,
    Table,
)


def work(reporter: Reporter) -> Summary:
    """A stage in small: it speaks on every channel."""
    with reporter.progress(3, "work", unit="molecules") as bar:
        for i in range(3):
            bar.advance(loss=i)
        bar.advance(2)
    reporter.info("done")
    reporter.detail("in detail")
    reporter.warning("energies are float32")
    return Summary({"n": 3}, [Table("t", ["a"], [[1]])], ["written: x"])


def test_silent_reporter_prints_nothing_and_keeps_warnings(
    capfd: pytest.CaptureFixture[str],
) -> None:
    reporter = NullReporter()
    summary = work(reporter)
    assert reporter.warnings == ["energies are float32"]
    assert summary.data == {"n": 3}
    assert capfd.readouterr() == ("", "")


def test_silent_classes_have_the_signatures_of_the_protocols() -> None:
    for protocol, silent in ((Reporter, NullReporter), (Progress, NullProgress)):
        for name, method in inspect.getmembers(protocol, inspect.isfunction):
            if name in vars(protocol) and (not name.startswith("_") or name == "__exit__"):
                ours = inspect.signature(getattr(silent, name)).parameters
                assert list(ours) == list(inspect.signature(method).parameters), name


def test_an_error_passes_through_the_silent_bar() -> None:
    caught = None
    try:
        with NullReporter().progress(None, "x"):
            raise KeyError("inside")
    except KeyError as error:
        caught = error
    assert caught is not None


def test_tables_and_summaries_share_no_lists() -> None:
    first, second = Summary({}), Summary({})
    first.lines.append("x")
    Table("t", [], []).notes.append("y")
    assert second.lines == []
    assert Table("t", [], []).notes == []
