"""Allegro as `pair_allegro` of LAMMPS reads it: a `.nequip.pt2`, compiled by nequip's own export.

    inputs      pos (N, 3) float64 angstrom, edge_index (2, E), atom_types (N,)
    outputs     atomic_energy (N, 1), forces (N, 3), virial       kcal/mol, angstrom
    metadata    r_max, num_types, type_names, model_dtype, allow_tf32

It is machine code for the processor, or the kind of GPU, that it was compiled for.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlff_cli.core.errors import CheckFailedError, MissingDependencyError
from mlff_cli.core.runtime import require
from mlff_cli.potentials.allegro import Allegro
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.nequip_state import EXTRA, nequip_state

TARGET = "pair_allegro"
_INPUTS, _OUTPUTS = "nequip_aoti_inputs", "nequip_aoti_outputs"  # keys of nequip
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}  # of the largest force


def export_allegro(
    allegro: Allegro,
    positions: np.ndarray,
    types: np.ndarray,
    path: Path,
    device: torch.device | str = "cpu",
) -> float:
    """Compile, write, load again and compare with the model; half a minute to some minutes.

    Args:
        allegro: the learnt energy; it is not changed.
        positions: (n, 3) angstrom, a frame to compile and compare with.
        types: (n,) numbers of types.
        path: ends in `.nequip.pt2`.
        device: what it is compiled for.

    Returns:
        The largest difference of a force, relative to the largest force.

    Raises:
        MissingDependencyError: no C++ compiler, or nequip is not installed.
        CheckFailedError: what was written is not the model.
    """
    check_compiler()
    data = _data(allegro, positions, types, device)
    network = _with_forces(allegro).to(device)
    with nequip_state(), warnings.catch_warnings():
        # what torch's compiler says of torch's own modules is nothing a user can mend
        for kind in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        require("allegro._compile", EXTRA)  # it registers its target with nequip
        target = require("nequip.scripts._compile_utils", EXTRA).COMPILE_TARGET_DICT[TARGET]
        sizes = {k: torch.export.Dim(f"num_{k}s", min=2) for k in ("node", "edge")}
        try:
            require("nequip.utils.aot", EXTRA).aot_export_model(
                model=network,
                device=device,
                input_fields=target["input"],
                output_fields=target["output"],
                data=data,
                batch_map={"graph": torch.export.Dim.STATIC, **sizes},
                output_path=str(path),
                inductor_configs={
                    "aot_inductor.metadata": _metadata(network, target["input"], target["output"])
                },
            )
        except AssertionError as error:
            raise CheckFailedError(
                f"nequip's export is not its model: {error}",
                where=str(path),
                remedy="compile a model in float64, or report it to nequip",
            ) from error
        expected = network(dict(data))["forces"].detach()
    difference = _difference(run_export(path, data, device), expected)
    if not difference <= TOLERANCE[allegro.dtype]:
        raise CheckFailedError(
            f"forces of the exported Allegro differ by {difference:.1e} of the largest, at most "
            f"{TOLERANCE[allegro.dtype]:.0e} are allowed",
            where=str(path),
        )
    return difference


def run_export(
    path: Path, data: dict[str, Tensor], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Load a `.nequip.pt2` as LAMMPS does, and compute.

    Args:
        path: the file; it holds machine code that is run.
        data: its inputs by name.
        device: that it was compiled for.

    Returns:
        Its outputs by name.
    """
    runner = torch._inductor.aoti_load_package(str(path))
    known = runner.get_metadata()
    inputs = [data[name].to(device) for name in known[_INPUTS].split()]
    with torch.inference_mode():
        outputs = runner(inputs)
    return dict(zip(known[_OUTPUTS].split(), outputs, strict=True))


def read_export(path: Path) -> dict[str, str]:
    """Metadata of a `.nequip.pt2`, as LAMMPS sees them; its code is loaded."""
    known: dict[str, str] = torch._inductor.aoti_load_package(str(path)).get_metadata()
    return known


def check_compiler() -> None:
    """Refuse where nothing can compile.

    Raises:
        MissingDependencyError: no C++ compiler.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise MissingDependencyError(
            "exporting Allegro to LAMMPS needs a C++ compiler, found none",
            remedy="install g++ (apt install g++, conda install gxx) or set CXX; the prior alone "
            "(mode prior) needs none",
        ) from None


def _with_forces(allegro: Allegro) -> Any:
    """The same network with nequip's own derivatives on."""
    network: Any = allegro.plain_network().eval().requires_grad_(False)
    network.model.do_derivatives = True
    return network


def _data(
    allegro: Allegro, positions: np.ndarray, types: np.ndarray, device: torch.device | str
) -> dict[str, Tensor]:
    x = torch.as_tensor(positions, dtype=torch.float64)
    edges = edges_of(x, torch.zeros(len(x), dtype=torch.int64), allegro.spec.cutoff)
    data = {"pos": x, "edge_index": edges, "atom_types": torch.as_tensor(types)}
    return {name: value.to(device) for name, value in data.items()}


def _metadata(network: Any, inputs: list[str], outputs: list[str]) -> dict[str, str]:
    """Of the model and of nequip's state, as `nequip-compile` writes them."""
    state = require("nequip.utils.global_state", EXTRA)
    found = {**network.metadata, **state.get_latest_global_state(only_metadata_related=True)}
    plain = {k: str(int(v)) if isinstance(v, bool) else str(v) for k, v in found.items()}
    return {**plain, _INPUTS: " ".join(inputs), _OUTPUTS: " ".join(outputs)}


def _difference(found: dict[str, Tensor], expected: Tensor) -> float:
    largest = max(float(expected.abs().max()), 1e-12)
    return float((found["forces"] - expected).abs().max()) / largest
