"""When a simulation stops for a frame or an exchange, counted in steps."""

from __future__ import annotations

from dataclasses import dataclass

from mlff_cli.core.errors import UsageError

FS = 1000.0  # in a picosecond
ROUNDING = 1e-6  # steps by which a time may miss a whole number of them
MOST_STEPS = 10**15  # more than any machine will do; their numbers are exact in every type


@dataclass(frozen=True)
class Schedule:
    """Steps of every part; a production of `production` steps follows `equilibration` steps.

    Attributes:
        equilibration: steps before the first frame is counted.
        production: steps in all after that.
        interval: between frames.
        exchange: between exchanges; 0: none.

    >>> s = Schedule(equilibration=15, production=40, interval=10, exchange=4)
    >>> [s.next_event(x) for x in (0, 10, 15, 19, 23, 25)]
    [10, 15, 19, 23, 25, 27]
    """

    equilibration: int
    production: int
    interval: int
    exchange: int

    @property
    def end(self) -> int:
        """Steps in all."""
        return self.equilibration + self.production

    @property
    def n_frames(self) -> int:
        """Frames of one replica."""
        return self.production // self.interval

    def next_event(self, step: int) -> int:
        """The first step after `step` at which something happens."""
        start, periods = (self.equilibration, [self.interval, self.exchange])
        if step < start:
            return min(start, (step // self.interval + 1) * self.interval)
        done = step - start
        nexts = (start + (done // p + 1) * p for p in periods if p)
        return min(self.end, *nexts, self.end)

    def is_frame(self, step: int) -> bool:
        """Whether a frame is written at this step."""
        return step > self.equilibration and (step - self.equilibration) % self.interval == 0

    def is_exchange(self, step: int) -> bool:
        """Whether replicas exchange at this step."""
        done = step - self.equilibration
        return self.exchange > 0 and done > 0 and done % self.exchange == 0

    def frames_before(self, step: int) -> int:
        """Frames of one replica at or before this step."""
        return max(0, step - self.equilibration) // self.interval


def make_schedule(
    *,
    time: float,
    equilibration: float,
    interval: float,
    exchange: float | None,
    timestep: float,
) -> Schedule:
    """Steps from times.

    Args:
        time: of the production, ps.
        equilibration: before it, ps.
        interval: between frames, ps.
        exchange: between exchanges, ps; None: no exchange.
        timestep: fs.

    Raises:
        UsageError: a time is not positive, or does not divide as it must.
    """
    for name, value in (("timestep", timestep), ("time", time), ("interval", interval)):
        if not 0 < value < float("inf"):
            raise UsageError(f"--{name} must be positive, found {value:g}")
    if not 0 <= equilibration < float("inf"):
        raise UsageError(f"--equilibration must be 0 or more, found {equilibration:g}")
    if exchange is not None and not 0 < exchange < float("inf"):
        raise UsageError(f"--exchange-interval must be positive, found {exchange:g}")
    step = timestep / FS
    for name, value in (("interval", interval), ("time", time), ("equilibration", equilibration)):
        check_steps(f"{name} {value:g} ps", value / step)
    if exchange is not None:
        check_steps(f"exchange-interval {exchange:g} ps", exchange / step)
    between = _steps("interval", interval, "timestep", step)
    return Schedule(
        equilibration=_steps("equilibration", equilibration, "timestep", step),
        production=_steps("time", time, "interval", interval) * between,
        interval=between,
        exchange=_steps("exchange-interval", exchange, "timestep", step) if exchange else 0,
    )


def check_steps(told: str, steps: float) -> None:
    """Refuse more steps than can be counted.

    Raises:
        UsageError: naming the option `told`.
    """
    if steps > MOST_STEPS:
        raise UsageError(
            f"a simulation has at most {MOST_STEPS:.0e} steps, found --{told}: {steps:.3g} steps",
            remedy="times are in ps, the timestep is in fs",
        )


def _steps(name: str, value: float, of: str, unit: float) -> int:
    """How many of `unit` ps are in `value` ps."""
    n = round(value / unit)
    if abs(value / unit - n) > ROUNDING or (n < 1 and value > 0):
        below, above = max(1, int(value / unit)) * unit, (int(value / unit) + 1) * unit
        raise UsageError(
            f"--{name} must be a multiple of --{of} ({unit:g} ps), found {value:g} ps",
            remedy=" or ".join(dict.fromkeys((f"take {below:g} ps", f"{above:g} ps")))
            if below < above
            else f"take {above:g} ps, or a shorter --{of}",
        )
    return n
