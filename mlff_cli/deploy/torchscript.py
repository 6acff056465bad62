"""TorchScript artifacts: script, write reproducibly, load, and read what they say of themselves.

A `.jpt` is a zip file. Its metadata lies in members below `extra/`, where it can be read without
loading, and so without running, the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlff_cli.core.errors import DataError, StorageError

METADATA = "metadata.json"
VERIFICATION = "verification.json"


@contextlib.contextmanager
def _without_deprecation() -> Iterator[None]:
    """Silence the one warning a user can do nothing about: TorchScript is this format's name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield


class _Sorted(set[str]):
    """A set that is gone through in one order in every process."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))


@contextlib.contextmanager
def _in_order() -> Iterator[None]:
    """Let TorchScript write the constants of a class in one order.

    It keeps their names in a set, and Python orders sets of texts anew in every process.
    """
    compiler: Any = torch.jit._recursive
    compiler.set = _Sorted
    try:
        yield
    finally:
        del compiler.set


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """Compile a module to TorchScript, in evaluation mode, without gradients of its weights."""
    module = module.eval().requires_grad_(False)
    with _without_deprecation(), _in_order():
        return torch.jit.script(module)


def freeze(scripted: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """A copy whose weights are constants: faster, and only `forward` is left of it."""
    with _without_deprecation():
        frozen: torch.jit.ScriptModule = torch.jit.freeze(scripted.eval())
    return frozen


@contextlib.contextmanager
def unspecialised() -> Iterator[None]:
    """Modules called for the first time in here are compiled once, for all shapes.

    Otherwise TorchScript watches the first calls and rewrites its graph by the shapes seen, which
    takes seconds, gives other last digits from call to call, and gains nothing where shapes change.
    """
    before = torch.jit.set_fusion_strategy([("STATIC", 0), ("DYNAMIC", 0)])
    try:
        yield
    finally:
        torch.jit.set_fusion_strategy(before)


def save(scripted: torch.jit.ScriptModule, path: Path, extra: Mapping[str, Any]) -> None:
    """Write a scripted module; the same module and extras give the same bytes.

    Args:
        scripted: what `script` returned.
        path: where to write; nothing atomic happens here.
        extra: member name -> plain values, stored as JSON.
    """
    files = {name: to_json(value) for name, value in extra.items()}
    # through a stream: a path would put its own name into the bytes
    with _without_deprecation(), path.open("wb") as stream:
        torch.jit.save(scripted, stream, _extra_files=files)


def load(path: Path | str, device: str = "cpu") -> torch.jit.ScriptModule:
    """Load an artifact to run it.

    Raises:
        StorageError: the file is missing.
        DataError: it is no TorchScript archive, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise StorageError("the artifact does not exist", where=str(path), remedy="check the path")
    recorded = read_extra(path).get(METADATA, {}).get("payload_sha256")
    found = payload_sha256(path)  # torch itself looks at no check sum
    if recorded not in (None, found):
        raise DataError(
            "code or weights are not those that were verified",
            where=str(path),
            remedy="the file changed after `mlff compile` wrote it: compile again",
        )
    try:
        with _without_deprecation():
            module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise DataError(
            f"not a TorchScript artifact ({str(error).splitlines()[0]})",
            where=str(path),
            remedy="pass the .jpt that `mlff compile` wrote",
        ) from error
    return module  # type: ignore[no-any-return]


def read_extra(path: Path | str) -> dict[str, Any]:
    """Every JSON member below `extra/`, read from the zip without loading the model.

    Raises:
        StorageError: the file is missing.
        DataError: it is no zip file, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.split("/extra/", 1)[1]: json.loads(archive.read(name))
                for name in archive.namelist()
                if "/extra/" in name and name.endswith(".json")
            }
    except FileNotFoundError as error:
        raise StorageError(
            "the file does not exist", where=str(path), remedy="check the path"
        ) from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(
            f"not a readable artifact ({error})",
            where=str(path),
            remedy="the file is damaged or of another kind: copy or make it again",
        ) from error


def payload_sha256(path: Path | str) -> str:
    """SHA-256 over names and bytes of everything but the extras: the code and the weights.

    Raises:
        DataError: the file is damaged.
    """
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if "/extra/" not in name and not name.endswith("/serialization_id"):
                    digest.update(name.split("/", 1)[-1].encode())
                    digest.update(archive.read(name))
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(
            f"not a readable artifact ({error})",
            where=str(path),
            remedy="the file is damaged or of another kind: copy or make it again",
        ) from error
    return digest.hexdigest()


def to_json(value: Any) -> str:
    """Plain values as JSON in a fixed order; NaN is refused, as JSON has none."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
