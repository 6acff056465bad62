"""The multi-fidelity recipe: molecules labelled by several methods, one AIMNet2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlff_cli.core.artifacts import provenance
from mlff_cli.core.checks import Check
from mlff_cli.core.errors import MLFFError
from mlff_cli.core.reporting import Reporter
from mlff_cli.data.feed import Feed
from mlff_cli.data.fidelities import open_fidelities
from mlff_cli.data.model_file import ModelFile
from mlff_cli.families.base import Inputs, Prepared
from mlff_cli.families.multifidelity_checklist import DataInspection, diagnose
from mlff_cli.families.multifidelity_model import architecture, predict
from mlff_cli.families.multifidelity_settings import MultifidelitySettings
from mlff_cli.families.multifidelity_transfer import read_source, start_from
from mlff_cli.potentials.aimnet2.fidelity import part_of
from mlff_cli.potentials.aimnet2.model import AIMNet2
from mlff_cli.potentials.aimnet2.spec import AIMNet2Spec
from mlff_cli.training.losses import build_loss
from mlff_cli.training.metrics import RegressionMetrics, check_metrics
from mlff_cli.training.settings_transfer import TransferSection
from mlff_cli.training.task import Batching, Task

WATCHED = ("energy", "forces")  # labels whose errors are shown while training


class MultiFidelity:
    """The family; see `families.base.Family`."""

    name = "multifidelity"
    schema = MultifidelitySettings

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        """An AIMNet2 of a model file's architecture."""
        return AIMNet2(AIMNet2Spec.model_validate(architecture))

    def diagnose(self, settings: MultifidelitySettings, error: MLFFError) -> list[Check]:
        """What can be said of the files one by one (see `Family`)."""
        return diagnose(settings, error)

    def prepare(
        self, settings: MultifidelitySettings, inputs: Inputs, reporter: Reporter
    ) -> Prepared:
        """Check the data and build model, batches, loss and metrics (see `Family`)."""
        data = settings.data
        loss = build_loss(settings.loss, data.y)
        read: set[str] = set(data.y)
        measured = check_metrics(settings.metrics)
        cfg = {label: option for label, option in measured.items() if label in read}
        source = read_source(inputs.load) if inputs.load else None
        spec = architecture(settings, inputs.model, source)
        world = inputs.world
        fidelities = open_fidelities(
            data,
            settings.seed,
            reporter.detail,
            split_seed=inputs.split_seed,
            local_processes=world.local_size,
        )
        absent = [n for n in loss.labels if not any(d.label_counts[n] for d in fidelities.train)]
        if absent:
            reporter.info(f"no file has the labels {', '.join(absent)}: their loss adds nothing")
        if spec.num_charge_channels == 1 and {"spin_charges"} & set(loss.labels) - set(absent):
            reporter.info(
                "one charge channel: predicted spin_charges are zero, their loss teaches nothing"
            )

        feed = Feed(
            fidelities,
            data,
            offset=settings.fidelity_offset,
            dtype=inputs.dtype,
            pin=inputs.device.type == "cuda",
            rank=world.rank,
            size=world.size,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = AIMNet2(spec).to(inputs.device, inputs.dtype)
        transfer = None
        entries, sae = fidelities.describe(), fidelities.sae
        if source:
            transfer = start_from(model, source, settings.transfer, entries, sae)
            transfer.apply(model)
        elif settings.transfer != TransferSection():
            reporter.info("the section transfer has no effect without --load")
        having = fidelities.having(cfg)
        if spec.num_charge_channels == 1:
            having.pop("spin_charges", None)  # zero by architecture: there is nothing to measure

        def errors(having: Mapping[str, set[int]]) -> RegressionMetrics:
            return RegressionMetrics(cfg, len(fidelities.train), inputs.device, having)

        watched = [cfg[label].abbr for label in WATCHED if label in cfg]
        kwargs = data.samplers.train.kwargs
        task = Task(
            model=model,
            epoch_length=feed.epoch_length,
            train_batch=feed.training_parts,
            n_validation=feed.n_validation,
            validation_batch=feed.validation_batch,
            predict=predict,
            loss=loss.to(inputs.device),
            new_metrics=lambda: errors(having),
            measured=tuple(errors(fidelities.validated(having)).units),
            watch=[f"fid{d.fidelity}/{a}_rmse" for d in fidelities.train for a in watched],
            validation_workers=data.loaders.val.num_workers,
            name_samples=feed.name_molecules,
            part_of=part_of,
            name_largest=feed.name_largest,
            batching=Batching(kwargs.batch_size, kwargs.batch_mode, kwargs.split),
        )
        origin = provenance(
            inputs.command,
            [*fidelities.digests, *filter(None, (inputs.model, inputs.load))],
            seed=settings.seed,
            packages=("torch",),
            digests=fidelities.digests,
        )
        described = spec.model_dump(mode="json")
        config = settings.model_dump(mode="json", by_alias=True)
        species = sorted({z for d in fidelities.train for z in d.species})

        # holds none of the data: an ensemble keeps it when a member is done
        def snapshot(weights: dict[str, Tensor], training: dict[str, Any]) -> ModelFile:
            return ModelFile(
                weights=weights,
                architecture=described,
                family=self.name,
                config=config,
                species=species,
                fidelities=entries,
                sae=sae,
                provenance=origin,
                training=training,
            )

        size = sum(p.numel() for p in model.parameters())
        shape = (
            [("architecture", f"of {inputs.load}")]
            if source and source.spec and not inputs.model
            else []
        )
        counts = [
            *shape,
            ("parameters", f"{size}"),
            ("batches per epoch", f"{feed.epoch_length}"),
        ]
        return Prepared(
            task=task,
            snapshot=snapshot,
            fingerprint={"config": config, "architecture": described, "inputs": origin["inputs"]},
            description=[*fidelities.rows(), *counts, *(transfer.rows() if transfer else [])],
            workers=data.loaders.train.num_workers,
            warnings=[*fidelities.notes, *(transfer.warnings if transfer else [])],
            transfer=transfer,
            save_split=fidelities.save_split,
            inspection=DataInspection(settings, fidelities, inputs.load),
        )
