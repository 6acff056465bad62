"""What people see, and the environment that the command line gives its libraries."""

import os
import subprocess
import sys

import pytest

from mlff_cli.cli import console, progress
from mlff_cli.cli.console import print_summary
from mlff_cli.core.reporting import Summary, Table


def shown(capsys: pytest.CaptureFixture[str], table: Table) -> list[str]:
    print_summary(Summary({}, [table]), as_json=False, quiet=False)
    return capsys.readouterr().out.splitlines()


def test_facts_have_no_empty_header(capsys):
    facts = shown(capsys, Table("a.h5", ["", ""], [["molecules", "8"]]))
    named = shown(capsys, Table("a.h5", ["what", "value"], [["molecules", "8"]]))
    assert len(named) - len(facts) == 2  # the header and the rule under it
    assert any("molecules" in line and "8" in line for line in facts)


@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_told_otherwise(given, used):
    code = (
        "import atexit, os; atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY']));"
        "import sys; sys.argv = ['mlff', '--version'];"
        "from mlff_cli.cli.app import main; main()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == used


def test_the_last_progress_line_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    monkeypatch.setattr(progress, "PLAIN_SHARE", 0.0)
    with console.ConsoleReporter().progress(2, "work") as bar:
        bar.advance()
        bar.advance()
    assert capsys.readouterr().err.count("2/2") == 1
