"""Compiled coarse-grained models: `<name>.jpt` of one molecule, and `<name>_meta.yaml` beside it.

The artifact holds the model, or the members of an ensemble, bound to the molecule: types, terms,
masses and a frame to start from lie in its metadata. It needs torch and nothing of mlff or nequip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlff_cli.core.errors import DataError
from mlff_cli.deploy import torchscript
from mlff_cli.deploy.artifact import keep_verified, read_metadata
from mlff_cli.deploy.beads.models import FAMILY
from mlff_cli.deploy.beads.potential import BeadPotential, bead_potential_of
from mlff_cli.deploy.beads.verify import verify_bead_artifact
from mlff_cli.deploy.verify import VerificationRecord
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.bound_bead_model import BoundBeadModel

__all__ = ["BeadPotential", "bead_potential_of", "load_bead_potential", "write_bead_artifact"]

LONG = ("terms", "start")  # of molecule and prior: inside the artifact only
FORMAT = "mlff-cg-jpt-1"
INPUTS = {
    "positions": "(B, n, 3) angstrom",
    "mode": "full (the default), prior or ml",
    "candidates": "(2, K) pairs of beads to look for edges among, all when missing",
}
OUTPUTS = {
    "energy": "(B,) kcal/mol, float64",
    "forces": "(B, n, 3) kcal/mol/angstrom, in the type of positions",
    "energy_std": "(B,) kcal/mol, of an ensemble",
    "forces_std": "(B, n) kcal/mol/angstrom, of an ensemble",
}


def write_bead_artifact(
    models: Sequence[BeadModel],
    topology: BeadTopology,
    path: Path,
    metadata: dict[str, Any],
    *,
    force: bool = False,
) -> VerificationRecord:
    """Compile a model or an ensemble for a molecule, verify what was written, and then keep it.

    Args:
        models: the model, or the members; they are not changed.
        topology: the molecule.
        path: the artifact.
        metadata: plain values that describe it.
        force: replace existing files.

    Raises:
        UsageError: a file exists and `force` is off, or members differ in parts or types.
        DataError: the model does not know a type or a term of the molecule.
        CheckFailedError: the artifact does not reproduce the model; no file is kept.
        StorageError: the disk is full.
    """
    bound = BoundBeadModel(models, topology)
    described = {
        "format": FORMAT,
        "family": FAMILY,
        **metadata,
        "members": len(models),
        "molecule": topology.plain(),
        "inputs": INPUTS,
        "outputs": OUTPUTS,
    }
    return keep_verified(
        torchscript.script(bound),
        path,
        described,
        lambda written: verify_bead_artifact(torchscript.load(written), models, topology),
        shown={k: _short(described[k]) for k in ("molecule", "prior") if k in described},
        force=force,
    )


def _short(value: Any) -> Any:
    return {k: v for k, v in value.items() if k not in LONG} if isinstance(value, dict) else value


def load_bead_potential(path: Path | str, device: str = "cpu", mode: str = "full") -> BeadPotential:
    """The potential of an artifact.

    Args:
        path: the artifact.
        device: where to compute.
        mode: full, prior, or ml (Allegro alone).

    Raises:
        StorageError: the file is missing.
        DataError: it is no artifact of a coarse-grained model, or is damaged.
        UsageError: a mode whose part the model lacks.
    """
    metadata = read_metadata(path)
    if metadata.get("family") != FAMILY:
        raise DataError(
            f"an artifact of a coarse-grained model is needed, this one is of the family "
            f"{metadata.get('family')!r}",
            where=str(path),
            remedy="pass one that `mlff compile` made of a coarse-grained model",
        )
    topology = BeadTopology.from_plain(metadata["molecule"])
    return BeadPotential(torchscript.load(path, device), topology, metadata, mode, device)
