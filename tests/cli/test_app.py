"""The command line as users and their Makefiles call it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "h5py", "ase", "omegaconf", "pydantic", "matplotlib", "ignite", "openmm")
COMMANDS = ("convert", "label", "calc-sae", "train", "evaluate", "compile", "report", "info")


def mlff(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlff_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_names_every_command():
    result = mlff("--help")
    assert result.returncode == 0
    for command in COMMANDS:
        assert command in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_the_common_options(command):
    result = mlff(command, "--help")
    assert result.returncode == 0
    common = ("--json", "--quiet", "--verbose", "--no-progress")
    writing = ("--force", "--dry-run") if command != "info" else ()
    for option in (*common, *writing):
        assert option in result.stdout


def test_the_command_line_imports_nothing_heavy():
    code = f"import sys, mlff_cli.cli.app; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_unknown_commands_and_options_are_usage_errors():
    assert mlff("frobnicate").returncode == 2
    assert mlff("calc-sae", "--frobnicate").returncode == 2


def test_version():
    result = mlff("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("mlff ")


def test_missing_input_is_exit_3_and_names_the_file(tmp_path):
    result = mlff("calc-sae", str(tmp_path / "absent.h5"), str(tmp_path / "sae.yaml"))
    assert result.returncode == 3
    assert "absent.h5" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_bad_percentiles_are_exit_2_with_a_remedy(tmp_path):
    result = mlff("calc-sae", "a.h5", "b.yaml", "--percentiles", "abc")
    assert result.returncode == 2
    assert "2,98" in result.stderr
