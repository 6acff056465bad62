"""The model file: weights and everything needed to use them, as tensors and plain values only.

It loads with `weights_only=True`, so that opening a stranger's model runs none of its code.
Format versions upgrade one step at a time (`UPGRADES`), so that old files stay readable.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlff_cli.core.artifacts import atomic_path, check_writable
from mlff_cli.core.elements import MAX_Z
from mlff_cli.core.errors import DataError, StorageError

FORMAT_VERSION = 1
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # version -> to the next one
UNREADABLE = (  # what a damaged pickle or archive makes the loader raise
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    struct.error,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
UNITS = {"energy": "eV", "length": "angstrom", "charge": "e"}


@dataclass
class ModelFile:
    """A trained model that describes itself.

    Attributes:
        weights: the state dict: best by validation, or what a checkpoint continues with.
        architecture: plain values that rebuild the network (the family's spec).
        family: which family it belongs to, as "multifidelity".
        config: the resolved training configuration.
        species: atomic numbers it was trained on, ascending.
        fidelities: per fidelity {index, dataset, level_of_theory, species, ...}.
        sae: per fidelity {atomic number: eV}, subtracted before training.
        provenance: inputs' hashes, command, versions, seed.
        ema: averaged weights of a checkpoint, if they are kept.
        training: what a checkpoint needs beyond a model to resume; empty in a finished model.
        molecules: plain values of every bead molecule it was trained on
            (`potentials.bead_topology.BeadTopology.plain`); empty for molecules of atoms.
    """

    weights: dict[str, Tensor]
    architecture: dict[str, Any]
    family: str
    config: dict[Any, Any]
    species: list[int]
    fidelities: list[dict[str, Any]]
    sae: dict[int, dict[int, float]]
    provenance: dict[str, Any]
    ema: dict[str, Tensor] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=lambda: dict(UNITS))
    molecules: list[dict[str, Any]] = field(default_factory=list)
    format_version: int = FORMAT_VERSION

    def save(self, path: Path | str, *, force: bool = False) -> None:
        """Write the file atomically; the same content gives the same bytes.

        Raises:
            UsageError: the file exists and `force` is off.
            StorageError: the disk is full.
            TypeError: a value is neither a tensor nor plain, so that it could not be loaded again.
        """
        payload = _canonical({f.name: getattr(self, f.name) for f in fields(self)}, "model", {})
        check_writable(path, force=force)
        buffer = io.BytesIO()  # a path would put its name in the bytes
        torch.save(payload, buffer)  # on a full disk torch hides the reason behind its own error
        with atomic_path(path, force=force) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def description(self) -> dict[str, Any]:
        """Everything but the tensors, for people and for `--json`."""
        tensors = ("weights", "ema", "training")
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in tensors}
        described: dict[str, Any] = _canonical(plain, "model", {})
        return described


def load_model_file(path: Path | str, *, averaged: bool = True) -> ModelFile:
    """Read a model file or a checkpoint (a superset of it).

    Args:
        path: the file.
        averaged: take a checkpoint's averaged weights as its weights, where it has some: they are
            what was validated. A run that is resumed needs both.

    Raises:
        StorageError: the file is missing.
        DataError: it is no model file, of a newer format, or incomplete.
    """
    payload = load_plain(path)
    version = payload.get("format_version")
    if not isinstance(version, int) or "weights" not in payload:
        raise DataError(
            "not a model file of mlff",
            where=str(path),
            remedy="a bare {'model': state_dict} needs --model and --sae with `mlff compile`",
        )
    if version > FORMAT_VERSION:
        raise DataError(
            f"format version {version} is newer than this program reads ({FORMAT_VERSION})",
            where=str(path),
            remedy="upgrade mlff-cli",
        )
    for step in range(version, FORMAT_VERSION):
        if step not in UPGRADES:
            raise DataError(f"format version {version} was never written", where=str(path))
        payload = UPGRADES[step](payload)
    known = {f.name for f in fields(ModelFile)}
    needed = {
        f.name for f in fields(ModelFile) if f.default is MISSING and f.default_factory is MISSING
    }
    if absent := sorted(needed - set(payload)):
        raise DataError(
            f"the model file lacks {absent}", where=str(path), remedy="make the file again"
        )
    _check_contents(payload, str(path))
    if averaged and payload.get("ema") is not None:
        payload = {**payload, "weights": payload["ema"], "ema": None}
    return ModelFile(**{k: v for k, v in payload.items() if k in known})


def _check_contents(payload: Mapping[str, Any], where: str) -> None:
    """Refuse contents that no training writes, before something stumbles over them."""
    kinds = {
        "weights": Mapping, "architecture": Mapping, "family": str, "config": Mapping,
        "species": list, "fidelities": list, "sae": Mapping, "provenance": Mapping,
        "training": Mapping, "units": Mapping, "molecules": list,
    }  # fmt: skip
    for name, kind in kinds.items():
        if name in payload and not isinstance(payload[name], kind):
            raise _senseless(name, payload[name], where)
    rules = {
        "species": all(type(z) is int and 1 <= z <= MAX_Z for z in payload["species"]),
        "fidelities": all(
            isinstance(entry, Mapping) and type(entry.get("index")) is int
            for entry in payload["fidelities"]
        ),
        "sae": all(isinstance(table, Mapping) for table in payload["sae"].values()),
        "molecules": all(isinstance(m, Mapping) for m in payload.get("molecules", [])),
    }
    for name, holds in rules.items():
        if not holds:
            raise _senseless(name, payload[name], where)


def _senseless(name: str, value: Any, where: str) -> DataError:
    return DataError(
        f"the model file's {name!r} make no sense: {value!r:.200}",
        where=where,
        remedy="make the file again",
    )


def load_plain(path: Path | str) -> dict[Any, Any]:
    """Load a dict of tensors and plain values without running code from the file.

    Raises:
        StorageError: the file is missing.
        DataError: the file is damaged, or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise StorageError(
            "a folder or device, a model file is needed"
            if path.exists()
            else "the model file does not exist",
            where=str(path),
            remedy="check the path",
        )
    try:
        _check_archive(path)
        with warnings.catch_warnings():  # torch asks for a report about pickles it refuses
            warnings.simplefilter("ignore", UserWarning)
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # torch would send the reader to weights_only=False, which runs whatever the file holds
        refused = isinstance(error, pickle.UnpicklingError)
        reason = "" if refused or not str(error) else f": {str(error).splitlines()[0]}"
        raise DataError(
            f"not a file of tensors and plain values{reason}",
            where=str(path),
            remedy="pass the .pt that `mlff train` wrote",
        ) from error
    if not isinstance(payload, Mapping):
        raise DataError(
            f"a dict is needed, found a {type(payload).__name__}",
            where=str(path),
            remedy="pass the .pt that `mlff train` wrote",
        )
    return dict(payload)


def _check_archive(path: Path) -> None:
    """Refuse TorchScript, which carries code, and check sums that differ: torch checks neither."""
    if not zipfile.is_zipfile(path):
        return  # a pickle of old, or not an archive: reading it tells more
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise DataError(
                "this is a compiled model, the trained one is needed",
                where=str(path),
                remedy="pass the .pt that `mlff train` wrote, not the .jpt made from it",
            )
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the check sum of {damaged} is wrong")


def _canonical(value: Any, name: str, texts: dict[str, str]) -> Any:
    """Copy tensors and plain values so that equal content is pickled to equal bytes.

    Pickle writes an object that it met before as a reference, and a view of a tensor with all the
    memory behind it: equal texts become one object, everything else its own.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {
            _canonical(k, name, texts): _canonical(v, f"{name}.{k}", texts)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        items = [_canonical(v, f"{name}.{i}", texts) for i, v in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, str):
        text = str(value)
        return texts.setdefault(text, text)
    if value is None or type(value) in (bool, int, float, bytes):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, only tensors and plain values are kept")
