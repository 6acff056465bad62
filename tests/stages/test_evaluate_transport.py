"""`mlff evaluate` of a flow, on a short replica exchange that is sampled here."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from mlff_cli.core.errors import DataError, MLFFError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.deploy.flows.reports import beats, learnt_nothing
from mlff_cli.physics.replica_exchange import K_B
from mlff_cli.physics.reweighting import Estimate
from mlff_cli.stages.evaluate import Options, run
from tests.transport_files import KELVIN, sample, untrained

CPU = Options(device="cpu", figures=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("flow")
    data = sample(folder / "rex.h5")
    return {"data": data, "model": untrained(folder / "linear.pt", data)}


@pytest.fixture(scope="module")
def evaluated(
    files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict, Path, list[str]]:
    output = tmp_path_factory.mktemp("evaluated") / "flow.json"
    reporter = NullReporter()
    run(files["model"], [files["data"]], output, replace(CPU, figures=True), reporter)
    return json.loads(output.read_text()), output, reporter.warnings


def energies(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Recorded energies of both temperatures, kJ/mol."""
    with h5py.File(data) as file:
        u = file["observables/potential_energy/value"][:]
        t = file["observables/temperature/value"][:]
    return u[t == KELVIN[0]], u[t == KELVIN[1]]


def test_the_naive_swap_is_that_of_the_recorded_energies(
    files: dict[str, Path], evaluated: tuple[dict, Path, list[str]]
) -> None:
    """Acceptance over all pairs, with energies that OpenMM wrote."""
    u, v = energies(files["data"])
    cold, hot = (1 / (K_B * t) for t in KELVIN)
    expected = np.minimum(1, np.exp((cold - hot) * (u[:, None] - v))).mean()
    naive = evaluated[0]["maps"]["naive swap"]
    assert naive["acceptance"]["value"] == pytest.approx(expected, rel=1e-3)
    assert naive["forward"]["log_det_mean"] == 0.0
    excess = (hot - cold) * (u.mean() - v.mean())
    assert naive["excess_nats"]["value"] == pytest.approx(excess, rel=1e-3)


def test_a_model_of_the_linear_map_is_the_linear_map(
    evaluated: tuple[dict, Path, list[str]],
) -> None:
    """A file of the baseline gives what the baseline gives: far more than the naive swap."""
    maps = evaluated[0]["maps"]
    for key in ("acceptance", "excess_nats"):
        assert maps["flow"][key]["value"] == pytest.approx(maps["linear map"][key]["value"])
    assert maps["flow"]["acceptance"]["value"] > maps["naive swap"]["acceptance"]["value"] + 0.2
    # (60 - 4 soft torsions) / 2 ln 1.5 = 11.35, and the volume factors' means beside it
    assert maps["flow"]["forward"]["log_det_mean"] == pytest.approx(11.35, abs=0.15)
    assert maps["flow"]["forward"]["round_trip_nm"] < 1e-9
    for name in ("forward", "reverse"):
        assert 0 < maps["flow"]["ess"][name] <= 1


def test_free_energies_of_different_maps_agree(evaluated: tuple[dict, Path, list[str]]) -> None:
    found = [m["free_energy"]["bar"] for m in evaluated[0]["maps"].values()]
    for one in found[:2]:
        error = np.hypot(one["error"], found[2]["error"])
        assert abs(one["value"] - found[2]["value"]) < 6 * error + 0.1


def test_what_is_written(evaluated: tuple[dict, Path, list[str]]) -> None:
    content, output, warnings = evaluated
    assert content["family"] == "transport"
    assert content["units"]["energy"] == "kJ/mol"
    assert content["frames"] == {"source": 100, "target": 100}
    assert [p["what"] for p in content["ramachandran"]] == [
        "transported", "transported back", "not transported",
    ]  # fmt: skip
    assert content["flips"]["forward"] == {
        "frames": 100, "centres": 1, "hands_changed": 0, "peptide_bonds": 2, "isomers_changed": 0,
    }  # fmt: skip
    assert warnings == content["notes"]
    assert len(warnings) == 2
    assert content["trained_on"][0].endswith("rex.h5")
    assert content["better_than_linear_map"] is False
    assert "has learnt nothing beyond the linear map" in warnings[1]
    assert "rex.h5 is what the flow was trained on" in warnings[0]
    names = {p.name for p in output.parent.iterdir()}
    assert names == {
        "flow.json", "flow_ramachandran.png", "flow_energies.png", "flow_works.png",
    }  # fmt: skip
    forward = content["energies"]["forward"]
    assert forward["before"] < forward["behind"]
    assert "NaN" not in output.read_text()
    assert "Infinity" not in output.read_text()


