"""Ctrl-C, as the real signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from stoker.training.callbacks import Callback, EpochProgress
from stoker.training.history import History, Row
from stoker.training.interrupts import CtrlC
from stoker.training.trainer import Trainer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a single process")

DATA = (torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), torch.ones(64, 1))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same whichever tests ran before."""
    torch.manual_seed(0)


def press(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)
    # Python runs the handler between two instructions of the main thread; give it some.
    for _ in range(1000):
        pass


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    """The handler must be what it was, whatever happened."""
    before = signal.getsignal(signal.SIGINT)
    yield before
    assert signal.getsignal(signal.SIGINT) is before


class Presser(Callback):
    """Presses Ctrl-C so many times at the end of an epoch."""

    def __init__(self, epoch: int, times: int = 1) -> None:
        self.epoch, self.times = epoch, times
        self.ended: History | None = None

    def on_epoch_end(self, row: Row, _is_best: bool) -> None:
        if row["epoch"] == self.epoch:
            for _ in range(self.times):
                press()

    def on_fit_end(self, history: History) -> None:
        self.ended = history


def fit(presser: Callback, **settings: Any) -> tuple[Trainer, History]:
    trainer = Trainer(nn.Linear(3, 1), "mse", "sgd", lr=0.01, device="cpu", metrics=())
    history = trainer.fit(DATA, epochs=10, batch_size=8, progress="none", callbacks=[presser], **settings)
    return trainer, history


def test_the_first_one_ends_the_training_and_keeps_what_is_trained() -> None:
    trainer, history = fit(Presser(3))
    assert history.stopped == "interrupted"
    assert history.column("epoch") == [1, 2, 3]
    again = Trainer(nn.Linear(3, 1), "mse", "sgd", lr=0.01, device="cpu", metrics=())
    assert again.fit(DATA, epochs=3, batch_size=8, progress="none").stopped == "finished"
    assert trainer.state.step == again.state.step == 24


