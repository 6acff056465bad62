"""`mlff gate-report`: verdicts, exit codes and what is written."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlff_cli.core.errors import CheckFailedError, DataError, StorageError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.report.gate_rules import RULES
from mlff_cli.stages.gate_report import Options, run
from tests.report.gate_logs import CASES, edit, healthy, without


def write(path: Path, records) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(r.line() for r in records), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run folders, one per rule and verdict, and a healthy one."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "healthy.run" / "gate.jsonl", healthy())
    for (rule, verdict), records in CASES.items():
        write(folder / f"{rule}-{verdict}.run".replace(" ", "_") / "gate.jsonl", records())
    return folder


def of(summary, i=0):
    return {r["rule"]: r["verdict"] for r in summary.data["runs"][i]["rules"]}


@pytest.mark.parametrize(("rule", "verdict"), CASES)
def test_each_rule_and_verdict_has_its_exit_code(runs, rule, verdict):
    folder = runs / f"{rule}-{verdict}.run".replace(" ", "_")
    plain = run([folder])
    assert of(plain)[rule] == verdict
    assert plain.failure is None
    strict = run([folder], options=Options(strict=True)).failure
    grave = any(v == "failed" for v in of(plain).values())
    assert (strict is not None) == grave
    assert grave or verdict == "warning"
    failure = run([folder], options=Options(strict_warnings=True)).failure
    assert isinstance(failure, CheckFailedError)
    assert failure.exit_code == 6
    assert rule in failure.message
    assert str(folder / "gate.jsonl") == failure.where


def test_a_healthy_run_passes_however_strict(runs):
    summary = run([runs / "healthy.run"], options=Options(strict=True, strict_warnings=True))
    assert summary.failure is None
    assert summary.data["verdict"] == "healthy"
    assert set(of(summary).values()) == {"healthy"}


def test_what_is_not_judged_is_said_and_does_not_fail(tmp_path):
    log = write(tmp_path / "gate.jsonl", without(healthy(60), "fwd.logdet"))
    summary = run([log], options=Options(strict=True, strict_warnings=True))
    judged = of(summary)
    assert {r for r, v in judged.items() if v == "not judged"} == {
        "direction balance", "log-det", "saturation"
    }  # fmt: skip
    assert summary.failure is None
    assert summary.lines[-1] == "verdict: healthy (3 of 7 rules not judged)"


def test_a_log_that_no_rule_can_judge_is_seen(tmp_path):
    """--strict ends with 0: nothing failed. But nothing passed, and both lines say so."""
    log = write(tmp_path / "gate.jsonl", healthy(1500)[:6])
    reporter = NullReporter()
    summary = run([log], None, Options(strict=True, strict_warnings=True), reporter)
    assert summary.failure is None
    assert set(of(summary).values()) == {"not judged"}
    assert "none of the 7 rules could look at it, nothing is passed" in summary.lines[-1]
    assert "none of the 7 rules could be judged" in reporter.warnings[0]
    assert str(log) in reporter.warnings[0]


def test_what_is_said_of_the_end_is_the_last_epoch(tmp_path):
    values = {"loss": lambda r: -r.epoch / 7, "excess_nats": lambda r: 60.5 - r.epoch}
    records = edit(healthy(60), both={"q50": lambda r: 100.25 - r.epoch}, **values)
    totals = run([write(tmp_path / "gate.jsonl", records)]).data["runs"][0]["totals"]
    assert totals["last_loss"] == pytest.approx(-60 / 7)
    assert totals["last_excess_nats"] == 0.5
    assert totals["fwd_q50"] == totals["inv_q50"] == 40.25


@pytest.mark.parametrize("output", ["r.html", "r.png", "r.json"])
def test_figures_survive_the_largest_numbers(tmp_path, output):
    """What a diverging run writes: as large as a float64 goes, with both signs."""

    def huge(r):
        return 1.7e308 * (1 if r.epoch % 2 else -1)

    records = edit(healthy(60), both={"q05": -1.7e308, "q50": huge, "q95": 1.7e308, "logdet": huge},
                   loss=huge, E_max=1.7e308)  # fmt: skip
    log = write(tmp_path / "gate.jsonl", records)
    summary = run([log, log], tmp_path / output)
    assert (tmp_path / output).stat().st_size > 0
    json.dumps(summary.data, allow_nan=False)


def test_a_folder_a_model_file_and_a_log_are_one_run(runs, tmp_path):
    (tmp_path / "m.run").symlink_to(runs / "healthy.run")
    (tmp_path / "m.pt").write_bytes(b"")
    found = [run([p]).data["runs"][0] for p in (tmp_path / "m.run", tmp_path / "m.pt")]
    assert found[0] == found[1]
    assert found[0]["name"] == "m"
    log = run([tmp_path / "m.run" / "gate.jsonl"]).data["runs"][0]
    assert log["rules"] == found[0]["rules"]


def test_all_members_of_an_ensemble_are_judged(tmp_path):
    for seed in (0, 1):
        write(tmp_path / "e.run" / f"seed_{seed}" / "gate.jsonl", healthy(40))
    (tmp_path / "e.run" / "ensemble.json").write_text("{}")
    names = [one["name"] for one in run([tmp_path / "e.run"]).data["runs"]]
    assert names == ["seed_0", "seed_1"]


class Page(HTMLParser):
    """Text, tags and figures of a page."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.images: list[bytes] = []

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        assert tag not in ("script", "link")
        if tag == "img":
            head, data = told["src"].split(",", 1)
            assert head == "data:image/png;base64"
            self.images.append(base64.b64decode(data))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data + "\n"


