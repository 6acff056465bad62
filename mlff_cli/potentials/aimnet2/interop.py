"""Weights of aimnet and aimnet2mult in our layout, and ours in theirs.

theirs                                              ours
afv.weight [Z + k offset, (a, g)]                   afv.weight [k 119 + Z, (a, g)]
mlps.i.{0, 2, ..}                                   mlps.i.hidden.{0, 1, ..}
mlps.i.{last} rows (q~, f, da)                      charge_readouts.i [r] and mlps.i.out
outputs.X or fidelity_readouts.k.X                  outputs.X [r]
    X = energy_mlp.mlp.{0, 2, ..}                       X = energy_mlp.{hidden.0, .., out}
    X = atomic_shift.shifts.weight [Z + k offset]       X = atomic_shift.shifts.weight [r 119 + Z]

Their charges are read from the shared networks: on import every fidelity gets the same charge
readout. Constants that they store (cutoffs, Gaussians) must agree with the spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError, UsageError
from mlff_cli.potentials.aimnet2.fidelity import EMBEDDING, SHIFTS, expand_fidelities
from mlff_cli.potentials.aimnet2.model import N_ROWS, AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec

READOUT = re.compile(r"fidelity_readouts\.(\d+)\.")
_ENERGY_MLP = "energy_mlp.mlp"
_SHIFT = "atomic_shift.shifts.weight"
BLOCK_ROWS = 129  # rows of one fidelity in their tables, at most, where no offset asks for more


@dataclass
class ImportReport:
    """What became of the parameters."""

    loaded: list[str] = field(default_factory=list)
    """Their names that were taken over."""
    created: list[str] = field(default_factory=list)
    """Ours that they do not have."""
    dropped: list[str] = field(default_factory=list)
    """Theirs without a counterpart, each with the reason."""


def import_state(state: Mapping[str, Any], spec: AIMNet2Spec) -> tuple[AIMNet2, ImportReport]:
    """Model with weights of aimnet (one fidelity) or aimnet2mult (one or several).

    A state of one fidelity serves a spec of several: each starts as its copy.

    Args:
        state: state dict, or `{'model': state dict}`.
        spec: what the weights were trained with.

    Raises:
        ConfigError: unknown or missing key, a shape or constant that contradicts the spec.
    """
    inner = state.get("model", state)
    if not isinstance(inner, Mapping):
        raise ConfigError(f"'model' must hold a state dict, found {type(inner).__name__}")
    source = _Source(inner)
    readouts = sorted({int(m[1]) for name in inner if (m := READOUT.match(name))})
    n = _number_of_fidelities(source, readouts, spec)
    model = AIMNet2(spec.model_copy(update={"num_fidelities": n}))
    with torch.no_grad():
        _load(model, source, [f"fidelity_readouts.{k}." for k in readouts] or ["outputs."])
    if readouts:
        # aimnet2mult keeps the readouts it started from beside those it trains
        source.drop(r"(outputs|shared_readout)\.(energy_mlp|atomic_shift)\.", "not used by them")
    for name, value in _constants(model.spec(), source):
        source.check(name, value)
    source.refuse_rest()
    if n != spec.num_fidelities:
        model = expand_fidelities(model, spec.num_fidelities)
        source.report.created.append(f"fidelities {n}..{spec.num_fidelities - 1}: copies of 0")
    return model, source.report


def aimnet_state(model: AIMNet2, n_rows: int = 64) -> dict[str, Tensor]:
    """State dict of PyPI aimnet (`n_rows` 64) or single-fidelity aimnet2mult (128).

    Raises:
        UsageError: the model has several fidelities.
    """
    if model.num_fidelities != 1:
        raise UsageError(f"aimnet knows one fidelity, the model has {model.num_fidelities}")
    return _backbone(model, n_rows) | _readout(model, 0, n_rows, "outputs.")


def seed_state(model: AIMNet2) -> dict[str, Tensor]:
    """State dict of aimnet2mult's model of several fidelities.

    Raises:
        UsageError: charge readouts differ between fidelities, which that layout cannot say.
    """
    n_rows = (model.num_fidelities - 1) * model.fidelity_offset + BLOCK_ROWS
    state = _backbone(model, n_rows)
    if model.n_readouts == 1:
        return state | _readout(model, 0, n_rows, "outputs.")
    for k in range(model.n_readouts):
        state |= _readout(model, k, n_rows, f"fidelity_readouts.{k}.")
    # the names under which aimnet2mult registers what all fidelities share
    coulomb = {name: value for name, value in state.items() if name.endswith("lrcoulomb.rc")}
    for name, value in coulomb.items():
        del state[name]
        state["shared_readouts.lrcoulomb.rc"] = value
    return state


class _Source:
    """A foreign state dict that remembers what has been read."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.rest = set(state)
        self.report = ImportReport()

    def take(self, name: str) -> Tensor:
        if name not in self.state:
            raise ConfigError(
                f"the weights lack {name!r}, which the architecture needs",
                remedy="give the model.yaml that the weights were trained with",
            )
        self.rest.discard(name)
        self.report.loaded.append(name)
        return self.state[name]

    def copy(self, target: Tensor, name: str, rows: slice | None = None) -> None:
        value = self.take(name)
        value = value if rows is None else value[rows]
        if value.shape != target.shape:
            raise ConfigError(
                f"{name} has shape {tuple(value.shape)}, the architecture {tuple(target.shape)}",
                remedy="give the model.yaml that the weights were trained with",
            )
        target.copy_(value)

    def check(self, name: str, expected: Tensor) -> None:
        found = self.take(name).double().cpu()
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-5):
            raise ConfigError(
                f"{name} is {found.tolist()} in the weights and {expected.tolist()} in the model",
                remedy="give the model.yaml that the weights were trained with",
            )

    def drop(self, pattern: str, reason: str) -> None:
        for name in sorted(n for n in self.rest if re.match(pattern, n)):
            self.rest.discard(name)
            self.report.dropped.append(f"{name}: {reason}")

    def refuse_rest(self) -> None:
        if self.rest:
            raise ConfigError(
                f"the weights hold keys that this model has no place for: {sorted(self.rest)}",
                remedy="give the model.yaml that the weights were trained with",
            )


