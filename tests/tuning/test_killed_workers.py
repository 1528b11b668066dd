"""Real processes, killed at random moments: no trial is lost, none is run twice, and one worker repeats itself."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from one_worker import EPOCHS, loss

from stoker.tuning.storage import open_storage
from stoker.tuning.study import WORKER

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("one_worker.py")
SECONDS = 240


def start(url: str, trials: int, log: Path, seconds: float = 0.01) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), url, str(trials), str(log), str(seconds)]
    return subprocess.Popen(command)


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def trials_of(url: str) -> list[optuna.trial.FrozenTrial]:
    with open_storage(url) as storage:
        return optuna.load_study(study_name="small", storage=storage.base).get_trials()


def results(url: str) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in trials_of(url)
    ]


def check(trials: list[optuna.trial.FrozenTrial], total: int) -> None:
    """As many as asked for, each ended once, with the value that its parameters give."""
    assert [trial.number for trial in trials] == list(range(total))
    for trial in trials:
        assert trial.state.name in {"COMPLETE", "PRUNED"}
        epochs = {epoch: loss(trial.params["x"], trial.params["kind"], epoch) for epoch in trial.intermediate_values}
        assert trial.intermediate_values == pytest.approx(epochs)
        assert trial.value == pytest.approx(epochs[max(epochs)])
        assert list(epochs) == list(range(1, len(epochs) + 1))
        assert trial.state.name == "PRUNED" or len(epochs) == EPOCHS


def test_four_workers_share_the_trials(storage_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [start(storage_url, 24, log) for _ in range(4)]
    assert [worker.wait(SECONDS) for worker in workers] == [0] * 4
    check(trials_of(storage_url), 24)
    begun = Counter(line[1] for line in lines(log) if line[0] == "begin")
    assert begun == {str(number): 1 for number in range(24)}
    assert Counter(line[1] for line in lines(log) if line[0] == "over") == begun
    assert len({trial.params["x"] for trial in trials_of(storage_url)}) == 24, "two drew alike"
    assert len({line[2] for line in lines(log) if line[0] == "end"}) > 1, "one worker did all"


def test_workers_that_are_killed_at_random_lose_nothing(storage_url: str, tmp_path: Path) -> None:
    log, chance = tmp_path / "log", random.Random(0)
    workers = [start(storage_url, 24, log, 0.05) for _ in range(4)]
    killed: set[str] = set()
    for _ in range(6):
        time.sleep(chance.uniform(0.1, 0.6))
        victim = chance.randrange(4)
        if workers[victim].poll() is None:
            workers[victim].kill()
            killed.add(str(workers[victim].pid))
        workers[victim].wait()
        workers[victim] = start(storage_url, 24, log, 0.05)
    assert [worker.wait(SECONDS) for worker in workers] == [0] * 4
    check(trials_of(storage_url), 24)
    ended = Counter(line[1] for line in lines(log) if line[0] == "end")
    assert set(ended) == {str(number) for number in range(24)}
    for number in map(str, range(24)):  # whoever began a trial and did not end it was killed
        begun = [line[2] for line in lines(log) if line[:2] == ["begin", number]]
        assert len(set(begun) - killed) <= 1
        assert len(begun) == len(set(begun))
    for trial in trials_of(storage_url):  # each ended once, by whoever it was; it says so, if it still can
        owner = trial.user_attrs[WORKER].rsplit("-", 2)[1]
        over = [line[2] for line in lines(log) if line[:2] == ["over", str(trial.number)]]
        assert over == [owner] or (over == [] and owner in killed), trial.number


def test_connections_that_break_lose_nothing(postgres: str, tmp_path: Path) -> None:
    import psycopg

    log = tmp_path / "log"
    workers = [start(postgres, 20, log, 0.05) for _ in range(3)]
    mine = "datname = current_database() AND pid <> %s"
    cut = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {mine}".encode()
    broken = 0
    with psycopg.connect(postgres.replace("+psycopg", ""), autocommit=True) as connection:
        while any(worker.poll() is None for worker in workers):
            time.sleep(0.5)
            at_work = sum(line[0] == "working" for line in lines(log))
            if broken < 12 and at_work == 3:
                found = connection.execute(cut, [connection.info.backend_pid]).fetchone()
                broken += 0 if found is None else int(found[0])
    assert broken >= 3
    assert [worker.wait(SECONDS) for worker in workers] == [0] * 3
    check(trials_of(postgres), 20)


@pytest.mark.parametrize("storage_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
def test_a_lone_worker_that_is_killed_again_and_again_repeats_what_it_would_have_done(
    storage_url: str, tmp_path: Path
) -> None:
    import one_worker

    undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    one_worker.main(undisturbed, 20, tmp_path / "undisturbed.log", 0.0)
    check(trials_of(undisturbed), 20)

    chance, kills = random.Random(1), 0
    while True:
        worker = start(storage_url, 20, tmp_path / "log", 0.03)
        while ["working", "-", str(worker.pid)] not in lines(tmp_path / "log"):
            assert worker.poll() is None
            time.sleep(0.01)
        if kills == 8:
            assert worker.wait(SECONDS) == 0
            break
        time.sleep(chance.uniform(0.0, 0.5))
        worker.kill()
        worker.wait()
        kills += 1
    assert results(storage_url) == results(undisturbed)
