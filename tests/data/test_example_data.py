"""The data set that the repository ships is what its description says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.artifacts import sha256
from mlff_cli.data.grouped_hdf5 import GroupedHDF5

FOLDER = Path(__file__).parents[2] / "examples" / "multifidelity" / "data"
LEVELS = {"fid0": "pbe/def2-svp", "fid1": "gfn2-xtb", "fid2": "gfn1-xtb"}
LABELS = {
    "fid0": {"energy", "forces", "charges", "spin_charges"},
    "fid1": {"energy", "forces", "charges"},
    "fid2": {"energy"},
}
AT_LEAST = {"fid0": (300, 28), "fid1": (3000, 64), "fid2": (3000, 64)}  # conformers, molecules
AT_LEAST |= {f"test_{k}": (60, 10) for k in LEVELS}


def names(file: GroupedHDF5) -> set[str]:
    return {str(name) for group in file.groups for name in group.read("molecule")}


@pytest.mark.parametrize("name", AT_LEAST)
def test_each_file_says_what_it_is(name: str) -> None:
    fidelity = name.removeprefix("test_")
    with GroupedHDF5(FOLDER / f"{name}.h5") as file:
        file.validate()
        assert file.notes == []
        assert file.level_of_theory == LEVELS[fidelity]
        conformers, molecules = AT_LEAST[name]
        assert file.n_molecules >= conformers
        assert len(names(file)) >= molecules
        assert LABELS[fidelity] == file.fields - {"coord", "numbers", "charge", "mult", "molecule"}
        record = json.loads(file.attrs["provenance"])
        for source, digest in record["inputs"].items():
            assert sha256(FOLDER / source) == digest
        assert record["versions"]["pyscf" if fidelity == "fid0" else "tblite"][0].isdigit()
        for group in file.groups:
            assert set(np.unique(group.read("numbers"))) <= {1, 6, 7, 8}
            assert (group.read("mult") == 1).all()
            for label in LABELS[fidelity]:
                assert np.isfinite(group.read(label)).all()
            if "forces" in group.fields:
                forces = group.read("forces")
                assert np.abs(forces.sum(axis=1)).max() < 1e-4
                assert 0.3 < np.sqrt((forces**2).mean()) < 3.0
            if "charges" in group.fields:
                total = group.read("charges").sum(axis=1)
                np.testing.assert_allclose(total, group.read("charge"), atol=1e-5)


def test_the_set_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 5_000_000


def test_no_test_molecule_is_in_a_training_set() -> None:
    """Neither by name, nor as a tautomer or in another protonation state."""
    chem = pytest.importorskip("rdkit.Chem", reason="needs the extra 'label'")
    standardize = pytest.importorskip("rdkit.Chem.MolStandardize.rdMolStandardize")
    tautomers, charges = standardize.TautomerEnumerator(), standardize.Uncharger(force=True)
    block_logs = pytest.importorskip("rdkit.rdBase").BlockLogs

    def skeletons(path: Path) -> set[str]:
        lines = [line.split() for line in path.read_text().splitlines() if line[0] != "#"]
        with block_logs():
            neutral = [charges.uncharge(chem.MolFromSmiles(words[0])) for words in lines]
            return {chem.MolToInchiKey(tautomers.Canonicalize(mol))[:14] for mol in neutral}

    unseen = skeletons(FOLDER / "molecules_test.smi")
    for name in ("dft", "xtb"):
        assert not unseen & skeletons(FOLDER / f"molecules_{name}.smi")
    for fidelity in LEVELS:
        with (
            GroupedHDF5(FOLDER / f"{fidelity}.h5") as train,
            GroupedHDF5(FOLDER / f"test_{fidelity}.h5") as test,
            GroupedHDF5(FOLDER / "test_fid0.h5") as reference,
        ):
            assert not names(train) & names(test)
            assert names(test) == names(reference)
