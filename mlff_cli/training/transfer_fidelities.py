"""Which fidelity of a run starts as which of a loaded model, and what happens to its energies.

E = E_network(Z, R) + sum_i (shift(Z_i) + SAE(Z_i)): where the run's atomic energies differ from the
file's, shift + SAE_file - SAE_run keeps the total energy of a continued fidelity. A new fidelity
keeps the residual energy of the one that it copies: its method has atoms of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from mlff_cli.core.elements import SYMBOLS
from mlff_cli.core.errors import ConfigError
from mlff_cli.training.settings_transfer import TransferSection
from mlff_cli.training.transfer import Start

SAE = Mapping[int, float]  # atomic number: eV
UNCERTAIN = 1.0  # eV: atomic energies of one method that were fitted twice rarely differ by more


def choose_starts(
    options: TransferSection, here: Sequence[str | None], there: Sequence[str | None]
) -> list[Start]:
    """Where each fidelity of the run comes from.

    Args:
        options: `transfer` of the configuration.
        here: level of theory of each fidelity of the run, None where unknown.
        there: the same of the file.

    Raises:
        ConfigError: an option names a fidelity that does not exist, or contradicts another.
    """
    n, m = len(here), len(there)
    given = options.fidelity_map
    _check_numbers("transfer.fidelity_map", given or {}, n, m)
    if given and len(set(given.values())) < len(given):
        raise ConfigError(
            f"transfer.fidelity_map: each fidelity of the file is continued once, found {given}",
            remedy="leave one out; transfer.new_fidelities_from makes copies",
        )
    continued = given if given is not None else {k: k for k in range(min(n, m))}
    source = options.new_fidelities_from
    if isinstance(source, dict):
        _check_numbers("transfer.new_fidelities_from", source, n, m)
        if both := sorted(set(source) & set(continued)):
            raise ConfigError(
                f"transfer.new_fidelities_from names fidelity {both[0]}, which is not new: it "
                f"continues fidelity {continued[both[0]]} of the file",
                remedy="say in transfer.fidelity_map which fidelities continue which",
            )
        copied = {k: source.get(k, 0) for k in range(n)}
    else:
        _check_numbers("transfer.new_fidelities_from", {0: source}, n, m)
        copied = dict.fromkeys(range(n), source)
    source_of = copied | continued
    return [Start(k, source_of[k], k in continued, here[k], there[source_of[k]]) for k in range(n)]


def _check_numbers(key: str, given: Mapping[int, int], n: int, m: int) -> None:
    for here, there in given.items():
        for number, limit, place in ((here, n, "this run"), (there, m, "the file")):
            if number >= limit:
                raise ConfigError(
                    f"{key}: {place} has fidelities 0 to {limit - 1}, found {number}",
                    remedy="count from 0",
                )


def level_warnings(
    starts: Sequence[Start], there: Sequence[str | None], options: TransferSection
) -> list[str]:
    """Say where a fidelity continues another method's, and which map brings equals together.

    Args:
        starts: of the run's fidelities.
        there: level of theory of each fidelity of the file, None where unknown.
        options: `transfer` of the configuration.
    """
    odd = [s for s in starts if s.continued and _same_level(s) is False]
    if not odd:
        return []
    told = "; ".join(
        f"fidelity {s.fidelity} ({s.level_of_theory}) continues fidelity {s.source} of the file "
        f"({s.source_level})"
        for s in odd
    )
    text = f"the levels of theory differ: {told}"
    numbers = {_plain(level): k for k, level in reversed(list(enumerate(there))) if level}
    pairs = {
        s.fidelity: numbers[_plain(s.level_of_theory)]
        for s in starts
        if s.level_of_theory and _plain(s.level_of_theory) in numbers
    }
    apart = len(set(pairs.values())) == len(pairs)
    if options.fidelity_map is None and pairs and apart:
        text += f". If this is not meant, bring equals together: transfer.fidelity_map='{pairs}'"
    return [text]


def _plain(level: str | None) -> str:
    """A level of theory without what people spell differently."""
    return "".join(c for c in (level or "").casefold() if c not in " -_")


def _same_level(start: Start) -> bool | None:
    """Whether a fidelity has the file's level of theory; None where one is unknown."""
    if not (start.level_of_theory and start.source_level):
        return None
    return _plain(start.level_of_theory) == _plain(start.source_level)


def keep_energies(
    starts: Sequence[Start],
    here: Mapping[int, SAE],
    there: Mapping[int, SAE],
    options: TransferSection,
    *,
    shared: bool,
) -> tuple[list[Start], list[str]]:
    """Decide which energies each continued fidelity keeps, and the shifts that this takes.

    Args:
        starts: of the run's fidelities.
        here: atomic energies of each fidelity of the run, eV.
        there: those of the file; fidelities whose energies are unknown are missing.
        options: `transfer` of the configuration.
        shared: whether the fidelities share one table of atomic shifts.

    Returns:
        The starts with their shifts, and what the user must hear.

    Raises:
        ConfigError: the options or the files leave open what is to be kept.
    """
    done, warnings = [], []
    for start in starts:
        change = _change(start, here, there, options)
        if not change:
            done.append(start)
            continue
        keeps = _choice(start, change, options)
        done.append(replace(start, keeps=keeps, shifts=change if keeps == "total" else {}))
        if keeps == "residual":
            warnings.append(
                f"fidelity {start.fidelity}: its atomic energies differ from the file's by up to "
                f"{_largest(change)}; it starts with the file's residual energies, not with its "
                "total energies"
            )
    if shared and any(start.shifts != done[0].shifts for start in done):
        every = {z: e for s in done for z, e in s.shifts.items()}
        warnings.append(
            "the fidelities share one table of atomic shifts, which cannot make up for different "
            f"changes of their atomic energies (up to {_largest(every)}): they start with the "
            "file's residual energies, not with its total energies"
        )
        done = [replace(s, keeps="residual", shifts={}) if s.keeps else s for s in done]
    return done, warnings


def _change(
    start: Start, here: Mapping[int, SAE], there: Mapping[int, SAE], options: TransferSection
) -> dict[int, float]:
    """What keeps the total energies of a continued fidelity, {atomic number: eV}; empty: nothing.

    A new fidelity has no total energies to keep.
    """
    if not start.continued:
        return {}
    before, now = there.get(start.source), here[start.fidelity]
    if not before:
        if options.energies == "total":
            raise ConfigError(
                "transfer.energies=total needs the atomic energies that the weights were trained "
                f"with, and the file holds none of fidelity {start.source}",
                remedy="set transfer.energies=residual",
            )
        return {}
    return {z: before[z] - now[z] for z in sorted(now) if z in before and before[z] != now[z]}


def _choice(start: Start, change: SAE, options: TransferSection) -> Literal["total", "residual"]:
    """What a continued fidelity keeps."""
    if options.energies != "auto":
        return options.energies
    same = _same_level(start)
    if same is None and max(map(abs, change.values())) > UNCERTAIN:
        raise ConfigError(
            f"fidelity {start.fidelity}: its atomic energies differ from the file's by up to "
            f"{_largest(change)}, and nothing says whether the level of theory is the same",
            remedy="set transfer.energies=total (the same method, fitted anew: total energies "
            "stay) or residual (another method: what the network adds to the atoms stays)",
        )
    return "residual" if same is False else "total"


def _largest(change: SAE) -> str:
    z = max(change, key=lambda z: abs(change[z]))
    return f"{abs(change[z]):.3g} eV ({SYMBOLS[z]})"
