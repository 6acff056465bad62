"""What the residues of a protein are called, and what each of them is.

| kind | names |
|---|---|
| standard | the 20 amino acids, in three letters |
| variants | protonation states of force fields (HID HIE HIP CYX ASH ...); Amber's ends (NALA) |
| D | mirror images, as the PDB calls them (DAL DAR ...) |
| caps | ACE FOR before a chain, NME NMA NH2 NHE behind it |
| solvent | water, and ions of one atom |

Everything else must be told: `read_residue_table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import yaml

from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.errors import ConfigError
from mlff_cli.core.residues import D_AMINO_ACIDS, STANDARD

if TYPE_CHECKING:
    import mdtraj

Kind = Literal["amino", "cap", "skip"]


def _all(names: str, what: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), what)


VARIANTS: Mapping[str, str] = MappingProxyType(
    {
        **_all("HID HIE HIP HSD HSE HSP HISD HISE HISH HISA HISB HIS1 HIS2", "HIS"),
        **_all("CYX CYM CYS2 CYSH CYN CYS1", "CYS"),
        **_all("ASH ASPH ASPP", "ASP"),
        **_all("GLH GLUH GLUP", "GLU"),
        **_all("LYN LYSH LSN", "LYS"),
        **_all("ARN ARGN", "ARG"),
        "TYM": "TYR",
    }
)
CAPS = frozenset(("ACE", "FOR", "NME", "NMA", "NH2", "NHE"))
_WATER = "HOH WAT SOL H2O TIP TIP2 TIP3 TIP4 TIP5 T3P T4P TP3 TP4 SPC OH2 DOD OPC"
WATER = frozenset(_WATER.split())
# positive at pH 7, negative at pH 7, able to form hydrogen bonds with its side chain, the rest
CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "positive": ("ARG", "LYS"),
        "negative": ("ASP", "GLU"),
        "polar": ("ASN", "CYS", "GLN", "HIS", "SER", "THR", "TYR"),
        "nonpolar": ("ALA", "GLY", "ILE", "LEU", "MET", "PHE", "PRO", "TRP", "VAL"),
    }
)
CLASS_OF: Mapping[str, str] = MappingProxyType(
    {residue: name for name, members in CLASSES.items() for residue in members}
)
# states whose charge is not that of their parent
CLASS_OF_VARIANT: Mapping[str, str] = MappingProxyType(
    {
        **_all("HIP HSP HISH", "positive"),
        **_all("ASH ASPH ASPP GLH GLUH GLUP LYN LSN ARN ARGN", "polar"),
        **_all("CYM TYM", "negative"),
    }
)


@dataclass(frozen=True)
class ResidueKind:
    """What a residue is to coarse-graining.

    Attributes:
        kind: "amino" makes beads; "cap" has a place in the chain; "skip" is left out.
        species: of the bead that carries the residue's type.
        group: one of `CLASSES`.
        handed: "L", "D", or "" where nobody says, as of glycine.
    """

    kind: Kind
    species: str = ""
    group: str = ""
    handed: str = ""


_CAP, _SKIP = ResidueKind("cap"), ResidueKind("skip")


def classify(
    residue: mdtraj.core.topology.Residue, table: Mapping[str, ResidueKind]
) -> ResidueKind | None:
    """What a residue is; None where neither its name nor the table says.

    Args:
        residue: of a topology.
        table: of non-standard residues, by name; it is asked first.
    """
    name = residue.name.strip().upper()
    if name in table:
        return table[name]
    if name in CAPS:
        return _CAP
    if name in WATER or _is_ion(residue):
        return _SKIP
    if name in D_AMINO_ACIDS:
        parent = D_AMINO_ACIDS[name]
        return ResidueKind("amino", f"D-{parent}", CLASS_OF[parent], "D")
    if len(name) == 4 and name[0] in "NC" and _parent(name[1:]):
        name = name[1:]  # Amber's ends of chains
    parent_or_none = _parent(name)
    return _amino(name, parent_or_none) if parent_or_none else None


def _parent(name: str) -> str | None:
    return name if name in STANDARD else VARIANTS.get(name)


def _amino(name: str, parent: str) -> ResidueKind:
    group = CLASS_OF_VARIANT.get(name, CLASS_OF[parent])
    return ResidueKind("amino", parent, group, "" if parent == "GLY" else "L")


def _is_ion(residue: mdtraj.core.topology.Residue) -> bool:
    """One atom that is a metal or a halide (a lone carbon or oxygen is a fault to tell)."""
    if residue.n_atoms != 1:
        return False
    element = residue.atom(0).element
    return element is None or element.symbol not in ("H", "C", "N", "O", "S", "P")


def read_residue_table(path: Path) -> dict[str, ResidueKind]:
    """A YAML table of non-standard residues.

        MSE: MET                                # counts as methionine
        SEP: {species: SEP, class: negative}    # a species of its own
        HEM: skip                               # left out: no beads, no atoms

    Raises:
        ConfigError: it is no such table.
        StorageError: it cannot be read.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise storage_error(error, path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the table of residues must be YAML: {error}", where=str(path)
        ) from error
    if not isinstance(value, dict) or not value:
        raise ConfigError(
            f"the table of residues must map names to what they are, found {value!r}",
            where=str(path),
            remedy="write lines as `MSE: MET`",
        )
    odd = [name for name in value if not isinstance(name, str)]  # NO is false, 010 is eight
    if odd:
        raise ConfigError(
            f"names of residues are text, found {odd[0]!r}",
            where=str(path),
            remedy='write it in quotes, as "NO": skip',
        )
    return {name.strip().upper(): _entry(path, name, told) for name, told in value.items()}


def _entry(path: Path, name: object, told: object) -> ResidueKind:
    if told == "skip":
        return _SKIP
    if isinstance(told, str):
        parent = _parent(told.upper())
        if parent:
            return _amino(told.upper(), parent)
        mirrored = D_AMINO_ACIDS.get(told.upper())
        if mirrored:
            return ResidueKind("amino", f"D-{mirrored}", CLASS_OF[mirrored], "D")
    if (
        isinstance(told, dict)
        and set(told) <= {"species", "class"}
        and isinstance(told.get("species"), str)
        and told["species"].strip() not in ("", "*")  # of a prior, * is any type
        and told.get("class", "") in ("", *CLASSES)
    ):
        return ResidueKind("amino", told["species"], told.get("class", ""))
    raise ConfigError(
        f"residue {name}: found {told!r}",
        where=str(path),
        remedy="give a standard residue (MET), skip, or {species: NAME, class: "
        + "|".join(CLASSES)
        + "}",
    )
