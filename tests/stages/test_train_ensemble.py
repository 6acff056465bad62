"""An ensemble: several seeds on one split, the best of them kept."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from mlff_cli.core.errors import InterruptedRunError
from mlff_cli.data.model_file import load_model_file
from mlff_cli.stages.train import Options, run
from mlff_cli.training.ensemble import Member, best, spread, statistics_of
from tests.stages.test_train import StopAt
from tests.tiny_training import tiny_overrides


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return tiny_overrides(tmp_path_factory.mktemp("data"))


def test_the_best_of_an_ensemble_is_kept(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    save = tmp_path / "model.pt"
    summary = run(Options(save=save, overrides=(*overrides, "seed=4"), ensemble=3))
    folder = save.with_suffix(".run")
    report = json.loads((folder / "ensemble.json").read_text())
    assert report == summary.data["ensemble"]
    losses = {m["seed"]: m["loss"] for m in report["members"]}
    assert list(losses) == [4, 5, 6]
    assert len(set(losses.values())) == 3
    assert f"{save} is the best member; the others are not kept" in summary.lines
    assert report["best_seed"] == min(losses, key=lambda s: losses[s])
    assert report["loss"]["mean"] == pytest.approx(statistics.mean(losses.values()))
    assert report["loss"]["std"] == pytest.approx(statistics.stdev(losses.values()))
    assert {"fid0/E_rmse", "F_mae"} <= set(report["metrics"])
    model = load_model_file(save)
    assert model.config["seed"] == report["best_seed"]
    assert model.training["val_loss"] == min(losses.values())
    for seed in losses:
        kept = list((folder / f"seed_{seed}" / "checkpoints").glob("*.pt"))
        assert bool(kept) is (seed == report["best_seed"])
        assert (folder / f"seed_{seed}" / "metrics.csv").exists()


def test_an_ensemble_that_is_trained_anew_keeps_the_members_it_finished(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """Else one that is stopped more often than a whole ensemble lasts would never end."""
    options = Options(save=tmp_path / "m.pt", overrides=overrides, ensemble=2, force=True)
    run(options)
    with pytest.raises(InterruptedRunError):
        run(options, StopAt(18 + 4))
    first = tmp_path / "m.run" / "seed_0" / "checkpoints" / "last.pt"
    before = first.stat().st_mtime_ns
    with pytest.raises(InterruptedRunError):
        run(options, StopAt(4))
    assert first.stat().st_mtime_ns == before


def test_members_keep_apart_what_they_keep_elsewhere(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """A folder of checkpoints outside the run is no folder that members share."""
    more = (f"checkpoint.dirname={tmp_path / 'scratch'}", "trainer.epochs=1")
    run(Options(save=tmp_path / "model.pt", overrides=(*overrides, *more), ensemble=2))
    kept = {p.parent.name for p in (tmp_path / "scratch").rglob("last.pt")}
    report = json.loads((tmp_path / "model.run" / "ensemble.json").read_text())
    assert kept == {f"seed_{report['best_seed']}"}
    assert {m["seed"] for m in report["members"]} == {0, 1}


def test_members_share_the_split_and_are_what_they_would_be_alone(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    run(
        Options(
            save=tmp_path / "model.pt",
            overrides=(*overrides, "save_all_models=true"),
            ensemble=2,
        )
    )
    folder = tmp_path / "model.run"
    alone = tmp_path / "alone.pt"
    run(Options(save=alone, overrides=(*overrides, "data.split_seed=0"), seed=1))
    second = load_model_file(folder / "seed_1" / "model.pt")
    assert second.training["val_loss"] == load_model_file(alone).training["val_loss"]
    assert (folder / "seed_0" / "model.pt").exists()


def test_an_interrupted_ensemble_goes_on_with_the_member_it_was_at(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    options = Options(save=tmp_path / "model.pt", overrides=overrides, ensemble=2)
    with pytest.raises(InterruptedRunError):
        run(options, StopAt(18 + 4))
    assert not options.save.exists()
    folder = options.save.with_suffix(".run")
    first = (folder / "seed_0" / "checkpoints" / "last.pt").stat().st_mtime_ns
    run(Options(**{**vars(options), "force": True}))  # as a Makefile would call it again
    whole = tmp_path / "whole" / "model.pt"
    run(Options(save=whole, overrides=overrides, ensemble=2))
    a, b = (
        json.loads((p.with_suffix(".run") / "ensemble.json").read_text())
        for p in (options.save, whole)
    )
    assert a == b
    assert options.save.read_bytes() == whole.read_bytes()
    last = folder / "seed_0" / "checkpoints" / "last.pt"
    if last.exists():  # only the best member's are kept
        assert last.stat().st_mtime_ns == first


def test_statistics_of_members() -> None:
    members = [Member(3, 0.5, 10, {"a": 1.0, "b": 2.0}), Member(4, 0.25, 20, {"a": 3.0})]
    assert best(members).seed == 4
    found = statistics_of(members)
    assert found["metrics"] == {"a": {"mean": 2.0, "min": 1.0, "max": 3.0, "std": 2**0.5}}
    assert best([members[1], Member(9, 0.25, 1, {})]).seed == 4
    assert "std" not in spread([1.0])
