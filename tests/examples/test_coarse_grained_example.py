"""The coarse-graining example: its Makefile with real, short dynamics of a 10-residue peptide.

Laws: the chain leaves a set with forces and a prior, and goes on to a trained, simulated and judged
model; make rebuilds what a touched input reaches and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.prior_file import read_prior

EXAMPLE = Path(__file__).parents[2] / "examples" / "coarse-grained"
MLFF = Path(sys.executable).parent / "mlff"
SHORT = "--temperature 300 --time 4 --equilibration 1 --interval 0.05 --constraints hbonds"
FEW = ("EPOCHS=1", "SIMULATION=--replicas 4 --time 0.4 --interval 0.02", "DISCARD=0.04")
STEPS = ("out/trajectory.h5", "out/mapped.npz", "out/CG.npz", "out/prior.yaml")

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or not MLFF.exists(), reason="needs make and the command mlff"
)


def make(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MLFF": str(MLFF)}
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # `make test` must not steer this make
        environment.pop(name, None)
    done = subprocess.run(
        ["make", f"SAMPLING={SHORT}", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coarse") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("out"))
    make(folder, "data")
    return folder


def test_the_chain_leaves_a_set_with_forces_and_a_prior(made: Path) -> None:
    with CGSet(made / "out/CG.npz") as cg:
        assert cg.has_forces
        assert cg.n_beads == 10
        assert len(cg.molecules) == 1
        assert cg.molecules[0].force_map is not None
    prior = read_prior(made / "out/prior.yaml")
    assert {"bond", "angle", "dihedral", "excluded_volume"} <= set(prior.terms)
    assert prior.temperature == 300.0
    assert "0 checks failed" in make(made, "check")


def test_make_rebuilds_what_a_touched_input_reaches_and_nothing_else(made: Path) -> None:
    assert "Nothing to be done" in make(made, "data")
    before = {step: (made / step).read_bytes() for step in STEPS[1:]}
    for k, step in enumerate(STEPS[:-1]):
        os.utime(made / step)
        told = make(made, "data")
        verbs = ("cg-map", "project-forces", "fit-prior")
        assert [verb in told for verb in verbs] == [j >= k for j in range(3)]
        assert "Nothing to be done" in make(made, "data")
    # the same inputs, the same bytes
    assert {step: (made / step).read_bytes() for step in STEPS[1:]} == before


@pytest.mark.slow
def test_the_chain_goes_on_to_the_free_energies_of_a_trained_model(made: Path) -> None:
    pytest.importorskip("nequip", reason="needs the extra 'coarse'")
    make(made, *FEW, "all")
    judged = json.loads((made / "out/evaluation.json").read_text())
    assert judged["ensembles"]["simulation"]
    assert list((made / "out").glob("evaluation*.png"))
    assert "Nothing to be done" in make(made, *FEW, "all")
    os.utime(made / "out/prior.yaml")
    told = make(made, *FEW, "all")
    verbs = ("fit-prior", "mlff train", "simulate", "evaluate")
    assert [f"{verb} " in told for verb in verbs] == [False, True, True, True]


def test_two_peptides_become_one_set(made: Path) -> None:
    make(made, "combined")
    with CGSet(made / "out/both/CG.npz") as cg:
        found = {m.name: m.n_beads for m in cg.molecules}
        assert found == {"GYDPETGTWG": 10, "ACE-ALA-ALA-PRO-GLY-LYS-NME": 5}
        assert cg.has_forces
    assert read_prior(made / "out/both/prior.yaml").terms["bond"].entries
