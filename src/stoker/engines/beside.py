"""Making a program while the eager engine trains: in a forked process, or where that cannot be, in a thread.

A forked copy of the training captures and compiles, measures the program on its own copies, and sends it before it was
compiled; what was compiled lies in the cache. The process that trains loses no time to it: it imports no JAX and traces
nothing until the program is known to be worth it.
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
from stoker.engines.step import Step

__all__ = ["Build", "Made", "begin"]

NICENESS = 5  # the training goes first, and yet a program is made on a busy machine too


@dataclass(frozen=True)
class Made:
    """What the making of a program came to.

    Attributes:
        idle: Parameters that get no gradient.
        known: The form that it was made for; see :func:`stoker.engines.plan.form`.
        refusal: Why there is none.
        pace: Seconds of an update, measured.
        saved: The program of another process, with its signature; ``None`` for one of this process.
        program: That of this process.
    """

    idle: frozenset[str]
    known: tuple[Any, ...]
    refusal: str | None = None
    pace: float = 0.0
    saved: tuple[bytes, Any] | None = None
    program: Any = None


class Build(Protocol):
    """The making of a program that is under way."""

    def made(self) -> Made | None:
        """What it came to; ``None`` while it goes on."""

    def close(self) -> None:
        """Give it up."""


def begin(step: Step, plan: Plan, idle: frozenset[str]) -> Build:
    """Begin to make a program for a step.

    Args:
        step: The step, which has been made at least once.
        plan: An epoch over the data.
        idle: Parameters that get no gradient.
    """
    if "jax" not in sys.modules and hasattr(os, "fork") and sys.platform == "linux":
        with contextlib.suppress(OSError, AssertionError):  # no memory; a process that may have no children
            return _Process(step, plan, idle)
    return _Thread(step, plan, idle)


class _Process:
    def __init__(self, step: Step, plan: Plan, idle: frozenset[str]) -> None:
        self._idle = idle
        self._known = form(step, plan.source, State.of(step, idle))
        context = multiprocessing.get_context("fork")
        self._here, there = context.Pipe(duplex=False)
        arguments = (there, step, plan, idle, torch.get_num_threads() == 1)
        self._process = context.Process(target=_work, args=arguments, daemon=True, name="stoker-compile")
        with warnings.catch_warnings():
            # What a fork must not do is take locks that other threads hold. If it does, it hangs, and is given up.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        there.close()

    def made(self) -> Made | None:
        if not self._here.poll():
            return None
        try:
            refusal, pace, saved = self._here.recv()
        except EOFError:  # it died: out of memory, a signal
            self._process.join(1)
            refusal, pace, saved = f"compiling ended with exit code {self._process.exitcode}", 0.0, None
        self.close()
        return Made(self._idle, self._known, refusal, pace, saved)

    def close(self) -> None:
        self._process.kill()
        self._process.join(1)
        self._here.close()


def _work(pipe: Connection, step: Step, plan: Plan, idle: frozenset[str], single: bool) -> None:
    """The work of the forked process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    torch.set_num_threads(1)  # the threads of the process that was forked are not there
    step.on_update = None
    try:
        from stoker.engines.takeover import build, measured_pace
        from stoker.engines.xla.scan import Data, arguments_like

        state, data = State.of(step, idle), Data.of(plan.source)
        program = build(step, state, plan, data, single=single)
        pace = measured_pace(program, step, state, plan, data)
        like = arguments_like(step, state, plan, data, program.signature)
        pipe.send((None, pace, (program.saved(like), program.signature)))
    except Exception as error:
        pipe.send((refusal_of(error), 0.0, None))


class _Thread:
    """JAX is there already, and its threads would not be in a forked process: the trace is made here and now."""

    def __init__(self, step: Step, plan: Plan, idle: frozenset[str]) -> None:
        from stoker.engines.takeover import measured_pace
        from stoker.engines.xla.program import Program, Signature
        from stoker.engines.xla.scan import Data, arguments_like

        state = State.of(step, idle)
        known = form(step, plan.source, state)
        self._made: Made | None = None
        try:
            data = Data.of(plan.source)
            captured = capture(step, state, *plan.window(step, 0)[0])
            like = arguments_like(step, state, plan, data, Signature(captured.scalars, draws=False))
        except Exception as error:
            self._made = Made(idle, known, refusal_of(error))
            return
        single = torch.get_num_threads() == 1

        def work() -> None:
            try:
                program = Program.of(captured, like, single=single)
                pace = measured_pace(program, step, state, plan, data)
                self._made = Made(idle, known, None, pace, None, program)
            except Exception as error:
                self._made = Made(idle, known, refusal_of(error))

        threading.Thread(target=work, daemon=True, name="stoker-compile").start()

    def made(self) -> Made | None:
        return self._made

    def close(self) -> None:
        pass  # a thread cannot be ended; what it makes is dropped
