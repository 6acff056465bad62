"""Bad input to the coarse-graining commands: exit code, a message that names the file, no output.

Every case runs in an empty folder and must leave it empty; the files that it points at must stay as
they were. `check` writes nothing anyway, and says what it found in its summary.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from mlff_cli.cli.app import app
from mlff_cli.core.artifacts import sha256
from tests.data.trajectory_cases import (
    frames,
    rows_of_the_molecule,
    write_h5md_file,
    write_npz,
    write_pdb,
    write_trr,
)

T = 80
X, F = frames(T)
MAP = "--mapping N,CA,CB,C"


def changed(path: Path, good: Path, /, **arrays: Any) -> None:
    """An NPZ file with other arrays; None leaves one out, a function changes it."""
    with np.load(good) as file:
        found = dict(file)
    for name, value in arrays.items():
        found[name] = value(found[name]) if callable(value) else value
    np.savez(path, **{k: v for k, v in found.items() if v is not None})


def put(value: Any, *place: int) -> Any:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[place] = value
        return values

    return change


def mapped_from(folder: Path, trajectory: str) -> None:
    """The good set, told that it was mapped from a trajectory that cannot be mapped."""

    def other(sources: np.ndarray) -> np.ndarray:
        (told,) = json.loads(str(sources))
        told |= {"path": trajectory, "sha256": sha256(folder / trajectory)}
        return np.array(json.dumps([told]))

    changed(folder / f"mapped-{trajectory}.npz", folder / "mapped.npz", sources=other)


def cut(path: Path, source: Path, share: float) -> None:
    content = source.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def run(line: str) -> tuple[int, str]:
    """Exit code and everything that was said."""
    result = CliRunner().invoke(app, shlex.split(line))
    assert "Traceback" not in result.output, result.output
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    rows = rows_of_the_molecule()
    write_pdb(folder / "top.pdb")
    write_pdb(folder / "shorter.pdb", rows[:-1])
    write_pdb(folder / "reordered.pdb", [*rows[:8], rows[9], rows[8], *rows[10:]])
    write_pdb(folder / "reversed.pdb", [*rows[:6], *rows[15:5:-1], *rows[16:]])
    odd = [["MSX", *row[1:]] if row[0] == "ALA" else row for row in rows]
    write_pdb(folder / "odd.pdb", odd)
    write_npz(folder / "good.npz", X, F, temperature=np.full(T, 300.0))
    write_h5md_file(folder / "good.h5", X, F)
    write_trr(folder / "good.trr", X, F)
    for kind in ("npz", "h5", "trr"):
        cut(folder / f"cut.{kind}", folder / f"good.{kind}", 0.63)
    write_npz(folder / "no forces.npz", X)
    write_npz(folder / "few.npz", X[:4], F[:4], temperature=np.full(4, 300.0))
    write_npz(folder / "no frames.npz", X[:0], F[:0])
    units = np.array(json.dumps({"units": {"R": "angstrom", "F": "furlong"}}))
    write_npz(folder / "furlong.npz", X, F, metadata=units)
    write_h5md_file(folder / "no unit.h5", X, F)
    with h5py.File(folder / "no unit.h5", "r+") as file:
        del file["particles/all/force/value"].attrs["unit"]
    write_npz(folder / "nan.npz", put(np.nan, 17, 5, 1)(X), F)
    write_npz(folder / "nan force.npz", X, put(np.nan, 17, 5, 1)(F))
    (folder / "nothing.yaml").write_text("beads: [{name: A, select: name XX}]")
    two = "beads: [{name: A, select: name CA}, {name: B, select: resid 1}]"
    (folder / "two.yaml").write_text(two)
    (folder / "across.txt").write_text("6 8\n")  # N and CA, both beads

    for name in ("good.npz", "no forces.npz", "few.npz", "nan force.npz"):
        code, said = run(f"cg-map {folder}/top.pdb '{folder}/{name}' {MAP} -o '{folder}/m.npz'")
        assert code == 0, said
        target = "mapped.npz" if name == "good.npz" else f"mapped-{name}.npz"
        (folder / "m.npz").rename(folder / target)
    for name in ("cut.h5", "cut.trr", "cut.npz", "no frames.npz", "furlong.npz", "no unit.h5"):
        mapped_from(folder, name)

    def in_nm(text: np.ndarray) -> np.ndarray:
        record = json.loads(str(text))
        return np.array(json.dumps({**record, "units": {**record["units"], "R": "nm"}}))

    def shared(mapping: np.ndarray) -> np.ndarray:
        mapping = mapping.copy()
        mapping[0] = (mapping[0] + mapping[1]) / 2
        return mapping

    mapped = folder / "mapped.npz"
    changed(folder / "set in nm.npz", mapped, metadata=in_nm)
    changed(folder / "set with nan.npz", mapped, R=put(np.nan, 17, 2, 1))
    changed(folder / "set with an atom in two.npz", mapped, mapping=shared)
    cut(folder / "set cut.npz", mapped, 0.6)
    per_frame = ("R", "species", "mask", "source", "frame", "temperature", "molecule")
    changed(folder / "set of none.npz", mapped, **{name: lambda x: x[:0] for name in per_frame})
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    yield folder
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


# the command, its exit code, the file that it must name, words that say what is wrong with it
CASES: dict[str, tuple[str, int, str, str]] = {
    # topology and trajectory disagree
    "atoms": ("cg-map W/shorter.pdb W/good.h5", 3, "good.h5", "found 21 in"),
    "elements": ("cg-map W/reordered.pdb W/good.h5", 3, "good.h5", "2 of 22 differ"),
    "order": ("cg-map W/reversed.pdb W/good.trr", 3, "good.trr", "do not fit"),
    "atoms, checked": ("check W/good.h5 --top W/shorter.pdb", 6, "good.h5", "found 21 in"),
    "another molecule": ("project-forces W/few.npz W/mapped.npz", 2, "few.npz", "not among"),
    "residue": ("cg-map W/odd.pdb W/good.h5", 3, "odd.pdb", "found 1 MSX"),
    # no forces in the file
    "no forces": ("project-forces W/N W/mapped-N.npz", 3, "no forces.npz", "has no forces"),
    "none to subtract from": (
        "fit-prior W/mapped.npz --subtract d.npz", 3, "mapped.npz", "--subtract takes",
    ),
    # forces in other units
    "units, mapped": ("cg-map W/top.pdb W/N", 3, "furlong.npz", "unknown unit of force 'furlong'"),
    "units": ("project-forces W/N W/mapped-N.npz", 3, "furlong.npz", "unknown unit of force"),
    "units, checked": ("check W/N", 6, "furlong.npz", "unknown unit of force"),
    "no unit, mapped": ("cg-map W/top.pdb W/N", 3, "no unit.h5", "needs a unit"),
    "no unit": ("project-forces W/N W/mapped-N.npz", 3, "no unit.h5", "needs a unit"),
    "no unit, checked": ("check W/N", 6, "no unit.h5", "needs a unit"),
    "units of a set": ("fit-prior W/N", 3, "set in nm.npz", "units must be"),
    "units of a mapped set": ("project-forces W/good.npz W/N", 3, "set in nm.npz", "units must be"),
    "units of a set, checked": ("check W/N", 6, "set in nm.npz", "units must be"),
    # beads
    "selects nothing": (
        "cg-map W/top.pdb W/good.h5 --mapping W/nothing.yaml", 3, "nothing.yaml", "matches none",
    ),
    "atom in two beads": (
        "cg-map W/top.pdb W/good.h5 --mapping W/two.yaml", 3, "two.yaml", "one bead at most",
    ),
    "atom in two beads of a set": (
        "project-forces W/good.npz W/N", 3, "set with an atom in two.npz", "beads",
    ),
    # constraints and numbers
    "group across beads": (
        "project-forces W/good.npz W/mapped.npz --constraints W/across.txt",
        3, "mapped.npz", "constraint group of atoms 6, 8 belongs to beads",
    ),
    "singular": (
        "project-forces W/few.npz W/N --constraints none", 5, "mapped-few.npz.npz", "singular",
    ),
    # a frame that is not finite
    "nan, mapped": ("cg-map W/top.pdb W/N", 3, "nan.npz", "frame 17, atom 5"),
    "nan": ("project-forces W/N W/mapped-N.npz", 3, "nan force.npz", "frame 17, atom 5"),
    "nan of a set": ("fit-prior W/N", 3, "set with nan.npz", "frame 17, bead 2"),
    "nan, checked": ("check W/N", 6, "nan.npz", "frame 17, atom 5"),
    "nan of a set, checked": ("check W/N", 6, "set with nan.npz", "rows 17"),
    # files cut short
    **{
        f"cut {kind}, {how}": (line, code, f"cut.{kind}", words)
        for kind, words in (("h5", "damaged"), ("trr", "cut short"), ("npz", "readable NPZ"))
        for how, line, code in (
            ("mapped", "cg-map W/top.pdb W/N", 3),
            ("projected", "project-forces W/N W/mapped-N.npz", 3),
            ("checked", "check W/N", 6),
        )
    },
    "cut set": ("fit-prior W/N", 3, "set cut.npz", "readable NPZ"),
    "cut mapped set": ("project-forces W/good.npz W/N", 3, "set cut.npz", "readable NPZ"),
    "cut set, checked": ("check W/N", 6, "set cut.npz", "readable NPZ"),
    # no frames
    "no frames, mapped": ("cg-map W/top.pdb W/N", 3, "no frames.npz", "one frame"),
    "no frames": ("project-forces W/N W/mapped-N.npz", 3, "no frames.npz", "one frame"),
    "no frames, checked": ("check W/N", 6, "no frames.npz", "one frame"),
    "set of none": ("fit-prior W/N", 3, "set of none.npz", "frames and beads are needed"),
    "mapped set of none": (
        "project-forces W/good.npz W/N", 3, "set of none.npz", "frames and beads are needed",
    ),
    "set of none, checked": ("check W/N", 6, "set of none.npz", "frames and beads are needed"),
    # files that are not there
    **{
        f"absent, {line.partition(' ')[0]} {k}": (line, 3, "absent", "the file does not exist")
        for k, line in enumerate((
            "cg-map W/absent.pdb W/good.h5",
            "cg-map W/top.pdb W/absent.h5",
            "cg-map W/top.pdb W/good.h5 --mapping W/absent.yaml",
            "cg-map W/top.pdb W/good.h5 --residues W/absent.yaml",
            "project-forces W/absent.npz W/mapped.npz",
            "project-forces W/good.npz W/absent.npz",
            "fit-prior W/absent.npz",
            "check W/absent.npz",
            "sample W/absent.pdb",
        ))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_input(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    line, code, file, words = CASES[name]
    monkeypatch.chdir(tmp_path)
    verb, *given = line.split(" ")
    given = [w.replace("N", file) if w in ("W/N", "W/mapped-N.npz") else w for w in given]
    given = [w.replace("W/", f"{world}/") for w in given]
    suffix = {"fit-prior": "yaml", "sample": "h5"}.get(verb, "npz")
    more = ["--json"] if verb == "check" else ["-o", f"out.{suffix}"]
    found, said = run(shlex.join([verb, *given, *more]))
    assert found == code, said
    assert str(world / file) in said
    assert words in said
    assert list(tmp_path.iterdir()) == []


def test_good_input(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the table spoils is fine as it stands."""
    monkeypatch.chdir(tmp_path)
    for line in (
        f"cg-map {world}/top.pdb {world}/good.npz {MAP} -o a.npz",
        f"cg-map {world}/top.pdb {world}/good.trr -o b.npz",
        f"cg-map {world}/top.pdb {world}/good.h5 -o c.npz",
        f"project-forces {world}/good.npz a.npz -o d.npz",
        "fit-prior d.npz -o p.yaml",
        f"check a.npz d.npz {world}/good.h5 {world}/good.trr --top {world}/top.pdb",
    ):
        code, said = run(line)
        assert code == 0, said
