"""The transfer example: one fidelity, a second on top, the same with a frozen backbone."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mlff_cli.data.model_file import load_model_file
from tests.examples.test_multifidelity_example import SHORT, call, copy_example, pytestmark

__all__ = ["pytestmark"]


def test_a_fidelity_is_added_and_the_backbone_can_stay(tmp_path: Path) -> None:
    example = copy_example(tmp_path)
    call(tmp_path, "sh", str(example / "add_fidelity.sh"), *SHORT)
    out = example / "out/add_fidelity"
    single, two, frozen = (load_model_file(out / f"{n}.pt") for n in ("single", "two", "frozen"))
    assert single.architecture["use_fidelity_readouts"] is False
    assert [f["level_of_theory"] for f in two.fidelities] == ["pbe/def2-svp", "gfn2-xtb"]
    for name, value in single.weights.items():
        if name.startswith(("mlps", "conv")):  # a later training moves them, or does not
            assert torch.equal(frozen.weights[name], value), name
            assert not torch.equal(two.weights[name], value), name
        else:  # one block became two
            assert len(two.weights[name]) == len(frozen.weights[name]) == 2 * len(value), name
    report = json.loads((out / "two.run/transfer.json").read_text())
    assert [f["continued"] for f in report["fidelities"]] == [True, False]
    assert report["warnings"] == []
    for model, fidelities in (("single", [0]), ("two", [0, 1]), ("frozen", [0, 1])):
        results = json.loads((out / f"errors_{model}.json").read_text())["results"]
        assert [result["fidelity"] for result in results] == fidelities
