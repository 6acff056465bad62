"""The transport recipe: a flow between two temperatures, trained on its energy behind a gate."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mlff_cli.core.artifacts import provenance, sha256
from mlff_cli.core.checks import Check
from mlff_cli.core.config import load_config
from mlff_cli.core.errors import ConfigError, MLFFError
from mlff_cli.core.reporting import Reporter
from mlff_cli.data.model_file import ModelFile
from mlff_cli.families.base import Inputs, Prepared
from mlff_cli.families.transport_checklist import TransportInspection, diagnose
from mlff_cli.families.transport_data import (
    Ensemble,
    Frames,
    Recorded,
    TransportBatches,
    read_frames,
)
from mlff_cli.families.transport_engine import check_energies, engine_of, recorded_system
from mlff_cli.families.transport_model import (
    FAMILY,
    UNITS,
    Transporter,
    architecture_of,
    flow_of,
    load_weights,
)
from mlff_cli.families.transport_settings import TransportSettings
from mlff_cli.flows.build import build_flow
from mlff_cli.flows.flow import Flow
from mlff_cli.flows.gating import Gate, quantile_threshold
from mlff_cli.flows.spec import FlowSpec
from mlff_cli.physics.replica_exchange import K_B
from mlff_cli.training.gate_journal import GateJournal, Thresholds
from mlff_cli.training.task import Batching, Task
from mlff_cli.training.transport import UNITS as METRICS
from mlff_cli.training.transport import TransportLoss, TransportMetrics

if TYPE_CHECKING:
    import openmm

    from mlff_cli.physics.energies import EnergyEngine


class Transport:
    """The family; see `families.base.Family`."""

    name = FAMILY
    schema = TransportSettings

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        """A flow of a model file's architecture."""
        return flow_of(architecture)

    def diagnose(self, settings: TransportSettings, error: MLFFError) -> list[Check]:
        """What can be said of the files one by one (see `Family`)."""
        return diagnose(settings, error)

    def prepare(self, settings: TransportSettings, inputs: Inputs, reporter: Reporter) -> Prepared:
        """Check the data and build flow, batches, loss and metrics (see `Family`)."""
        _refuse(settings)
        spec = _spec(settings, inputs)
        recorded = read_frames(settings)
        system = recorded_system(recorded)
        engine, engine_name, close = engine_of(settings, system, inputs)
        try:
            check_energies(engine, recorded)
            ready = self._ready(settings, inputs, spec, recorded, system, engine, engine_name)
        except BaseException:  # worker processes that nobody ends keep the program waiting
            close()
            raise
        return dataclasses.replace(ready, close=close)

    def _ready(
        self,
        settings: TransportSettings,
        inputs: Inputs,
        spec: FlowSpec,
        recorded: Recorded,
        system: openmm.System,
        engine: EnergyEngine,
        engine_name: str,
    ) -> Prepared:
        """What `prepare` makes once there is an engine."""
        frames = (recorded.source, recorded.target)
        kelvin = (recorded.source.kelvin, recorded.target.kelvin)
        betas = (1 / (K_B * kelvin[0]), 1 / (K_B * kelvin[1]))
        data = settings.data
        split = [e.split(data.val_fraction, data.val_frames) for e in frames]
        watched = _gate(settings, *(side[0].energy for side in split))
        gate = watched if settings.use_energy_gating else None

        flow = build_flow(spec, recorded.molecule, inputs.dtype)
        train, validation = (Frames.of(a, b, inputs.dtype) for a, b in zip(*split, strict=True))
        flow.fit(train.source, train.target, kelvin[1] / kelvin[0])
        described = architecture_of(spec, recorded, system)
        if inputs.load:
            load_weights(flow, inputs.load, described)
        flow = flow.to(inputs.device)
        training, world = settings.training, inputs.world
        batches = TransportBatches(
            train,
            validation,
            seed=settings.seed,
            size=training.batch_size,
            epoch_length=training.batches_per_epoch,
            E_max_at=watched.E_max_at,
            split=training.split,
            rank=world.rank,
            processes=world.size,
        )
        new_metrics = functools.partial(TransportMetrics, betas, inputs.device)
        task = Task(
            model=flow,
            epoch_length=training.batches_per_epoch,
            train_batch=batches.training,
            n_validation=batches.n_validation,
            validation_batch=batches.validating,
            predict=Transporter(engine),
            loss=TransportLoss(
                betas,
                gate,
                forward=training.forward,
                inverse=training.inverse,
                symmetric=training.symmetric,
            ).to(inputs.device),
            new_metrics=new_metrics,
            measured=tuple(METRICS),
            watch=["excess_nats", "acceptance"],
            name_samples=batches.name_frames,
            batching=Batching(
                training.batch_size,
                "conformations",
                training.split,
                "training",
                "batch_size",
                "training.batch_size",
            ),
            samples="conformations",
            journal=GateJournal(
                kelvin,
                betas,
                Thresholds(gate, watched),
                -(-training.batch_size // world.size),
                (training.forward, training.inverse),
                [f"energy evaluation: {engine_name}"],
            ),
        )
        digests = {path: sha256(path) for path in recorded.paths}
        origin = provenance(
            inputs.command,
            [*recorded.paths, *filter(None, (inputs.model, inputs.load))],
            seed=settings.seed,
            packages=("torch", "openmm", "zuko"),
            digests=digests,
        )
        config = settings.model_dump(mode="json", by_alias=True)
        species = sorted(set(recorded.molecule.numbers.tolist()))

        # holds none of the data: an ensemble keeps it when a member is done
        def snapshot(weights: dict[str, Tensor], training: dict[str, Any]) -> ModelFile:
            return ModelFile(
                weights=weights,
                architecture=described,
                family=FAMILY,
                config=config,
                species=species,
                fidelities=[],
                sae={},
                provenance=origin,
                training=training,
                units=dict(UNITS),
            )

        inspection = TransportInspection(recorded, watched, gate is not None, training.batch_size)
        return Prepared(
            task=task,
            snapshot=snapshot,
            fingerprint={"config": config, "architecture": described, "inputs": origin["inputs"]},
            description=_description(recorded.molecule.name, flow, spec, split, settings),
            workers=data.workers,
            inspection=inspection,
            warnings=inspection.warnings(),
        )


def _refuse(settings: TransportSettings) -> None:
    """Refuse what has no meaning for flows."""
    if settings.trainer.compile:
        raise ConfigError(
            "--compile traces the step of a potential, a flow's calls an energy engine",
            remedy="leave it out",
        )
    if settings.trainer.precision == "bf16":
        raise ConfigError(
            "trainer.precision is full or tf32 for flows, found bf16: 8 bits do not resolve "
            "energies of a molecule",
            remedy="leave trainer.precision out",
        )
    if settings.flow.kind in ("linear", "identity"):
        raise ConfigError(
            f"flow.kind={settings.flow.kind} has nothing to train, it is a baseline that "
            "`mlff evaluate` measures beside every flow",
            remedy="set flow.kind to ic-spline or tarflow",
        )


def _spec(settings: TransportSettings, inputs: Inputs) -> FlowSpec:
    """The flow of the configuration, or of `--model`; its seed is the run's where it has none."""
    spec = settings.flow
    if inputs.model is not None:
        spec = load_config([inputs.model], [], FlowSpec).model
    if "seed" not in spec.model_fields_set:
        spec = spec.model_copy(update={"seed": settings.seed % 2**63})
    return spec


def _gate(settings: TransportSettings, cold: np.ndarray, hot: np.ndarray) -> Gate:
    """The gate with its thresholds; `E_cut: auto` looks at the training frames' energies."""
    if settings.E_cut != "auto":
        return settings.gate_of(settings.E_cut)
    found = quantile_threshold(torch.from_numpy(cold), torch.from_numpy(hot))
    try:
        return settings.gate_of(round(found, 3))
    except ValueError as error:
        raise ConfigError(
            f"E_cut=auto: {error}", remedy="raise E_max, or give E_cut in kJ/mol"
        ) from None


def _description(
    name: str,
    flow: Flow,
    spec: FlowSpec,
    split: list[tuple[Ensemble, Ensemble]],
    settings: TransportSettings,
) -> list[tuple[str, str]]:
    """The training in words."""
    training = settings.training
    rows = [("molecule", name)] if name else []
    rows += [
        (f"frames of {train.kelvin:g} K", f"{len(train)} train, {len(v)} validation, the last")
        for train, v in split
    ]
    size = sum(p.numel() for p in flow.parameters())
    epochs, steps = training.epochs, training.batches_per_epoch
    return [
        *rows,
        # one of positions knows no linear map of internal coordinates
        (
            "flow",
            f"{spec.kind}, starting from {'identity' if spec.kind == 'tarflow' else spec.start}",
        ),
        ("parameters", f"{size}"),
        ("batch", f"{training.batch_size} frames of each temperature"),
        ("length", f"{epochs} epochs of {steps} batches, warm-up {training.warmup_epochs}"),
    ]
