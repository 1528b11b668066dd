"""Making a program: beside the eager training, in a forked process or, where that cannot be, a thread; or at once.

A forked copy of the training captures and compiles, measures the program on its own copies, and sends it as it was
before compiling; what was compiled lies in the cache. The process that trains loses no time to it: it imports no JAX
and traces nothing until the program is known to be worth it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from stoker.engines.capture import State, capture, refusal_of
from stoker.engines.plan import Plan, form
from stoker.engines.rates import are_constant, keep_constant
from stoker.engines.reuse import PROGRAMS, sameness
from stoker.engines.step import Step

__all__ = ["Build", "Made", "begin", "forks"]

LONGEST = 1200  # seconds after which a process is given up that may hang
NICENESS = 5  # the training goes first, and yet a program is made on a busy machine too


@dataclass(frozen=True)
class Made:
    """What the making of a program came to.

    Attributes:
        idle: Parameters that get no gradient.
        known: The form that it was made for; see :func:`stoker.engines.plan.form`.
        refusal: Why there is none.
        pace: Seconds of an update, measured.
        saved: The program (:class:`stoker.engines.xla.program.Saved`) that another process made, or ``None``.
        program: The one (:class:`stoker.engines.xla.program.Program`) that this process made, or ``None``.
    """

    idle: frozenset[str]
    known: tuple[Any, ...]
    refusal: str | None = None
    pace: float = 0.0
    saved: Any = None
    program: Any = None


class Build(Protocol):
    """The making of a program that is under way."""

    def made(self) -> Made | None:
        """What it came to; ``None`` while it goes on."""

    def close(self) -> None:
        """Give it up."""


def forks() -> bool:
    """Whether a forked copy of this process could make a program beside the training.

    JAX's threads would not be in it. And it needs a core of its own: threads that share each operation wait for the one
    that has to share its core, and steps then take several times as long.
    """
    spare = torch.get_num_threads() < (os.cpu_count() or 1)
    possible = sys.platform == "linux" and not multiprocessing.current_process().daemon
    return spare and possible and "jax" not in sys.modules


def begin(step: Step, plan: Plan, idle: frozenset[str], *, at_once: bool = False) -> Build:
    """Begin to make a program for a step.

    Args:
        step: The step, which has been made at least once.
        plan: An epoch over the data.
        idle: Parameters that get no gradient.
        at_once: Make it here and now, and return when it is there.
    """
    return _Process(step, plan, idle) if forks() and not at_once else _Here(step, plan, idle, at_once=at_once)


class _Process:
    def __init__(self, step: Step, plan: Plan, idle: frozenset[str]) -> None:
        self._idle, self._model = idle, step.model
        self._known = form(step, plan.source, State.of(step, idle))
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe(duplex=False)
        arguments = (self._here, there, step, plan, idle, torch.get_num_threads())
        self._process = context.Process(target=_work, args=arguments, daemon=True, name="stoker-compile")
        self._refusal: str | None = None
        with warnings.catch_warnings():
            # What a fork must not do is take locks that other threads hold. If it does, it hangs, and is given up.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                self._process.start()
            except OSError as error:  # no memory, or too many processes
                self._refusal = refusal_of(error)
        there.close()

    def made(self) -> Made | None:
        if self._refusal is not None:
            return Made(self._idle, self._known, self._refusal)
        if not self._here.poll():
            return None
        try:
            rates_constant, refusal, pace, saved = self._here.recv()
            if rates_constant:
                keep_constant(self._model)
        except EOFError:  # it died: out of memory, a signal
            self._process.join(1)
            refusal, pace, saved = f"compiling ended with exit code {self._process.exitcode}", 0.0, None
        self.close()
        return Made(self._idle, self._known, refusal, pace, saved)

    def close(self) -> None:
        if self._refusal is None:
            self._process.kill()
            self._process.join(1)
        self._here.close()


def _work(reading: Connection, pipe: Connection, step: Step, plan: Plan, idle: frozenset[str], threads: int) -> None:
    """The work of the forked process."""
    reading.close()  # or a training that is killed would not be noticed by who writes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(LONGEST)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    torch.set_num_threads(1)  # the threads of the process that was forked are not there
    os.environ.setdefault("NPROC", str(threads))  # but the program is for as many
    result: tuple[str | None, float, Any]
    try:
        from stoker.engines.rehearsal import Rehearsal
        from stoker.engines.takeover import captured_step, measured_pace
        from stoker.engines.xla.program import Program, saved_program
        from stoker.engines.xla.scan import Data

        state, data = State.of(step, idle), Data.of(plan.source)
        captured, like = captured_step(step, state, plan, data)
        saved = saved_program(captured, like)
        # Compiled from what is sent, so that the training finds it in the cache.
        program = Rehearsal(captured, step, state, plan, data).passed(Program.loaded(saved, like))
        result = None, measured_pace(program, step, state, plan, data), saved
    except Exception as error:
        result = refusal_of(error), 0.0, None
    with contextlib.suppress(BrokenPipeError):  # the training was killed
        pipe.send((are_constant(step.model), *result))


class _Here:
    """The trace is made here and now, the program in a thread; or that at once as well."""

    def __init__(self, step: Step, plan: Plan, idle: frozenset[str], *, at_once: bool) -> None:
        state = State.of(step, idle)
        known, key = form(step, plan.source, state), sameness(step, plan, state)
        self._made: Made | None = None
        try:
            # This may fail, and comes before JAX is imported.
            captured = None if key in PROGRAMS else capture(step, state, *plan.window(step, 0)[0])
            from stoker.engines.rehearsal import Rehearsal
            from stoker.engines.takeover import measured_pace
            from stoker.engines.xla.program import Program
            from stoker.engines.xla.scan import Data, arguments_like

            data = Data.of(plan.source)
            if captured is not None:  # the state as it is now: a thread would see it change
                like = arguments_like(step, state, plan, data, captured.scalars)
                rehearsal = Rehearsal(captured, step, state, plan, data)
        except Exception as error:
            self._made = Made(idle, known, refusal_of(error))
            return

        def make() -> Any:
            assert captured is not None  # or there is one
            return rehearsal.passed(Program.of(captured, like))

        def work() -> None:
            try:
                program = PROGRAMS.get_or_make(key, make)
                pace = measured_pace(program, step, state, plan, data)
                self._made = Made(idle, known, None, pace, program=program)
            except Exception as error:
                self._made = Made(idle, known, refusal_of(error))

        if at_once:
            work()
        else:
            threading.Thread(target=work, daemon=True, name="stoker-compile").start()

    def made(self) -> Made | None:
        return self._made

    def close(self) -> None:
        pass  # a thread cannot be ended; what it makes is dropped
