"""The checklist of a multi-fidelity training's data: files, atomic energies, split and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mlff_cli.core.checks import Check
from mlff_cli.core.elements import MAX_Z, symbol
from mlff_cli.core.errors import DataError, MLFFError
from mlff_cli.data.batch_survey import BatchSurvey, survey
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.fidelities import Fidelities
from mlff_cli.data.identity import conformer_hash, molecule_keys
from mlff_cli.data.residuals import residuals
from mlff_cli.data.sae import read_sae
from mlff_cli.data.sources import TRAIN, expand
from mlff_cli.families.multifidelity_settings import MultifidelitySettings

SHOWN = 12  # elements in a row


@dataclass(frozen=True)
class DataInspection:
    """Looks at the data of a training that is ready to run.

    Attributes:
        settings: the configuration.
        fidelities: opened, split and planned.
        load: weights to start from.
    """

    settings: MultifidelitySettings
    fidelities: Fidelities
    load: Path | None = None

    @cached_property
    def survey(self) -> BatchSurvey:
        """The batches of the first epoch."""
        return survey(self.fidelities, self.settings.data.samplers.train.kwargs.split)

    def heavy_steps(self) -> list[int]:
        """Steps one of whose batches takes most memory."""
        return self.survey.heavy

    def checks(self) -> list[Check]:
        """All findings."""
        own = self.fidelities
        files = {k: str(path) for k, path in self.settings.data.sae.energy.files.items()}
        found = []
        for data in own.train:
            k = data.fidelity
            others = {j: table for j, table in own.sae.items() if j != k}
            found += [
                check_dataset(data),
                check_coverage(data, own.sae[k], files[k]),
                *check_residuals(data, own.sae[k], others, files),
            ]
        found += [self._labels(), self._offset(), check_overlap(own, self._trained())]
        return [*found, self._batches(), self._shares()]

    def _trained(self) -> list[np.ndarray]:
        """Indices that training may draw, per fidelity."""
        if self.settings.data.separate_val:
            return list(self.fidelities.split.train)
        return [np.arange(len(d)) for d in self.fidelities.train]

    def _labels(self) -> Check:
        """Components of the loss that no file has labels for."""
        weights = {n: c.weight for n, c in self.settings.loss.kwargs.components.items()}
        used = [n for n in self.settings.data.y if weights.get(n, 0.0) > 0]
        counts = {n: sum(d.label_counts[n] for d in self.fidelities.train) for n in used}
        absent = [n for n, count in counts.items() if not count]
        seen = ", ".join(f"{n} {count}" for n, count in counts.items() if count)
        if not absent:
            return Check("labels", f"trained on {seen}")
        return Check(
            "labels",
            f"trained on {seen}; no file has {', '.join(absent)}: their loss adds nothing",
            "warning",
            f"set loss.kwargs.components.{absent[0]}.weight=0 if that is meant",
        )

    def _offset(self) -> Check:
        offset, n = self.settings.fidelity_offset, len(self.fidelities.train)
        agreed = f"; agrees with {self.load}" if self.load else ""
        return Check(
            "fidelity_offset",
            f"{offset}, at least {MAX_Z + 1}; elements of {n} fidelities take numbers up to "
            f"{(n - 1) * offset + MAX_Z}{agreed}",
        )

    def _batches(self) -> Check:
        s, n = self.survey, self.fidelities.sampler.epoch_length
        kwargs = self.settings.data.samplers.train.kwargs
        finding = (
            f"{n} per epoch of {_range(s.molecules)} molecules and {_range(s.atoms)} atoms; "
            f"{100 * s.padding:.0f} % padding"
        )
        if s.padding < 0.5:
            return Check("batches", finding)
        return Check(
            "batches",
            finding,
            "warning",
            f"data.samplers.train.kwargs.split={2 * kwargs.split}: the same step, less padding",
        )

    def _shares(self) -> Check:
        """Asked and real frequencies of the fidelities."""
        data, own = self.settings.data, self.fidelities
        pools = np.array([len(p) for p in self._trained()], dtype="float64")
        asked = np.array([data.fidelity_weights.get(d.fidelity, 1.0) for d in own.train])
        if data.samplers.train.kwargs.sampling_strategy == "uniform" or (
            data.samplers.train.kwargs.batches_per_epoch == -1
        ):
            asked = pools
        asked, drawn = asked / asked.sum(), self.survey.drawn / self.survey.drawn.sum()
        per_epoch = drawn * self.survey.molecules.mean() * own.sampler.epoch_length / pools
        finding = f"asked {_percent(asked)}, drawn {_percent(drawn)}; a molecule comes " + (
            ", ".join(f"{p:.2g}" for p in per_epoch) + " times per epoch"
        )
        never = [d.fidelity for d, share in zip(own.train, asked, strict=True) if share == 0]
        if never:
            return Check("fidelity weights", finding, "warning", f"fidelity {never[0]} is not used")
        return Check("fidelity weights", finding)


# -- single findings ------------------------------------------------------------------------------


def check_dataset(data: FidelityDataset) -> Check:
    """What a fidelity's files hold."""
    sizes = data.n_atoms
    labels = ", ".join(f"{n} {count}" for n, count in data.label_counts.items() if count)
    absent = [n for n in ("charge", "mult") if not any(n in g.fields for g in data.groups)]
    assumed = {"charge": "charge is read as 0", "mult": "mult as 1"}
    more = "; without " + " and ".join(absent) if absent else ""
    files = f" and {len(data.paths) - 1} more" if len(data.paths) > 1 else ""
    note = f" ({', '.join(assumed[n] for n in absent)})" if absent else ""
    return Check(
        f"data {data.fidelity}",
        f"{data.paths[0].name}{files}: {len(data)} molecules of {sizes.min()} to {sizes.max()} "
        f"atoms; {labels}{more}{note}",
    )


