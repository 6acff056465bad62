"""`mlff report` on transport: the run with its gate, and the evaluation of a flow."""

from __future__ import annotations

import json

import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.stages import info
from mlff_cli.stages.report import run
from tests.report.gate_logs import healthy
from tests.stages.test_gate_report import Page, write

ESTIMATE = {"value": 0.7123, "error": 0.019}
MAP = {
    "acceptance": ESTIMATE,
    "excess_nats": {"value": 0.274, "error": 0.05},
    "ess": {"forward": 0.58, "reverse": 0.76},
    "free_energy": {"bar": {"value": 6.8835, "error": 0.02}, "forward": None, "reverse": None},
}
CONTENT = {
    "format": "mlff-evaluation-1",
    "family": "transport",
    "model": "m.pt",
    "units": {"energy": "kJ/mol"},
    "temperatures": {"source": 300.0, "target": 450.0},
    "frames": {"source": 1400, "target": 1300},
    "maps": {
        "naive swap": {
            **MAP,
            "acceptance": {"value": 1e-7, "error": None},
            "free_energy": {"bar": None},
        },
        "flow": MAP,
    },
    "energies": {
        "forward": {"before": -68.0, "behind": -33.2, "reweighted": None, "sampled": -31.5},
    },
    "ramachandran": [
        {
            "variables": ["phi ALA2", "psi ALA2"],
            "what": "transported",
            "temperature": 450.0,
            "blocks": None,
            "independent": {"divergence": 0.0123, "floor": 0.01, "ratio": 1.23, "frames": 91},
        }
    ],
    "flips": {"forward": {"frames": 1400, "hands_changed": 0, "isomers_changed": 2}},
    "provenance": {"command": "mlff evaluate m.pt rex.h5"},
}


def page_of(path):
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert not page.open
    return page


def test_an_evaluation_of_a_flow_has_a_section(tmp_path):
    path = tmp_path / "e.json"
    blocks = {"divergence": 0.02, "floor": 0.01, "ratio": 2.0, "frames": 448}
    planes = [CONTENT["ramachandran"][0], {**CONTENT["ramachandran"][0], "blocks": blocks}]
    note = "rex.h5 is what the flow was trained on"
    path.write_text(json.dumps({**CONTENT, "ramachandran": planes, "notes": [note]}))
    png = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + (20).to_bytes(4, "big")
    (tmp_path / "e_energies.png").write_bytes(png)
    run([path], tmp_path / "r.html")
    page = page_of(tmp_path / "r.html")
    words = page.text.split("\n")
    assert {"0.7123 +- 0.02", "1e-07", "6.883 +- 0.02", "0.0123", "phi ALA2, psi ALA2"} <= set(
        words
    )
    assert "m.pt, 300 K to 450 K" in words
    assert note in words
    assert "independent frames" in words
    assert words.count("91") == 2  # the number of the terminal, not of the blocks' frames
    assert "448" not in words
    assert "mlff evaluate m.pt rex.h5" in page.text
    assert page.images == [png]


def test_info_reads_it(tmp_path):
    path = tmp_path / "e.json"
    path.write_text(json.dumps(CONTENT))
    told = json.dumps(info.run(path).data)
    assert "transport" in told


def test_a_damaged_evaluation_is_named(tmp_path):
    path = tmp_path / "e.json"
    path.write_text(json.dumps({**CONTENT, "maps": {"naive swap": MAP}}))
    with pytest.raises(DataError, match="the flow itself is not among"):
        run([path], tmp_path / "r.html")
    path.write_text(json.dumps({k: v for k, v in CONTENT.items() if k != "flips"}))
    with pytest.raises(DataError, match="flips"):
        run([path], tmp_path / "r.html")


def test_a_transport_run_shows_its_gate(tmp_path):
    folder = tmp_path / "m.run"
    write(folder / "gate.jsonl", healthy(40))
    rows = [
        {"kind": "units", "val/excess_nats": "nats"},
        {"kind": "metrics", "step": 40, "epoch": 40, "val/loss": 0.4, "val/excess_nats": 0.4,
         "val/acceptance": 0.75},
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run([folder], tmp_path / "r.html")
    page = page_of(tmp_path / "r.html")
    words = page.text.split("\n")
    assert {"validation acceptance", "validation excess", "0.75"} <= set(words)
    assert {"regularized share", "saturation"} <= set(words)
    assert len(page.images) == 1