def _number_of_fidelities(source: _Source, readouts: list[int], spec: AIMNet2Spec) -> int:
    """Fidelities that the weights hold; 1 or what the spec says."""
    k = spec.num_fidelities
    rows = len(source.state[EMBEDDING]) if EMBEDDING in source.state else 0
    if readouts:
        if readouts != list(range(k)):
            raise ConfigError(
                f"the weights hold readouts of fidelities {readouts}, the model has {k}",
                remedy=f"set the number of fidelities to {len(readouts)}",
            )
        if not spec.use_fidelity_readouts:
            raise ConfigError(
                "the weights have a readout per fidelity, use_fidelity_readouts is false",
                remedy="set use_fidelity_readouts to true",
            )
    elif rows <= max(spec.fidelity_offset, BLOCK_ROWS):
        return 1
    elif spec.use_fidelity_readouts:
        raise ConfigError(
            f"the embedding has {rows} rows, those of several fidelities, but one readout",
            remedy="set use_fidelity_readouts to false",
        )
    before = (k - 1) * spec.fidelity_offset
    if not before + 2 <= rows <= before + max(spec.fidelity_offset, BLOCK_ROWS):
        raise ConfigError(
            f"the embedding has {rows} rows, which {k} fidelities with offset "
            f"{spec.fidelity_offset} do not make",
            remedy="give the offset and number of fidelities that the weights were trained with",
        )
    return k


def _load(model: AIMNet2, source: _Source, readouts: list[str]) -> None:
    spec = model.spec()
    ours = model.state_dict()  # shares memory with the parameters
    offset = spec.fidelity_offset
    for k in range(spec.num_fidelities):
        _copy_rows(source, EMBEDDING, k * offset, ours[EMBEDDING][k * N_ROWS :][:N_ROWS])
    for name in ("conv_a.agh", "conv_q.agh"):
        source.copy(ours[name], name)
    n_qf = 2 * spec.num_charge_channels
    last = len(spec.hidden) - 1
    for i, sizes in enumerate(spec.hidden):
        for name, theirs in _layers(len(sizes), f"mlps.{i}"):
            for kind in ("weight", "bias"):
                rows = None
                if name == "out" and i < last:
                    rows = slice(n_qf, None)
                    for readout in ours[f"charge_readouts.{i}.{kind}"]:
                        source.copy(readout, f"{theirs}.{kind}", slice(n_qf))
                source.copy(ours[f"mlps.{i}.{name}.{kind}"], f"{theirs}.{kind}", rows)
    for r, prefix in enumerate(readouts):
        for name, theirs in _layers(len(spec.energy_hidden), prefix + _ENERGY_MLP):
            for kind in ("weight", "bias"):
                target = ours[f"outputs.energy_mlp.{name}.{kind}"][r]
                source.copy(target, f"{theirs}.{kind}")
        _copy_rows(source, prefix + _SHIFT, r * offset, ours[SHIFTS][r * N_ROWS :][:N_ROWS])
    source.report.loaded = list(dict.fromkeys(source.report.loaded))


