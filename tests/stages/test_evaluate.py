"""`mlff evaluate`: the errors it reports are the errors that were put in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.data.grouped_writer import write_grouped
from mlff_cli.data.model_file import load_model_file
from mlff_cli.deploy.potential import potential_of
from mlff_cli.stages import compile as compile_stage
from mlff_cli.stages.evaluate import Options, run
from tests.tiny import molecules, tiny_model_file

LEVELS = ("pbe/def2-svp", "gfn2-xtb", "gfn1-xtb")
PLAIN = Options(figures=False, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "model.pt"
    tiny_model_file().save(path)
    return path


def predicted(model: Path, k: int) -> list[dict[str, Any]]:
    """Molecules of two sizes with the model's own predictions as labels."""
    potential = potential_of(load_model_file(model), k, "model")
    found = []
    for n_atoms, seed in ((5, 1), (7, 2)):
        data = molecules(4, seed, n_atoms)
        data = {n: v.float().to(v.dtype) for n, v in data.items()}  # as stored
        out = {**data, **potential(data)}
        found += [{name: v[b].numpy() for name, v in out.items()} for b in range(4)]
    return found


def labelled(path: Path, rows: list[dict[str, Any]], level: str | None = None) -> Path:
    write_grouped(path, rows, {"level_of_theory": level} if level else {})
    return path


