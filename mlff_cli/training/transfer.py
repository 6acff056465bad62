"""Loaded weights as the start of another model: what is taken over, created and dropped.

A tensor is taken over whole, or by blocks along its first axis: own block i starts as loaded block
take[i]. What the blocks are (fidelities, say) is the family's knowledge, not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.core.reporting import Table

Fate = Literal["loaded", "created", "initial", "dropped"]
SHOWN_NAMES = 3  # of a table's row; the JSON holds all
SHOWN_MISFITS = 8
_ROOT = "model"


@dataclass(frozen=True)
class Blocks:
    """How one tensor is put together from blocks of a loaded one.

    Attributes:
        count: blocks that the loaded tensor has along its first axis.
        take: the loaded block that each own block starts as.
        created: own blocks that continue nothing: they start as a copy.
        called: what a block belongs to, for people.
    """

    count: int
    take: tuple[int, ...]
    created: frozenset[int] = frozenset()
    called: str = "fidelity"

    def fit(self, source: Tensor, target: Tensor) -> bool:
        """Whether the loaded tensor has such blocks and they make a tensor of the own shape."""
        if source.dim() != target.dim() or not source.dim() or len(source) % self.count:
            return False
        rows = len(source) // self.count * len(self.take)
        return (rows, *source.shape[1:]) == tuple(target.shape)

    def select(self, source: Tensor) -> Tensor:
        """The blocks `take` of the loaded tensor, one after the other."""
        blocks = source.chunk(self.count)
        return torch.cat([blocks[i] for i in self.take])


@dataclass(frozen=True)
class Item:
    """Parameters that share a fate.

    Attributes:
        fate: loaded; created (a copy of another fidelity); initial (found no counterpart in the
            file and keep their random start); dropped (of the file, without a place here).
        part: of the model, or the fidelity.
        names: of the tensors.
        numbers: how many numbers they hold.
        why: of what is initial or dropped.
    """

    fate: Fate
    part: str
    names: tuple[str, ...]
    numbers: int
    why: str = ""


@dataclass(frozen=True)
class Start:
    """Where a fidelity comes from.

    Attributes:
        fidelity: its number here.
        source: the fidelity of the file that it starts as.
        continued: whether it is that fidelity; otherwise it is new, and a copy.
        level_of_theory: of its labels here, where known.
        source_level: of that of the file, where known.
        keeps: total or residual energies, see `transfer.energies`; None where nothing differs or
            nothing is known.
        shifts: what was added to the atomic shifts, {atomic number: eV}.
    """

    fidelity: int
    source: int
    continued: bool
    level_of_theory: str | None = None
    source_level: str | None = None
    keeps: Literal["total", "residual"] | None = None
    shifts: Mapping[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        verb = "continues" if self.continued else "new, starts as"
        text = f"{verb} fidelity {self.source} ({self.source_level or 'level of theory unknown'})"
        if self.shifts:
            largest = max(map(abs, self.shifts.values()))
            text += f"; atomic shifts changed by up to {largest:.3g} eV to keep total energies"
        return text


@dataclass(frozen=True)
class Transfer:
    """What became of loaded weights.

    Attributes:
        file: where they come from.
        state: the state dict to start from, complete.
        items: every parameter and its fate.
        starts: of the fidelities, where the family has them.
        notes: what else happened.
        warnings: what the user must hear.
    """

    file: str
    state: Mapping[str, Tensor] = field(repr=False)
    items: Sequence[Item]
    starts: Sequence[Start] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Give the model its start."""
        model.load_state_dict(dict(self.state))

    def count(self, fate: Fate) -> tuple[int, int]:
        """Tensors and numbers of a fate."""
        items = [item for item in self.items if item.fate == fate]
        return len({n for i in items for n in i.names}), sum(i.numbers for i in items)

    def rows(self) -> list[tuple[str, str]]:
        """The transfer in a few lines of (name, value)."""
        parts = []
        for fate in ("loaded", "created", "initial", "dropped"):
            tensors, numbers = self.count(fate)
            if tensors or fate == "loaded":
                parts.append(f"{numbers:,} numbers in {tensors} tensors {fate}")
        rows = [("start from", f"{self.file}: {', '.join(parts)}")]
        rows += [(f"start of fidelity {s.fidelity}", str(s)) for s in self.starts]
        return [*rows, *([("notes on the start", "; ".join(self.notes))] if self.notes else [])]

    def table(self) -> Table:
        """Fates, parts, counts and the first names."""
        rows = []
        for item in self.items:
            shown = ", ".join(item.names[:SHOWN_NAMES])
            more = len(item.names) - SHOWN_NAMES
            shown += f" and {more} more" if more > 0 else ""
            why = f" ({item.why})" if item.why else ""
            rows.append([item.fate, item.part, len(item.names), f"{item.numbers:,}", shown + why])
        notes = [*(f"fidelity {s.fidelity}: {s}" for s in self.starts), *self.notes, *self.warnings]
        title = f"weights from {self.file}"
        return Table(title, ["fate", "part", "tensors", "numbers", "names"], rows, notes)

    def to_json(self) -> dict[str, Any]:
        """Plain values, all names included."""
        return {
            "file": self.file,
            "fidelities": [
                {**asdict(s), "shifts": {str(z): e for z, e in s.shifts.items()}}
                for s in self.starts
            ],
            "items": [{**asdict(i), "names": list(i.names)} for i in self.items],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def plan_transfer(
    own: Mapping[str, Tensor],
    loaded: Mapping[str, Tensor],
    tables: Mapping[str, Blocks],
    *,
    where: str,
    partial: bool = False,
    part_of: Callable[[str], str] = lambda name: _ROOT,
) -> Transfer:
    """Decide for every parameter where it starts; changes neither argument.

    Args:
        own: state dict of the new model with its random start.
        loaded: state dict to start from.
        tables: own tensors that are put together from blocks; all others are taken whole.
        where: the file's name.
        partial: start what does not fit anew instead of refusing.
        part_of: part of the model that a parameter belongs to.

    Raises:
        ConfigError: names or shapes differ and `partial` is off, or nothing fits.
        DataError: a loaded number is not finite.
    """
    state, misfits = dict(own), _misfits(own, loaded, tables)
    if misfits and not partial:
        shown = [f"{name}: {text}" for name, text in misfits.items()]
        if len(shown) > SHOWN_MISFITS:
            shown[SHOWN_MISFITS:] = [f"and {len(shown) - SHOWN_MISFITS} more"]
        raise ConfigError(
            "the weights do not fit this model:\n    " + "\n    ".join(shown),
            where=where,
            remedy="train with the architecture they were made with, or set transfer.partial=true "
            "to load what fits and start the rest anew",
        )
    ledger = _Ledger(part_of)
    for name, target in own.items():
        if name in misfits:
            ledger.add("initial", part_of(name), name, target.numel(), misfits[name])
            continue
        source, blocks = loaded[name], tables.get(name)
        if not bool(torch.isfinite(source).all()):
            raise DataError(
                f"{name} holds numbers that are not finite",
                where=where,
                remedy="load a checkpoint from before the training diverged",
            )
        state[name] = (blocks.select(source) if blocks else source).to(target)
        ledger.take(name, source, target, blocks)
    for name in loaded:
        if name not in own or name in misfits:
            ledger.add("dropped", part_of(name), name, loaded[name].numel(), misfits[name])
    items = ledger.items()
    if all(item.fate != "loaded" for item in items):
        raise ConfigError("no tensor of the file fits this model", where=where)
    return Transfer(where, state, items, notes=_precision_notes(own, loaded))


def _misfits(
    own: Mapping[str, Tensor], loaded: Mapping[str, Tensor], tables: Mapping[str, Blocks]
) -> dict[str, str]:
    """Names that only one side has, or whose shapes cannot be brought together; with the reason."""
    found = {}
    for name, target in own.items():
        if name not in loaded:
            found[name] = f"not in the file, {tuple(target.shape)} here"
            continue
        source, blocks = loaded[name], tables.get(name)
        if not (blocks.fit(source, target) if blocks else source.shape == target.shape):
            found[name] = f"{tuple(source.shape)} in the file, {tuple(target.shape)} here"
    for name in loaded:
        if name not in own:
            found[name] = f"{tuple(loaded[name].shape)} in the file, no place here"
    return found


def _precision_notes(own: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> list[str]:
    """Say when numbers were rounded."""
    there = {v.dtype for v in loaded.values() if v.is_floating_point()}
    here = {v.dtype for v in own.values() if v.is_floating_point()}
    if torch.float64 in there and torch.float32 in here:
        return ["the file's float64 numbers were rounded to float32"]
    return []


class _Ledger:
    """Collects names by fate, part and reason, in the order they come."""

    def __init__(self, part_of: Callable[[str], str]) -> None:
        self._part_of = part_of
        self._found: dict[tuple[Fate, str, str], list[tuple[str, int]]] = defaultdict(list)

    def add(self, fate: Fate, part: str, name: str, numbers: int, why: str = "") -> None:
        """Book a tensor, or some of its blocks."""
        self._found[fate, part, why].append((name, numbers))

    def take(self, name: str, source: Tensor, target: Tensor, blocks: Blocks | None) -> None:
        """Book a tensor that was taken over, block by block."""
        part = self._part_of(name)
        if blocks is None:
            self.add("loaded", part, name, target.numel())
            return
        size = target.numel() // len(blocks.take)
        kept = len(blocks.take) - len(blocks.created)
        if kept:
            self.add("loaded", part, name, kept * size)
        for i in sorted(blocks.created):
            why = f"a copy of {blocks.called} {blocks.take[i]} of the file"
            self.add("created", f"{blocks.called} {i}", name, size, why)
        for j in sorted(set(range(blocks.count)) - set(blocks.take)):
            why = "nothing here starts from it"
            self.add("dropped", f"{blocks.called} {j} of the file", name, size, why)

    def items(self) -> list[Item]:
        """One item per fate, part and reason; what was loaded first."""
        order = ("loaded", "created", "initial", "dropped")
        items = [
            Item(fate, part, tuple(n for n, _ in names), sum(k for _, k in names), why)
            for (fate, part, why), names in self._found.items()
        ]
        return sorted(items, key=lambda item: order.index(item.fate))