def _copy_rows(source: _Source, name: str, start: int, target: Tensor) -> None:
    """Elements 1..118 of one fidelity, as far as the source has them as numbers."""
    table = source.take(name)
    if table.shape[1:] != target.shape[1:]:
        raise ConfigError(
            f"{name} has {table.shape[1]} columns, the architecture {target.shape[1]}",
            remedy="give the model.yaml that the weights were trained with",
        )
    rows = table[start : start + N_ROWS]
    # aimnet marks elements that it was not trained for with NaN
    known = rows.isfinite().all(dim=1)
    known[:1] = False  # row 0 is padding: zero in both
    target[: len(rows)][known] = rows[known].to(target)
    absent = N_ROWS - 1 - int(known.sum())
    if absent:
        source.report.created.append(f"{name}: {absent} elements from row {start}")
    if len(table) > start + N_ROWS and start == 0 and N_ROWS < len(table) <= 128:
        source.report.dropped.append(f"{name}[{N_ROWS}:]: no elements")


def _layers(n_hidden: int, prefix: str) -> Iterator[tuple[str, str]]:
    """Ours and theirs, layer by layer: they count the activations in between."""
    for i in range(n_hidden):
        yield f"hidden.{i}", f"{prefix}.{2 * i}"
    yield "out", f"{prefix}.{2 * n_hidden}"


def _constants(spec: AIMNet2Spec, source: _Source) -> Iterator[tuple[str, Tensor]]:
    width = (spec.rc - spec.rmin) / spec.nshifts
    basis = {
        "rc": torch.tensor(spec.rc, dtype=torch.float64),
        "eta": torch.tensor(width**-2, dtype=torch.float64),
        "shifts": spec.rmin + width * torch.arange(spec.nshifts, dtype=torch.float64),
    }
    for name, value in basis.items():
        for kind in "sv":
            yield f"aev.{name}_{kind}", value
    coulomb = sorted(n for n in source.state if n.endswith(".lrcoulomb.rc"))
    if bool(coulomb) != (spec.coulomb is not None):
        raise ConfigError(
            f"long-range Coulomb is {'in' if coulomb else 'absent from'} the weights and "
            f"{spec.coulomb!r} in the model",
            remedy="give the model.yaml that the weights were trained with",
        )
    for name in coulomb:
        yield name, torch.tensor(spec.coulomb_rc, dtype=torch.float64)


def _backbone(model: AIMNet2, n_rows: int) -> dict[str, Tensor]:
    ours = model.state_dict()
    weight = model.afv.weight
    state = {
        EMBEDDING: _spread(ours[EMBEDDING], range(model.num_fidelities), model, n_rows),
        "conv_a.agh": ours["conv_a.agh"],
        "conv_q.agh": ours["conv_q.agh"],
    }
    spec = model.spec()
    last = len(spec.hidden) - 1
    for i, sizes in enumerate(spec.hidden):
        for name, theirs in _layers(len(sizes), f"mlps.{i}"):
            for kind in ("weight", "bias"):
                value = ours[f"mlps.{i}.{name}.{kind}"]
                if name == "out" and i < last:
                    stacked = ours[f"charge_readouts.{i}.{kind}"]
                    if (stacked != stacked[:1]).any():
                        raise UsageError(
                            "charge readouts differ between fidelities: aimnet2mult shares them",
                            remedy="extract one fidelity and export that",
                        )
                    value = torch.cat([stacked[0], value])
                state[f"{theirs}.{kind}"] = value
    width = (spec.rc - spec.rmin) / spec.nshifts
    shifts = spec.rmin + width * torch.arange(spec.nshifts, dtype=torch.float64)
    for kind in "sv":
        state[f"aev.rc_{kind}"] = weight.new_tensor(spec.rc)
        state[f"aev.eta_{kind}"] = weight.new_tensor(width**-2)
        state[f"aev.shifts_{kind}"] = shifts.to(weight)
    if spec.coulomb is not None:
        state["outputs.lrcoulomb.rc"] = weight.new_tensor(spec.coulomb_rc)
    return state


def _readout(model: AIMNet2, r: int, n_rows: int, prefix: str) -> dict[str, Tensor]:
    ours = model.state_dict()
    state = {}
    for name, theirs in _layers(len(model.spec().energy_hidden), prefix + _ENERGY_MLP):
        for kind in ("weight", "bias"):
            state[f"{theirs}.{kind}"] = ours[f"outputs.energy_mlp.{name}.{kind}"][r]
    block = ours[SHIFTS][r * N_ROWS : (r + 1) * N_ROWS]
    state[prefix + _SHIFT] = _spread(block, range(r, r + 1), model, n_rows)
    return state


def _spread(blocks: Tensor, fidelities: range, model: AIMNet2, n_rows: int) -> Tensor:
    """Blocks of 119 rows, at rows k * offset of a table of `n_rows`; zero elsewhere."""
    table = blocks.new_zeros(n_rows, blocks.shape[1])
    for block, k in zip(blocks.view(-1, N_ROWS, blocks.shape[1]), fidelities, strict=True):
        start = k * model.fidelity_offset
        n = min(N_ROWS, n_rows - start)
        table[start : start + n] = block[:n]
    return table
