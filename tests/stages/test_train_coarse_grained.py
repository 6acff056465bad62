"""`mlff train` on beads: learns what the prior lacks, in stages, continued and shared exactly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlff_cli.core.errors import ConfigError, DataError, InterruptedRunError
from mlff_cli.data.beads.prior_file import write_prior
from mlff_cli.data.model_file import load_model_file
from mlff_cli.stages.train import Options, run
from mlff_cli.training.run_log import read_rows
from tests.families.bead_sets import write_chains
from tests.families.test_coarse_grained import TINY
from tests.potentials.prior_cases import PARAMETRIC
from tests.ranks import Ranks, command, succeed
from tests.stages.test_train import StopAt

WORDS = ("train", "--save", "m.pt", "--device", "cpu", "--dtype", "float64")
ALONE = (  # a prior without Allegro, which takes no time to import
    "model.use_allegro=false",
    "training.epochs_adabelief=2",
    "training.epochs_yogi=2",
    "training.lr_yogi=1.0e-3",
    "training.pretrain_prior=true",
    "training.epochs_lbfgs=4",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Data of three molecules and a prior that knows their bonds, angles and dihedrals."""
    folder = tmp_path_factory.mktemp("data")
    data = write_chains(folder / "CG.npz", [5, 9, 7], 40)
    write_prior(folder / "prior.yaml", dataclasses.replace(PARAMETRIC, temperature=300.0))
    return f"data={data}", f"model.prior={folder / 'prior.yaml'}"


