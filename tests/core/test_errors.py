"""The error tree: one exit code per kind, and a message with place and remedy."""

import pytest

from mlff_cli.core import errors
from mlff_cli.core.errors import MLFFError

CODES = {
    "MLFFError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "DataError": 3,
    "StorageError": 3,
    "MissingDependencyError": 4,
    "NumericalError": 5,
    "CheckFailedError": 6,
    "InterruptedRunError": 75,
}


def test_every_error_of_the_module_has_its_documented_exit_code() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, MLFFError)
    }
    assert found == CODES
    for name, code in CODES.items():
        line = next(row for row in str(errors.__doc__).splitlines() if f"{name} " in row)
        own = [word for word in line.split() if word.isdigit()]
        assert own[:1] == [str(code)]


@pytest.mark.parametrize("name", sorted(CODES))
def test_message_shows_place_then_rule_then_remedy(name: str) -> None:
    kind = getattr(errors, name)
    error = kind("energies must be finite, found nan", where="a.h5", remedy="remove the row")
    assert str(error) == "a.h5: energies must be finite, found nan\n  remedy: remove the row"
    assert str(kind("energies must be finite")) == "energies must be finite"
    assert isinstance(error, Exception)
    assert error.args == ("energies must be finite, found nan",)
