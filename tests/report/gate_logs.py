"""Made-up gate logs: a healthy run, and what makes each rule warn or fail."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np

from mlff_cli.data.gate_log import Direction, EpochRecord

SAMPLES = 256


@cache
def healthy(n=1500, seed=0):
    """A run as it should be: the seed's schedule of E_max, energies and loss falling."""
    rng = np.random.default_rng(seed)
    records = []
    for e in range(1, n + 1):
        s = e / n
        left = math.exp(-6.0 * s)  # of the way that is still to go
        regularized = 0.08 if s <= 0.07 else 0.02 if s <= 0.67 else 0.003
        moved = 11.35 * (1 - left) + 0.01 * rng.standard_normal()
        energies = {d: 40.0 + scale * left + 0.3 * rng.standard_normal() for d, scale in START}
        directions = {
            name: Direction(
                samples=SAMPLES,
                regularized=round(regularized * SAMPLES),
                clamped=0,
                nonfinite=0,
                q05=q50 - 20.0,
                q50=q50,
                q95=q50 + 25.0 + 100.0 * left,
                q99=q50 + 60.0 + 300.0 * left,
                energy=0.3 * q50,
                gated_minus_true=-0.1 * left,
                logdet=moved if name == "fwd" else -moved,
            )
            for name, q50 in energies.items()
        }
        records.append(
            EpochRecord(
                epoch=e,
                step=4 * e,
                mode="safe",
                E_cut=500.0,
                E_max=E_max(s),
                batches=4,
                skipped=0,
                loss=5.0 + 300.0 * left + 0.2 * rng.standard_normal(),
                excess_nats=None,
                lr=5e-4 * min(1.0, s / 0.0333),
                warmup=s <= 0.0333,
                grad_norm=1.0,
                **directions,
            )
        )
    return tuple(records)


START = (("fwd", 300.0), ("inv", 240.0))


def E_max(share):  # noqa: N802 - the symbol
    """The three stages: 1e10 to epoch 50 of 1500, falling to 1e5 at epoch 300."""
    p = min(1.0, max(0.0, (share - 1 / 30) / (1 / 6)))
    return 1e10 * 1e-5**p


def edit(records, *, first=1, last=None, fwd=None, inv=None, both=None, **own):
    """Change records from one epoch to another; a value may be a function of the record.

    `fwd`, `inv` and `both` hold values of directions, as {"q50": 1.0}.
    """
    last = last or records[-1].epoch
    done = []
    for r in records:
        if first <= r.epoch <= last:
            values = {k: v(r) if callable(v) else v for k, v in own.items()}
            for name, more in (("fwd", fwd), ("inv", inv)):
                told = {**(both or {}), **(more or {})}
                told = {k: v(r) if callable(v) else v for k, v in told.items()}
                values[name] = replace(getattr(r, name), **told)
            r = replace(r, **values)
        done.append(r)
    return done


def without(records, key):
    """The same log, written by somebody who knows nothing of a key."""
    plain = [r.plain() for r in records]
    for line in plain:
        if "." in key:
            name, inner = key.split(".")
            del line[name][inner]
        else:
            del line[key]
    return [EpochRecord.read(line) for line in plain]


def _between(low, high, n):
    """A course from one value to another, straight in its logarithm."""
    return lambda r: low * (high / low) ** (r.epoch / n)


# rule, verdict -> log
CASES = {
    ("regularized share", "warning"): lambda: edit(
        healthy(), first=600, both={"regularized": round(0.25 * SAMPLES)}
    ),
    ("skip rate", "warning"): lambda: edit(
        healthy(), first=106, skipped=lambda r: int(r.epoch % 2 == 0)
    ),
    ("skip rate", "failed"): lambda: edit(healthy(), first=700, last=719, skipped=4, loss=None),
    ("loss", "warning"): lambda: edit(healthy(), first=106, loss=lambda r: 100.0 + 0.05 * r.epoch),
    ("loss", "failed"): lambda: edit(healthy(), first=900, last=900, loss=math.nan),
    ("energies", "warning"): lambda: edit(
        healthy(), first=1001, inv={"q50": lambda r: 40 + 0.2 * (r.epoch - 1000)}
    ),
    ("energies", "failed"): lambda: edit(
        healthy(),
        first=401,
        fwd={
            "q50": lambda r: (
                261_778.0 * (751_270_784 / 261_778) ** ((min(r.epoch, 500) - 400) / 100)
            )
        },
    ),
    ("direction balance", "warning"): lambda: edit(
        healthy(), inv={"q50": _between(100.0, 5000.0, 1500)}
    ),
    ("direction balance", "failed"): lambda: edit(
        healthy(), first=1400, inv={"nonfinite": SAMPLES, "clamped": SAMPLES, "regularized": 0}
    ),
    ("log-det", "warning"): lambda: edit(
        healthy(), first=800, last=850, fwd={"logdet": 3.0}, inv={"logdet": -3.0}
    ),
    ("log-det", "failed"): lambda: edit(
        healthy(), first=800, last=1000, fwd={"logdet": 3.0}, inv={"logdet": -3.0}
    ),
    ("saturation", "warning"): lambda: edit(
        healthy(),
        first=800,
        fwd={"clamped": 77, "logdet": lambda r: 0.2 * r.epoch},
        inv={"clamped": 77},
    ),
    ("saturation", "failed"): lambda: edit(healthy(), first=800, both={"clamped": 150}),
}
