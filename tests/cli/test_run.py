"""What a stage raises becomes the command's exit code and a message on stderr."""

import json
import time
from collections.abc import Callable

import pytest
import typer

from mlff_cli.cli.options import Talk, comma_list
from mlff_cli.cli.run import execute
from mlff_cli.core import errors
from mlff_cli.core.reporting import Reporter, Summary, Table

CODES = {
    errors.UsageError: 2,
    errors.ConfigError: 2,
    errors.DataError: 3,
    errors.StorageError: 3,
    errors.MissingDependencyError: 4,
    errors.NumericalError: 5,
    errors.CheckFailedError: 6,
    errors.InterruptedRunError: 75,
}


def raising(error: BaseException) -> Callable[[Reporter], Summary]:
    def stage(reporter: Reporter) -> Summary:
        raise error

    return stage


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_errors_become_their_exit_codes(kind, code, capsys):
    with pytest.raises(typer.Exit) as caught:
        execute(raising(kind("the rule, 7 seen", remedy="do this", where="a.h5")), Talk())
    assert caught.value.exit_code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in ("a.h5", "the rule, 7 seen", "do this"):
        assert part in captured.err


def test_a_bug_is_exit_1_with_a_traceback(capsys):
    with pytest.raises(typer.Exit) as caught:
        execute(raising(ZeroDivisionError("oops")), Talk())
    assert caught.value.exit_code == 1
    assert "ZeroDivisionError: oops" in capsys.readouterr().err


def test_ctrl_c_is_exit_130(capsys):
    with pytest.raises(typer.Exit) as caught:
        execute(raising(KeyboardInterrupt()), Talk())
    assert caught.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err


class Interrupting:
    """Python swallows what a destructor raises, as when Ctrl-C strikes inside one."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_inside_a_destructor_is_not_lost(capsys):
    def stage(reporter: Reporter) -> Summary:
        Interrupting()
        time.sleep(5.0)
        return Summary({})

    start = time.monotonic()
    with pytest.raises(typer.Exit) as caught:
        execute(stage, Talk())
    assert caught.value.exit_code == 130
    assert time.monotonic() - start < 4.0


def talking(reporter: Reporter) -> Summary:
    reporter.info("said")
    reporter.detail("fine print")
    reporter.warning("careful [not markup]")
    with reporter.progress(2, "work", "things") as bar:
        bar.advance(2, loss=0.5)
    table = Table("Results", ["name", "value"], [["a", 1.5]], ["a note"])
    return Summary({"a": 1.5}, [table], ["wrote x.yaml"])


def test_results_go_to_stdout_and_talk_to_stderr(capsys):
    execute(talking, Talk())
    captured = capsys.readouterr()
    assert "1.5" in captured.out
    assert "a note" in captured.out
    assert "wrote x.yaml" in captured.out
    assert "said" in captured.err
    assert "careful [not markup]" in captured.err
    assert "work: 2/2 (100 %) things" in captured.err
    assert "fine print" not in captured.err
    assert "said" not in captured.out


def test_json_prints_only_json(capsys):
    execute(talking, Talk(json=True))
    assert json.loads(capsys.readouterr().out) == {"a": 1.5}


def test_quiet_keeps_warnings_only(capsys):
    execute(talking, Talk(quiet=True))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "careful" in captured.err
    assert "said" not in captured.err
    assert "work" not in captured.err


def test_verbose_shows_details(capsys):
    execute(talking, Talk(verbose=True))
    assert "fine print" in capsys.readouterr().err


def test_lists_are_comma_separated_or_repeated():
    assert comma_list(["1,2", "3"]) == ["1", "2", "3"]
    assert comma_list(["energy, forces,"]) == ["energy", "forces"]
    assert comma_list(None) == []
