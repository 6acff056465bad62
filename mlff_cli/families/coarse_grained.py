"""The coarse-grained recipe: forces of bead molecules, Allegro on top of a prior."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mlff_cli.core.artifacts import provenance, sha256
from mlff_cli.core.checks import Check
from mlff_cli.core.errors import MLFFError
from mlff_cli.core.reporting import Reporter
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.bead_repeats import refuse_repeated_frames
from mlff_cli.data.beads.bead_split import FrameSplit, split_frames
from mlff_cli.data.model_file import ModelFile
from mlff_cli.families.base import Inputs, Prepared
from mlff_cli.families.coarse_grained_batches import TrainingBatches
from mlff_cli.families.coarse_grained_checklist import BeadInspection, diagnose
from mlff_cli.families.coarse_grained_description import description_rows, plain_molecules
from mlff_cli.families.coarse_grained_model import Predictor, build_model, surroundings
from mlff_cli.families.coarse_grained_noise import noise_bounds
from mlff_cli.families.coarse_grained_options import chosen_files, refuse_options
from mlff_cli.families.coarse_grained_prior import BoundMolecules, choose_prior
from mlff_cli.families.coarse_grained_settings import CoarseGrainedSettings
from mlff_cli.potentials.bead_model import BeadModel, bead_model_of
from mlff_cli.potentials.prior import Prior
from mlff_cli.potentials.prior_objective import PriorObjective
from mlff_cli.potentials.prior_store import PriorStore
from mlff_cli.training.force_matching import ForceMatchingLoss, ForceMetrics
from mlff_cli.training.task import Batching, Pretraining, Task

UNITS = {"energy": "kcal/mol", "length": "angstrom"}


class CoarseGrained:
    """The family; see `families.base.Family`."""

    name = "coarse-grained"
    schema = CoarseGrainedSettings

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        """A bead model of a model file's architecture."""
        return bead_model_of(architecture)

    def diagnose(self, settings: CoarseGrainedSettings, error: MLFFError) -> list[Check]:
        """What can be said of the files one by one (see `Family`)."""
        return diagnose(settings, error)

    def prepare(
        self, settings: CoarseGrainedSettings, inputs: Inputs, reporter: Reporter
    ) -> Prepared:
        """Check the data and build model, batches, loss and metrics (see `Family`)."""
        refuse_options(settings, inputs)
        data, training, world = settings.data, settings.training, inputs.world
        paths = chosen_files(settings)
        frames = BeadFrames(
            paths,
            temperature=data.temperature,
            in_memory_bytes=(data.in_memory_mb << 20) // world.local_size,
            tell=reporter.detail,
        )
        refuse_repeated_frames(frames)
        chosen = data.split_seed if data.split_seed is not None else inputs.split_seed
        split = split_frames(frames, training.val_fraction, chosen, data.split_stretch)
        prior = choose_prior(
            settings.model, frames, split.train, data.temperature, settings.seed, reporter
        )
        # of the first parameters; what is stored later is of the model's own
        first = Prior(prior) if prior else None
        store = None
        if first is not None:
            store = PriorStore(first, BoundMolecules(first, frames), frames, keep=False)
        scale = surroundings(frames, split.train, settings.model.cutoff, store)
        model = build_model(
            settings.model, frames.type_names, prior, scale, settings.seed, inputs.dtype
        ).to(inputs.device)
        batches = TrainingBatches.of(settings, inputs, frames, split, model, store)
        feed = batches.feed

        names = [m.name for m in frames.molecules]
        energies = training.gamma_U > 0
        new_metrics = functools.partial(ForceMetrics, names, inputs.device, energies=energies)
        loss = ForceMatchingLoss(training.gamma_F, training.gamma_U).to(inputs.device)
        noise = noise_bounds(frames, split.validation)
        overall = noise.get("F_rmse")
        task = Task(
            model=model,
            epoch_length=feed.epoch_length,
            train_batch=batches.training,
            n_validation=feed.n_validation,
            validation_batch=batches.validation,
            predict=Predictor(batches.bound if batches.store is None else None, scale.neighbors),
            loss=loss,
            new_metrics=new_metrics,
            measured=tuple(new_metrics().units),
            watch=["F_rmse", "F_relative"],
            validation_workers=data.workers,
            name_samples=feed.name_frames,
            part_of=_part_of,
            name_largest=feed.name_largest,
            batching=Batching(
                training.batch_per_device,
                "frames",
                training.split,
                "training",
                "batch_per_device",
                "training.batch_per_device",
            ),
            pretraining=_pretraining(settings, inputs, frames, split, model, batches),
            noise_bound=noise,
            samples="frames",
        )
        read: list[Path | str] = [*paths, *filter(None, [settings.model.prior])]
        digests = {path: sha256(path) for path in paths}
        origin = provenance(
            inputs.command, read, seed=settings.seed, packages=("torch", "nequip"), digests=digests
        )
        described = model.architecture()
        config = settings.model_dump(mode="json", by_alias=True)
        kelvin = {"temperature": frames.temperature}  # a model is of one
        resolved = {**config, "data": {**config["data"], **kelvin}}
        molecules, notes = plain_molecules(frames)

        # holds none of the data: an ensemble keeps it when a member is done
        def snapshot(weights: dict[str, Tensor], training: dict[str, Any]) -> ModelFile:
            return ModelFile(
                weights=weights,
                architecture=described,
                family=CoarseGrained.name,
                config=resolved,
                species=[],
                fidelities=[],
                sae={},
                provenance=origin,
                training=training,
                units=dict(UNITS),
                molecules=molecules,
            )

        return Prepared(
            task=task,
            snapshot=snapshot,
            fingerprint={
                "config": _without_processes(config),
                "architecture": described,
                "inputs": origin["inputs"],
                "batch": feed.batch_size,
            },
            description=description_rows(
                frames, split, feed, model, scale.force, noise.get("F_rmse")
            ),
            workers=data.workers,
            warnings=[*frames.notes, *notes],
            save_split=lambda path: split.save(path, frames),
            inspection=BeadInspection(settings, frames, split, feed, overall),
        )


def _pretraining(
    settings: CoarseGrainedSettings,
    inputs: Inputs,
    frames: BeadFrames,
    split: FrameSplit,
    model: BeadModel,
    batches: TrainingBatches,
) -> Pretraining | None:
    training, world = settings.training, inputs.world
    if not training.pretrain_prior or model.prior is None or batches.bound is None:
        return None
    every = max(1, -(-len(split.train) // training.frames_lbfgs))
    index = split.train[::every]
    objective = PriorObjective(
        model.prior, batches.bound, frames, index, rank=world.rank, size=world.size
    )

    def then() -> None:
        if training.gamma_U:
            batches.centre(frames, split.train)

    parameters = list(model.prior.parameters())
    return Pretraining("prior", parameters, objective, steps=training.epochs_lbfgs, then=then)


def _without_processes(config: dict[str, Any]) -> dict[str, Any]:
    """What must stay when a run continues with other processes: the batch of all, not of one."""
    training = {k: v for k, v in config["training"].items() if k != "batch_per_device"}
    return {**config, "training": training}


def _part_of(name: str) -> str:
    """The part of a bead model that a parameter belongs to: allegro or prior."""
    return name.partition(".")[0]
