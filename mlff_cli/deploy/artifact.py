"""A compiled artifact and the file beside it: `<name>.jpt` and `<name>_meta.yaml`.

Metadata and verification record lie inside the artifact, readable without running it. The YAML
file holds the same and the artifact's SHA-256; it is written last, so that where it exists the
artifact is complete and was verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml

from mlff_cli.core.artifacts import atomic_path, sha256, storage_error
from mlff_cli.core.errors import CheckFailedError, DataError
from mlff_cli.deploy import torchscript
from mlff_cli.deploy.verify import VerificationRecord, verify
from mlff_cli.physics.dispersion_parameters import D3Parameters
from mlff_cli.potentials.total import TotalPotential

FORMAT = "mlff-jpt-1"
INPUTS = {
    "coord": "(B, N, 3) angstrom; (N, 3) for one molecule",
    "numbers": "(B, N) atomic numbers, 0 pads",
    "charge": "(B,) e, 0 when missing",
    "mult": "(B,) spin multiplicity 2S+1, 1 when missing",
}
OUTPUTS = {
    "energy": "(B,) eV, float64, atomic energies included",
    "forces": "(B, N, 3) eV/angstrom",
    "charges": "(B, N) e",
    "spin_charges": "(B, N) e",
}


def meta_path(artifact: Path | str) -> Path:
    """The YAML file that belongs to an artifact: model_fid0.jpt -> model_fid0_meta.yaml."""
    artifact = Path(artifact)
    return artifact.with_name(f"{artifact.stem}_meta.yaml")


def write_artifact(
    potential: TotalPotential,
    path: Path,
    metadata: dict[str, Any],
    *,
    parameters: D3Parameters | None = None,
    force: bool = False,
) -> VerificationRecord:
    """Compile a potential, write it, verify what was written, and only then keep both files.

    Args:
        potential: the eager potential of one fidelity.
        path: the artifact.
        metadata: plain values that describe it.
        parameters: of the dispersion inside.
        force: replace existing files.

    Raises:
        UsageError: a file exists and `force` is off.
        CheckFailedError: the artifact does not reproduce the potential; no file is kept.
        StorageError: the disk is full.
    """
    metadata = {"format": FORMAT, **metadata, "inputs": INPUTS, "outputs": OUTPUTS}
    return keep_verified(
        torchscript.script(potential),
        path,
        metadata,
        lambda written: verify(torchscript.load(written), potential, parameters),
        force=force,
    )


def keep_verified(
    scripted: torch.jit.ScriptModule,
    path: Path,
    metadata: dict[str, Any],
    check: Callable[[Path], VerificationRecord],
    *,
    shown: Mapping[str, Any] = MappingProxyType({}),
    force: bool = False,
) -> VerificationRecord:
    """Write a scripted module, check the file, and only then let it and its YAML file appear.

    Args:
        scripted: what is written.
        path: the artifact.
        metadata: plain values that describe it.
        check: loads the file that it is given and compares it; raises CheckFailedError.
        shown: what the YAML file has in place of entries of the metadata that are long.
        force: replace existing files.

    Raises:
        UsageError: a file exists and `force` is off.
        CheckFailedError: the check failed; no file is kept.
        StorageError: the disk is full.
    """
    # the inner file takes its name first, so that the YAML file is the last to appear
    with (
        atomic_path(meta_path(path), force=force) as beside,
        atomic_path(path, force=force) as temporary,
    ):
        torchscript.save(scripted, temporary, {torchscript.METADATA: metadata})
        payload = torchscript.payload_sha256(temporary)
        record = check(temporary)
        inside = {**metadata, "payload_sha256": payload}
        extra = {torchscript.METADATA: inside, torchscript.VERIFICATION: record.plain()}
        torchscript.save(scripted, temporary, extra)
        if torchscript.payload_sha256(temporary) != payload:
            raise CheckFailedError("the file that was verified is not the one written")
        described = {
            "artifact": {"file": path.name, "sha256": sha256(temporary)},
            **inside,
            **shown,
            "verification": record.plain(),
        }
        beside.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return record


def read_metadata(path: Path | str) -> dict[str, Any]:
    """What an artifact says of itself, its verification included, without running it.

    Raises:
        StorageError: the file is missing.
        DataError: it is no artifact of mlff.
    """
    extra = torchscript.read_extra(path)
    if torchscript.METADATA not in extra:
        raise DataError(
            "the file carries no metadata of mlff",
            where=str(path),
            remedy="pass a .jpt that `mlff compile` wrote",
        )
    verification = extra.get(torchscript.VERIFICATION)
    return {**extra[torchscript.METADATA], "verification": verification}


def read_meta_yaml(artifact: Path | str) -> dict[str, Any] | None:
    """The YAML file beside an artifact, or None when there is none.

    Raises:
        DataError: it is damaged.
        StorageError: it cannot be read.
    """
    path = meta_path(artifact)
    if not path.is_file():
        return None
    remedy = "make it again with `mlff compile`"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"not readable as YAML ({reason})", where=str(path), remedy=remedy
        ) from error
    except OSError as error:
        raise storage_error(error, path) from error
    if not isinstance(content, dict) or not isinstance(content.get("artifact"), dict):
        raise DataError("no description of an artifact", where=str(path), remedy=remedy)
    return content
