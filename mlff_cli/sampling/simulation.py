"""From the last kept state to the end of a sampling run."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.reporting import Progress, Reporter
from mlff_cli.core.runtime import StopRequest
from mlff_cli.core.workers import available_cores
from mlff_cli.data.trajectories.h5md_writer import H5MDWriter
from mlff_cli.data.trajectories.partial_run import PartialRun
from mlff_cli.sampling.plan import Plan
from mlff_cli.sampling.preparation import AnyEnsemble, interrupted, reached, tables

SAVE_SECONDS = 30.0  # at most this much work is lost by a kill -9, or one interval
EQUILIBRATING = "equilibrating"


def simulate(
    plan: Plan, partial: PartialRun, ensemble: AnyEnsemble, stop: StopRequest, reporter: Reporter
) -> float:
    """Go to the end; returns the speed of one replica in ns/day."""
    schedule, n = plan.schedule, len(plan.temperatures)
    first, kept = ensemble.step, ensemble.step
    done = schedule.frames_before(first)
    if first:
        reporter.info(f"continuing: {reached(plan, first)} there")
    parallel = max(1, min(n, available_cores() // plan.options.threads))
    idle = available_cores() - parallel * plan.options.threads
    if idle > 0 and not plan.batched and plan.engine.platform == "CPU":
        reporter.info(
            f"{idle} of {available_cores()} cores are idle: --threads uses them on a large "
            "system, at the price of results that do not repeat to the last bit"
        )
    begun = saved = clock.monotonic()
    told = f" at {n} temperatures" if n > 1 else ""
    told += f", {plan.n_replicas} replicas" if plan.options.replicas > 1 else ""

    def frames(arrays: Mapping[str, np.ndarray], row: int) -> None:
        writer.write(row, {k: v for k, v in arrays.items() if writer.has(k)})

    def go_on(end: int, bar: Progress, count: Callable[[int], int]) -> None:
        """Go to a step; the bar shows what `count` says of steps."""
        nonlocal saved, kept
        while ensemble.step < end:
            before = count(ensemble.step)
            try:
                arrived = ensemble.advance(pool, stop, frames)
            except NumericalError as error:
                raise _exploded(plan, ensemble, error) from error
            now = clock.monotonic()
            last = ensemble.step == schedule.end
            if arrived and (stop.requested or last or now - saved > SAVE_SECONDS):
                writer.sync()
                partial.save(ensemble.state())
                saved, kept = clock.monotonic(), ensemble.step
            if stop.requested and not last:
                raise interrupted(plan, partial, stop, kept)
            speed = _ns_per_day((ensemble.step - first) * plan.timestep, now - begun)
            bar.advance(count(ensemble.step) - before, **_fields(ensemble, speed))

    with (
        H5MDWriter(partial.trajectory) as writer,
        ThreadPoolExecutor(parallel, thread_name_prefix="replica") as pool,
    ):
        if first < schedule.equilibration:
            with reporter.progress(schedule.equilibration, EQUILIBRATING + told, "steps") as bar:
                bar.skip(first)
                go_on(schedule.equilibration, bar, lambda step: step)
        with reporter.progress(schedule.n_frames, "sampling" + told, "frames") as bar:
            bar.skip(done)
            go_on(schedule.end, bar, schedule.frames_before)
        for name, values in tables(plan, ensemble).items():
            writer.write_table(name, values)
        writer.sync()
    return _ns_per_day((ensemble.step - first) * plan.timestep, clock.monotonic() - begun)


def _ns_per_day(femtoseconds: float, seconds: float) -> float:
    return femtoseconds * 1e-6 * 86400 / max(seconds, 1e-9)


def _fields(ensemble: AnyEnsemble, speed: float) -> dict[str, Any]:
    """What the progress shows."""
    fields: dict[str, Any] = {"ns/day": round(speed, 1)}
    if ensemble.ladder.attempted.sum():
        share = ensemble.ladder.accepted.sum() / ensemble.ladder.attempted.sum()
        fields["swaps"] = f"{100 * share:.0f} %"
    return fields


def _exploded(plan: Plan, ensemble: AnyEnsemble, error: NumericalError) -> NumericalError:
    schedule = plan.schedule
    frame = schedule.frames_before(ensemble.step) * plan.n_replicas
    when = f"before frame {frame}" if ensemble.step >= schedule.equilibration else "equilibration"
    until = schedule.next_event(ensemble.step)
    return NumericalError(
        error.message,
        where=f"{plan.output}, {when}, steps {ensemble.step} to {until}",
        remedy=f"take a --timestep shorter than {plan.timestep:g} fs, or mend the structure",
    )
