"""Where a Dask scheduler is, and whether it answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import distributed
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.registry import backends
from distributed.core import connect

from mlff_cli.core.errors import MissingDependencyError, UsageError
from mlff_cli.core.reporting import Reporter

TIMEOUTS = {  # environment variables and their defaults, s
    "MLFF_SCHEDULER_TIMEOUT": 10.0,  # until a scheduler that does not answer is given up
    "MLFF_WORKER_TIMEOUT": 60.0,  # until a cluster without workers is given up
}
LOST = (asyncio.CancelledError, CancelledError, distributed.client.ClosedClientError)


def check_address(address: str) -> None:
    """Refuse what is neither an address nor a scheduler file.

    Raises:
        UsageError: see above.
    """
    if _is_file(address):
        return
    try:
        scheme, place = parse_address(address)
        if scheme not in backends or scheme == "inproc":
            raise ValueError(f"unknown protocol {scheme!r}")
        if not parse_host_port(place)[0]:
            raise ValueError("missing host")
    except ValueError as error:
        raise UsageError(
            f"--scheduler is an address as tcp://HOST:8786, or the scheduler's JSON file, found "
            f"{address!r}: {error}",
            remedy="copy the address that `dask scheduler` prints",
        ) from error


def find_scheduler(address: str) -> str:
    """The address of a scheduler that answers.

    Args:
        address: its address, or the file that it writes it into, now or soon.

    Raises:
        UsageError: the address is none.
        MissingDependencyError: nobody answers there, or no file appears, in time.
    """
    check_address(address)
    seconds = seconds_of("MLFF_SCHEDULER_TIMEOUT")
    until = time.monotonic() + seconds
    place = _address_in(Path(address), until) if _is_file(address) else address
    with _silence_told(address, place):
        _knock(place, max(1.0, until - time.monotonic()))
    return place


def _is_file(address: str) -> bool:
    return address.endswith(".json") or Path(address).is_file()


@contextlib.contextmanager
def connected(address: str, reporter: Reporter) -> Iterator[distributed.Client]:
    """A client of the scheduler; see `find_scheduler` for the errors."""
    place = find_scheduler(address)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with _silence_told(address, place):
            client = distributed.Client(
                place,
                timeout=seconds_of("MLFF_SCHEDULER_TIMEOUT"),
                set_as_default=False,
                name="mlff",
            )
    for warning in told:
        reporter.warning(" ".join(str(warning.message).split()))
    try:
        yield client
    finally:
        with contextlib.suppress(OSError, *LOST):
            client.close()


@contextlib.contextmanager
def _silence_told(address: str, place: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ImportError) as error:  # ImportError: versions of Dask that cannot talk
        reason = "does not answer" if isinstance(error, OSError) else str(error)
        raise MissingDependencyError(
            f"the scheduler {place} {reason} (waited {seconds_of('MLFF_SCHEDULER_TIMEOUT'):g} s)",
            where=address if place != address else None,
            remedy="check the address and that `dask scheduler` runs there; "
            "MLFF_SCHEDULER_TIMEOUT=SECONDS waits longer",
        ) from error


def _knock(address: str, seconds: float) -> None:
    """See whether a Dask server answers; a client waits for ever where another program listens.

    Raises:
        OSError: nobody answers in time.
    """

    async def knock() -> None:
        arguments = distributed.Security().get_connection_args("client")
        comm = await asyncio.wait_for(connect(address, timeout=seconds, **arguments), seconds)
        await comm.close()

    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop of its own (notebooks)
        thread.submit(asyncio.run, knock()).result()


def _address_in(file: Path, until: float) -> str:
    """The address that a scheduler wrote into its file, which may still be to come."""
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(file.read_text(encoding="utf-8"))["address"])
        if time.monotonic() > until:
            raise MissingDependencyError(
                "no scheduler has written its address into this file",
                where=str(file),
                remedy="start one with `dask scheduler --scheduler-file FILE`; "
                "MLFF_SCHEDULER_TIMEOUT=SECONDS waits longer",
            )
        time.sleep(0.05)


@contextlib.contextmanager
def quiet_log() -> Iterator[None]:
    """Keep Dask's own log off the terminal; what matters becomes an error or a warning of ours."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def seconds_of(name: str) -> float:
    """One of `TIMEOUTS`, from the environment.

    Raises:
        UsageError: it is no number of seconds.
    """
    text = os.environ.get(name) or str(TIMEOUTS[name])
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e7:
        raise UsageError(f"{name} is a number of seconds above 0, found {text!r}")
    return seconds
