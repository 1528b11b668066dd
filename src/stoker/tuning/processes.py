"""Workers as processes of their own, and the one process that starts them, watches them and ends them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from stoker.errors import ConfigError, StokerError, TrainingError
from stoker.training.interrupts import CtrlC
from stoker.tuning.sampling import make_pruner, make_sampler
from stoker.tuning.space import Space
from stoker.tuning.storage import Storage, naming_lost, open_storage
from stoker.tuning.study import Roster
from stoker.tuning.worker import Ending, Objective, work

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext
    from multiprocessing.process import BaseProcess


__all__ = ["Job", "run"]

POLL = 0.1
IMPORTED = ["stoker.tuning.objectives", "stoker.tuning.processes", "stoker.engines.compiled", "torch._dynamo", "optuna"]
START_AGAIN = 4  # workers, one after the other, that die before they have a trial are no accident


@dataclass(frozen=True)
class Job:
    """All that a worker needs, in whatever process.

    Attributes:
        url: Of the storage.
        name: Of the study, which is there.
        trials: How many there are to be.
        sampler, seed, space: See :func:`stoker.tuning.sampling.make_sampler`.
        pruner: Its name.
        objective: What a trial is.
        until: No trial is begun after this time of ``time.time``.
        beat_every, grace: Of the hearts.
        together: How many trials a worker trains at once.
        threads: How many each worker has that is a process of its own.
    """

    url: str
    name: str
    trials: int
    sampler: str
    seed: int
    space: Space | None
    pruner: str
    objective: Objective
    until: float | None = None
    beat_every: float = 10.0
    grace: float = 60.0
    together: int = 1
    threads: int = 1


def _roster(job: Job, storage: Storage) -> Roster:
    import optuna

    study = optuna.load_study(
        study_name=job.name,
        storage=storage.base,
        sampler=make_sampler(job.sampler, job.seed, job.space),
        pruner=make_pruner(job.pruner),
    )
    return Roster(storage, study, job.trials, grace=job.grace)


def run(job: Job, storage: Storage, workers: int, tell: Callable[[str], object] = lambda _: None) -> Ending:
    """Run trials until there are as many as asked for; with one worker, in this process.

    Args:
        job: The job.
        storage: The job's, open.
        workers: How many.
        tell: Told what the user should know, once each.

    Raises:
        StokerError: What a worker raised; see :func:`stoker.tuning.worker.work`.
        TrainingError: Workers die before they take a trial.
    """
    with CtrlC() as ctrl_c, naming_lost(storage):
        if workers == 1:
            return work(
                _roster(job, storage),
                job.objective,
                until=job.until,
                stop=lambda: ctrl_c.pressed or ctrl_c.cut,
                beat_every=job.beat_every,
                clock=time.time,
                together=job.together,
                tell=tell,
            )
        return _Crew(job, _roster(job, storage), workers, ctrl_c, cache(tell)).run()


class _Crew:
    """The workers of one machine.

    A worker hears by a pipe that it is to stop: when something is sent, or when this process is gone, however it went.
    """

    def __init__(self, job: Job, roster: Roster, workers: int, ctrl_c: CtrlC, tell: Callable[[str], object]) -> None:
        self._job = job
        self._tell = tell
        self._roster = roster
        self._ctrl_c = ctrl_c
        self._context = _context()
        self._workers: list[_Worker] = []
        self._count = workers
        self._spare = START_AGAIN

    def run(self) -> Ending:
        endings: list[Ending] = []
        error: StokerError | None = None
        stopping = False
        try:
            self._workers = [self._start() for _ in range(self._count)]
            while self._workers:
                time.sleep(POLL)
                for worker in list(self._workers):
                    worker.listen()
                    if worker.process.is_alive():
                        continue
                    self._workers.remove(worker)
                    worker.listen()
                    code = worker.process.exitcode or 0
                    worker.close()
                    if worker.ending is not None:
                        endings.append(worker.ending)
                    elif worker.error is not None:
                        error = error or worker.error
                    else:
                        self._bury(worker.token, code, stopping)
                if (self._ctrl_c.pressed or error is not None) and not stopping:
                    stopping = True
                    for worker in self._workers:
                        worker.stop()
        finally:
            for worker in self._workers:
                worker.process.terminate()
                worker.process.join()
                worker.close()
        if error is not None:
            raise error
        return next((one for one in ("interrupted", "timeout") if one in endings), "finished")

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (self._job, theirs, dict(os.environ))
        process = self._context.Process(target=_child, args=arguments, name="stoker-worker")
        try:
            process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            fix = "Define what it needs at a module's top level, or say workers=1."
            raise ConfigError("workers", "several need what can be pickled", str(error), fix) from None
        theirs.close()
        return _Worker(process, ours, self._tell)

    def _bury(self, token: str | None, code: int, stopping: bool) -> None:
        """Put another in the place of a worker that died of something that it could not catch."""
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if token is not None and self._roster.died(token, how):
            self._spare = START_AGAIN  # it came as far as a trial, whose deaths are counted by themselves
        else:
            self._spare -= 1
        if self._spare < 0:
            fix = "Look at its output, and at the machine's memory. What is done is kept."
            if token is None:
                fix = 'A script that asks for several workers needs if __name__ == "__main__":. ' + fix
            raise TrainingError("worker", "must not die again and again", f"one that {how}", fix)
        if not stopping:
            self._workers.append(self._start())


class _Worker:
    """A worker's process, and what it said."""

    def __init__(self, process: BaseProcess, pipe: Connection, tell: Callable[[str], object]) -> None:
        self.process = process
        self._tell = tell
        self.token: str | None = None
        self.ending: Ending | None = None
        self.error: StokerError | None = None
        self._pipe = pipe

    def listen(self) -> None:
        with suppress(EOFError, OSError):
            while self._pipe.poll():
                what, value = self._pipe.recv()
                if what == "note":
                    self._tell(value)
                else:
                    setattr(self, what, value)

    def stop(self) -> None:
        with suppress(OSError):
            self._pipe.send("stop")

    def close(self) -> None:
        self._pipe.close()
        self.process.close()


def _context() -> ForkServerContext | SpawnContext:
    """How workers are started.

    Threads do not survive a fork, and this process may have some, of torch or of JAX. So workers are forked by one that
    has imported what they need and begun nothing: imports of their own would cost each of them seconds, and the same
    memory once more.
    """
    if sys.platform != "linux":  # elsewhere what torch is linked with may not survive a fork either
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for us, also while it imports
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _child(job: Job, pipe: Connection, environment: dict[str, str]) -> None:
    """A worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the first one tells us
    os.environ.clear()
    os.environ.update(environment)  # as it is now, not when the first worker was started
    import optuna
    import torch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(job.threads)
    message: tuple[str, Any]
    try:
        with open_storage(job.url) as storage, naming_lost(storage):
            roster = _roster(job, storage)
            pipe.send(("token", roster.token))
            ending = work(
                roster,
                job.objective,
                until=job.until,
                stop=pipe.poll,
                beat_every=job.beat_every,
                clock=time.time,
                together=job.together,
                tell=partial(_send, pipe, "note"),
            )
            message = "ending", ending
    except StokerError as error:
        message = "error", error
    except Exception as error:
        fix = "This is a fault of Stoker's or of your code; with workers=1 there is a traceback."
        message = "error", TrainingError("worker", f"failed ({type(error).__name__}: {error})", "", fix)
    _send(pipe, *message)


def _send(pipe: Connection, what: str, value: Any) -> None:
    with suppress(OSError):
        pipe.send((what, value))
