"""Trainings of several models at once on a GPU: their steps are launched together.

Each model's ``fit`` runs in a thread of its own, as if it were alone; one thread runs at a time. One that asks for
steps of its captured program waits until all have asked, or ended. Then the programs of one kind, which differ only in
memory and numbers (:func:`minigen.cuda.plan.many.kind_of`), are launched as one
(:func:`minigen.cuda.plan.many.together`) for the smallest number of steps that any of them asked for, and a thread that
has all of its steps goes on. So losses, flags, snapshots, callbacks and the end of a training are each model's own, and
a model that has diverged or stopped is left out of the later launches.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from minigen.backend import Program
from minigen.cuda.plan import many
from minigen.cuda.plan.launch import Executor, Launch
from minigen.cuda.run.memory import Slabs

if TYPE_CHECKING:
    from minigen.cuda.run.device import DeviceExecutor

current_member: ContextVar[Member | None] = ContextVar("current_member", default=None)
"""The model that the thread trains, one of several; None elsewhere."""


def executor(index: int) -> Executor:
    """GPU number ``index`` for a new backend: that of all models, with the memory of this one."""
    from minigen.cuda.run.device import DeviceExecutor

    member = current_member.get()
    return DeviceExecutor(index) if member is None else member.together.executor_of(index, member.number)


def capture(executor: Executor, launches: Sequence[Launch]) -> Program:
    """A program of ``launches``, which the other models' may join."""
    member = current_member.get()
    if member is None:
        return executor.capture(launches)
    return MemberProgram(member, executor, launches, many.kind_of(launches))


def sharing() -> dict[str, Any]:
    """How many models share the launches of a program, and whether its bits are those of one model: for tiles."""
    member = current_member.get()
    return {} if member is None else {"models": member.together.models, "exact": member.together.exact}


class Member:
    """Model ``number`` of those that are trained ``together``."""

    def __init__(self, together: Together, number: int) -> None:
        self.together, self.number = together, number
        self.done = 0  # steps


class MemberProgram:
    """A model's step. Those of the same ``kind`` can be launched as one."""

    def __init__(self, member: Member, executor: Executor, launches: Sequence[Launch], kind: Hashable) -> None:
        self.member, self.launches = member, launches
        self.executor = getattr(executor, "common", executor)
        self.kind = self.executor, kind

    def run(self, steps: int) -> None:
        """Repeat it ``steps`` times, with other models' steps."""
        self.member.together.run(self, steps)

    def with_others(self, programs: Sequence[MemberProgram]) -> Program:
        """``programs``, this one among them, as one."""
        if len(programs) == 1:
            return self.executor.capture(self.launches)
        launches = many.together([program.launches for program in programs], self.executor)
        return self.executor.capture(launches)


class Request:
    """Steps of a program that its thread waits for."""

    def __init__(self, program: MemberProgram, steps: int) -> None:
        self.program, self.left = program, steps


class Together:
    """``models`` trainings at once: each thread is in :meth:`member` from its beginning to its end.

    Tiles of matrix products are chosen for all models together; with ``exact`` among those that take sums in the order
    of a single model's, so that every model has the bits that it has alone.
    """

    def __init__(self, models: int, exact: bool = True) -> None:
        self.models, self.exact = models, exact
        self.turn = threading.Condition()  # who holds it runs
        self.training = models
        self.requests: list[Request] = []
        self.programs: dict[tuple[MemberProgram, ...], Program] = {}
        self.executors: dict[int, DeviceExecutor] = {}
        self.slabs: dict[int, Slabs] = {}  # by the GPU's number
        self.error: BaseException | None = None  # of a launch for several

    def close(self) -> None:
        """Give up what was shared when all trainings are over."""
        self.programs.clear()
        for index, executor in self.executors.items():
            executor.residents.clear()
            self.slabs[index].close()

    @contextmanager
    def member(self, number: int) -> Iterator[None]:
        """The training of model ``number``, in this thread."""
        with self.turn:
            token = current_member.set(Member(self, number))
            try:
                yield
            finally:
                current_member.reset(token)
                self.training -= 1
                self.turn.notify_all()

    def run(self, program: MemberProgram, steps: int) -> None:
        """Repeat ``program`` ``steps`` times. Raises a launch's error, and RuntimeError in the other threads."""
        request = Request(program, steps)
        self.requests.append(request)
        while request.left and self.error is None:
            if len(self.requests) < self.training:
                self.turn.wait()
                continue
            try:
                self._advance()
            except BaseException as error:
                self.error = error
                raise
            finally:
                self.turn.notify_all()
        if request.left:
            raise RuntimeError("a launch for several models has failed") from self.error

    def _advance(self) -> None:
        """Steps of the model that has done the fewest, and of all whose programs are like its."""
        last = min(self.requests, key=lambda request: request.program.member.done).program
        chosen = [request for request in self.requests if request.program.kind == last.kind]
        chosen.sort(key=lambda request: request.program.member.number)
        programs = tuple(request.program for request in chosen)
        if programs not in self.programs:
            self.programs[programs] = last.with_others(programs)
        steps = min(request.left for request in chosen)
        self.programs[programs].run(steps)
        for request in chosen:
            request.left -= steps
            request.program.member.done += steps
        self.requests = [request for request in self.requests if request.left]

    def executor_of(self, index: int, number: int) -> DeviceExecutor:
        """GPU number ``index`` with the memory of model ``number``."""
        from minigen.cuda.run.device import DeviceExecutor

        if index not in self.executors:
            self.executors[index] = DeviceExecutor(index)
            self.slabs[index] = Slabs(self.models, self.executors[index].arena.allocate)
        return self.executors[index].with_arena(self.slabs[index].arena(number))