@pytest.mark.parametrize(("acceptance", "better"), [(0.75, True), (0.69, False), (0.6, False)])
def test_what_is_better_than_the_linear_map(acceptance: float, better: bool) -> None:
    """More swaps, or nothing was learned."""
    flow, linear = (
        SimpleNamespace(acceptance=Estimate(value, 0.02), excess=Estimate(0.4, 0.05))
        for value in (acceptance, 0.69)
    )
    assert beats(flow, linear) is better  # type: ignore[arg-type]
    told = learnt_nothing(flow, linear)  # type: ignore[arg-type]
    assert (told is None) is better
    assert better or f"acceptance {acceptance:.3f} +- 0.02 beside 0.690 +- 0.02" in str(told)


def test_the_same_frames_give_the_same_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        run(files["model"], [files["data"]], tmp_path / name, CPU)
    a, b = ((tmp_path / name).read_bytes() for name in ("a.json", "b.json"))
    assert a == b


def test_dry_run_and_existing_outputs(files: dict[str, Path], tmp_path: Path) -> None:
    summary = run(files["model"], [files["data"]], tmp_path / "a.json", replace(CPU, dry_run=True))
    assert "would carry frames of 300 K to 450 K" in summary.lines[0]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a_works.png").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        run(files["model"], [files["data"]], tmp_path / "a.json", replace(CPU, figures=True))
    assert (tmp_path / "a_works.png").read_text() == "mine"


def _other_energies(file: h5py.File) -> None:
    file["observables/potential_energy/value"][3] += 5.0


def _rigid(file: h5py.File) -> None:
    file.attrs["constraints"] = "hbonds"


def _untold(file: h5py.File) -> None:
    del file.attrs["constraints"]


def _hot(file: h5py.File) -> None:
    t = file["observables/temperature/value"][:]
    file["observables/temperature/value"][:] = np.where(t == 450.0, 400.0, t)


def _other_atoms(file: h5py.File) -> None:
    del file["particles/all/species"]
    file["particles/all/species"] = np.full(22, 6)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_other_energies, "energies must be those of the sampling within"),
        (_rigid, "without constraints, the file used 'hbonds'"),
        (_untold, "without constraints, the file does not say"),
        (_hot, "at least 20 frames of it, found 0"),
        (_other_atoms, "the atoms that it was trained on|22 atoms that it was trained on"),
    ],
)
def test_data_that_do_not_belong(
    files: dict[str, Path], tmp_path: Path, spoil: object, told: str
) -> None:
    data = tmp_path / "spoilt.h5"
    shutil.copy(files["data"], data)
    with h5py.File(data, "r+") as file:
        spoil(file)  # type: ignore[operator]
    with pytest.raises(DataError, match=told) as error:
        run(files["model"], [data], tmp_path / "a.json", CPU)
    assert error.value.remedy
    assert "spoilt.h5" in str(error.value.where)
    assert [p.name for p in tmp_path.iterdir()] == ["spoilt.h5"]


@pytest.mark.parametrize(
    "asked",
    [{"units": "eV"}, {"temperature": 300.0}, {"simulation": (Path("a.h5"),)}, {"bins": 0},
     {"discard": -1.0}],
)  # fmt: skip
def test_options_of_other_families(files: dict[str, Path], tmp_path: Path, asked: dict) -> None:
    with pytest.raises(UsageError):
        run(files["model"], [files["data"]], tmp_path / "a.json", replace(CPU, **asked))
    with pytest.raises(MLFFError, match="no trajectory"):
        run(files["model"], [], tmp_path / "a.json", CPU)


@pytest.mark.slow
def test_a_force_that_torch_does_not_know_is_computed_by_openmm(
    files: dict[str, Path],
    evaluated: tuple[dict, Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Processes of OpenMM, in single precision, give the same."""

    def unknown(*_: object) -> None:
        raise UsageError("a force is not known")

    monkeypatch.setattr("mlff_cli.physics.forcefield.ForceField.from_system", unknown)
    run(files["model"], [files["data"]], tmp_path / "a.json", CPU)
    found = json.loads((tmp_path / "a.json").read_text())["maps"]["flow"]["acceptance"]
    expected = evaluated[0]["maps"]["flow"]["acceptance"]
    assert found["value"] == pytest.approx(expected["value"], abs=1e-3)
