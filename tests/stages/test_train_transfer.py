"""`mlff train --load` from files to files: what starts as what, what is frozen, what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from mlff_cli.core.errors import ConfigError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.model_file import load_model_file
from mlff_cli.data.sae import read_sae, write_sae
from mlff_cli.stages.train import Options, run
from tests.tiny_training import TINY_MODEL, tiny_overrides

SHORT = ("trainer.epochs=1", "data.samplers.train.kwargs.batches_per_epoch=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def data(folder: Path) -> tuple[str, ...]:
    """Everything but the architecture: three fidelities, two steps."""
    given = tiny_overrides(folder, sizes=(16, 16, 16))
    return (*(o for o in given if o not in TINY_MODEL), *SHORT)


@pytest.fixture(scope="module")
def single(folder: Path, data: tuple[str, ...]) -> Path:
    """The seed's first step: one fidelity with one readout."""
    path = folder / "single.pt"
    alone = [o for o in data if not any(f".{k}=" in o for k in (1, 2))]
    run(Options(save=path, overrides=(*alone, *TINY_MODEL, "use_fidelity_readouts=false")))
    return path


def test_the_loaded_model_s_architecture_is_the_default(
    tmp_path: Path, single: Path, data: tuple[str, ...]
) -> None:
    planned = run(Options(save=tmp_path / "m.pt", load=single, overrides=data, dry_run=True))
    assert planned.data["plan"]["architecture"] == f"of {single}"
    fates = {item["fate"] for item in planned.data["transfer"]["items"]}
    assert fates == {"loaded", "created"}
    assert planned.tables[1].title == f"weights from {single}"
    with pytest.raises(ConfigError, match=r"aim_size is 12 here and 8 in the file") as caught:
        run(Options(save=tmp_path / "m.pt", load=single, overrides=(*data, "model.aim_size=12")))
    assert caught.value.where == str(single)
    yaml = tmp_path / "model.yaml"
    yaml.write_text("nfeature: 5\n")
    with pytest.raises(ConfigError, match="nfeature is 5 here and 4 in the file; "):
        run(Options(save=tmp_path / "m.pt", load=single, model=yaml, overrides=data))


def test_a_frozen_backbone_stays_bit_for_bit_while_readouts_learn(
    tmp_path: Path, single: Path, data: tuple[str, ...]
) -> None:
    save = tmp_path / "two.pt"
    two = [o for o in data if ".2=" not in o]
    run(Options(save=save, load=single, overrides=(*two, "optimizer.force_no_train=[backbone.*]")))
    before, after = load_model_file(single).weights, load_model_file(save).weights
    for name, value in after.items():
        if name.startswith(("mlps", "conv")):
            assert torch.equal(value, before[name]), name
        else:
            assert value.shape[0] == 2 * before[name].shape[0]
            assert not torch.equal(value.chunk(2)[1], before[name]), name
    report = json.loads((tmp_path / "two.run/transfer.json").read_text())
    assert report["file"] == str(single)
    assert [(f["source"], f["continued"]) for f in report["fidelities"]] == [(0, True), (0, False)]
    created = {n for i in report["items"] if i["fate"] == "created" for n in i["names"]}
    assert created == {n for n in after if not n.startswith(("mlps", "conv"))}


@pytest.mark.parametrize("part", ["embeddings", "readouts", "readouts.shifts", "readouts.charges"])
def test_parts_of_the_model_can_be_named(
    tmp_path: Path, single: Path, data: tuple[str, ...], part: str
) -> None:
    group = "optimizer.param_groups={own: {re: ^backbone, lr: 1.0e-5}}"
    frozen = f"optimizer.force_no_train=['^{part}']"
    options = Options(save=tmp_path / "m.pt", load=single, dry_run=True)
    assert run(dataclasses.replace(options, overrides=(*data, group, frozen))).failure is None
    nothing = f"optimizer.force_no_train=['^{part}s']"
    failure = run(dataclasses.replace(options, overrides=(*data, nothing))).failure
    assert isinstance(failure, ConfigError)
    assert re.search(r"matches no parameter(.|\n)*embeddings\.afv\.weight", str(failure))


class Listening(NullReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


def test_other_atomic_energies_and_another_order_are_said(
    tmp_path: Path, single: Path, data: tuple[str, ...]
) -> None:
    sae = tmp_path / "sae.yaml"
    old = next(o.split("=")[1] for o in data if o.startswith("data.sae.energy.files.0="))
    write_sae(sae, {z: e + 0.25 for z, e in read_sae(Path(old)).items()})
    more = (f"data.sae.energy.files.0={sae}",)
    planned = run(
        Options(save=tmp_path / "m.pt", load=single, overrides=(*data, *more), dry_run=True)
    )
    start = planned.data["transfer"]["fidelities"][0]
    assert start["keeps"] == "total"
    assert start["shifts"] == {z: pytest.approx(-0.25) for z in ("1", "6", "7", "8")}

    swapped = tuple(
        o.replace("fid1.h5", "X").replace("fid0.h5", "fid1.h5").replace("X", "fid0.h5")
        for o in data
    )
    reporter = NullReporter()
    run(Options(save=tmp_path / "m.pt", load=single, overrides=swapped, dry_run=True), reporter)
    assert any("transfer.fidelity_map='{1: 0}'" in text for text in reporter.warnings)
    reporter = NullReporter()
    mended = (*swapped, "transfer.fidelity_map={1: 0}")
    run(Options(save=tmp_path / "m.pt", load=single, overrides=mended, dry_run=True), reporter)
    assert reporter.warnings == []


def test_a_transfer_without_load_is_said_to_do_nothing(
    tmp_path: Path, data: tuple[str, ...]
) -> None:
    told = Listening()
    given = (*data, *TINY_MODEL, "transfer.partial=true")
    run(Options(save=tmp_path / "m.pt", overrides=given, dry_run=True), told)
    assert "the section transfer has no effect without --load" in told.lines
