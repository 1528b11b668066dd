"""Micro-batching: concurrent requests wait in one queue, and are computed together, in a thread beside the event loop.

While a batch is computed the next one gathers, so that under load batches form by themselves; ``max_wait`` waits for
more even if nothing is being computed. Requests of many rows are taken in parts, in turn with the others, so that they
hold nobody up.

A batch of few rows that takes less than a millisecond is computed within the event loop: to hand it to a thread and
back takes longer. All requests that have come in by then are in it, since the loop looks at the queue last.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stoker.serving.problems import Problem

__all__ = ["Batcher", "queue_length"]

Tensors = dict[str, Tensor]
_SOON = 1e-3  # seconds that the event loop may be held up


@dataclass
class _Job:
    """The rows of one request, and how far they are."""

    inputs: Tensors
    rows: int
    future: asyncio.Future[Tensor]
    arrived: float
    taken: int = 0
    computed: int = 0
    parts: list[Tensor] = field(default_factory=list)

    def take(self, most: int) -> tuple[Tensors, int]:
        start, self.taken = self.taken, min(self.rows, self.taken + most)
        return {name: values[start : self.taken] for name, values in self.inputs.items()}, self.taken - start


def queue_length(max_rows: int, max_batch: int) -> int:
    """How many rows may wait: eight of the largest requests or, where those are smaller, of the largest batches.

    Args:
        max_rows: The most rows of one request.
        max_batch: The most rows to compute at once.
    """
    return 8 * max(max_rows, max_batch)


class Batcher:
    """Computes requests in batches.

    Args:
        predict: Raw inputs to outputs, row by row the same whatever stands beside it.
        max_batch: The most rows to compute at once.
        max_wait: Seconds to wait for more rows before a batch that is not full.
        max_queue: The most rows that may wait.
        at_once: The most rows of a batch that the event loop computes itself, if those before took no millisecond.
        observe: Told of the rows of each batch.
    """

    def __init__(
        self,
        predict: Callable[[Tensors], Tensor],
        *,
        max_batch: int,
        max_wait: float = 0.0,
        max_queue: int = 100_000,
        at_once: int = 0,
        observe: Callable[[int], object] = int,
    ) -> None:
        self._predict = predict
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._max_queue = max_queue
        self._at_once = at_once
        self._usual = math.inf  # seconds that few rows take
        self._observe = observe
        self._jobs: deque[_Job] = deque()
        self._computing: list[_Job] = []
        self._arrival = asyncio.Event()
        self._thread = _Thread()
        self._task: asyncio.Task[None] | None = None
        self.waiting = 0
        self.open = False

    def start(self) -> None:
        """Begin, within a running event loop."""
        self._thread.start()
        self._task = asyncio.create_task(self._run())
        self.open = True

    async def stop(self) -> None:
        """Take no more, and give up what still waits; the server has waited for that before."""
        self.open = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        _fail([*self._computing, *self._jobs], _closed())
        self._jobs.clear()
        self._thread.stop()

    async def __call__(self, inputs: Tensors) -> Tensor:
        """Compute the outputs of a request's rows, at least one.

        Raises:
            Problem: Too many rows wait already, or the server stops.
        """
        rows = len(next(iter(inputs.values())))
        if not self.open:
            raise _closed()
        if self.waiting + rows > self._max_queue:
            text = f"server: must have less to do, got {self.waiting:,} rows that wait already. Try again in a second."
            raise Problem(503, "overloaded", text, headers={"Retry-After": "1"})
        loop = asyncio.get_running_loop()
        job = _Job(inputs, rows, loop.create_future(), loop.time())
        self._jobs.append(job)
        self.waiting += rows
        self._arrival.set()
        try:
            return await job.future
        finally:
            self.waiting -= rows

    async def _run(self) -> None:
        while True:
            self._arrival.clear()
            if not self._jobs:
                await self._arrival.wait()
            await self._gather()
            taken = self._take()
            self._computing = [job for job, _ in taken]
            try:
                if taken:
                    await self._compute(taken)
            except Exception as error:  # whatever it is, the next batch is computed
                _fail(self._computing, error)
            self._computing = []

    async def _gather(self) -> None:
        """Wait until a batch is full, or its first row has waited long enough."""
        loop = asyncio.get_running_loop()
        while self._max_wait and self._jobs:
            left = self._jobs[0].arrived + self._max_wait - loop.time()
            if left <= 0 or sum(job.rows - job.taken for job in self._jobs) >= self._max_batch:
                return
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[tuple[_Job, Tensors]]:
        """The rows of the next batch; what is left of a request goes to the end of the queue."""
        taken: list[tuple[_Job, Tensors]] = []
        room = self._max_batch
        again: list[_Job] = []
        while self._jobs and room:
            job = self._jobs.popleft()
            if job.future.done():  # nobody waits for it any more
                continue
            inputs, rows = job.take(room)
            room -= rows
            taken.append((job, inputs))
            if job.taken < job.rows:
                again.append(job)
        self._jobs.extend(again)
        return taken

    async def _compute(self, taken: list[tuple[_Job, Tensors]]) -> None:
        inputs = [part for _, part in taken]
        sizes = [len(next(iter(part.values()))) for part in inputs]
        few = sum(sizes) <= self._at_once
        self._observe(sum(sizes))

        def compute() -> list[Tensor]:
            began = time.perf_counter()
            parts = list(torch.split(self._predict(_together(inputs)), sizes))
            if few:  # at once no longer after one that was slow, and again after some that were not
                self._usual = max(time.perf_counter() - began, 0.9 * self._usual if self._usual < math.inf else 0.0)
            return parts

        try:
            if few and self._usual < _SOON:
                parts = _here(compute)
                if self._jobs:  # others than these may have something to do
                    await asyncio.sleep(0)
            else:
                parts = await self._thread.call(compute)
        except Exception as error:
            if len(taken) > 1:  # the others shall not suffer for one
                for one in taken:
                    await self._compute([one])
            elif not taken[0][0].future.done():
                taken[0][0].future.set_exception(error)
            return
        for (job, _), part in zip(taken, parts, strict=True):
            job.parts.append(part)
            job.computed += len(part)
            if job.computed == job.rows and not job.future.done():
                job.future.set_result(job.parts[0] if len(job.parts) == 1 else torch.cat(job.parts))


class _Thread:
    """One thread that computes what it is given, in order; it does not keep the process from ending."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="predict", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._work.put(None)

    async def call(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def work() -> None:
            result: list[Tensor] | None = None
            failure: Exception | None = None
            try:
                result = function()
            except BaseException as error:  # as of a model that exits: the thread is needed for the next request
                failure = _handed_on(error)
            with suppress(RuntimeError):  # the loop is closed: the server did not wait for this
                loop.call_soon_threadsafe(_settle, future, result, failure)

        self._work.put(work)
        found: list[Tensor] = await future
        return found

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _together(inputs: list[Tensors]) -> Tensors:
    first = inputs[0]
    return first if len(inputs) == 1 else {name: torch.cat([part[name] for part in inputs]) for name in first}


def _fail(jobs: list[_Job], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)


def _here(function: Callable[[], list[Tensor]]) -> list[Tensor]:
    try:
        return function()
    except BaseException as error:
        raise _handed_on(error) from None


def _handed_on(error: BaseException) -> Exception:
    """As a future can bear it: what ends an event loop, or an iterator, would end ours."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    failure = RuntimeError(f"the model raised {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _closed() -> Problem:
    return Problem(503, "stopping", "server: must be running, got a request while it stops. Try again in a moment.")