def test_a_page_holds_every_rule_with_verdict_figure_and_remedy(runs, tmp_path):
    folder = runs / "energies-failed.run"
    out = tmp_path / "deep" / "report.html"
    summary = run([folder], out)
    assert summary.lines[0] == str(out)
    page = Page()
    page.feed(out.read_text(encoding="utf-8"))
    assert not page.open
    assert len(page.images) == 1
    for judged in summary.data["runs"][0]["rules"]:
        assert judged["figure"] in page.text
        assert (judged["remedy"] or "") in page.text
    for rule in RULES:
        assert {rule.healthy, rule.warning, rule.failed} <= set(page.text.split("\n"))


def test_several_runs_are_compared(runs, tmp_path):
    out = tmp_path / "report.html"
    summary = run([runs / "healthy.run", runs / "saturation-failed.run"], out)
    table = summary.tables[-1]
    assert table.columns == ["", "healthy", "saturation-failed"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["saturation"] == ["healthy", "failed"]
    assert rows["clamped samples"][0] == "0 %"
    assert summary.data["verdict"] == "failed"
    page = Page()
    page.feed(out.read_text(encoding="utf-8"))
    assert len(page.images) == 3


def test_runs_of_one_name_are_told_apart(tmp_path):
    logs = [write(tmp_path / d / "gate.jsonl", healthy(40)) for d in ("a/x.run", "b/x.run")]
    names = [one["name"] for one in run(logs).data["runs"]]
    assert names == [str(log) for log in logs]


def test_json_and_png(runs, tmp_path):
    folder = runs / "skip_rate-warning.run"
    summary = run([folder], tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["runs"] == summary.data["runs"]
    assert list(content["provenance"]["inputs"]) == [str(folder / "gate.jsonl")]
    json.dumps(summary.data, allow_nan=False)
    for inputs in ([folder], [folder, runs / "healthy.run"]):
        run(inputs, tmp_path / "r.png", Options(force=True))
        assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["r.html", "r.json"])
def test_the_same_log_gives_the_same_bytes(tmp_path, name):
    log = write(tmp_path / "gate.jsonl", healthy(40))
    run([log], tmp_path / name)
    first = (tmp_path / name).read_bytes()
    run([log], tmp_path / name, Options(force=True))
    assert (tmp_path / name).read_bytes() == first


def test_a_sparkline_is_in_the_terminal_table(runs):
    table = run([runs / "healthy.run"]).tables[0]
    assert table.columns == ["rule", "verdict", "course", "figure"]
    lines = {row[0]: row[2] for row in table.rows}
    assert re.fullmatch("[▁▂▃▄▅▆▇█]{24}", lines["loss"])
    assert lines["loss"][0] == "█"
    assert lines["loss"][-1] == "▁"


def test_the_report_is_written_before_the_verdict_fails(runs, tmp_path):
    out = tmp_path / "r.html"
    summary = run([runs / "loss-failed.run"], out, Options(strict=True))
    assert summary.failure is not None
    assert out.is_file()


def test_dry_run_touches_nothing_and_does_not_fail(runs, tmp_path):
    summary = run([runs / "loss-failed.run"], tmp_path / "r.html", Options(True, dry_run=True))
    assert summary.failure is None
    assert list(tmp_path.iterdir()) == []
    assert summary.lines == [f"would write {tmp_path / 'r.html'}", "verdict: failed"]


def test_shares_are_of_the_planned_run_until_it_is_finished(tmp_path):
    records = edit(healthy(1500)[:400], both={"samples": 100, "regularized": 25})
    folder = write(tmp_path / "m.run" / "gate.jsonl", records).parent
    assert of(run([folder]))["regularized share"] == "warning"
    (folder / "config.yaml").write_text("training:\n  epochs: 3000\n")
    summary = run([folder])
    assert summary.data["runs"][0]["totals"]["planned_epochs"] == 3000
    assert of(summary)["regularized share"] == "healthy"
    (tmp_path / "m.pt").write_bytes(b"")  # it stopped early, by its own rule
    assert of(run([folder]))["regularized share"] == "warning"


def test_a_cut_or_empty_log_is_bad_data_and_names_the_line(tmp_path):
    log = write(tmp_path / "gate.jsonl", healthy(30))
    text = log.read_text()
    log.write_text(text[:-40])
    with pytest.raises(DataError, match="cut off") as caught:
        run([log], tmp_path / "r.html")
    assert caught.value.where == f"{log}, line 30"
    assert caught.value.exit_code == 3
    log.write_text("")
    with pytest.raises(DataError, match="empty") as caught:
        run([log], tmp_path / "r.html")
    assert (caught.value.exit_code, caught.value.where) == (3, f"{log}, line 1")
    assert not (tmp_path / "r.html").exists()


def test_bad_use(runs, tmp_path):
    with pytest.raises(UsageError, match="nothing to judge"):
        run([])
    with pytest.raises(StorageError, match="does not exist"):
        run([tmp_path / "none"])
    with pytest.raises(DataError, match="no gate.jsonl"):
        run([tmp_path])
    with pytest.raises(UsageError, match="written as .html, .json, .png"):
        run([runs / "healthy.run"], tmp_path / "r.pdf")
    out = tmp_path / "r.json"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        run([runs / "healthy.run"], out)
    assert out.read_text() == "mine"
    log = write(tmp_path / "log.json", healthy(30))
    with pytest.raises(UsageError, match="replace an input"):
        run([log], log, Options(force=True))
    lonely = tmp_path / "m.pt"
    lonely.write_bytes(b"")
    with pytest.raises(StorageError, match="no run folder"):
        run([lonely])


def test_without_torch_and_engines(tmp_path):
    log = write(tmp_path / "gate.jsonl", healthy(30))
    code = (
        "import sys; from mlff_cli.stages.gate_report import run; "
        f"run([{str(log)!r}], {str(tmp_path / 'r.html')!r}); "
        "print([m for m in ('torch', 'openmm', 'h5py', 'ase') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