def check_coverage(data: FidelityDataset, sae: Mapping[int, float], file: str) -> Check:
    """Whether the SAE file has every element of the data."""
    name = f"SAE {data.fidelity}"
    missing = [z for z in data.species if z not in sae]
    unused = [z for z in sae if z not in data.species]
    if missing:
        error = DataError(
            f"no self-atomic energy for {_elements(missing)} at fidelity {data.fidelity}",
            where=file,
            remedy=f"make one from this data: {_remake(data)}",
        )
        return Check.failed(name, error)
    more = f"; {_elements(unused)} not in the data" if unused else ""
    return Check(name, f"{Path(file).name} covers {_elements(data.species)}{more}")


def check_residuals(
    data: FidelityDataset,
    sae: Mapping[int, float],
    others: Mapping[int, Mapping[int, float]],
    files: Mapping[int, str],
) -> list[Check]:
    """Whether the SAE file belongs to the energies; nothing where there are none."""
    found = residuals(data, sae, others)
    if found is None:
        return []
    name = f"SAE fit {data.fidelity}"
    finding = (
        f"residual energy {found.mean:.4g} +- {found.std:.3g} eV per molecule; a fit to "
        f"{found.molecules} molecules leaves {found.fitted:.3g}"
    )
    k = found.better
    if k is not None:
        finding += f", {Path(files[k]).name} of fidelity {k} {found.rivals[k]:.3g}"
        remedy = f"are the files swapped? data.sae.energy.files.{data.fidelity}={files[k]}"
        return [Check(name, finding, "warning", remedy)]
    if found.huge:
        finding += f": {found.per_atom:.3g} eV per atom is no binding energy"
        remedy = f"are these energies of the labels' method? {_remake(data)}"
        return [Check(name, finding, "warning", remedy)]
    return [Check(name, finding)]


def check_overlap(fidelities: Fidelities, trained: Sequence[np.ndarray]) -> Check:
    """Molecules and conformers that are both trained and validated on, at any fidelities.

    Args:
        fidelities: the data.
        trained: indices that training may draw, per fidelity.
    """
    train, validation = fidelities.train, fidelities.validation
    same_sets = validation is train
    keys, by = molecule_keys(train if same_sets else [*train, *validation])
    geometry = [
        d.hashes(("coord", "numbers"), lambda a: conformer_hash(**a))
        for d in (train if same_sets else [*train, *validation])
    ]
    place = {d.fidelity: i if same_sets else len(train) + i for i, d in enumerate(validation)}
    held = [(place[k], own) for k, own in enumerate(fidelities.split.validation) if len(own)]

    def common(of: Sequence[np.ndarray]) -> int:
        drawn = np.concatenate([of[k][own] for k, own in enumerate(trained)])
        kept = np.concatenate([of[i][own] for i, own in held])
        return len(np.intersect1d(drawn, kept))

    n_train, n_validation = (sum(map(len, part)) for part in (trained, fidelities.split.validation))
    molecules, conformers = common(keys), common(geometry)
    counted = f"{n_train} conformers to train on, {n_validation} to validate on"
    if molecules:
        return Check(
            "validation",
            f"{counted}: {molecules} molecules in common (by {by})",
            "warning",
            "set data.separate_val=true, or the validation errors say nothing of new molecules",
        )
    if conformers:
        return Check(
            "validation",
            f"{counted}: no molecule in common (by {by}), but {conformers} geometries are",
            "warning",
            "the same molecule has two names: name it alike in all files",
        )
    return Check("validation", f"{counted}; no molecule in common (by {by})")


# -- where preparation failed ---------------------------------------------------------------------


def diagnose(settings: MultifidelitySettings, error: MLFFError) -> list[Check]:
    """What can be said of every file, one by one, where the training could not be prepared.

    Args:
        settings: the configuration.
        error: that ended the preparation; the last finding, where no file explains it.
    """
    data = settings.data
    found: list[Check] = []
    for k, given in sorted(data.fidelity_datasets.items()):
        file = data.sae.energy.files.get(k)
        sae = None
        try:
            sae = read_sae(file) if file is not None else None
        except MLFFError as problem:
            found.append(Check.failed(f"SAE {k}", problem))
        try:
            paths = expand(f"{TRAIN}.{k}", given)
            opened = FidelityDataset(paths, k, None, data.y, in_memory_bytes=0)
        except MLFFError as problem:
            found.append(Check.failed(f"data {k}", problem))
            continue
        found.append(check_dataset(opened))
        if sae is not None and file is not None:
            found.append(check_coverage(opened, sae, file))
        opened.close()
    if error.message not in [c.error.message for c in found if c.error is not None]:
        found.append(Check.failed("preparation", error))
    return found


def _remake(data: FidelityDataset) -> str:
    k = data.fidelity
    return (
        f"mlff calc-sae {data.paths[0]} sae_fid{k}.yaml, then "
        f"data.sae.energy.files.{k}=sae_fid{k}.yaml"
    )


def _elements(numbers: Sequence[int]) -> str:
    words = [symbol(z) for z in numbers[:SHOWN]]
    more = len(numbers) - SHOWN
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high} (mean {values.mean():.0f})"


def _percent(shares: np.ndarray) -> str:
    return " / ".join(f"{100 * s:.1f}" for s in shares) + " %"
