"""`mlff compile` of coarse-grained models: molecules, ensembles, formats, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads.prior_file import prior_to_plain
from mlff_cli.data.model_file import load_model_file
from mlff_cli.deploy.artifact import read_metadata
from mlff_cli.deploy.beads.artifact import bead_potential_of, load_bead_potential
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from mlff_cli.stages import info
from mlff_cli.stages.compile import Options, run
from tests.deploy.beads.cases import members, model_file, topology
from tests.potentials.prior_cases import PRIORS, chain
from tests.tiny import tiny_model_file

FIVE, SEVEN = topology(5, name="five"), topology(7, seed=1, name="seven")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two members of an ensemble, a prior alone, and one with Allegro."""
    folder = tmp_path_factory.mktemp("compile_beads")
    for k in range(2):
        member = Prior(PRIORS["parametric"])
        with torch.no_grad():
            for parameter in member.parameters():
                parameter.mul_(1.0 + 0.05 * k)
        model_file(BeadModel(None, member), [FIVE, SEVEN]).save(folder / f"model_{k}.pt")
    model_file(members(1)[0], [FIVE, SEVEN]).save(folder / "allegro.pt")
    prior = BeadModel(None, Prior(PRIORS["spline"]))
    model_file(prior, [FIVE, SEVEN]).save(folder / "prior.pt")
    model_file(prior, [FIVE]).save(folder / "one.pt")
    tiny_model_file().save(folder / "atoms.pt")
    return folder


def test_an_ensemble_of_two_for_one_molecule_of_two(world, tmp_path):
    weights = [world / "model_0.pt", world / "model_1.pt"]
    summary = run(weights, tmp_path / "m", Options(molecule="five"))
    path = tmp_path / "m.jpt"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.jpt", "m_meta.yaml"]
    assert summary.data["members"] == 2
    assert summary.data["verification"]["passed"]
    x = chain(5, frames=3)
    files = [load_model_file(path) for path in weights]
    wanted = bead_potential_of(files, FIVE).compute(x)
    for name, value in load_bead_potential(path).compute(x).items():
        torch.testing.assert_close(value, wanted[name])
    meta = yaml.safe_load((tmp_path / "m_meta.yaml").read_text())
    assert list(meta["provenance"]["inputs"]) == [str(w) for w in weights]
    assert meta["provenance"]["command"].endswith("--molecule five")
    assert meta["allegro"] is None
    assert sorted(meta["prior"]["species"]) == ["ALA", "GLY", "TRP"]
    described = info.run(path, info.Options(verify=True))
    assert ["members", "2"] in described.tables[0].rows
    assert {r["result"] for r in described.data["verified"]} == {"same"}


def test_the_only_molecule_needs_no_name(world, tmp_path):
    summary = run(world / "one.pt", tmp_path / "m.jpt")
    assert summary.data["molecule"] == "five"
    again = tmp_path / "again"
    run(world / "one.pt", again)
    assert again.with_suffix(".jpt").read_bytes() == (tmp_path / "m.jpt").read_bytes()


def test_a_structure_is_started_from(world, tmp_path):
    """Beads of a PDB file, in the order of the molecule."""
    pdb = tmp_path / "start.pdb"
    x = FIVE.start + 1.0
    rows = [
        f"ATOM  {k + 1:5d}  CA  {name:3s} A{k + 1:4d}    {a:8.3f}{b:8.3f}{c:8.3f}  1.00  0.00"
        for k, (name, (a, b, c)) in enumerate(zip(FIVE.residue_names, x, strict=True))
    ]
    pdb.write_text("\n".join([*rows, "END", ""]))
    run(world / "prior.pt", tmp_path / "m", Options(molecule="five", structure=pdb))
    start = load_bead_potential(tmp_path / "m.jpt").topology.start
    np.testing.assert_allclose(start, x, atol=1e-3)
    assert str(pdb) in read_metadata(tmp_path / "m.jpt")["provenance"]["inputs"]


def test_a_dry_run_writes_nothing(world, tmp_path):
    summary = run(world / "one.pt", tmp_path / "m", Options(dry_run=True))
    assert summary.lines == [f"would compile five, 5 beads, prior alone to {tmp_path / 'm.jpt'}"]
    assert list(tmp_path.iterdir()) == []


