"""TorchScript: the same bytes in every process, and the same numbers from the first call on."""

import os
import subprocess
import sys

import torch

from mlff_cli.deploy import torchscript


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * x


SCRIPT = """
import sys, torch
from pathlib import Path
from mlff_cli.deploy import torchscript
torch.manual_seed(0)
torchscript.save(torchscript.script(torch.nn.Embedding(3, 4)), Path(sys.argv[1]), {})
"""


def test_the_same_bytes_in_every_process(tmp_path):
    """Torch keeps names of constants in a set, and Python orders sets of texts by its hash seed."""
    paths = [tmp_path / f"{seed}.jpt" for seed in (1, 2)]
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(path)],
            env={**os.environ, "PYTHONHASHSEED": path.stem},
        )
        for path in paths
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not hasattr(torch.jit._recursive, "set")


def test_compiled_once_for_all_shapes():
    before = torch.jit.set_fusion_strategy([("STATIC", 3)])
    try:
        with torchscript.unspecialised():
            frozen = torchscript.freeze(torchscript.script(Doubled()))
            assert frozen(torch.ones(3)).tolist() == [2.0] * 3
        assert torch.jit.set_fusion_strategy(before) == [("STATIC", 3)]
        assert frozen(torch.ones(2, 2)).tolist() == [[2.0] * 2] * 2
    finally:
        torch.jit.set_fusion_strategy(before)
