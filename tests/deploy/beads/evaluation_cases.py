"""Coarse-grained sets, model files and simulations of known content, for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mlff_cli.data.beads.cg_beads import BeadMolecule, CGBlock
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.prior_file import Entry, PriorFile, Term
from mlff_cli.data.beads.prior_forms import Harmonic
from mlff_cli.data.model_file import ModelFile
from mlff_cli.data.trajectories.h5md_writer import write_h5md
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from tests.coarse.backbones import NAMES, backbone_molecule
from tests.potentials.prior_cases import SPECIES, chain_terms

SOURCE = {"path": "a.h5", "sha256": "0" * 64, "format": "h5md", "n_frames": 9999, "molecule": 0}
SPRINGS = PriorFile(  # of the backbone's beads
    species=NAMES, terms={"bond": Term(entries=(Entry(("*", "*"), Harmonic(50.0, 1.5)),))}
)


def ca_chain(name: str, types: Sequence[str]) -> BeadMolecule:
    """One bead per residue."""
    n = len(types)
    k = np.arange(n, dtype=np.int32)
    return BeadMolecule(
        name=name,
        species=np.array([SPECIES.index(t) for t in types], np.int32),
        residue=k + 1,
        residue_name=np.array(types),
        bead_name=np.array(["CA"] * n),
        chain=np.zeros(n, np.int32),
        bonds=np.stack([k[:-1], k[1:]], 1),
    )


def model_file(model: BeadModel, **more: object) -> ModelFile:
    """As training writes it."""
    return ModelFile(
        weights=model.state_dict(),
        architecture=model.architecture(),
        family="coarse-grained",
        config={},
        species=[],
        fidelities=[],
        sae={},
        provenance={"inputs": {}},
        units={"energy": "kcal/mol", "length": "angstrom"},
        **more,  # type: ignore[arg-type]
    )


def forces(prior: PriorFile, types: Sequence[str], x: np.ndarray) -> np.ndarray:
    """Of a prior, on frames (T, n, 3) of a linear chain."""
    model = Prior(prior)
    bound = model.bind(chain_terms(len(types)), types)
    return model.energy_and_forces(torch.from_numpy(x).double(), bound)[1].numpy()


def cg_set(
    path: Path,
    frames: Sequence[tuple[BeadMolecule, np.ndarray, np.ndarray | None]],
    species: Sequence[str],
    kelvin: float = 300.0,
    metadata: dict[str, object] | None = None,
) -> Path:
    """Positions and forces of each molecule."""
    blocks = [
        CGBlock(
            k,
            R=R.astype(np.float32),
            F=None if F is None else F.astype(np.float32),
            source=np.zeros(len(R), np.int32),
            frame=np.arange(len(R)),
            temperature=np.full(len(R), kelvin, np.float32),
        )
        for k, (_, R, F) in enumerate(frames)
    ]
    molecules = [m for m, _, _ in frames]
    write_cg(path, molecules, list(species), [SOURCE], metadata or {}, blocks)
    return path


def backbone_set(path: Path, R: np.ndarray, kelvin: float = 300.0) -> Path:
    """Alanines of five beads, without forces."""
    return cg_set(path, [(backbone_molecule(R.shape[1] // 5), R, None)], NAMES, kelvin)


def simulation(path: Path, R: np.ndarray, kelvin: float | None = 300.0, replicas: int = 1) -> Path:
    """A trajectory of beads, frames one picosecond apart."""
    n = len(R)
    step = np.repeat(np.arange(n // replicas), replicas)
    told = {} if kelvin is None else {"temperature": np.full(n, kelvin)}
    arrays = {"step": step * 500, "time": step * 1.0, "position": R / 10, **told}
    write_h5md(path, ["position", *told], n, np.full(R.shape[1], 6), [arrays])
    return path
