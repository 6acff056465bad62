"""The transport example: its Makefile with real, short dynamics and a few epochs.

Laws: the chain leaves a flow, its gate's report, its evaluation and an exchange through it; make
rebuilds what a touched input reaches and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "transport"
MLFF = Path(sys.executable).parent / "mlff"
SHORT = (
    "ENGINE=--engine torch",
    "EQUILIBRATION=0.2",
    "LEARNING=--replicas 8 --time 0.2 --interval 0.02 --exchange-interval 0.02 --seed 1",
    "JUDGING=--replicas 8 --time 0.2 --interval 0.02 --exchange-interval 0.02 --seed 2",
    "EXCHANGING=--replicas 8 --time 0.2 --interval 0.02 --exchange-interval 0.02 --seed 3",
    "TRAINING=training.epochs=3 training.batch_size=16 training.batches_per_epoch=1 "
    "flow.transforms=2 flow.hidden=[8]",
)

pytestmark = [
    pytest.mark.skipif(
        shutil.which("make") is None or not MLFF.exists(), reason="needs make and the command mlff"
    ),
    pytest.mark.slow,
]


def make(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MLFF": str(MLFF)}
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # `make test` must not steer this make
        environment.pop(name, None)
    done = subprocess.run(
        ["make", *SHORT, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zuko", reason="needs the extra 'transport'")
    folder = tmp_path_factory.mktemp("transport") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("out"))
    make(folder, "all")
    return folder


def test_the_chain_leaves_a_judged_flow_and_an_exchange(made: Path) -> None:
    found = json.loads((made / "out/evaluation.json").read_text())
    assert found["temperatures"] == {"source": 300.0, "target": 450.0}
    assert set(found["maps"]) == {"naive swap", "linear map", "flow"}
    assert {p.name for p in (made / "out").glob("evaluation_*.png")} == {
        "evaluation_ramachandran.png", "evaluation_energies.png", "evaluation_works.png",
    }  # fmt: skip
    assert (made / "out/gate.html").stat().st_size > 1000
    with h5py.File(made / "out/exchange.h5") as file:
        assert "flow.pt" in str(file.attrs["provenance"])
        assert file["parameters/exchange/attempted"][0] > 0
    assert "0 checks failed" in make(made, "check")


def test_make_rebuilds_what_a_touched_input_reaches_and_nothing_else(made: Path) -> None:
    assert "Nothing to be done" in make(made, "all")
    verbs = ("mlff train", "gate-report", "evaluate", "--flow")
    for touched, expected in (
        ("out/test.h5", [False, False, True, False]),
        ("out/flow.pt", [False, True, True, True]),
    ):
        os.utime(made / touched)
        told = make(made, "all")
        assert [verb in told for verb in verbs] == expected
    assert "Nothing to be done" in make(made, "all")
