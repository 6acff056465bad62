"""`--load` of a multi-fidelity training: weights of any layout as the start of an AIMNet2.

A fidelity of the run continues a fidelity of the file, or is new and starts as a copy of one: its
blocks of the tables are that one's blocks. The backbone is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mlff_cli.core.elements import SYMBOLS
from mlff_cli.core.errors import ConfigError
from mlff_cli.data.model_file import ModelFile, load_model_file, load_plain
from mlff_cli.deploy.potential import spec_of
from mlff_cli.potentials.aimnet2.fidelity import (
    EMBEDDING,
    SHIFTS,
    add_shifts,
    blocks_of,
    equal_readouts,
    part_of,
    readouts_of,
)
from mlff_cli.potentials.aimnet2.layouts import own_layout
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.training.settings_transfer import TransferSection
from mlff_cli.training.transfer import Blocks, Start, Transfer, plan_transfer
from mlff_cli.training.transfer_fidelities import choose_starts, keep_energies, level_warnings

FIDELITY_KEYS = ("num_fidelities", "fidelity_offset", "use_fidelity_readouts")


@dataclass(frozen=True)
class Source:
    """What `--load` names.

    Attributes:
        path: the file.
        weights: its state dict, in whatever layout.
        spec: its architecture; None where it does not describe itself.
        levels: level of theory per fidelity, None where unknown.
        sae: atomic energies per fidelity, eV; empty where unknown.
        species: elements that it was trained on; empty where unknown.
    """

    path: Path
    weights: Mapping[str, Tensor]
    spec: AIMNet2Spec | None = None
    levels: tuple[str | None, ...] = ()
    sae: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    species: tuple[int, ...] = ()


def read_source(path: Path) -> Source:
    """Open a model file, a checkpoint, or bare weights: `{"model": state dict}` or a state dict.

    Raises:
        StorageError: the file is missing.
        DataError: it is damaged or compiled.
        ConfigError: it holds something else, or belongs to another family.
    """
    payload = load_plain(path)
    if "format_version" in payload and "weights" in payload:
        return _described(load_model_file(path), path)
    state = payload.get("model", payload)
    if isinstance(payload.get("state_dict"), Mapping):
        raise ConfigError(
            "an exported inference model of aimnet, whose shifts hold the atomic energies",
            where=str(path),
            remedy="load the weights that its training wrote",
        )
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(
            "neither a model file of mlff, nor a state dict, nor a dict with one as 'model'",
            where=str(path),
            remedy="pass the .pt that a training wrote",
        )
    return Source(path, state)


def _described(file: ModelFile, path: Path) -> Source:
    if file.family != "multifidelity":
        raise ConfigError(
            f"the model's family is {file.family!r}, multifidelity is needed", where=str(path)
        )
    spec = spec_of(file, str(path))
    levels: list[str | None] = [None] * spec.num_fidelities
    for entry in file.fidelities:
        if 0 <= entry["index"] < spec.num_fidelities:
            levels[entry["index"]] = entry.get("level_of_theory")
    return Source(path, file.weights, spec, tuple(levels), file.sae, tuple(file.species))


def agree(spec: AIMNet2Spec, source: Source, *, partial: bool) -> list[str]:
    """Compare the architecture of the run with the file's own; returns what the user should know.

    Raises:
        ConfigError: they differ in more than their fidelities, and `partial` is off.
    """
    if source.spec is None:
        return []
    differences = [
        f"{name} is {getattr(spec, name)} here and {getattr(source.spec, name)} in the file"
        for name in AIMNet2Spec.model_fields
        if name not in FIDELITY_KEYS and getattr(spec, name) != getattr(source.spec, name)
    ]
    if differences and not partial:
        raise ConfigError(
            "the architecture contradicts the loaded model's: " + "; ".join(differences),
            where=str(source.path),
            remedy="leave --model and the model section out, the file describes itself; or set "
            "transfer.partial=true to load what fits and start the rest anew",
        )
    if spec.fidelity_offset != source.spec.fidelity_offset:
        differences.append(
            f"fidelity_offset is {spec.fidelity_offset} here and {source.spec.fidelity_offset} in "
            "the file: this numbers the input, the weights do not depend on it"
        )
    if spec.use_fidelity_readouts != source.spec.use_fidelity_readouts:
        kind = {True: "one readout per fidelity", False: "a readout that all fidelities share"}
        differences.append(
            f"{kind[spec.use_fidelity_readouts]} here, {kind[source.spec.use_fidelity_readouts]} "
            "in the file"
        )
    return differences


def start_from(
    model: AIMNet2,
    source: Source,
    options: TransferSection,
    fidelities: Sequence[Mapping[str, Any]],
    sae: Mapping[int, Mapping[int, float]],
) -> Transfer:
    """Plan the start of a model with the weights of another; changes neither.

    Args:
        model: with its random start.
        source: the weights.
        options: `transfer` of the configuration.
        fidelities: of the run, as a model file describes them.
        sae: atomic energies of each fidelity of the run, eV.

    Raises:
        ConfigError: weights, architecture and options do not fit together.
        DataError: a weight is not finite.
    """
    spec, where = model.spec(), str(source.path)
    try:
        return _start_from(model, spec, source, options, fidelities, sae, where)
    except ConfigError as error:
        error.where = error.where or where
        raise


def _start_from(
    model: AIMNet2,
    spec: AIMNet2Spec,
    source: Source,
    options: TransferSection,
    fidelities: Sequence[Mapping[str, Any]],
    sae: Mapping[int, Mapping[int, float]],
    where: str,
) -> Transfer:
    if source.spec is None:
        offset = options.loaded_offset or spec.fidelity_offset
        weights, there, notes = own_layout(source.weights, spec, offset)
    else:
        weights, there, notes = source.weights, source.spec, []
    notes += agree(spec, source, partial=True)
    levels = source.levels or (None,) * there.num_fidelities
    starts = choose_starts(options, [entry["level_of_theory"] for entry in fidelities], levels)
    tables = _tables(model, there, starts, options, weights)
    transfer = plan_transfer(
        model.state_dict(), weights, tables, where=where, partial=options.partial, part_of=part_of
    )
    warnings = level_warnings(starts, levels, options)
    state, n_readouts = dict(transfer.state), readouts_of(spec)
    if transfer.count("initial")[0]:
        notes.append("parts of the model start anew: its energies are not the loaded model's")
    else:
        shared = n_readouts == 1
        starts, more = keep_energies(starts, sae, source.sae, options, shared=shared)
        warnings += more
        for start in starts[:n_readouts]:
            state[SHIFTS] = add_shifts(state[SHIFTS], start.fidelity, start.shifts)
    if not source.sae:
        notes.append("the file holds no atomic energies: residual energies are kept")
    if options.readout_from is not None and n_readouts == len(starts):
        notes.append("transfer.readout_from has no effect: no readout is shared")
    unseen = {z for entry in fidelities for z in entry["species"]} - set(source.species)
    if source.species and unseen:
        symbols = ", ".join(SYMBOLS[z] for z in sorted(unseen))
        notes.append(
            f"the loaded model was not trained on {symbols}: their rows are its random start"
        )
    notes = [*transfer.notes, *notes]
    return replace(transfer, state=state, starts=starts, notes=notes, warnings=warnings)


def _tables(
    model: AIMNet2,
    there: AIMNet2Spec,
    starts: Sequence[Start],
    options: TransferSection,
    weights: Mapping[str, Tensor],
) -> dict[str, Blocks]:
    """Which block of every table starts as which of the file's."""
    spec, n_there = model.spec(), readouts_of(there)
    embeddings = tuple(start.source for start in starts)
    new = frozenset(start.fidelity for start in starts if not start.continued)
    if readouts_of(spec) == len(starts):
        readouts = tuple(k if n_there > 1 else 0 for k in embeddings)
    elif n_there == 1 or equal_readouts(weights, there):
        readouts = (0,)
    elif options.readout_from is None:
        raise ConfigError(
            f"one readout is shared by {len(starts)} fidelities here, and the file has {n_there} "
            "that differ",
            remedy="choose one with transfer.readout_from=0, or keep use_fidelity_readouts=true",
        )
    else:
        if options.readout_from >= n_there:
            raise ConfigError(
                f"transfer.readout_from: the file has readouts 0 to {n_there - 1}, found "
                f"{options.readout_from}",
                remedy="count from 0",
            )
        readouts = (options.readout_from,)
    created = new if len(readouts) == len(starts) else frozenset()
    found = {}
    for name in model.state_dict():
        if blocks_of(name, spec) is None:
            continue
        table = name == EMBEDDING
        found[name] = Blocks(
            blocks_of(name, there) or 1,
            embeddings if table else readouts,
            new if table else created,
        )
    return found
