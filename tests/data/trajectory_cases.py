"""Trajectories of alanine dipeptide in every format, written by other programs' libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import mdtraj
import numpy as np

from mlff_cli.data.trajectories.h5md_writer import write_h5md

ATOMS = """\
ACE 1 CH3 C -3.662  0.349  0.134
ACE 1 H1  H -4.405 -0.024 -0.576
ACE 1 H2  H -4.067  0.308  1.149
ACE 1 H3  H -3.440  1.390 -0.116
ACE 1 C   C -2.433 -0.516  0.060
ACE 1 O   O -2.489 -1.739  0.141
ALA 2 N   N -1.261  0.176 -0.095
ALA 2 H   H -1.247  1.191 -0.034
ALA 2 CA  C  0.036 -0.486 -0.124
ALA 2 HA  H  0.029 -1.290  0.622
ALA 2 CB  C  0.331 -1.057 -1.506
ALA 2 HB1 H  0.369 -0.262 -2.260
ALA 2 HB2 H -0.442 -1.769 -1.814
ALA 2 HB3 H  1.294 -1.577 -1.525
ALA 2 C   C  1.107  0.544  0.282
ALA 2 O   O  0.850  1.742  0.405
NME 3 N   N  2.366  0.017  0.486
NME 3 H   H  2.460 -0.987  0.580
NME 3 C   C  3.448  0.845  0.956
NME 3 H1  H  3.442  1.808  0.437
NME 3 H2  H  4.390  0.326  0.770
NME 3 H3  H  3.321  1.010  2.030
"""
_ROWS = [line.split() for line in ATOMS.splitlines()]
X0 = np.array([row[4:] for row in _ROWS], dtype="float64")  # (22, 3) angstrom
N = len(X0)
Z = np.array([{"H": 1, "C": 6, "N": 7, "O": 8}[row[3]] for row in _ROWS])
EDGE = 30.0  # angstrom


def pdb_text(rows: list[list[str]] | None = None) -> str:
    """The molecule as a PDB file."""
    lines = []
    for i, (residue, number, name, element, *x) in enumerate(rows or _ROWS, start=1):
        shown = f" {name:<3s}" if len(name) < 4 else name
        xyz = "".join(f"{float(v):8.3f}" for v in x)
        lines.append(
            f"ATOM  {i:5d} {shown} {residue} A{int(number):4d}    {xyz}  1.00  0.00"
            f"          {element:>2s}"
        )
    return "\n".join([*lines, "END", ""])


def write_pdb(path: Path, rows: list[list[str]] | None = None) -> Path:
    path.write_text(pdb_text(rows))
    return path


def rows_of_the_molecule() -> list[list[str]]:
    """Residue, number, name, element, x, y, z of every atom; a copy to change."""
    return [list(row) for row in _ROWS]


def frames(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shaken positions and forces of the size that MD has, (n, 22, 3) float32 each."""
    rng = np.random.default_rng(seed)
    x = X0 + rng.normal(scale=0.05, size=(n, N, 3)) + rng.normal(size=(n, 1, 3))
    return x.astype("float32"), rng.normal(scale=20.0, size=(n, N, 3)).astype("float32")


def write_npz(path: Path, x: np.ndarray, f: np.ndarray | None = None, **more: Any) -> Path:
    arrays = {"R": x, "Z": Z, **({} if f is None else {"F": f}), **more}
    np.savez(path, **arrays)
    return path


def write_trr(path: Path, x: np.ndarray, f: np.ndarray | None, every: int = 1) -> Path:
    """TRR as GROMACS writes it: forces in frames 0, every, 2 every, ..."""
    from MDAnalysis.lib.formats.libmdaxdr import TRRFile

    box = np.eye(3, dtype="float32") * EDGE / 10
    with TRRFile(str(path), "w") as file:
        for i, positions in enumerate(x):
            forces = f[i] * 41.84 if f is not None and i % every == 0 else None
            file.write(positions / 10, None, forces, box, i, float(i), 0.0, len(positions))
    return path


