"""Where processes meet, and where a process that fails leaves the reason for the others.

A key-value store beside the collectives, kept by rank 0 or by torchrun's agent. Whoever ends leaves
a word there and closes its connections; the others' collectives break, and they read why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from mlff_cli.core.errors import MLFFError, NumericalError, UsageError
from mlff_cli.training.launch import Launch
from mlff_cli.training.placement import Member

POLL = 0.05  # seconds between looks at the store
SETTLE = 0.2  # seconds in which all connections of a killed process break
KNOCK = 5.0  # seconds until an address that does not answer is given up
GRACE = 3.0  # seconds to learn why the others failed


class PeerError(NumericalError):
    """Another process of the run failed or disappeared; the exit code is that of its failure."""


class Board:
    """The store that all processes read and write, and the protocol of coming and going.

    Args:
        launch: where it is, and who this process is.

    Raises:
        UsageError: it cannot be reached.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.hosts: dict[int, str] = {}
        self._until = time.monotonic() + launch.join_timeout
        self._left = False
        self._superfluous = False  # another process has this rank already
        self._here: set[int] = set()  # ranks whose end is waited for
        self._ended: dict[int, Any] | None = None
        self._failed: Sequence[Any] = ()  # rank, exit code and text of the first that failed
        self._serves = launch.rank == 0 and not launch.store_runs
        where = f"{launch.address}:{launch.port}"
        if not self._serves:
            self._wait_for_server(where)
        try:
            store = TCPStore(
                launch.address,
                launch.port,
                is_master=self._serves,
                timeout=timedelta(seconds=launch.join_timeout),
                wait_for_workers=False,
            )
        except RuntimeError as error:
            doing = "open" if self._serves else "use"
            raise UsageError(
                f"rank {launch.rank} on {socket.gethostname()} cannot {doing} the meeting place "
                f"{where}: {_first_line(error)}",
                remedy="another run may use the port: set MASTER_PORT to a free one",
            ) from error
        self.store = PrefixStore(f"mlff/{launch.attempt}", store)

    def _wait_for_server(self, where: str) -> None:
        """Knock until rank 0 opens; the library's own attempts print every failure."""
        launch = self.launch
        while True:
            try:
                return self._knock()
            except socket.gaierror as error:
                raise UsageError(
                    f"the host {launch.address!r} of rank 0 has no address as seen from "
                    f"{socket.gethostname()} ({error.strerror})",
                    remedy="export a name of rank 0's host that all nodes resolve as MASTER_ADDR",
                ) from error
            except OSError as error:
                if time.monotonic() > self._until:
                    raise UsageError(
                        f"rank {launch.rank} on {socket.gethostname()} found nobody at {where} "
                        f"within {launch.join_timeout:g} s ({error.strerror or error})",
                        remedy="see whether rank 0 started there; MASTER_ADDR must be its host and "
                        "no firewall may block MASTER_PORT; MLFF_JOIN_TIMEOUT waits longer",
                    ) from error
            time.sleep(POLL)

    def _knock(self) -> None:
        """Connect to the server and hang up.

        Raises:
            OSError: nobody is there.
        """
        address = (self.launch.address, self.launch.port)
        socket.create_connection(address, timeout=KNOCK).close()

    # -- coming -----------------------------------------------------------------------------------

    def meet(self, me: Member) -> list[Member]:
        """Wait until all processes are here; returns them in the order of their ranks.

        Raises:
            UsageError: some do not come, or two have one rank, or they count differently.
            PeerError: one of them failed before all were here.
        """
        try:
            return self._meet(me)
        except RuntimeError as error:  # the store went with rank 0
            raise self.reason(error) from error

    def _meet(self, me: Member) -> list[Member]:
        launch = self.launch
        if self.store.add(f"taken/{me.rank}", 1) > 1:
            self._superfluous = True
            raise UsageError(
                f"there are two processes of rank {me.rank} at {launch.address}:{launch.port}",
                remedy="another run may use the port: set MASTER_PORT to a free one",
            )
        self.store.set(f"came/{me.rank}", json.dumps([launch.size, dataclasses.asdict(me)]))
        everybody = set(range(launch.size))
        came = self._read("came", everybody, self._until, lambda: self.store.check(["failed"]))
        self.hosts = {rank: member["host"] for rank, (_, member) in came.items()}
        self._here = set(came)
        for rank, (size, _) in came.items():
            if size != launch.size:
                raise UsageError(
                    f"rank {me.rank} counts {launch.size} processes, rank {rank} counts {size}",
                    remedy="give all nodes the same number of nodes and processes",
                )
        missing = sorted(everybody - came.keys())
        if missing:
            late = UsageError(
                f"{len(came)} of {launch.size} processes came to {launch.address}:{launch.port} "
                f"within {launch.join_timeout:g} s; missing: {_ranks(missing)}",
                remedy="see the logs of the missing ones; MLFF_JOIN_TIMEOUT=SECONDS waits longer",
            )
            if self.store.check(["failed"]):
                first = json.loads(self.store.get("failed"))[2]
                if first != str(late):  # else another rank's clock ran out a moment earlier
                    self._here = everybody  # the missing may come yet, and must learn of it
                    raise self.reason()
            raise late
        return [Member(**member) for _, member in came.values()]

    def _read(
        self,
        name: str,
        expected: set[int],
        until: float,
        enough: Callable[[], bool] = lambda: False,
    ) -> dict[int, Any]:
        """What the expected ranks left under a name, as far as they did in time."""
        found: dict[int, Any] = {}
        while True:
            for rank in expected - found.keys():
                key = f"{name}/{rank}"
                if self.store.check([key]):
                    found[rank] = json.loads(self.store.get(key))
            if found.keys() == expected or time.monotonic() > until or enough():
                return dict(sorted(found.items()))
            time.sleep(POLL)

    # -- going ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def parting(self) -> Iterator[None]:
        """Leave the group in every case, and a word for the others of how it went."""
        try:
            yield
        except BaseException as error:
            self._leave({"text": str(error)}, failed=[self.launch.rank, _code(error), str(error)])
            ended = self._how_all_ended()
            if isinstance(error, MLFFError) and not isinstance(error, PeerError):
                error.told = self.launch.rank > 0 and ended.get(0, {}).get("text") == str(error)
            self._close(len(ended))
            raise
        self._leave({"done": True})
        if self._serves:
            self._how_all_ended()  # who is still there may need the store

    def reason(self, error: RuntimeError | None = None) -> PeerError:
        """Why the others are not to be had: an error of theirs, or their disappearance."""
        time.sleep(SETTLE)
        self._leave({})
        ended = self._how_all_ended()
        gone = sorted(self._here - ended.keys()) if ended else [0]
        if self._failed:
            first, code, text = self._failed
            peer = PeerError(f"{self._name(first)} failed: {text}")
            peer.exit_code = code
        else:
            who = " and ".join(map(self._name, gone)) or "another process"
            peer = PeerError(
                f"lost contact with {who}" + (f" ({_first_line(error)})" if error else ""),
                remedy="see its log; the same command continues from the last checkpoint",
            )
        peer.told = self.launch.rank > 0 and 0 not in gone  # rank 0 says it
        return peer

    def _leave(self, record: dict[str, Any], failed: Sequence[Any] | None = None) -> None:
        """Leave a word, once, and close the connections: whoever waits for this rank goes on."""
        if self._left:
            return
        self._left = True
        if self._is_open():
            with contextlib.suppress(RuntimeError):
                if failed:
                    self.store.compare_set("failed", "", json.dumps(failed))  # the first stays
                if not self._superfluous:
                    self.store.set(f"ended/{self.launch.rank}", json.dumps(record))
        if not dist.is_initialized():
            return
        with contextlib.suppress(RuntimeError):
            group = dist.group.WORLD
            if group is not None and "done" not in record and dist.get_backend() != "gloo":
                group.abort()  # kernels that wait for a dead peer never end
            dist.destroy_process_group()

    def _how_all_ended(self) -> dict[int, Any]:
        """The words that the ranks left; empty where the store is gone."""
        if self._ended is None:
            self._ended = {}
            if self._is_open():
                with contextlib.suppress(RuntimeError):
                    self._ended = self._read("ended", self._here, time.monotonic() + GRACE)
                    if self.store.check(["failed"]):
                        self._failed = json.loads(self.store.get("failed"))
        return self._ended

    def _is_open(self) -> bool:
        """Whether the store lives; on a broken connection the library would print its own stack."""
        with contextlib.suppress(OSError):
            self._knock()
            return True
        return False

    def _close(self, readers: int) -> None:
        """Keep the store open until all who live have read it."""
        if self._superfluous or not self._is_open():
            return
        until = time.monotonic() + GRACE
        with contextlib.suppress(RuntimeError):
            left = self.store.add("left", 1)
            while self._serves and left < readers and time.monotonic() < until:
                time.sleep(POLL)
                left = self.store.add("left", 0)

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts[rank]}" if rank in self.hosts else f"rank {rank}"


def _code(error: BaseException) -> int:
    """The exit code that an exception becomes."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_code if isinstance(error, MLFFError) else 1


def _first_line(error: BaseException) -> str:
    """A library's message without its stack and the place in its source."""
    line = str(error).strip().partition("\n")[0].partition(". This is typically")[0]
    return re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", line)


def _ranks(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:10]))
    return f"rank {shown}" + (f" and {len(ranks) - 10} more" if len(ranks) > 10 else "")
