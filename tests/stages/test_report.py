"""`mlff report`: one page that needs nothing but itself."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from mlff_cli.stages import compile as compile_stage
from mlff_cli.stages import evaluate as evaluate_stage
from mlff_cli.stages.report import Options, run
from tests.deploy.beads.cases import model_file, topology
from tests.potentials.prior_cases import PRIORS
from tests.synthetic import write_dataset
from tests.tiny import tiny_model_file

ROWS = [
    {"kind": "units", "val/E_rmse": "kcal/mol", "val/fid0/E_rmse": "kcal/mol"},
    {"kind": "metrics", "step": 10, "epoch": 1, "train/loss": 3.0},
    {"kind": "metrics", "step": 20, "epoch": 2, "val/loss": 0.5, "val/E_rmse": 1.25,
     "val/fid0/E_rmse": 1.5, "val/fid1/E_rmse": 1.0},
    {"kind": "metrics", "step": 30, "epoch": 3, "val/loss": 0.9, "val/E_rmse": 2.5},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, an evaluation with figures, an artifact."""
    path = tmp_path_factory.mktemp("report")
    tiny_model_file().save(path / "model.pt")
    run_folder = path / "model.run"
    run_folder.mkdir()
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    (run_folder / "config.yaml").write_text("optimizer: <adam & co>\n")
    data = write_dataset(path / "d.h5", 20, seed=1, level_of_theory="pbe/def2-svp")
    options = evaluate_stage.Options(device="cpu")
    evaluate_stage.run(path / "model.pt", [data], path / "e.json", options)
    compile_stage.run(path / "model.pt", path / "m", compile_stage.Options(fidelity_level=1))
    return path


class Reader(HTMLParser):
    """Collects what a page refers to, and checks that its tags close."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    sources = [folder / "model.run", folder / "e.json", folder / "m_fid1.jpt"]
    run(sources, folder / "report.html", Options(title="Three fidelities"))
    return (folder / "report.html").read_text()


def test_the_page_is_self_contained(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.sources
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in reader.sources)
    assert not reader.tags & {"script", "link", "iframe"}
    assert "url(" not in page
    assert "@import" not in page


def test_it_holds_what_was_measured(page: str, folder: Path) -> None:
    evaluation = json.loads((folder / "e.json").read_text())
    rmse = evaluation["results"][0]["errors"]["forces"]["rmse"]
    assert f"{rmse:.4g}" in page
    assert "best validation loss at step 20" in page
    assert "E_rmse (kcal/mol)" in page
    assert "fidelity 0" in page
    assert "gfn2-xtb" in page
    assert "energy of the artifact and the eager model, float64, relative" in page
    assert "mlff evaluate" in page  # provenance


def test_text_is_escaped(page: str) -> None:
    assert "&lt;adam &amp; co&gt;" in page


def test_it_suits_phones_and_the_dark(page: str) -> None:
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "overflow-x: auto" in page


def test_a_model_file_stands_for_its_run(folder: Path, tmp_path: Path) -> None:
    summary = run([folder / "model.pt"], tmp_path / "r.html")
    assert summary.data["sections"] == ["Training: model"]


def test_same_sources_same_bytes(folder: Path, page: str) -> None:
    sources = [folder / "model.run", folder / "e.json", folder / "m_fid1.jpt"]
    run(sources, folder / "again.html", Options(title="Three fidelities"))
    assert (folder / "again.html").read_text() == page


def test_bad_sources(folder: Path, tmp_path: Path, page: str) -> None:
    out = tmp_path / "r.html"
    with pytest.raises(StorageError):
        run([tmp_path / "absent.run"], out)
    with pytest.raises(DataError, match="not a run folder"):
        run([tmp_path], out)
    with pytest.raises(DataError, match="a report is made of"):
        run([folder / "d.h5"], out)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="not an evaluation"):
        run([tmp_path / "x.json"], out)
    with pytest.raises(UsageError, match="exists already"):
        run([folder / "e.json"], folder / "report.html")
    assert not out.exists()


def test_an_artifact_of_beads_has_a_section(tmp_path: Path) -> None:
    five = topology(5, name="five")
    model_file(BeadModel(None, Prior(PRIORS["parametric"])), [five]).save(tmp_path / "one.pt")
    compile_stage.run(tmp_path / "one.pt", tmp_path / "m")
    run([tmp_path / "m.jpt"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "coarse-grained model of five, energies in kcal/mol" in page
    assert "Verification on five, 5 frames" in page
    assert "prior: energy of the artifact and the eager model, relative" in page