def test_training_goes_on_where_it_was_interrupted() -> None:
    def trainer() -> Trainer:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        return Trainer(model, "mse", "adam", device="cpu", metrics=())

    interrupted, straight = trainer(), trainer()
    interrupted.fit(DATA, epochs=10, progress="none", callbacks=[Presser(2)])
    interrupted.fit(DATA, epochs=3, progress="none")
    straight.fit(DATA, epochs=5, progress="none")
    for mine, theirs in zip(interrupted.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_within_an_epoch_it_ends_there() -> None:
    class Endless(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            for count in range(10**9):
                if count == 80:
                    press()
                yield DATA[0][0], DATA[1][0]

    trainer = Trainer(nn.Linear(3, 1), "mse", "sgd", lr=0.01, device="cpu", metrics=())
    history = trainer.fit(Endless(), DATA, epochs=3, batch_size=8, progress="none")
    assert history.stopped == "interrupted"
    assert len(history) == 1  # the epoch that was cut short has its row
    assert history[0]["step"] == trainer.state.step > 10
    assert "valid_loss" in history[0]


def test_the_best_weights_are_restored_after_it_too() -> None:
    class Spoiler(Presser):
        def on_epoch_end(self, row: Row, is_best: bool) -> None:
            if row["epoch"] == 1:
                self.best = trainer.model.get_parameter("weight").detach().clone()
                trainer.optimizer.param_groups[0]["lr"] = 100.0  # from here on it gets worse
            super().on_epoch_end(row, is_best)

    presser = Spoiler(2)
    trainer = Trainer(nn.Linear(3, 1), "mse", "sgd", lr=0.01, device="cpu", metrics=(), clip_norm=1.0)
    history = trainer.fit(DATA, DATA, epochs=9, progress="none", callbacks=[presser], patience=5)
    assert history.stopped == "interrupted"
    assert history.best_epoch == 1
    assert torch.equal(trainer.model.get_parameter("weight"), presser.best)


def test_the_second_one_interrupts_at_once() -> None:
    presser = Presser(2, times=2)
    with pytest.raises(KeyboardInterrupt):
        fit(presser)
    assert presser.ended is not None
    assert presser.ended.stopped == "interrupted"
    assert len(presser.ended) == 2


def test_a_second_one_in_the_midst_of_a_step() -> None:
    model = nn.Linear(3, 1)

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        press()
        return nn.functional.mse_loss(outputs, targets)

    model.eval()
    trainer = Trainer(model, criterion, "sgd", device="cpu")
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(DATA, epochs=1, batch_size=1, progress="none")
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_the_usual_handler_is_back_afterwards(handler: Any) -> None:
    fit(Presser(1))
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_program_that_ignores_it_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, history = fit(Presser(1, times=2))
    finally:
        signal.signal(signal.SIGINT, before)
    assert history.stopped == "finished"


def test_outside_the_main_thread_training_works_and_the_handler_stays(handler: Any) -> None:
    found: list[Any] = []

    class Looker(Callback):
        def on_progress(self, _progress: EpochProgress) -> None:
            found.append(signal.getsignal(signal.SIGINT))

        def on_epoch_end(self, _row: Row, _is_best: bool) -> None:
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=lambda: found.append(fit(Looker())[1].stopped))
    thread.start()
    thread.join(timeout=60)
    assert found[-1] == "finished"
    assert set(found[:-1]) == {handler}


@pytest.mark.parametrize("threads", [True, False])
def test_blocks_of_other_threads_are_told_if_asked(threads: bool) -> None:
    begun, go_on, found = threading.Event(), threading.Event(), list[tuple[bool, bool]]()

    def work() -> None:
        with CtrlC(terminable=True) as its:
            begun.set()
            go_on.wait()
            found.append((its.pressed, its.terminated))
        with CtrlC() as later:
            found.append((later.pressed, later.terminated))

    thread = threading.Thread(target=work)
    with CtrlC(terminable=True, threads=threads):
        thread.start()
        begun.wait()
        press()
        press(signal.SIGTERM)
        go_on.set()
        thread.join()
    assert found == [(threads, threads)] * 2
    with CtrlC() as after:
        assert not after.pressed
    other = threading.Thread(target=lambda: found.append((CtrlC().__enter__().pressed, False)))
    other.start()
    other.join()
    assert found[-1] == (False, False), "the block is over"


def test_the_death_of_workers_counts_as_the_end_after_it() -> None:
    def dying() -> Iterator[int]:
        yield 1
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")

    with CtrlC() as ctrl_c:
        with pytest.raises(RuntimeError, match="exited unexpectedly"):
            list(ctrl_c.until(dying()))
        press()
        assert ctrl_c.pressed
        assert list(ctrl_c.until(dying())) == [1]


SCRIPT = """
import os, signal, sys, threading, time
import torch
from torch import nn
import stoker

class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 400
    def __getitem__(self, index):
        time.sleep(0.1)
        return torch.ones(3), torch.ones(1)

def ctrl_c_of_a_terminal():
    time.sleep(0.1)  # by then the training waits for the next batch, which takes 0.2 s or more
    os.killpg(os.getpgrp(), signal.SIGINT)  # all processes of the group get it, the workers too

class Presser(stoker.Callback):
    pressed = False
    def on_progress(self, progress):
        if not self.pressed:
            self.pressed = True
            threading.Thread(target=ctrl_c_of_a_terminal).start()

if __name__ == "__main__":
    trainer = stoker.Trainer(nn.Linear(3, 1), "mse", "sgd", device="cpu")
    history = trainer.fit(Slow(), epochs=2, batch_size=4, progress="none", callbacks=[Presser()],
                          loader_args={"num_workers": 2, "multiprocessing_context": sys.argv[1]})
    print(history.stopped, len(history), 0 < history[0]["step"] < 100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_terminals_ctrl_c_reaches_the_workers_too(start_method: str, tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(script), start_method],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,  # a process group of its own
        check=False,
    )
    assert done.stdout.strip() == "interrupted 1 True", done.stderr
