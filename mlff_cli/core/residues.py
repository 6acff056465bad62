"""Amino acids by name: three letters, one letter, and mirror images as the PDB calls them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# fmt: off
LETTERS: Mapping[str, str] = MappingProxyType({  # one letter -> three
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU",
    "G": "GLY", "H": "HIS", "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE",
    "P": "PRO", "S": "SER", "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL",
})
STANDARD: tuple[str, ...] = tuple(LETTERS.values())  # species of beads are numbered in this order
D_AMINO_ACIDS: Mapping[str, str] = MappingProxyType({  # D residue -> its L form
    "DAL": "ALA", "DAR": "ARG", "DSG": "ASN", "DAS": "ASP", "DCY": "CYS", "DGN": "GLN",
    "DGL": "GLU", "DHI": "HIS", "DIL": "ILE", "DLE": "LEU", "DLY": "LYS", "MED": "MET",
    "DPN": "PHE", "DPR": "PRO", "DSN": "SER", "DTH": "THR", "DTR": "TRP", "DTY": "TYR",
    "DVA": "VAL",
})
# fmt: on
