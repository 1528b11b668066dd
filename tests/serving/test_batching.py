"""Micro-batching: whose rows are whose, how batches form, and what becomes of failures."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stoker.serving import batching
from stoker.serving.batching import Batcher, queue_length
from stoker.serving.problems import Problem

Tensors = dict[str, Tensor]


def doubled(inputs: Tensors) -> Tensor:
    return 2 * inputs["numeric"]


def rows(*values: float) -> Tensors:
    return {"numeric": torch.tensor(values).reshape(-1, 1)}


async def with_batcher(
    predict: Callable[[Tensors], Tensor],
    requests: list[Tensors],
    *,
    max_batch: int = 8,
    max_wait: float = 0.0,
    max_queue: int = 10_000,
    at_once: int = 0,
) -> tuple[list[Tensor | BaseException], list[int]]:
    sizes: list[int] = []
    batcher = Batcher(
        predict, max_batch=max_batch, max_wait=max_wait, max_queue=max_queue, at_once=at_once, observe=sizes.append
    )
    batcher.start()
    found = await asyncio.gather(*(batcher(inputs) for inputs in requests), return_exceptions=True)
    assert batcher.waiting == 0
    await batcher.stop()
    return list(found), sizes


def values(found: list[Tensor | BaseException]) -> list[list[float]]:
    return [part.flatten().tolist() if isinstance(part, Tensor) else [] for part in found]


def test_every_request_gets_its_own_rows() -> None:
    requests = [rows(*(100 * number + place for place in range(1 + number % 5))) for number in range(200)]
    found, sizes = asyncio.run(with_batcher(doubled, requests))
    assert values(found) == [(2 * inputs["numeric"]).flatten().tolist() for inputs in requests]
    assert sum(sizes) == sum(len(inputs["numeric"]) for inputs in requests)
    assert max(sizes) == 8
    assert len(sizes) == -(-sum(sizes) // 8), "no batch but the last is less than full where all came at once"


def test_many_rows_are_taken_in_parts_in_turn_with_others() -> None:
    order: list[list[float]] = []

    def noting(inputs: Tensors) -> Tensor:
        order.append(inputs["numeric"].flatten().tolist())
        return doubled(inputs)

    large, small = rows(*range(20)), rows(-1)
    found, sizes = asyncio.run(with_batcher(noting, [large, small]))
    assert values(found) == [[2.0 * n for n in range(20)], [-2.0]]
    assert sizes == [8, 8, 5]
    assert -1 in order[1], "the small one did not wait for the end of the large one"


def test_batches_form_while_one_is_computed() -> None:
    gate = threading.Event()

    def slow(inputs: Tensors) -> Tensor:
        gate.wait(5)
        return doubled(inputs)

    async def scene() -> list[int]:
        sizes: list[int] = []
        batcher = Batcher(slow, max_batch=64, observe=sizes.append)
        batcher.start()
        first = asyncio.create_task(batcher(rows(0)))
        await asyncio.sleep(0.05)
        later = [asyncio.create_task(batcher(rows(n))) for n in range(1, 11)]
        await asyncio.sleep(0.05)
        gate.set()
        found = await asyncio.gather(first, *later)
        assert [float(part) for part in found] == [2.0 * n for n in range(11)]
        await batcher.stop()
        return sizes

    assert asyncio.run(scene()) == [1, 10]


def test_waiting_for_more() -> None:
    async def scene() -> tuple[list[int], float]:
        sizes: list[int] = []
        batcher = Batcher(doubled, max_batch=3, max_wait=0.2, observe=sizes.append)
        batcher.start()
        began = time.perf_counter()
        one = asyncio.create_task(batcher(rows(1)))
        await asyncio.sleep(0.05)
        two = asyncio.create_task(batcher(rows(2)))
        await asyncio.gather(one, two)
        waited = time.perf_counter() - began
        await asyncio.gather(*(batcher(rows(n)) for n in range(3)))  # full: nothing to wait for
        await batcher.stop()
        return sizes, waited

    sizes, waited = asyncio.run(scene())
    assert sizes == [2, 3]
    assert waited >= 0.2


def test_one_that_fails_harms_no_other() -> None:
    def picky(inputs: Tensors) -> Tensor:
        if (inputs["numeric"] == 13).any():
            raise ValueError("13")
        return doubled(inputs)

    found, _ = asyncio.run(with_batcher(picky, [rows(1), rows(13), rows(2, 3)]))
    assert values(found) == [[2.0], [], [4.0, 6.0]]
    assert isinstance(found[1], ValueError)


def test_outputs_of_another_number_are_a_failure_not_a_mix_up() -> None:
    found, _ = asyncio.run(with_batcher(lambda inputs: doubled(inputs)[1:], [rows(1), rows(2)]))
    assert all(isinstance(part, RuntimeError) for part in found)


@pytest.mark.parametrize(
    ("max_rows", "max_batch", "length"), [(10_000, 256, 80_000), (256, 256, 2048), (1, 256, 2048), (1, 1, 8)]
)
def test_the_queue_holds_whole_batches_however_small_the_requests(max_rows: int, max_batch: int, length: int) -> None:
    assert queue_length(max_rows, max_batch) == length


class Placed:
    """Doubles, and notes where: in the event loop's thread or beside it; takes its time if told to."""

    def __init__(self) -> None:
        self.inside: list[bool] = []
        self.sizes: list[int] = []
        self.pause = 0.0

    def __call__(self, inputs: Tensors) -> Tensor:
        time.sleep(self.pause)
        self.inside.append(threading.current_thread().name != "predict")
        self.sizes.append(len(inputs["numeric"]))
        return doubled(inputs)


