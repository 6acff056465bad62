"""Functional names, their parameters, and which levels of theory hold dispersion."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from mlff_cli.core.errors import UsageError
from mlff_cli.physics.dispersion_parameters import (
    D3Parameters,
    contains_dispersion,
    functional_of,
    functional_parameters,
    functionals,
)

# s6, s8, a1, a2, s9 as published; the package's table is the source, this is the check on reading.
PUBLISHED = {
    "b3lyp": (1.0, 1.9889, 0.3981, 4.4211, 0.0),
    "pbe": (1.0, 0.7875, 0.4289, 4.4407, 0.0),
    "pbe0": (1.0, 1.2177, 0.4145, 4.8593, 0.0),
    "wb97x": (1.0, 0.2641, 0.0000, 5.4959, 0.0),
    "wb97m": (1.0, 0.3908, 0.5660, 3.1280, 0.0),
    "tpss": (1.0, 1.9435, 0.4535, 4.4752, 0.0),
    "bp86": (1.0, 3.2822, 0.3946, 4.8516, 0.0),
    "m062x": (1.0, 0.0000, 0.0000, 5.0580, 0.0),
    "b973c": (1.0, 1.5000, 0.3700, 4.1000, 1.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters(name: str) -> None:
    assert functional_parameters(name) == D3Parameters(*PUBLISHED[name])


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("PBE", "pbe"),
        ("wB97M", "wb97m"),
        ("B97-3c", "b973c"),
        ("M06-2X", "m062x"),
        ("cam-b3lyp", "camb3lyp"),
        ("B97_1", "b97_1"),
        ("BP86", "bp"),
    ],
)
def test_case_and_separators_do_not_matter(spelling: str, name: str) -> None:
    assert functional_parameters(spelling) == functionals()[name]


def test_no_two_functionals_differ_only_in_what_is_set_aside() -> None:
    table = functionals()
    assert len({re.sub("[-_]", "", name) for name in table}) == len(table)
    for name in sorted(table)[::20]:
        assert functional_parameters(name.upper().replace("_", "-")) == table[name]


def test_a_name_is_never_matched_in_part() -> None:
    assert functional_parameters("pbesol") != functional_parameters("pbe")
    for name in ("pbes", "pb", "e", "", "wb97", "xpbe"):
        with pytest.raises(UsageError, match="no D3"):
            functional_parameters(name)


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(UsageError) as caught:
        functional_parameters("b3lip")
    assert caught.value.exit_code == 2
    assert "b3lip" in caught.value.message
    assert "b3lyp" in str(caught.value.remedy)


def test_every_entry_names_its_source_and_is_finite() -> None:
    table = functionals()
    assert len(table) > 150
    assert "c7cp04913g" in table["m062x"].source
    for parameters in table.values():
        assert parameters.source
        assert all(math.isfinite(v) for v in dataclasses.astuple(parameters)[:5])
    three_body = {name for name, parameters in table.items() if parameters.s9 != 0.0}
    assert three_body == {"b973c", "pbeh3c"}


def test_double_hybrids_keep_their_own_s6() -> None:
    assert functional_parameters("b2plyp").s6 == 0.64


def test_parameters_are_finite_numbers() -> None:
    with pytest.raises(UsageError, match="a1=nan"):
        D3Parameters(s6=1.0, s8=1.0, a1=math.nan, a2=4.0)


@pytest.mark.parametrize(
    "level",
    [
        "wb97m-d3bj",
        "wB97M-D3BJ/def2-TZVPP",
        "wB97M-D3(BJ)/def2-TZVPP",
        "wb97x-d3",
        "wb97x-d",
        "wb97xd/6-31g(d)",
        "wb97m-v",
        "pyscf:wb97m_v/def2-svp",
        "b97-3c",
        "B973c",
        "r2scan-3c",
        "wb97x-3c",
        "hf-3c",
        "gfn1-xtb",
        "gfn2-xtb",
        "GFN2-xTB",
        "tblite:gfn2-xtb",
        "gfn2",
        "pm7",
        "pm6-d3h4",
        "b3lyp-d4/def2-tzvp",
        "pbe-d3",
        "pbe+d3bj",
        "pbed3bj",
        "pbe/def2-svp + d3(bj)",
        "pbe-mbd",
        "scan-rvv10",
        "optb88-vdw",
        "vdw-df2",
        "revpbe-d3bj-atm/def2-svp",
    ],
)
def test_dispersion_inside(level: str) -> None:
    assert contains_dispersion(level)
    assert functional_of(level) is None  # so that nobody can add it a second time


@pytest.mark.parametrize(
    ("level", "name"),
    [
        ("pbe/def2-svp", "pbe"),
        ("pyscf:PBE/def2-SVP", "pbe"),
        ("wb97m/def2-tzvpp", "wb97m"),
        ("wB97X", "wb97x"),
        ("pbe0/6-31g(d)", "pbe0"),
        ("b3lyp/6-311++g(2d,2p)", "b3lyp"),
        ("m06-2x/def2-tzvpd", "m062x"),
        ("bp86/def2-svp", "bp"),
        ("pbesol/cc-pv(d+d)z", "pbesol"),
        ("ccsd(t)/cc-pvtz", None),
        ("pm6", None),
        ("dftb", None),
        ("ase:package.module:Calculator", None),
        ("wb97/def2-svp", None),
        ("", None),
    ],
)
def test_no_dispersion_inside(level: str, name: str | None) -> None:
    assert not contains_dispersion(level)
    assert functional_of(level) == name


def test_only_composites_of_the_table_contain_dispersion() -> None:
    inside = {name for name in functionals() if contains_dispersion(name)}
    assert inside == {"b973c", "b97d", "hf3c", "hf3cv", "pbeh3c"}
    for name in sorted(set(functionals()) - inside)[::20]:
        assert functional_of(f"{name}/def2-svp") == name
