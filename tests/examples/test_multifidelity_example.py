"""The multi-fidelity example: its Makefile and its scripts, with real data and a short training.

Laws: the chain leaves one verified artifact and one table of errors per fidelity and a report; make
rebuilds what a touched input reaches and nothing else; the scripts run without any other help.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "multifidelity"
MLFF = Path(sys.executable).parent / "mlff"
SHORT = ("trainer.epochs=1", "data.samplers.train.kwargs.batches_per_epoch=2")

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or not MLFF.exists(), reason="needs make and the command mlff"
)


def call(folder: Path, *command: str) -> str:
    """Run in `folder`; returns what it printed on both streams."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MLFF": str(MLFF), "PYTHON": sys.executable}
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # `make test` must not steer this make
        environment.pop(name, None)
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def make(folder: Path, *arguments: str) -> str:
    """Two of the three fidelities are enough to mix and to tell targets apart."""
    return call(folder, "make", "EPOCHS=1", "FIDELITIES=0 1", *arguments)


def copy_example(folder: Path) -> Path:
    """A copy whose training is two steps and whose validation is a few molecules."""
    copy = folder / "example"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("out"))
    config = yaml.safe_load((copy / "train.yaml").read_text())
    config["data"]["samplers"]["train"]["kwargs"].update(batches_per_epoch=2, batch_size=12)
    config["data"]["val_fraction"] = 0.03
    (copy / "train.yaml").write_text(yaml.safe_dump(config))
    return copy


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The finished chain and what it printed."""
    example = copy_example(tmp_path_factory.mktemp("chain"))
    return example, make(example, "demo")


def planned(example: Path, touched: str) -> set[str]:
    """What make would build again once `touched` is newer than everything."""
    lines = make(example, "-n", "-W", touched, "demo").replace("\\\n", " ").splitlines()
    words = [line.split() for line in lines if f"{MLFF} " in line]
    targets = {"calc-sae": "sae", "train": "model", "compile": "artifact", "evaluate": "errors"}
    plan = set()
    for line in words:
        verb = line[line.index(str(MLFF)) + 1]
        fidelity = {
            "calc-sae": lambda w: w[-2].removesuffix(".yaml")[-1],
            "compile": lambda w: w[w.index("--fidelity-level") + 1],
            "evaluate": lambda w: w[w.index("-o") - 1][0],
        }.get(verb)
        plan.add(targets.get(verb, verb) + (fidelity(line) if fidelity else ""))
    return plan


class TestChain:
    def test_every_fidelity_leaves_a_verified_artifact(self, built: tuple[Path, str]) -> None:
        out = built[0] / "out"
        for k, functional in ((0, "pbe"), (1, None)):
            meta = yaml.safe_load((out / f"compiled_fid{k}_meta.yaml").read_text())
            artifact = (out / f"compiled_fid{k}.jpt").read_bytes()
            assert meta["artifact"]["sha256"] == hashlib.sha256(artifact).hexdigest()
            assert meta["verification"]["passed"] is True
            assert meta["fidelity"]["index"] == k
            assert (meta["dispersion"] or {}).get("functional") == functional

    def test_errors_are_those_of_the_test_molecules(self, built: tuple[Path, str]) -> None:
        example, printed = built
        for k, molecules in ((0, 70), (1, 420)):
            content = json.loads((example / f"out/errors_fid{k}.json").read_text())
            (result,) = content["results"]
            assert result["fidelity"] == k
            assert result["errors"]["energy"]["n"] == molecules
            assert result["errors"]["forces"]["rmse"] > 0
            assert (example / f"out/errors_fid{k}_parity.png").stat().st_size > 10_000
        assert "errors on unseen molecules" in printed

    def test_report_is_one_page_of_everything(self, built: tuple[Path, str]) -> None:
        page = (built[0] / "out/report.html").read_text()
        assert "pbe/def2-svp" in page
        assert "gfn2-xtb" in page
        assert 'src="data:image/png;base64,' in page
        assert str(built[0] / "out/report.html") in built[1]

    def test_nothing_is_left_to_do(self, built: tuple[Path, str]) -> None:
        assert planned(built[0], "README") == set()


class TestRebuild:
    AFTER_MODEL = frozenset({"model", "artifact0", "artifact1", "errors0", "errors1", "report"})

    @pytest.mark.parametrize(
        ("touched", "more"),
        [
            ("train.yaml", set()),
            ("model.yaml", set()),
            ("data/fid0.h5", {"sae0"}),
            ("data/fid1.h5", {"sae1"}),
        ],
    )
    def test_training_input_rebuilds_all_that_follows(
        self, built: tuple[Path, str], touched: str, more: set[str]
    ) -> None:
        assert planned(built[0], touched) == self.AFTER_MODEL | more

    def test_test_set_rebuilds_its_errors_alone(self, built: tuple[Path, str]) -> None:
        assert planned(built[0], "data/test_fid1.h5") == {"errors1", "report"}

    def test_touched_file_is_rebuilt_in_earnest(self, built: tuple[Path, str]) -> None:
        example = built[0]
        target, other = example / "out/sae_fid0.yaml", example / "out/sae_fid1.yaml"
        before = target.stat().st_mtime_ns, other.stat().st_mtime_ns
        text = target.read_text()
        newest = max(p.stat().st_mtime for p in (example / "out").rglob("*")) + 1
        os.utime(example / "data/fid0.h5", (newest, newest))
        make(example, "out/sae_fid0.yaml", "out/sae_fid1.yaml")
        assert target.stat().st_mtime_ns > before[0]
        assert target.read_text() == text  # the same data and seed: the same file
        assert other.stat().st_mtime_ns == before[1]


def test_scripts_run_and_continue_from_trained_weights(tmp_path: Path) -> None:
    example = copy_example(tmp_path)
    call(tmp_path, "sh", str(example / "run_example.sh"), *SHORT)
    out = example / "out/run_example"
    for k in range(3):
        meta = yaml.safe_load((out / f"compiled_fid{k}_meta.yaml").read_text())
        assert meta["verification"]["passed"] is True
    results = json.loads((out / "errors.json").read_text())["results"]
    assert [result["fidelity"] for result in results] == [0, 1, 2]

    call(tmp_path, "sh", str(example / "continue_training.sh"), *SHORT)
    config = yaml.safe_load((out / "continued.run/config.yaml").read_text())
    assert config["trainer"]["epochs"] == 1
    assert config["scheduler"]["kwargs"]["start_value"] == 2.0e-4
    assert (out / "continued.pt").stat().st_size > 100_000