def test_for_lammps_a_folder(world, tmp_path):
    """The prior alone: Allegro takes a minute of its compiler."""
    summary = run(world / "one.pt", tmp_path / "lmp", Options(format="lammps"))
    assert "in.lammps" in summary.data["files"]
    rows = summary.tables[0].rows
    assert [row[0] for row in rows if "colvars" in row[0]] == [
        "prior as colvars, energy",
        "prior as colvars, forces",
    ]
    assert all(float(row[1]) < 1e-6 for row in rows)
    with pytest.raises(UsageError, match="exists already"):
        run(world / "one.pt", tmp_path / "lmp", Options(format="lammps"))


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (["one.pt"], {"format": "mlir"}, "mlir belongs to another toolkit.*--format lammps"),
        (["one.pt"], {"format": "pkl"}, "pkl belongs to another toolkit.*--format jpt"),
        (["atoms.pt"], {"format": "mlir"}, "mlir belongs to another toolkit"),
        (["one.pt"], {"format": "pt2"}, "comes in a later version"),
        (["one.pt"], {"fidelity_level": 0}, "--fidelity-level belongs to multi-fidelity"),
        (["one.pt"], {"dispersion": "d3bj"}, "--dispersion belongs to multi-fidelity"),
        (["atoms.pt"], {"molecule": "five"}, "--molecule belongs to coarse-grained"),
        (["atoms.pt", "atoms.pt"], {}, "one multi-fidelity model is compiled at a time"),
        (["model_0.pt", "model_1.pt"], {"format": "lammps"}, "an ensemble has no place"),
        (["one.pt", "allegro.pt"], {}, "members of an ensemble must have the same parts"),
        (["one.pt"], {"dtype": "float16"}, "--dtype must be one of float32, float64"),
        ([], {}, "no model is named"),
    ],
)
def test_contradictions_are_refused(world, tmp_path, weights, options, message):
    with pytest.raises(UsageError) as caught:
        run([world / name for name in weights], tmp_path / "m", Options(**options))
    assert caught.match(message.split(".*")[0])
    assert message.split(".*")[-1] in f"{caught.value} {caught.value.remedy}"
    assert list(tmp_path.iterdir()) == []


def test_molecules_that_are_not_there(world, tmp_path):
    with pytest.raises(UsageError, match="there are 2 molecules: five, seven"):
        run(world / "prior.pt", tmp_path / "m")
    with pytest.raises(UsageError, match="no molecule is called 'six'"):
        run(world / "prior.pt", tmp_path / "m", Options(molecule="six"))
    odd = replace(FIVE, types=("XYZ", *FIVE.types[1:]))
    path = tmp_path / "odd.pt"
    model_file(BeadModel(None, Prior(PRIORS["parametric"])), [odd]).save(path)
    with pytest.raises(DataError, match="does not know the type 'XYZ'"):
        run(path, tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["odd.pt"]


@pytest.mark.parametrize("format", ["mlir", "pkl", "pt2", "nonsense"])
def test_a_format_that_nobody_has_is_refused_before_a_file_is_read(tmp_path, format):
    with pytest.raises(UsageError, match=f"--format {format}"):
        run(tmp_path / "absent.pt", tmp_path / "m", Options(format=format))


def test_a_member_counts_once(world, tmp_path):
    copy = tmp_path / "copy.pt"
    copy.write_bytes((world / "prior.pt").read_bytes())
    for twin in (world / "prior.pt", copy):
        with pytest.raises(UsageError, match="members of an ensemble differ"):
            run([world / "prior.pt", twin], tmp_path / "m", Options(molecule="five"))
    assert list(tmp_path.iterdir()) == [copy]


def test_info_shows_the_prior_as_it_was_trained(tmp_path):
    prior = Prior(PRIORS["parametric"])
    first = prior_to_plain(prior.file)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(1.25)
    model_file(BeadModel(None, prior), [FIVE]).save(tmp_path / "trained.pt")
    shown = info.run(tmp_path / "trained.pt").data["model"]["architecture"]["prior"]
    assert shown == prior_to_plain(prior.updated())
    assert shown != first


def test_info_of_a_model_file(world):
    rows = dict(info.run(world / "allegro.pt").tables[0].rows)
    assert rows["family"] == "coarse-grained"
    assert rows["molecules"] == "five (5 beads), seven (7 beads)"
    assert "cutoff 12 angstrom" in rows["Allegro"]
    assert rows["prior"].startswith("bond, angle, dihedral")
