"""The sbatch scripts, run as SLURM would run them: srun and scontrol start real processes here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.model_file import load_model_file
from tests.ranks import DEADLINE, Ranks, free_port, succeed
from tests.ranks import command as run_command
from tests.tiny_training import tiny_overrides

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "slurm"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))

# Starts TASKS_PER_NODE tasks on each of NODES nodes, all of them here, with the variables that srun
# sets; hands SIGUSR1 and SIGTERM on to them, and ends with the largest exit code.
SRUN = """#!{python}
import os, signal, subprocess, sys
nodes, per_node = int(os.environ["NODES"]), int(os.environ["TASKS_PER_NODE"])
tasks = []
for rank in range(nodes * per_node):
    own = dict(os.environ, SLURM_STEP_ID="0", SLURM_STEP_NUM_TASKS=str(nodes * per_node),
        SLURM_STEP_NUM_NODES=str(nodes), SLURM_STEP_NODELIST=os.environ["SLURM_JOB_NODELIST"],
        SLURM_STEP_TASKS_PER_NODE=f"{{per_node}}(x{{nodes}})", SLURM_PROCID=str(rank),
        SLURM_NODEID=str(rank // per_node), SLURM_LOCALID=str(rank % per_node))
    tasks.append(subprocess.Popen(sys.argv[1:], env=own))
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda n, frame: [t.send_signal(n) for t in tasks if t.poll() is None])
open("srun.pid", "w").write(str(os.getpid()))
codes = [t.wait() for t in tasks]
sys.exit(max(c if c >= 0 else 128 - c for c in codes))
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" = "show hostnames" ]; then echo localhost; else echo "$@" >> requeued; fi
"""
SCANCEL = """#!/bin/bash
[ "$1 $2" = "--signal=TERM $SLURM_JOB_ID" ] && kill -TERM "$(cat srun.pid)"
"""


def directives(script: Path) -> dict[str, str]:
    """The script's #SBATCH options."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.MULTILINE))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_script_is_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text, asked = script.read_text(), directives(script)
    assert text.startswith("#!/bin/bash\n")
    assert "\nset -u\n" in text
    assert text.index("#SBATCH") < text.index("set -u")  # SLURM reads none after the first command
    assert '"$@"' in text  # arguments with blanks stay whole
    assert not re.search(r"\$[*@](?!\")", text.replace('"$@"', ""))
    to_script = "torchrun" in script.stem or "dask" in script.stem  # which hands the signal on
    assert asked["signal"] == ("B:USR1@120" if to_script else "USR1@120")
    if "dask" in script.stem:
        assert asked["cpus-per-task"] == "1"  # a worker calculates with one thread
    else:
        per_node = "1" if "torchrun" in script.stem else asked["gpus-per-node"]
        assert asked["ntasks-per-node"] == per_node
    assert {"requeue", "nodes", "time", "cpus-per-task"} <= asked.keys()
    several = "multinode" in script.stem or "dask" in script.stem
    assert (int(asked["nodes"]) > 1) == several
    assert ("export MASTER_ADDR" in text) == ("multinode" in script.stem)
    for line in text.splitlines():
        assert len(line) <= 100


class Job:
    """A batch job of SLURM on this machine."""

    def __init__(self, folder: Path, script: str, nodes: int, tasks_per_node: int) -> None:
        self.folder = folder
        self.script = FOLDER / f"{script}.sbatch"
        commands = folder / "bin"
        commands.mkdir()
        fakes = {"srun": SRUN.format(python=sys.executable), "scontrol": SCONTROL}
        fakes["scancel"] = SCANCEL
        modules = {"mlff": "mlff_cli", "torchrun": "torch.distributed.run", "dask": "dask"}
        for name, module in modules.items():
            fakes[name] = f'#!/bin/bash\nexec "{sys.executable}" -m {module} "$@"\n'
        for name, text in fakes.items():
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        job_id = free_port() - 10_000  # the script's own rule makes the port of it
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM_")},
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "NODES": str(nodes),
            "TASKS_PER_NODE": str(tasks_per_node),
            "SLURM_JOB_ID": str(job_id % 20_000),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_NTASKS": str(nodes * tasks_per_node),
            "SLURM_NTASKS_PER_NODE": str(tasks_per_node),
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_PROCID": "0",
        }

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", self.script, *words],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, **environ: str) -> tuple[int, str]:
        process = self.start(*words, **environ)
        text, _ = process.communicate(timeout=DEADLINE)
        return process.returncode, text

    def wait_for_rows(self, process: subprocess.Popen[str], log: Path, rows: int) -> None:
        """Wait until training has logged so much."""
        until = time.monotonic() + DEADLINE
        while process.poll() is None and time.monotonic() < until:
            if log.is_file() and log.read_bytes().count(b"\n") >= rows:
                return
            time.sleep(0.01)
        process.kill()
        pytest.fail(f"nothing to stop: {process.communicate()[0]}")

    @property
    def requeued(self) -> list[str]:
        file = self.folder / "requeued"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    """Arguments of a training with one that holds a blank."""
    tmp_path.joinpath("my runs").mkdir()
    return ("--save", "my runs/model.pt", "--device", "cpu", *tiny_overrides(tmp_path))