def errors(summary_data: dict[str, Any], i: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = summary_data["results"][i]["errors"]
    return found


def test_a_model_is_exact_on_its_own_predictions(model: Path, tmp_path: Path) -> None:
    data = labelled(tmp_path / "d.h5", predicted(model, 0), LEVELS[0])
    found = errors(run(model, [data], tmp_path / "e.json", PLAIN).data)
    assert {n: e["n"] for n, e in found.items()} == {
        "energy": 8,
        "energy_per_atom": 8,
        "forces": 4 * 12 * 3,
        "charges": 4 * 12,
        "spin_charges": 4 * 12,
    }
    for e in found.values():
        assert e["rmse"] < 1e-3
        assert e["r2"] > 0.99999


def test_known_deviations_are_found_in_the_unit_asked_for(model: Path, tmp_path: Path) -> None:
    rows = predicted(model, 0)
    for i, row in enumerate(rows):
        row["energy"] = row["energy"] - (0.3 if i % 2 else 0.1)  # eV
        row["forces"] = row["forces"] + 0.5
    data = labelled(tmp_path / "d.h5", rows, LEVELS[0])
    in_ev = errors(run(model, [data], tmp_path / "ev.json", replace(PLAIN, units="eV")).data)
    assert in_ev["energy"]["mae"] == pytest.approx(0.2, abs=1e-4)
    assert in_ev["energy"]["rmse"] == pytest.approx(np.sqrt(0.05), abs=1e-4)
    assert in_ev["energy"]["bias"] == pytest.approx(0.2, abs=1e-4)
    assert in_ev["energy_per_atom"]["mae"] == pytest.approx((0.2 / 5 + 0.2 / 7) / 2, abs=1e-4)
    assert in_ev["forces"]["mae"] == pytest.approx(0.5, abs=1e-4)
    assert in_ev["energy"]["unit"] == "eV"
    found = errors(run(model, [data], tmp_path / "kcal.json", PLAIN).data)
    assert found["forces"]["unit"] == "kcal/mol/A"
    for name in ("energy", "forces"):
        assert found[name]["mae"] == pytest.approx(in_ev[name]["mae"] / KCAL_MOL, rel=1e-9)
    assert found["charges"]["mae"] == pytest.approx(in_ev["charges"]["mae"], rel=1e-9)


def test_missing_labels_do_not_count(model: Path, tmp_path: Path) -> None:
    rows = predicted(model, 0)
    for row in rows[:3]:
        row["energy"] = np.nan
        del row["charges"]
    found = errors(run(model, [labelled(tmp_path / "d.h5", rows)], tmp_path / "e.json", PLAIN).data)
    assert found["energy"]["n"] == 5
    assert found["forces"]["n"] == 4 * 12 * 3
    assert found["charges"]["n"] == sum(len(row["numbers"]) for row in rows[3:])
    assert found["energy"]["rmse"] < 1e-3


def test_files_are_fidelities_in_order_or_by_number(model: Path, tmp_path: Path) -> None:
    paths = [labelled(tmp_path / f"d{k}.h5", predicted(model, k), LEVELS[k]) for k in range(3)]
    in_order = run(model, paths, tmp_path / "a.json", PLAIN).data
    assert [r["fidelity"] for r in in_order["results"]] == [0, 1, 2]
    assert all(errors(in_order, k)["energy"]["rmse"] < 1e-3 for k in range(3))
    named = run(model, [f"2={paths[2]}", f"0={paths[0]}"], tmp_path / "b.json", PLAIN).data
    assert [r["fidelity"] for r in named["results"]] == [2, 0]
    assert errors(named)["energy"]["rmse"] < 1e-3
    reporter = NullReporter()
    wrong = run(model, [f"1={paths[2]}"], tmp_path / "c.json", PLAIN, reporter).data
    assert errors(wrong)["energy"]["mae"] > 1
    assert any("holds gfn1-xtb" in w for w in reporter.warnings)


def test_artifact_and_model_agree_and_dispersion_is_taken_off(model: Path, tmp_path: Path) -> None:
    """The labels are PBE without dispersion, the artifact adds it: like is compared with like."""
    options = compile_stage.Options(fidelity_level=0, dispersion="d3bj")
    compile_stage.run(model, tmp_path / "m", options)
    artifact = tmp_path / "m_fid0.jpt"
    data = labelled(tmp_path / "d.h5", predicted(model, 0), LEVELS[0])
    result = run(artifact, [data], tmp_path / "e.json", PLAIN).data
    assert result["results"][0]["dispersion_removed"]
    assert errors(result)["energy"]["rmse"] < 1e-3
    assert errors(result)["forces"]["rmse"] < 1e-3
    unknown = labelled(tmp_path / "u.h5", predicted(model, 0))
    with_it = run(artifact, [unknown], tmp_path / "u.json", PLAIN).data
    assert not with_it["results"][0]["dispersion_removed"]
    assert errors(with_it)["energy"]["mae"] > 0.5


def test_extxyz_is_read_as_well(model: Path, tmp_path: Path) -> None:
    frames = []
    for row in predicted(model, 0):
        atoms = Atoms(row["numbers"], row["coord"])
        atoms.info |= {"charge": int(row["charge"]), "mult": int(row["mult"])}
        atoms.info["REF_energy"] = float(row["energy"])
        atoms.arrays["REF_forces"] = row["forces"]
        frames.append(atoms)
    write(tmp_path / "d.xyz", frames, format="extxyz")
    found = errors(run(model, [tmp_path / "d.xyz"], tmp_path / "e.json", PLAIN).data)
    assert found["energy"]["n"] == 8
    assert found["energy"]["rmse"] < 1e-3
    assert found["forces"]["rmse"] < 1e-3


def test_outputs(model: Path, tmp_path: Path) -> None:
    """JSON without NaN, one figure per file, the same bytes again, nothing replaced unasked."""
    paths = [labelled(tmp_path / f"d{k}.h5", predicted(model, k), LEVELS[k]) for k in range(2)]
    summary = run(model, paths, tmp_path / "e.json", Options(device="cpu"))
    content = json.loads((tmp_path / "e.json").read_text())
    assert content == summary.data
    figures = [tmp_path / f"e_parity_fid{k}.png" for k in range(2)]
    assert [r["figure"] for r in content["results"]] == [f.name for f in figures]
    before = figures[0].read_bytes()
    assert before.startswith(b"\x89PNG")
    assert any("kcal/mol/A" in str(row) for row in summary.tables[0].rows)
    with pytest.raises(UsageError, match="exists already"):
        run(model, paths, tmp_path / "e.json", Options(device="cpu"))
    run(model, paths, tmp_path / "e.json", Options(device="cpu", force=True))
    assert figures[0].read_bytes() == before


def test_bad_input(model: Path, tmp_path: Path) -> None:
    rows = predicted(model, 0)
    good = labelled(tmp_path / "d.h5", rows)
    out = tmp_path / "e.json"
    with pytest.raises(StorageError):
        run(model, [tmp_path / "absent.h5"], out, PLAIN)
    with pytest.raises(UsageError, match="fidelity 3 does not exist"):
        run(model, [f"3={good}"], out, PLAIN)
    with pytest.raises(UsageError, match="4 files for 3 fidelities"):
        run(model, [good] * 4, out, PLAIN)
    with pytest.raises(UsageError, match="either every file"):
        run(model, [f"0={good}", good], out, PLAIN)
    with pytest.raises(UsageError, match="hartree"):
        run(model, [good], out, replace(PLAIN, units="hartree"))
    with pytest.raises(UsageError, match="tpu"):
        run(model, [good], out, replace(PLAIN, device="tpu"))
    bare = [{n: r[n] for n in ("coord", "numbers", "charge", "mult")} for r in rows]
    with pytest.raises(DataError, match="none of the labels"):
        run(model, [labelled(tmp_path / "bare.h5", bare)], out, PLAIN)
    nothing = [{**r, "energy": np.nan} for r in bare]
    with pytest.raises(DataError, match="every label is missing"):
        run(model, [labelled(tmp_path / "nan.h5", nothing)], out, PLAIN)
    rows[0]["numbers"] = np.where(torch.arange(5) == 0, 9, rows[0]["numbers"])
    with pytest.raises(DataError, match="Z = 9 is not supported"):
        run(model, [labelled(tmp_path / "f.h5", rows)], out, PLAIN)
    assert not out.exists()
