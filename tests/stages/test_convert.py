"""`mlff convert`: a round trip loses nothing, and different levels of theory never mix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.fields import FIELDS, LABELS
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.grouped_writer import write_grouped
from mlff_cli.stages.convert import Options, run

FINITE32 = st.floats(-1e4, 1e4, width=32, allow_nan=False)


@st.composite
def molecules(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(1, 4))
    molecule: dict[str, Any] = {
        "coord": draw(hnp.arrays("float32", (n, 3), elements=FINITE32)),
        "numbers": draw(hnp.arrays("int32", (n,), elements=st.integers(1, 118))),
        "charge": draw(st.integers(-2, 2)),
        "mult": draw(st.integers(1, 3)),
        "molecule": draw(
            st.one_of(
                st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
                st.sampled_from(["T", "1", "nan", "007", "a b", 'x"y', "a\\b", "[1,2]", "true"]),
            )
        ),
        "energy": draw(st.floats(-1e5, 1e5)),
    }
    for name in LABELS:
        if name != "energy" and draw(st.booleans()):
            shape = FIELDS[name].shape(n)
            molecule[name] = draw(hnp.arrays("float32", shape, elements=FINITE32))
    return molecule


def same(first: Path, second: Path) -> None:
    with GroupedHDF5(first) as a, GroupedHDF5(second) as b:
        assert [(g.n_atoms, g.n_molecules) for g in a.groups] == [
            (g.n_atoms, g.n_molecules) for g in b.groups
        ]
        assert a.level_of_theory == b.level_of_theory
        for g, h in zip(a.groups, b.groups, strict=True):
            for name in FIELDS:
                np.testing.assert_array_equal(g.read(name), h.read(name), err_msg=name)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(molecules(), min_size=1, max_size=4))
def test_a_round_trip_through_text_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, given_molecules: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("convert")
    write_grouped(folder / "a.h5", given_molecules, {"level_of_theory": "pbe/def2-svp"})
    run([folder / "a.h5"], folder / "b.extxyz", Options())
    run([folder / "b.extxyz"], folder / "c.h5", Options())
    run([folder / "c.h5"], folder / "d.hdf5", Options())
    same(folder / "a.h5", folder / "c.h5")
    same(folder / "a.h5", folder / "d.hdf5")


WATER = {
    "coord": np.array([[0.0, 0.0, 0.1], [0.8, 0.0, -0.5], [-0.7, 0.1, -0.5]]),
    "numbers": np.array([8, 1, 1]),
    "charge": 0,
    "mult": 1,
}


def labelled(path: Path, energy: float, level: str | None) -> Path:
    write_grouped(path, [{**WATER, "energy": energy}], {"level_of_theory": level} if level else {})
    return path


def test_several_inputs_follow_one_another(tmp_path: Path) -> None:
    inputs = [labelled(tmp_path / f"{k}.h5", -float(k), "gfn2-xtb") for k in (3, 1, 2)]
    run([inputs[1]], tmp_path / "1.xyz", Options())
    summary = run([inputs[0], tmp_path / "1.xyz", inputs[2]], tmp_path / "all.h5", Options())
    assert summary.data["molecules"] == 3
    with GroupedHDF5(tmp_path / "all.h5") as file:
        np.testing.assert_array_equal(file.groups[0].read("energy"), [-3.0, -1.0, -2.0])
        assert file.level_of_theory == "gfn2-xtb"
        record = json.loads(file.attrs["provenance"])
    assert set(record["inputs"]) == {str(p) for p in (inputs[0], tmp_path / "1.xyz", inputs[2])}


def test_levels_of_theory_do_not_mix(tmp_path: Path) -> None:
    a = labelled(tmp_path / "a.h5", -1.0, "gfn2-xtb")
    b = labelled(tmp_path / "b.h5", -2.0, "pbe/def2-svp")
    c = labelled(tmp_path / "c.h5", -3.0, None)
    out = tmp_path / "out.h5"
    with pytest.raises(UsageError, match="one level of theory"):
        run([a, b], out, Options())
    with pytest.raises(UsageError, match="one level of theory"):
        run([a], out, Options(level_of_theory="pbe"))
    run([a], tmp_path / "m.xyz", Options())
    run([b], tmp_path / "n.xyz", Options())
    mixed = tmp_path / "mixed.xyz"
    mixed.write_text((tmp_path / "m.xyz").read_text() + (tmp_path / "n.xyz").read_text())
    with pytest.raises(DataError, match="frame 1"):
        run([mixed], out, Options())
    assert not out.exists()

    reporter = NullReporter()
    assert run([a, c], out, Options(), reporter).data["level_of_theory"] is None
    assert any("--level-of-theory" in text for text in reporter.warnings)
    found = run([a, c], out, Options(level_of_theory="gfn2-xtb", force=True)).data
    assert found["level_of_theory"] == "gfn2-xtb"


def test_foreign_layout_as_aimnet_writes_it(tmp_path: Path) -> None:
    """int8 charges, no unit attributes, fields of its own, dipole and quadrupole."""
    source = tmp_path / "aimnet.h5"
    rng = np.random.default_rng(0)
    with h5py.File(source, "w") as file:
        group = file.create_group("003")
        group["coord"] = rng.normal(size=(2, 3, 3)).astype("float32")
        group["numbers"] = np.array([[8, 1, 1]] * 2, dtype="int32")
        group["charge"] = np.array([-1, 0], dtype="int8")
        group["mult"] = np.array([2, 1], dtype="int8")
        group["energy"] = np.array([-2079.123456789, -2080.0])
        group["quadrupole"] = rng.normal(size=(2, 6)).astype("float32")
        group["dipole"] = rng.normal(size=(2, 3)).astype("float32")
        group["_id"] = np.array([b"one", b"two"])
    reporter = NullReporter()
    run([source], tmp_path / "a.xyz", Options(), reporter)
    run([tmp_path / "a.xyz"], tmp_path / "b.h5", Options())
    same(source, tmp_path / "b.h5")
    assert any("_id" in text for text in reporter.warnings)
    assert any("unit" in text for text in reporter.warnings)


def test_a_dry_run_says_what_and_writes_nothing(tmp_path: Path) -> None:
    source = labelled(tmp_path / "a.h5", -1.0, "pbe/def2-svp")
    summary = run([source], tmp_path / "b.xyz", Options(dry_run=True))
    assert summary.data["level_of_theory"] == "pbe/def2-svp"
    assert "would convert" in summary.lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_refusals(tmp_path: Path) -> None:
    source = labelled(tmp_path / "a.h5", -1.0, None)
    with pytest.raises(UsageError, match="no writer"):
        run([source], tmp_path / "a.docx", Options())
    with pytest.raises(UsageError, match="nothing to convert"):
        run([], tmp_path / "b.h5", Options())
    with pytest.raises(UsageError, match="exists already"):
        run([source], source, Options())
    with pytest.raises(DataError, match="does not exist"):
        run([tmp_path / "none.xyz"], tmp_path / "b.h5", Options())
    with pytest.raises(DataError, match="does not exist"):
        run([tmp_path / "none.h5"], tmp_path / "b.h5", Options())
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DataError, match="HDF5"):
        run([tmp_path / "text.h5"], tmp_path / "b.h5", Options())
    (tmp_path / "bad.smi").write_text("C1#CC1\n")
    pytest.importorskip("rdkit")
    with pytest.raises(DataError, match=r"C1#CC1"):
        run([tmp_path / "bad.smi"], tmp_path / "b.h5", Options())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "bad.smi", "text.h5"]
