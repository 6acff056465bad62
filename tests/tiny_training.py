"""A training small enough for tests: three fidelities of the same synthetic molecules."""

from __future__ import annotations

from pathlib import Path

from mlff_cli.data.sae import write_sae
from tests.synthetic import self_energy, write_dataset

ELEMENTS = (1, 6, 7, 8)
LABELS = (
    ("energy", "forces", "charges"),
    ("energy", "charges", "spin_charges"),
    ("energy",),
)
TINY_MODEL = (
    "model.nfeature=4",
    "model.ncomb_v=3",
    "model.hidden=[[16,12],[16,12],[16,12,12]]",
    "model.aim_size=8",
    "model.nshifts=6",
    "model.energy_hidden=[8,8]",
    "model.num_charge_channels=2",
)


def write_fidelities(
    folder: Path, sizes: tuple[int, ...] = (24, 40, 40), missing: float = 0.0
) -> list[str]:
    """Write data and SAE files; returns the overrides that name them.

    Args:
        folder: where.
        sizes: molecules per fidelity.
        missing: share of labels that are NaN.
    """
    overrides = []
    for k, n in enumerate(sizes):
        write_dataset(
            folder / f"fid{k}.h5",
            n,
            seed=k,
            labels=LABELS[k],
            sizes=range(3, 8),
            n_parents=12,
            parent_seed=5,
            strength=1.0 + 0.1 * k,
            charged=True,
            missing=missing,
            level_of_theory=f"synthetic-{k}",
        )
        sae = {z: float(self_energy(z)) for z in ELEMENTS}
        write_sae(folder / f"sae{k}.yaml", sae, force=True)
        overrides += [
            f"data.fidelity_datasets.{k}={folder / f'fid{k}.h5'}",
            f"data.sae.energy.files.{k}={folder / f'sae{k}.yaml'}",
        ]
    return overrides


def tiny_overrides(folder: Path, **data: object) -> tuple[str, ...]:
    """Overrides of a complete tiny training: 3 epochs of 6 batches."""
    return (
        *write_fidelities(folder, **data),  # type: ignore[arg-type]
        *TINY_MODEL,
        "data.samplers.train.kwargs.batch_mode=molecules",
        "data.samplers.train.kwargs.batch_size=8",
        "data.samplers.train.kwargs.batches_per_epoch=6",
        "trainer.epochs=3",
        "optimizer.kwargs.lr=2e-3",
    )
