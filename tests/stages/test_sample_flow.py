"""`mlff sample --flow`: replicas exchanged through a flow, on ACE-ALA-NME."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.sampling.flow_exchange import FlowMap
from mlff_cli.stages.sample import Options, run
from tests.transport_files import KELVIN, sample, untrained

SHORT = Options(
    temperatures=KELVIN,
    peptide="ACE-ALA-NME",
    time=0.6,
    equilibration=0.2,
    interval=0.1,
    exchange_interval=0.02,
    platform="CPU",
    device="cpu",
)
BATCHED = replace(SHORT, engine="torch", platform="auto", replicas=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("flow")
    data = sample(folder / "rex.h5")
    return {
        "data": data,
        "linear": untrained(folder / "linear.pt", data),
        "identity": untrained(folder / "identity.pt", data, "identity"),
    }


@pytest.mark.parametrize("options", [SHORT, BATCHED], ids=["openmm", "torch"])
def test_more_swaps_than_without_a_flow(
    files: dict[str, Path], tmp_path: Path, options: Options
) -> None:
    """Through the linear map two swaps of three are done, instead of one of eight.

    Every proposal costs two energies, which are told; the file names the flow it was made with.
    """
    told = {}
    for name, flow in (("plain", None), ("mapped", files["linear"])):
        summary = run(None, tmp_path / f"{name}.h5", replace(options, flow=flow))
        told[name] = summary.data["exchange"]
    tried = sum(told["mapped"]["attempted"])
    assert tried == sum(told["plain"]["attempted"]) == 15 * options.replicas
    assert sum(told["mapped"]["accepted"]) > sum(told["plain"]["accepted"]) + 0.2 * tried
    assert told["mapped"]["energy_evaluations"] == {
        "dynamics": 800 * 2 * options.replicas,
        "proposals": 2 * tried,
    }
    assert told["plain"]["energy_evaluations"]["proposals"] == 0
    assert "flow" not in told["plain"]
    assert told["mapped"]["flow"] == {
        "model": str(files["linear"]), "pair": [300.0, 450.0], "proposals": tried, "mirrored": 0
    }  # fmt: skip
    table = summary.tables[-1]
    assert table.rows[0][0] == "300 - 450 (flow)"
    assert "through" in table.notes[-1]
    assert "linear.pt" in table.notes[-1]
    assert "hand" not in table.notes[-1]
    with h5py.File(tmp_path / "mapped.h5") as file:
        assert "linear.pt" in str(file.attrs["provenance"])
        assert np.isfinite(file["particles/all/position/value"][:]).all()


def test_mirror_images_are_refused_and_told(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow that makes D alanine: the force field does not mind, and every swap is refused."""

    def mirror(self: FlowMap, x: np.ndarray, *, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
        return x * np.array([1.0, 1.0, -1.0]), np.zeros(len(x))

    monkeypatch.setattr(FlowMap, "__call__", mirror)
    reporter = NullReporter()
    options = replace(BATCHED, time=0.2, flow=files["identity"])
    summary = run(None, tmp_path / "m.h5", options, reporter)
    told = summary.data["exchange"]
    assert told["accepted"] == [0]
    assert told["flow"]["mirrored"] == told["attempted"][0] > 0
    assert "swaps refused that change a hand" in summary.tables[-1].notes[-1]
    assert any("hand of an atom" in w for w in reporter.warnings)


@pytest.mark.parametrize("dry_run", [True, False])
def test_it_is_said_that_swaps_go_through_a_flow(
    files: dict[str, Path], tmp_path: Path, dry_run: bool
) -> None:
    """Which pair, which model, and how often: pairs take turns, also where there is only one."""
    heard: list[str] = []

    class Listener(NullReporter):
        def info(self, message: str) -> None:
            heard.append(message)

    options = replace(BATCHED, flow=files["linear"], time=0.1, replicas=1, dry_run=dry_run)
    summary = run(None, tmp_path / "a.h5", options, Listener())
    told = "\n".join([*heard, *summary.lines])
    assert f"swaps between 300 and 450 K go through {files['linear']}" in told
    assert "every 0.04 ps" in told


def test_a_flow_that_is_the_identity_gives_plain_swaps(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """The same energies and random numbers: the first swaps are the same ones."""
    options = replace(BATCHED, time=0.02, interval=0.02, dtype="float64", replicas=32)
    done = [
        run(None, tmp_path / f"{k}.h5", replace(options, flow=flow)).data["exchange"]["accepted"]
        for k, flow in enumerate((None, files["identity"]))
    ]
    assert done[0] == done[1]
    assert done[0][0] > 0


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"temperatures": (300.0,)}, "exchanges replicas of two temperatures"),
        ({"temperatures": (300.0, 370.0, 450.0)}, "two neighbouring temperatures"),
        ({"constraints": "hbonds"}, "moves every atom on its own"),
        ({"peptide": "ACE-GLY-NME"}, "found 22 and 19 atoms"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_a_flow_cannot_exchange(
    files: dict[str, Path], tmp_path: Path, changed: dict, told: str, dry_run: bool
) -> None:
    """Refused before anything is written, and by --dry-run as well."""
    options = replace(SHORT, flow=files["linear"], dry_run=dry_run, **changed)
    with pytest.raises(UsageError, match=told) as error:
        run(None, tmp_path / "a.h5", options)
    assert error.value.remedy
    assert not (tmp_path / "a.h5").exists()


def test_another_force_field_is_a_warning(files: dict[str, Path], tmp_path: Path) -> None:
    reporter = NullReporter()
    options = replace(SHORT, flow=files["linear"], dry_run=True, forcefield=("amber14-all.xml",))
    run(None, tmp_path / "a.h5", options, reporter)
    assert "few swaps may be done" in " ".join(reporter.warnings)


def test_what_is_no_flow(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(None, tmp_path / "a.h5", replace(SHORT, flow=files["data"]))


def test_another_flow_does_not_continue_a_run(files: dict[str, Path], tmp_path: Path) -> None:
    """The model's hash is part of what a run was asked for."""
    from mlff_cli.sampling.plan import make_plan

    configs = [
        make_plan(None, tmp_path / "a.h5", replace(SHORT, flow=files[name])).config["flow"]
        for name in ("linear", "identity")
    ]
    assert len(set(configs)) == 2
    assert all(len(c) == 64 for c in configs)