async def one_after_another(placed: Placed, requests: list[Tensors], at_once: int) -> None:
    batcher = Batcher(placed, max_batch=64, at_once=at_once)
    batcher.start()
    for inputs in requests:
        assert torch.equal(await batcher(inputs), doubled(inputs))
    await batcher.stop()


def test_few_rows_are_computed_in_the_event_loop_once_it_is_known_that_they_are_soon_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "_SOON", 60.0)  # on a busy machine a millisecond may become any
    placed = Placed()
    requests = [rows(1), *(rows(number) for number in range(9)), rows(*range(5))]
    asyncio.run(one_after_another(placed, requests, at_once=4))
    assert placed.inside[0] is False, "nobody knows yet how long it takes"
    assert placed.inside[-1] is False, "those are not few"
    assert placed.inside == [False] + [True] * 9 + [False]


@pytest.mark.parametrize(("pause", "at_once"), [(0.002, 4), (0.0, 0)])
def test_what_takes_long_or_may_is_computed_beside_it(pause: float, at_once: int) -> None:
    placed = Placed()
    placed.pause = pause
    asyncio.run(one_after_another(placed, [rows(number) for number in range(8)], at_once))
    assert placed.inside == [False] * 8


def test_one_that_was_slow_is_no_longer_computed_in_the_event_loop() -> None:
    async def scene(placed: Placed) -> None:
        batcher = Batcher(placed, max_batch=64, at_once=4)
        batcher.start()
        for number in range(60):
            placed.pause = 0.004 if number == 30 else 0.0
            await batcher(rows(number))
        await batcher.stop()

    placed = Placed()
    asyncio.run(scene(placed))
    assert any(placed.inside[:30])
    assert placed.inside[31:40] == [False] * 9
    assert any(placed.inside[45:]), "and again, when it was not slow for a while"


def test_all_that_came_by_then_is_computed_at_once() -> None:
    async def scene(placed: Placed) -> None:
        batcher = Batcher(placed, max_batch=64, at_once=32)
        batcher.start()
        while not (placed.inside and placed.inside[-1]):
            await batcher(rows(0))
        placed.sizes.clear()
        requests = [rows(*range(1 + number % 3)) for number in range(12)]
        found = await asyncio.gather(*map(batcher, requests))
        await batcher.stop()
        assert values(list(found)) == [(2 * inputs["numeric"]).flatten().tolist() for inputs in requests]

    placed = Placed()
    asyncio.run(scene(placed))
    assert placed.sizes == [24]
    assert placed.inside[-1] is True


@pytest.mark.parametrize("at_once", [0, 8])
@pytest.mark.parametrize(
    "raised", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError]
)
def test_whatever_a_model_raises_the_next_request_is_computed(raised: type[BaseException], at_once: int) -> None:
    def exiting(inputs: Tensors) -> Tensor:
        if (inputs["numeric"] == 13).any():
            raise raised("13")
        return doubled(inputs)

    async def scene() -> tuple[BaseException | None, Tensor]:
        batcher = Batcher(exiting, max_batch=8, at_once=at_once)
        batcher.start()
        async with asyncio.timeout(3):
            for _ in range(3):
                await batcher(rows(1))
            failed = (await asyncio.gather(batcher(rows(13)), return_exceptions=True))[0]
            next_one = await batcher(rows(2))
        await batcher.stop()
        assert not isinstance(failed, Tensor)
        return failed, next_one

    failed, next_one = asyncio.run(scene())
    assert isinstance(failed, RuntimeError)
    assert str(failed) == f"the model raised {raised.__name__}: 13"
    assert float(next_one) == 4


def test_outputs_that_do_not_fit_together_are_one_request_s_failure() -> None:
    """Of a request in two parts, the second of which is wider."""

    def uneven(inputs: Tensors) -> Tensor:
        return torch.zeros(len(inputs["numeric"]), 2 if (inputs["numeric"] == 13).any() else 1)

    async def scene() -> list[Tensor | BaseException]:
        batcher = Batcher(uneven, max_batch=2)
        batcher.start()
        async with asyncio.timeout(3):
            found = await asyncio.gather(batcher(rows(1, 2, 13)), return_exceptions=True)
            next_one = await batcher(rows(1))
        await batcher.stop()
        return [*found, next_one]

    found = asyncio.run(scene())
    assert isinstance(found[0], RuntimeError)
    assert isinstance(found[1], Tensor)


def test_too_many_rows_wait() -> None:
    found, _ = asyncio.run(with_batcher(doubled, [rows(*range(6)), rows(*range(6))], max_queue=10))
    assert values(found)[0] == [2.0 * n for n in range(6)]
    problem = found[1]
    assert isinstance(problem, Problem)
    assert (problem.status, problem.code, problem.headers) == (503, "overloaded", {"Retry-After": "1"})
    with pytest.raises(Problem, match=r"^server: must have less to do, got 6 rows that wait already\."):
        raise problem


def test_after_its_end_it_takes_nothing_and_nobody_waits_for_ever() -> None:
    gate = threading.Event()

    def slow(inputs: Tensors) -> Tensor:
        gate.wait(5)
        return doubled(inputs)

    async def scene() -> list[BaseException | Tensor]:
        batcher = Batcher(slow, max_batch=1)
        batcher.start()
        waiting = [asyncio.create_task(batcher(rows(n))) for n in range(3)]
        await asyncio.sleep(0.05)
        await batcher.stop()
        async with asyncio.timeout(3):
            found = await asyncio.gather(*waiting, batcher(rows(9)), return_exceptions=True)
        gate.set()
        return found

    for problem in asyncio.run(scene()):
        assert isinstance(problem, Problem)
        assert (problem.status, problem.code) == (503, "stopping")