def test_a_job_on_two_nodes_that_meets_its_time_limit_queues_again(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    job = Job(tmp_path, "train_multinode", nodes=2, tasks_per_node=1)
    process = job.start(*command, "trainer.epochs=12")
    log = tmp_path / "my runs" / "model.run" / "metrics.jsonl"
    job.wait_for_rows(process, log, 3)
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
    text, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 75, text
    assert job.requeued == [f"requeue {job.environ['SLURM_JOB_ID']}"]
    for rank in range(2):
        assert f"rank {rank} of 2: host " in text

    # as the job that queued again, but started faster
    texts = succeed(Ranks(tmp_path, run_command, "train", *command, "trainer.epochs=12"))
    assert "continuing at step" in texts[0]
    assert load_model_file(tmp_path / "my runs" / "model.pt").species == [1, 6, 7, 8]


@pytest.mark.slow
def test_a_job_on_one_node(tmp_path: Path, command: tuple[str, ...]) -> None:
    job = Job(tmp_path, "train_1node", nodes=1, tasks_per_node=2)
    code, text = job.run(*command)
    assert code == 0, text
    assert "rank 1 of 2: host " in text
    assert not job.requeued
    code, text = job.run(*command)  # the model is there: refused, once, and not queued again
    assert code == 2
    assert text.count("the output exists already") == 1
    assert not job.requeued


@pytest.mark.slow
def test_torchrun_on_two_nodes_meets_its_time_limit(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    job = Job(tmp_path, "train_multinode_torchrun", nodes=2, tasks_per_node=1)
    job.environ["PROCESSES"] = "1"
    process = job.start(*command, "trainer.epochs=12")
    log = tmp_path / "my runs" / "model.run" / "metrics.jsonl"
    job.wait_for_rows(process, log, 3)
    process.send_signal(signal.SIGUSR1)  # --signal=B: goes to the script
    text, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode not in (0, 2), text
    assert len(job.requeued) == 1, text
    code, text = job.run(*command, "trainer.epochs=12", SLURM_RESTART_COUNT="1")
    assert code == 0, text
    assert "continuing at step" in text
    assert len(job.requeued) == 1


DASK = {"DASK_INTERFACE": "lo", "TMPDIR": "."}
LABEL = "label in.smi -o out.h5 --method gfn2-xtb --temperature 300 --conformers"


def ended_clean(folder: Path) -> bool:
    """Neither processes nor secrets of the cluster are left."""
    commands = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    return not any(str(folder) in c for c in commands) and not list(folder.glob(".dask-*"))


def test_a_cluster_labels_and_goes(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    pytest.importorskip("tblite", reason="needs the extra 'label'")
    (tmp_path / "in.smi").write_text("CCO\nO\n")
    job = Job(tmp_path, "dask_mlff", nodes=2, tasks_per_node=1)
    code, text = job.run(*LABEL.split(), "4", **DASK)
    assert code == 0, text
    assert re.search(r"cluster \S+: [12] worker", " ".join(text.split()))
    assert "tls://127.0.0.1" in text
    with GroupedHDF5(tmp_path / "out.h5") as file:
        assert file.n_molecules == 8
    assert not job.requeued
    assert ended_clean(tmp_path)
    code, text = job.run(*LABEL.split(), "4", **DASK)  # the output is there: refused, not queued
    assert code == 2, text
    assert not job.requeued


@pytest.mark.slow
def test_a_cluster_s_job_that_meets_its_time_limit_queues_again(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    pytest.importorskip("tblite", reason="needs the extra 'label'")
    (tmp_path / "in.smi").write_text("CCO\nCC(=O)[O-]\n")
    job = Job(tmp_path, "dask_mlff", nodes=1, tasks_per_node=1)
    process = job.start(*LABEL.split(), "1000", **DASK)
    job.wait_for_rows(process, tmp_path / "out.h5.partial" / "journal.jsonl", 20)
    process.send_signal(signal.SIGUSR1)
    text, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 75, text
    assert len(job.requeued) == 1
    assert not (tmp_path / "out.h5").exists()
    assert ended_clean(tmp_path)
    code, text = job.run(*LABEL.split(), "1000", **DASK, SLURM_RESTART_COUNT="1")
    assert code == 0, text
    assert "continuing" in text


def test_a_name_without_an_address_ends_the_job_before_it_begins(tmp_path: Path) -> None:
    job = Job(tmp_path, "train_multinode", nodes=2, tasks_per_node=1)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text("#!/bin/bash\necho no-such-host.invalid\n")
    code, text = job.run("--save", "model.pt")
    assert code == 2
    assert "no-such-host.invalid has no address" in text
    assert not (tmp_path / "srun.pid").exists()
