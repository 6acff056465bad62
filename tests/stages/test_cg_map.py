"""`mlff cg-map`: mapping is linear, moves with the molecule, and depends on nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from mlff_cli.coarse.mapping import bead_positions
from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import ConfigError, DataError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.beads.cg_npz import CGBlock, CGSet
from mlff_cli.data.beads.cg_writer import CGWriter
from mlff_cli.data.trajectories import frames as frames_module
from mlff_cli.data.trajectories.h5md_writer import write_h5md
from mlff_cli.data.trajectories.topology_file import atomic_numbers
from mlff_cli.stages import cg_map
from mlff_cli.stages.cg_map import Options, run
from tests.coarse.peptides import Peptide, peptide
from tests.dask_commands import DaskCommands
from tests.open_files import room_for

SEQUENCE = ("ALA", "GLY", "HIS", "ASP", "LYS", "PRO")


def moved(p: Peptide, n_frames: int, seed: int = 0) -> np.ndarray:
    """(T, N, 3) angstrom: the molecule with a little noise."""
    rng = np.random.default_rng(seed)
    return p.positions + 0.05 * rng.normal(size=(n_frames, *p.positions.shape))


def trajectory(
    path: Path,
    p: Peptide,
    R: np.ndarray,
    temperature: Sequence[float] | None = None,
    box: float | None = None,
) -> Path:
    """H5MD of positions in angstrom."""
    values: dict[str, Any] = {
        "step": np.arange(len(R)),
        "time": np.arange(len(R), dtype=float),
        "position": R / 10,
    }
    if temperature is not None:
        values["temperature"] = np.array(temperature, float)
    if box is not None:
        values["edges"] = np.tile(np.eye(3) * box / 10, (len(R), 1, 1))
    names = [n for n in values if n not in ("step", "time")]
    write_h5md(path, names, len(R), atomic_numbers(p.topology), [values], dtype="float64")
    return path


@pytest.fixture
def molecule() -> Peptide:
    return peptide(SEQUENCE)


@pytest.fixture
def pdb(tmp_path: Path, molecule: Peptide) -> Path:
    return molecule.write(tmp_path / "mol.pdb")


def positions(path: Path) -> np.ndarray:
    with CGSet(path) as cg:
        return np.concatenate([b.R for b in cg.blocks()])


@pytest.mark.parametrize("mapping", ["ca", "cacb", "heavy-backbone", "com", "N,CA,CB,C"])
def test_mapping_is_the_matrix_and_commutes_with_motion(
    tmp_path: Path, molecule: Peptide, pdb: Path, mapping: str
) -> None:
    R = moved(molecule, 7)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    shift = np.array([3.0, -8.0, 1.5])
    trajectory(tmp_path / "a.h5", molecule, R)
    trajectory(tmp_path / "b.h5", molecule, R @ rotation.T + shift)
    for name in "ab":
        options = Options(mapping=mapping)
        run(pdb, [tmp_path / f"{name}.h5"], tmp_path / f"{name}.npz", options)
    a, b = positions(tmp_path / "a.npz"), positions(tmp_path / "b.npz")
    np.testing.assert_allclose(b, a @ rotation.T + shift, atol=1e-5)
    with CGSet(tmp_path / "a.npz") as cg:
        M = cg.molecules[0].mapping
        assert M is not None
        np.testing.assert_allclose(M.sum(1), 1.0, atol=1e-14)
        assert ((M > 0).sum(0) <= 1).all()
        np.testing.assert_allclose(a, np.einsum("Ii,tix->tIx", M, R), atol=1e-5)
        assert cg.metadata["mapping"] == mapping


@pytest.mark.parametrize("mapping", ["heavy-backbone", "com"])
def test_order_of_atoms_does_not_matter(tmp_path: Path, molecule: Peptide, mapping: str) -> None:
    other, order = molecule.reordered(3)
    R = moved(molecule, 3)
    found = []
    for name, p, x in (("a", molecule, R), ("b", other, R[:, order])):
        trajectory(tmp_path / f"{name}.h5", p, x)
        top = p.write(tmp_path / f"{name}.pdb")
        run(top, [tmp_path / f"{name}.h5"], tmp_path / f"{name}.npz", Options(mapping=mapping))
        with CGSet(tmp_path / f"{name}.npz") as cg:
            found.append((next(cg.blocks()).R, cg.molecules[0], cg.species_table))
    (Ra, a, ta), (Rb, b, tb) = found
    np.testing.assert_allclose(Ra, Rb, atol=1e-5)
    assert ta == tb
    for name in ("species", "residue", "residue_name", "bead_name", "chain", "bonds"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_allclose(b.mapping, a.mapping[:, order])
    np.testing.assert_array_equal(b.elements, a.elements[order])


def test_the_same_bytes_whatever_the_chunks_and_workers(
    tmp_path: Path, molecule: Peptide, pdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trajectory(tmp_path / "t.h5", molecule, moved(molecule, 40), temperature=[300.0, 320.0] * 20)
    written = []
    for size in (1, 10_000, 16 << 20):
        monkeypatch.setattr(frames_module, "CHUNK_BYTES", size)
        monkeypatch.setattr(bead_positions, "CHUNK_BYTES", size)
        monkeypatch.chdir(tmp_path)
        run("mol.pdb", ["t.h5"], "out.npz", Options(frames=17, force=True))
        written.append(Path("out.npz").read_bytes())
    assert len(set(written)) == 1


def test_workers_write_the_same_bytes(
    tmp_path: Path, molecule: Peptide, pdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bead_positions, "CHUNK_BYTES", 1)  # tasks of few frames
    trajectory(tmp_path / "t.h5", molecule, moved(molecule, 12))
    written = []
    for workers in (1, 2):
        options = Options(workers=workers, force=True)
        run(pdb, [tmp_path / "t.h5"], tmp_path / "out.npz", options)
        written.append((tmp_path / "out.npz").read_bytes())
    assert written[0] == written[1]


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same_bytes(
    tmp_path: Path, molecule: Peptide, pdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(bead_positions, "CHUNK_BYTES", 1)
    trajectory(tmp_path / "t.h5", molecule, moved(molecule, 20))
    run(pdb, [tmp_path / "t.h5"], tmp_path / "out.npz")
    here = (tmp_path / "out.npz").read_bytes()
    with DaskCommands(tmp_path) as dask:
        for _ in range(2):
            dask.worker()
        options = Options(scheduler=dask.address, force=True)
        run(pdb, [tmp_path / "t.h5"], tmp_path / "out.npz", options)
    assert (tmp_path / "out.npz").read_bytes() == here


@pytest.mark.slow
def test_memory_does_not_grow_with_frames(tmp_path: Path) -> None:
    p = peptide(("ALA",) * 100)
    pdb = p.write(tmp_path / "p.pdb")
    code = (
        "import sys; from mlff_cli.stages.cg_map import Options, run;"
        "run(sys.argv[1], [sys.argv[2]], sys.argv[3], Options(mapping='heavy-backbone'));"
        "print(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')).split()[1])"
    )
    peak = []
    for n in (1500, 15_000):  # the first is two tasks long
        path = trajectory(tmp_path / f"{n}.h5", p, moved(p, n))
        words = [sys.executable, "-c", code, str(pdb), str(path), str(path.with_suffix(".npz"))]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peak.append(int(done.stdout) // 1024)
    assert peak[1] < 500
    assert peak[1] - peak[0] < 60  # MB; the positions alone are 180


def test_frames_know_where_they_come_from(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 6), [300.0, 350.0] * 3)
    b = trajectory(tmp_path / "b.h5", molecule, moved(molecule, 5, seed=1))
    summary = run(pdb, [a, b], tmp_path / "out.npz", Options(stride=2))
    with CGSet(tmp_path / "out.npz") as cg:
        np.testing.assert_array_equal(cg.per_frame("source"), [0] * 4 + [1] * 3)
        np.testing.assert_array_equal(cg.per_frame("frame"), [0, 1, 4, 5, 0, 2, 4])
        t = cg.per_frame("temperature")
        np.testing.assert_array_equal(t[:4], [300, 350, 300, 350])
        assert np.isnan(t[4:]).all()
        assert [s["n_frames"] for s in cg.sources] == [6, 5]
        assert [len(s["sha256"]) for s in cg.sources] == [64, 64]
        assert cg.metadata["provenance"]["inputs"][str(a)] == cg.sources[0]["sha256"]
    assert summary.data["sources"] == {str(a): 4, str(b): 3}


def test_more_trajectories_than_can_be_open(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    paths = [
        trajectory(tmp_path / f"{k}.h5", molecule, moved(molecule, 2, seed=k)) for k in range(60)
    ]
    with room_for(24):  # eight are kept open, and HDF5 and the output need some
        run(pdb, paths, tmp_path / "out.npz")
    with CGSet(tmp_path / "out.npz") as cg:
        np.testing.assert_array_equal(cg.per_frame("source"), np.repeat(np.arange(60), 2))


def test_one_temperature_of_several(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 6), [300.0, 350.0] * 3)
    run(pdb, [a], tmp_path / "out.npz", Options(temperature=350.0))
    with CGSet(tmp_path / "out.npz") as cg:
        np.testing.assert_array_equal(cg.per_frame("frame"), [1, 3, 5])
    with pytest.raises(DataError, match="no frame has 310 K, found 300, 350"):
        run(pdb, [a], tmp_path / "no.npz", Options(temperature=310.0))
    b = trajectory(tmp_path / "b.h5", molecule, moved(molecule, 6))
    with pytest.raises(DataError, match="no trajectory says its temperature"):
        run(pdb, [b], tmp_path / "no.npz", Options(temperature=310.0))
    assert not (tmp_path / "no.npz").exists()


def test_a_drawn_sample_is_seeded(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 50))
    drawn = {}
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        run(pdb, [a], tmp_path / f"{name}.npz", Options(frames=10, seed=seed))
        with CGSet(tmp_path / f"{name}.npz") as cg:
            drawn[name] = cg.per_frame("frame").tolist()
    assert drawn["x"] == drawn["y"] != drawn["z"]
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()
    assert len(set(drawn["x"])) == 10
    with pytest.raises(UsageError, match="--frames 51"):
        run(pdb, [a], tmp_path / "no.npz", Options(frames=51))


def test_periodic_images_are_made_whole(tmp_path: Path) -> None:
    p = peptide(SEQUENCE, SEQUENCE, water=2)
    pdb, R = p.write(tmp_path / "mol.pdb"), moved(p, 4)
    box = 70.0
    rng = np.random.default_rng(5)
    shifted = R + rng.uniform(0, box, (len(R), 1, 3))
    wrapped = shifted - box * np.floor(shifted / box)
    a = trajectory(tmp_path / "a.h5", p, R)
    b = trajectory(tmp_path / "b.h5", p, wrapped, box=box)
    for path in (a, b):
        run(pdb, [path], path.with_suffix(".npz"), Options(mapping="com"))
    first, second = positions(tmp_path / "a.npz"), positions(tmp_path / "b.npz")

    def between(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)

    np.testing.assert_allclose(between(first), between(second), atol=2e-4)
    with CGSet(tmp_path / "b.npz") as cg:
        molecule = cg.molecules[0]
        assert molecule.n_atoms == p.topology.n_atoms - 6
        np.testing.assert_array_equal(molecule.chain, [0] * 6 + [1] * 6)
        assert [5, 6] not in molecule.bonds.tolist()


def test_a_yaml_mapping(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 3))
    (tmp_path / "map.yaml").write_text(
        "beads:\n"
        "  - {name: B, select: 'backbone', each: residue, weights: equal, species: BB}\n"
        "  - {name: S, select: 'name CB and resid 2', residue: 77}\n"
    )
    options = Options(mapping=str(tmp_path / "map.yaml"))
    run(pdb, [a], tmp_path / "out.npz", options)
    with CGSet(tmp_path / "out.npz") as cg:
        beads = cg.molecules[0]
        assert beads.bead_name.tolist() == ["B"] * 6 + ["S"]
        assert cg.species_table == ["BB", "S"]
        assert beads.residue.tolist() == [1, 2, 3, 4, 5, 6, 77]
        assert beads.bonds.tolist() == [[0, 1], [1, 2], [2, 3], [2, 6], [3, 4], [4, 5]]
        assert cg.metadata["mapping_file"]["beads"][1]["residue"] == 77
        assert cg.metadata["mapping"] == "map.yaml"


def test_few_beads_are_told(tmp_path: Path) -> None:
    p = peptide(("ACE", "ALA", "NME"))
    pdb, a = p.write(tmp_path / "p.pdb"), trajectory(tmp_path / "a.h5", p, moved(p, 2))
    for mapping, n in (("ca", 1), ("heavy-backbone", 5), ("N,CA,CB,C", 6), ("N,CA,C", 5)):
        reporter = NullReporter()
        found = run(pdb, [a], tmp_path / "o.npz", Options(mapping=mapping, force=True), reporter)
        assert found.data["beads"] == n
        assert any("only 1 bead" in text for text in reporter.warnings) == (mapping == "ca")


def test_a_molecule_has_a_name(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 2))
    for name, expected in ((None, "mol"), ("1ABC chain A", "1ABC chain A")):
        summary = run(pdb, [a], tmp_path / f"{name}.npz", Options(name=name))
        with CGSet(tmp_path / f"{name}.npz") as cg:
            assert cg.molecules[0].name == expected == summary.data["molecule"]
    with pytest.raises(UsageError, match="--name"):
        run(pdb, [a], tmp_path / "no.npz", Options(name=" "))


def test_what_is_as_it_should_be_is_no_warning(tmp_path: Path) -> None:
    p = peptide(SEQUENCE, water=2)
    pdb, a = p.write(tmp_path / "p.pdb"), trajectory(tmp_path / "a.h5", p, moved(p, 2))
    reporter = NullReporter()
    summary = run(pdb, [a], tmp_path / "out.npz", reporter=reporter)
    assert reporter.warnings == []
    assert summary.data["notes"] == ["left out: 2 HOH"]


def test_a_dry_run_writes_nothing(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 6))
    before = sorted(p.name for p in tmp_path.iterdir())
    summary = run(pdb, [a], tmp_path / "out.npz", Options(stride=4, dry_run=True))
    assert "would map 2 frames to 6 beads" in summary.lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


BAD_OPTIONS = [
    (Options(mapping="ca,cb"), UsageError, "unknown mapping"),
    (Options(mapping="absent.yaml"), DataError, "the file does not exist"),
    (Options(species="size"), UsageError, "--species is one of"),
    (Options(stride=0), UsageError, "--stride must be 1 or more"),
    (Options(frames=0), UsageError, "--frames must be 1 or more"),
    (Options(temperature=-3.0), UsageError, "--temperature must be above"),
    (Options(workers=-1), UsageError, "--workers"),
    (Options(mapping="a.yaml", termini=True), UsageError, "names its own species"),
    (Options(residues=Path("absent.yaml")), DataError, "the file does not exist"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD_OPTIONS)
def test_bad_options(
    tmp_path: Path, molecule: Peptide, pdb: Path, options: Options, kind: type, message: str
) -> None:
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 2))
    with pytest.raises(kind, match=message):
        run(pdb, [a], tmp_path / "out.npz", options)
    assert not (tmp_path / "out.npz").exists()


BAD_MAPPINGS = [
    ("beads: [{name: A, select: name XX}]", DataError, "matches none"),
    (
        "beads: [{name: A, select: name CA}, {name: B, select: resid 1}]",
        DataError,
        "one bead at most, GLY2-CA .* in bead 'A' of ALA 1 .* in bead 1, 'B'",
    ),
    ("beads: [{name: A, select: 'name ((('}]", ConfigError, "does not understand"),
    ("beads: [{name: A, select: name CA, weights: [1, 2]}]", ConfigError, "one number for each"),
    ("beads: [{name: A, select: name CA, weights: heavy}]", ConfigError, "weights are mass"),
    ("beads: [{name: A, pick: name CA}]", ConfigError, "a bead has name and select"),
    ("beads: {name: A}", ConfigError, "beads must be a list"),
    ("[1, 2]", ConfigError, "keys beads and bonds"),
    ("beads: [", ConfigError, "must be YAML"),
    (
        "beads: [{name: A, select: name CA}]\nbonds: [[0, 1]]",
        ConfigError,
        "pairs of different beads",
    ),
    ("beads: [{name: A, select: water}]", DataError, "water and ions are left out"),
]


@pytest.mark.parametrize(("text", "kind", "message"), BAD_MAPPINGS)
def test_bad_mapping_files(tmp_path: Path, text: str, kind: type, message: str) -> None:
    p = peptide(SEQUENCE, water=1)
    pdb, a = p.write(tmp_path / "p.pdb"), trajectory(tmp_path / "a.h5", p, moved(p, 2))
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(kind, match=message) as error:
        run(pdb, [a], tmp_path / "out.npz", Options(mapping=str(tmp_path / "map.yaml")))
    assert "map.yaml" in str(error.value)
    assert not (tmp_path / "out.npz").exists()


def test_files_that_do_not_fit(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    good, out = moved(molecule, 4), tmp_path / "out.npz"
    a = trajectory(tmp_path / "a.h5", molecule, good)
    other = peptide(SEQUENCE[:-1]).write(tmp_path / "other.pdb")
    with pytest.raises(DataError, match="same atoms"):
        run(other, [a], out)
    broken = good.copy()
    broken[2, 5, 1] = np.nan
    with pytest.raises(DataError, match="frame 2"):
        run(pdb, [trajectory(tmp_path / "nan.h5", molecule, broken)], out)
    (tmp_path / "copy.h5").write_bytes(a.read_bytes())
    with pytest.raises(UsageError, match="is a copy of"):
        run(pdb, [a, tmp_path / "copy.h5"], out)
    with pytest.raises(UsageError, match="several times"):
        run(pdb, [a, a], out)
    with pytest.raises(UsageError, match="a trajectory is needed"):
        run(pdb, [], out)
    with pytest.raises(UsageError, match="written as NPZ"):
        run(pdb, [a], tmp_path / "out.h5")
    with pytest.raises(DataError, match="a topology is needed first"):
        run(a, [a], out)
    (tmp_path / "cut.h5").write_bytes(a.read_bytes()[:3000])
    with pytest.raises(DataError, match="cut"):
        run(pdb, [tmp_path / "cut.h5"], out)
    np.savez(tmp_path / "none.npz", R=good[:0])
    with pytest.raises(DataError, match="frames?"):
        run(pdb, [tmp_path / "none.npz"], out)
    assert not out.exists()
    out.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        run(pdb, [a], out)
    same = tmp_path / "same.npz"
    same.hardlink_to(a)
    with pytest.raises(UsageError, match="replace an input"):
        run(pdb, [a], same, Options(force=True))


def test_residues_that_nobody_knows(tmp_path: Path) -> None:
    p = peptide(("ALA", "MSE", "GLY", "SEP"))
    pdb, a = p.write(tmp_path / "p.pdb"), trajectory(tmp_path / "a.h5", p, moved(p, 2))
    with pytest.raises(DataError, match="1 MSE, 1 SEP: MSE 2 .*, SEP 4") as error:
        run(pdb, [a], tmp_path / "out.npz")
    assert "--residues" in str(error.value)
    table = tmp_path / "r.yaml"
    table.write_text("MSE: MET\nSEP: {species: SEP, class: negative}\n")
    run(pdb, [a], tmp_path / "out.npz", Options(residues=table))
    with CGSet(tmp_path / "out.npz") as cg:
        names = [cg.species_table[s] for s in cg.molecules[0].species]
        assert names == ["ALA", "MET", "GLY", "SEP"]
        assert cg.species_table[20:] == ["SEP"]
    run(pdb, [a], tmp_path / "c.npz", Options(residues=table, species="class"))
    with CGSet(tmp_path / "c.npz") as cg:
        names = [cg.species_table[s] for s in cg.molecules[0].species]
        assert names == ["nonpolar", "nonpolar", "nonpolar", "negative"]


@pytest.mark.parametrize(
    ("digests", "message"),
    [
        ({"a": "00", "b": "00"}, "b is a copy of a"),
        ({"a@320": "00@320", "a": "00"}, "a@320 is a part of a"),
        ({"a@320": "00@320", "a@320/1": "00@320/1"}, "a@320/1 is a part of a@320"),
        ({"a@320": "00@320", "a@348": "00@348", "b": "0"}, None),
    ],
)
def test_no_frame_counts_twice(digests: dict[str, str], message: str | None) -> None:
    if message is None:
        cg_map._no_duplicates(digests)
        return
    with pytest.raises(UsageError, match=message):
        cg_map._no_duplicates(digests)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, mlff_cli.stages.cg_map, mlff_cli.data.beads.cg_npz;"
        "import mlff_cli.coarse.mapping.topology;"
        "print([m for m in sys.modules if m.split('.')[0] == 'torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_a_file_under_two_names_counts_once(tmp_path: Path, molecule: Peptide, pdb: Path) -> None:
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 20))
    (tmp_path / "link.h5").symlink_to(a)
    with pytest.raises(UsageError, match="is a copy of"):
        run(pdb, [a, tmp_path / "link.h5"], tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


class Spoken(NullReporter):
    def __init__(self) -> None:
        super().__init__()
        self.details: list[str] = []

    def detail(self, message: str) -> None:
        self.details.append(message)


def test_inputs_are_hashed_while_frames_are_mapped(
    tmp_path: Path, molecule: Peptide, pdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first hash is not there before the last frame: nothing waits for it until then."""
    a = trajectory(tmp_path / "a.h5", molecule, moved(molecule, 20))
    b = trajectory(tmp_path / "b.h5", molecule, moved(molecule, 15))
    written = Event()

    def slow(path: Path, **more: object) -> str:
        assert written.wait(30.0)
        return sha256(path)

    class Told(CGWriter):
        def append(self, block: CGBlock) -> None:
            super().append(block)
            if self.n_frames == 35:
                written.set()

    monkeypatch.setattr("mlff_cli.core.digests.sha256", slow)
    monkeypatch.setattr(cg_map, "CGWriter", Told)
    reporter = Spoken()
    run(pdb, [a, b], tmp_path / "out.npz", Options(), reporter)
    with CGSet(tmp_path / "out.npz") as cg:
        assert [s["sha256"] for s in cg.sources] == [sha256(a), sha256(b)]
        inputs = cg.metadata["provenance"]["inputs"]
    assert inputs == {str(path): sha256(path) for path in (pdb, a, b)}
    assert any("hashing" in text for text in reporter.details)


def test_errors_of_frames_name_files_as_they_were_given(
    tmp_path: Path, molecule: Peptide, pdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = moved(molecule, 20)
    x[13, 2] = np.nan
    np.savez(tmp_path / "a.npz", R=x)
    monkeypatch.chdir(tmp_path)
    for workers in (1, 2):
        with pytest.raises(DataError, match="finite") as caught:
            run(pdb, ["a.npz"], "out.npz", Options(workers=workers))
        assert str(caught.value).startswith("a.npz")
        assert str(tmp_path) not in str(caught.value)