def write_xtc(path: Path, x: np.ndarray) -> Path:
    from mdtraj.formats import XTCTrajectoryFile

    box = np.tile(np.eye(3, dtype="float32") * EDGE / 10, (len(x), 1, 1))
    with XTCTrajectoryFile(str(path), "w") as file:
        file.write(x / 10, box=box)
    return path


def write_dcd(path: Path, x: np.ndarray) -> Path:
    from MDAnalysis.lib.formats.libdcd import DCDFile

    with DCDFile(str(path), "w") as file:
        file.write_header("test", x.shape[1], 0, 1, 1.0, 1)
        for positions in x:
            file.write(positions, [EDGE, 90.0, EDGE, 90.0, 90.0, EDGE])
    return path


def write_mdcath(
    path: Path, x: np.ndarray, f: np.ndarray | None, temperatures: dict[str, int]
) -> Path:
    """MdCATH's layout: frames dealt out evenly to temperatures and their replicas."""
    n = len(x) // sum(temperatures.values())
    start = 0
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layout"] = "mdcath-only-protein-v1.0"
        domain = file.create_group("1abcA00")
        domain.attrs["numProteinAtoms"] = N
        domain["z"] = Z
        domain["pdbProteinAtoms"] = pdb_text().encode()
        for temperature, replicas in temperatures.items():
            for replica in range(replicas):
                group = domain.create_group(f"{temperature}/{replica}")
                group.attrs["numFrames"] = n
                group["coords"] = x[start : start + n]
                group["coords"].attrs["unit"] = "Angstrom"
                if f is not None:
                    group["forces"] = f[start : start + n]
                    group["forces"].attrs["unit"] = "kcal/mol/Angstrom"
                group["box"] = np.eye(3) * EDGE / 10
                group["dssp"] = np.full((n, 3), b"C")
                start += n
    return path


def write_h5md_file(path: Path, x: np.ndarray, f: np.ndarray) -> Path:
    """H5MD through its own writer, in nm and kJ mol-1 nm-1."""
    piece = {
        "step": np.arange(len(x)),
        "time": np.arange(len(x)) * 0.5,
        "position": x.astype("float64") / 10,
        "force": f.astype("float64") * 41.84,
        "edges": np.tile(np.eye(3) * EDGE / 10, (len(x), 1, 1)),
    }
    names = ("position", "force", "edges")
    attrs = {"topology_pdb": pdb_text()}
    write_h5md(path, names, len(x), Z, [piece], attrs=attrs, dtype="float64")
    return path


def psf_text() -> str:
    """The molecule as CHARMM's PSF: atoms and bonds, no coordinates."""
    masses = {"H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999}
    lines = ["PSF", "", "       1 !NTITLE", " REMARKS test", "", f"{N:8d} !NATOM"]
    for i, (residue, number, name, element, *_) in enumerate(_ROWS, start=1):
        atom = f"{i:8d} A    {number:<4s} {residue:<4s} {name:<4s} {element:<4s}"
        lines.append(f"{atom} {0.0:10.6f}    {masses[element]:10.4f}           0")
    bonds = [a.index + 1 for pair in topology().bonds for a in pair]
    lines += ["", f"{len(bonds) // 2:8d} !NBOND: bonds"]
    lines += ["".join(f"{i:8d}" for i in bonds[k : k + 8]) for k in range(0, len(bonds), 8)]
    return "\n".join([*lines, "", ""])


def topology() -> mdtraj.Topology:
    """The molecule's topology, made without a file."""
    found = mdtraj.Topology()
    chain = found.add_chain()
    residue = None
    for name, number, atom, element, *_ in _ROWS:
        if residue is None or residue.resSeq != int(number):
            residue = found.add_residue(name, chain, resSeq=int(number))
        found.add_atom(atom, mdtraj.element.get_by_symbol(element), residue)
    found.create_standard_bonds()
    return found
