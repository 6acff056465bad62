"""Independent tasks and who runs them: this process, others of this machine, or a cluster.

    r_i = f(t_i),  f = prepare(*shared);    yielded as r_1, r_2, ...  or as they come

How the work is cut into tasks belongs to the caller and must not depend on who runs it: a sum over
results in the order of the tasks then has the same terms in the same order everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from mlff_cli.core.runtime import StopRequest

POLL_SECONDS = 0.5  # how soon a stop request is noticed while every worker calculates

Key = TypeVar("Key", bound=Hashable)
F = TypeVar("F", bound=Hashable)  # the future of a task
Prepare = Callable[..., Callable[..., Any]]


class Crew(ABC):
    """Who runs the tasks of one prepared function; see `core.cluster.crew`."""

    @abstractmethod
    def map(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Run tasks and yield their results in the order of the tasks.

        Few results are held at a time. After a stop request nothing new is started; what is being
        calculated is yielded as far as the order allows, and the iteration ends early: ask the
        stop request.

        Args:
            tasks: arguments of the prepared function, taken as they are needed.

        Raises:
            MLFFError: a task's own error; that of the first task in order that fails.
            NumericalError: the workers that should run a task died.
        """

    @abstractmethod
    def as_completed(
        self, tasks: Iterable[tuple[Key, tuple[Any, ...]]]
    ) -> Iterator[tuple[Key, Any]]:
        """Run tasks and yield (key, result) in the order of completion.

        Stops and raises as `map`, with the results that came before an error yielded before it.
        """


class Here(Crew):
    """This process."""

    def __init__(self, prepare: Prepare, shared: tuple[Any, ...], stop: StopRequest) -> None:
        self._function = prepare(*shared)
        self._stop = stop

    def map(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """See `Crew`."""
        for arguments in tasks:
            if self._stop.requested:
                return
            yield self._function(*arguments)

    def as_completed(
        self, tasks: Iterable[tuple[Key, tuple[Any, ...]]]
    ) -> Iterator[tuple[Key, Any]]:
        """See `Crew`."""
        for key, arguments in tasks:
            if self._stop.requested:
                return
            yield key, self._function(*arguments)


class Elsewhere(Crew, Generic[F]):
    """Other processes, which are handed tasks and asked for futures.

    Attributes:
        stop: asked between tasks.
    """

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    @abstractmethod
    def ahead(self) -> int:
        """How many tasks may be handed out and not yet yielded."""

    @abstractmethod
    def submit(self, arguments: tuple[Any, ...]) -> F:
        """Hand out a task."""

    @abstractmethod
    def wait(self, futures: Collection[F]) -> Collection[F]:
        """Those that are done, after waiting `POLL_SECONDS` at most for the first of them."""

    @abstractmethod
    def result(self, future: F) -> Any:
        """What a future that is done holds; raises what its task raised."""

    @abstractmethod
    def drop(self, futures: Collection[F]) -> None:
        """Forget tasks: what has not begun never begins."""

    def map(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """See `Crew`."""
        waiting, line = iter(tasks), deque[F]()
        try:
            self._fill(line, waiting)
            while line:
                if self.wait([line[0]]):
                    yield self.result(line.popleft())
                elif self._gives_up():
                    return
                self._fill(line, waiting)
        finally:
            self.drop(line)

    def _fill(self, line: deque[F], waiting: Iterator[tuple[Any, ...]]) -> None:
        while len(line) < self.ahead() and not self.stop.requested:
            arguments = next(waiting, None)
            if arguments is None:
                return
            line.append(self.submit(arguments))

    def as_completed(
        self, tasks: Iterable[tuple[Key, tuple[Any, ...]]]
    ) -> Iterator[tuple[Key, Any]]:
        """See `Crew`."""
        waiting, running = iter(tasks), dict[F, Key]()

        def fill() -> None:
            while len(running) < self.ahead() and not self.stop.requested:
                task = next(waiting, None)
                if task is None:
                    return
                running[self.submit(task[1])] = task[0]

        try:
            fill()
            while running:
                done = self.wait(running)
                for future in done:
                    yield running.pop(future), self.result(future)
                if not done and self._gives_up():
                    return
                fill()
        finally:
            self.drop(running)

    def _gives_up(self) -> bool:
        """Whether what has been handed out is no longer waited for."""
        return False
