"""Species of beads: what a model and a prior tell beads apart by.

    residue   the 20 residue types                      ALA ... VAL
    class     four classes                              positive negative polar nonpolar

A residue's type is carried by its CB, or by its CA where it has no CB bead (glycine; one bead per
residue). Beads of the backbone beside it are species of their own name: N, CA, C, O. D-amino acids
are species of their own (D-ALA), as their chain turns the other way; a class does not tell.
With `termini`, beads of the first and last residue of a chain get `-N` and `-C` behind their own.

The table of a scheme begins with all its types, met or not, so that sets of different proteins
number them alike; what else occurs follows, sorted by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlff_cli.coarse.mapping.residues import CLASSES, ResidueKind
from mlff_cli.core.errors import DataError
from mlff_cli.core.residues import STANDARD

KINDS = ("residue", "class")


def carried(kind: ResidueKind, by: str, name: str) -> str:
    """Species of the bead that carries a residue's type.

    Args:
        kind: what the residue is.
        by: "residue" or "class".
        name: of the residue, for the message.

    Raises:
        DataError: the residue has no class.
    """
    if by == "residue":
        return kind.species
    if not kind.group:
        raise DataError(
            f"residue {name} has no class, found species {kind.species!r} without one",
            remedy=f"add `class: {'|'.join(CLASSES)}` to its line of the table of residues",
        )
    return kind.group


def end_suffix(first: bool, last: bool) -> str:
    """What termini add to a species.

    >>> end_suffix(True, False), end_suffix(False, True), end_suffix(True, True)
    ('-N', '-C', '-N-C')
    """
    return ("-N" if first else "") + ("-C" if last else "")


def species_table(by: str, backbone: Sequence[str], found: Sequence[str]) -> list[str]:
    """Names by species number.

    Args:
        by: "residue", "class", or "" for a mapping that names its own species.
        backbone: bead names of the scheme that are species of their own.
        found: species of all beads.

    >>> species_table("class", ["N"], ["polar", "N", "polar-C"])
    ['positive', 'negative', 'polar', 'nonpolar', 'N', 'polar-C']
    """
    base = {"residue": STANDARD, "class": tuple(CLASSES)}.get(by, ())
    known = [*base, *backbone]
    return known + sorted(set(found) - set(known))