def results(folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    rows = read_rows(folder / "m.run" / "metrics.jsonl")
    return rows, load_model_file(folder / "m.pt").weights


def test_forces_of_several_molecules_are_learnt_beyond_the_prior(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    """Held-out errors fall below those of no model and of the prior alone."""
    given = (*given, "data.split_stretch=1")  # frames are independent
    rate = ("training.batch_per_device=12", "training.lr_adabelief=1.0e-2")
    words = (*given, *TINY, "model.num_layers=1", *rate)
    options = Options(tmp_path / "m.pt", overrides=(*words, "training.epochs_adabelief=16"))
    metrics = run(options).data["metrics"]
    rest = (*given, "model.use_allegro=false", "training.epochs_adabelief=1")
    still = (*rest, "training.lr_adabelief=1.0e-12", f"training.batch_per_device={100}")
    prior = run(Options(tmp_path / "p.pt", overrides=still)).data["metrics"]
    assert metrics["F_relative"] < prior["F_relative"] < 1.0
    assert metrics["F_rmse"] < 0.7 * prior["F_rmse"]
    for k in range(3):
        assert metrics[f"chain_{k}/F_rmse"] < prior[f"chain_{k}/F_rmse"]
    file = load_model_file(tmp_path / "m.pt")
    assert [m["name"] for m in file.molecules] == ["chain_0", "chain_1", "chain_2"]
    assert file.config["model"]["allegro_size"] == "small"


def test_a_run_stopped_anywhere_continues_to_the_same_bits(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    """In the pre-training, in the first stage, and in the second."""
    overrides = (*given, *ALONE, "training.batch_per_device=20")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(Options(whole / "m.pt", overrides=overrides, dtype="float64"))
    for stop in (2, 5, 6, 9):
        with pytest.raises(InterruptedRunError):
            run(Options(broken / "m.pt", overrides=overrides, dtype="float64"), StopAt(stop))
    run(Options(broken / "m.pt", overrides=overrides, dtype="float64"))
    log = Path("m.run", "metrics.jsonl")
    assert (whole / log).read_bytes() == (broken / log).read_bytes()
    for name, weight in results(whole)[1].items():
        assert torch.equal(results(broken)[1][name], weight), name
    assert (whole / "m.pt").read_bytes() == (broken / "m.pt").read_bytes()


def compare(
    given: tuple[str, ...], tmp_path: Path, words: tuple[str, ...], tolerance: float
) -> None:
    """One process with batches of 12, and two with 6 each."""
    for name, size, batch in (("alone", 1, 12), ("shared", 2, 6)):
        own = (*WORDS, *given, *words, f"training.batch_per_device={batch}")
        succeed(Ranks(tmp_path / name, command, *own, size=size))
    (rows, weights), (others, expected) = (results(tmp_path / n) for n in ("shared", "alone"))
    assert len(rows) == len(others) >= 2
    for row, other in zip(rows, others, strict=True):
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        assert numbers.keys() <= other.keys()
        for name, value in numbers.items():
            assert value == pytest.approx(other[name], rel=tolerance, abs=tolerance), name
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=tolerance, atol=tolerance)


def test_two_processes_train_as_one(given: tuple[str, ...], tmp_path: Path) -> None:
    compare(given, tmp_path, ALONE, 1e-8)


@pytest.mark.slow
def test_two_processes_train_allegro_as_one(given: tuple[str, ...], tmp_path: Path) -> None:
    compare(given, tmp_path, (*TINY, "training.epochs_adabelief=2"), 1e-6)


@pytest.mark.parametrize("fault", ["huge", "flipped"])
def test_a_damaged_set_is_refused_before_training(tmp_path: Path, fault: str) -> None:
    """An implausible force names its frame and bead; a flipped bit its array."""
    path = write_chains(tmp_path / "CG.npz", [5], 500)
    arrays = dict(np.load(path))
    if fault == "huge":
        arrays["F"][3, 1, 0] = 1e30
        np.savez(path, **arrays)
        told = r"frame 3, bead 1 has \[ ?1\.[0-9]*e\+30"
    else:
        raw = bytearray(path.read_bytes())
        raw[raw.index(arrays["F"].tobytes()) + 15000] ^= 1
        path.write_bytes(raw)
        told = "CRC-32"
    words = (f"data={path}", "model.use_allegro=false", "training.epochs_adabelief=1")
    with pytest.raises(DataError, match=told) as caught:
        run(Options(tmp_path / "m.pt", overrides=words))
    assert str(path) in str(caught.value)
    assert not (tmp_path / "m.pt").exists()


def test_an_ensemble_of_the_configuration_is_trained(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*given, "model.use_allegro=false", "training.epochs_adabelief=1")
    ensemble = ("ensemble={enabled: true, n_models: 2, save_all_models: true}",)
    summary = run(
        Options(tmp_path / "m.pt", overrides=(*words, *ensemble, "training.batch_per_device=50"))
    )
    paths = [tmp_path / "m.run" / f"seed_{seed}" / "model.pt" for seed in (0, 1)]
    assert all(path.is_file() for path in paths)
    assert f"--weights {paths[0]} --weights {paths[1]} --output {tmp_path / 'm'}" in " ".join(
        summary.lines
    )
    found = json.loads((tmp_path / "m.run" / "ensemble.json").read_text())
    assert [tmp_path / "m.run" / m["model"] for m in found["members"]] == paths
    assert len(found["members"]) == 2
    for seed in (0, 1):
        assert (tmp_path / "m.run" / f"seed_{seed}" / "model.pt").exists()


def test_a_dry_run_looks_at_data_and_writes_nothing(given: tuple[str, ...], tmp_path: Path) -> None:
    options = Options(tmp_path / "m.pt", overrides=(*given, *TINY), dry_run=True)
    summary = run(options)
    assert summary.failure is None
    checks = {c["check"]: c for c in summary.data["checks"]}
    assert {"split", "forces", "noise of the forces", "memory", "time"} <= set(checks)
    assert list(tmp_path.iterdir()) == []
    wrong = dataclasses.replace(options, overrides=("data=absent.npz", "model.use_allegro=false"))
    failed = run(wrong)
    assert failed.failure is not None
    assert failed.failure.exit_code == 3


LEARNT = ("model.use_allegro=true", "model.cutoff=0.001")


def test_a_cutoff_below_every_distance_is_refused(given: tuple[str, ...], tmp_path: Path) -> None:
    options = Options(tmp_path / "m.pt", overrides=(*given, *TINY, *LEARNT))
    with pytest.raises(ConfigError, match=r"no bead .* within model.cutoff = 0.001 A"):
        run(options)
    assert list(tmp_path.iterdir()) == []
