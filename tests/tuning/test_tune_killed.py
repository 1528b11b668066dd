"""``stoker tune`` itself, killed at random moments: the same command goes on, to the same end."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest

import stoker
from stoker.tuning.storage import open_storage

pytestmark = pytest.mark.slow
SECONDS = 300
SLOWLY = str(Path(__file__).with_name("slow_stoker.py"))
QUICK = ("--epochs", "4", "--device", "cpu", "--hidden", "8", "--batch-size", "16", "--quiet")


def start(out: Path, *more: str, by: Sequence[str] = ("-m", "stoker")) -> subprocess.Popen[bytes]:
    """The command, in a group of its own, so that all its processes can be killed at once."""
    command = [sys.executable, *by, "tune", "iris", *QUICK, "--out", str(out), *more]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def results(url: str, name: str) -> list[tuple[Any, ...]]:
    with open_storage(url) as storage:
        study = optuna.load_study(study_name=name, storage=storage.base)
        return [(t.number, t.state.name, t.params, t.value, t.intermediate_values) for t in study.get_trials()]


def finished(url: str, name: str) -> int:
    try:
        return sum(state in {"COMPLETE", "PRUNED", "FAIL"} for _, state, *_ in results(url, name))
    except (KeyError, stoker.StokerError):
        return 0


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def test_killed_again_and_again_it_ends_as_if_never_killed(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = ["--trials", "16", "--study-name", "s", "--epochs", "60"]  # long enough to be killed in
    assert start(whole, *settings).wait(SECONDS) == 0
    url, joined = f"sqlite:///{parts / 'study.db'}", settings
    if kind == "postgresql":
        url = request.getfixturevalue("postgres")
        joined = [*settings, "--storage", url]
    parts.mkdir()
    chance, kills = random.Random(2), 0
    while kills < 5:
        before = finished(url, "s")
        command = start(parts, *joined)
        while finished(url, "s") == before:  # until it is at work
            if command.poll() is not None:
                break
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 0.4))
        if command.poll() is not None:
            break
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        kills += 1
    assert kills >= 2
    assert start(parts, *joined).wait(SECONDS) == 0
    assert results(url, "s") == results(f"sqlite:///{whole / 'study.db'}", "s")
    runs = [next(folder.glob("refit-*")) for folder in (whole, parts)]
    assert stoker.load(runs[0]).metrics == stoker.load(runs[1]).metrics
    assert (runs[0] / "model.safetensors").read_bytes() == (runs[1] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.long)])
def test_a_trial_goes_on_from_its_own_last_epoch(engine: str, tmp_path: Path) -> None:
    settings = ["--trials", "2", "--study-name", "s", "--no-refit", "--pruner", "none", "--epochs", "12"]
    settings += ["--dropout", "0.2", "--set", f"training.engine={engine}"]
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    assert start(whole, *settings, by=[SLOWLY, str(tmp_path / "undisturbed")]).wait(SECONDS) == 0
    made: list[list[int]] = []  # epochs of the first trial, by process
    for until in (4, 8):
        command = start(parts, *settings, by=[SLOWLY, str(log)])
        while (0, until) not in epochs_of(log):
            assert command.poll() is None
            time.sleep(0.01)
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        made.append([epoch for _, epoch in epochs_of(log)])
        log.unlink()
    assert start(parts, *settings, by=[SLOWLY, str(log)]).wait(SECONDS) == 0
    made.append([epoch for trial, epoch in epochs_of(log) if trial == 0])
    assert made[0][0] == 1
    for before, after in itertools.pairwise(made):
        assert after[0] - before[-1] in (0, 1), "begun anew"  # 0: its last epoch's checkpoint was not whole yet
    assert made[2][-1] == 12
    assert [epoch for trial, epoch in epochs_of(log) if trial == 1] == list(range(1, 13))
    url, other = (f"sqlite:///{folder / 'study.db'}" for folder in (parts, whole))
    assert results(url, "s") == results(other, "s")
    assert not any((parts / "trials").iterdir())


def epochs_of(log: Path) -> list[tuple[int, int]]:
    """Trial and epoch, of each epoch that was made."""
    rows = log.read_text().splitlines() if log.exists() else []
    return [(int(trial), int(epoch)) for trial, epoch in (row.split() for row in rows)]


@pytest.mark.parametrize("storage_url", [pytest.param("sqlite", marks=pytest.mark.long), "postgresql"], indirect=True)
def test_two_machines_with_two_workers_each_share_a_study(storage_url: str, tmp_path: Path) -> None:
    settings = ("--trials", "20", "--study-name", "s", "--workers", "2", "--storage", storage_url)
    commands = [start(tmp_path / name, *settings) for name in ("here", "there")]
    assert [command.wait(SECONDS) for command in commands] == [0, 0]
    found = results(storage_url, "s")
    assert [number for number, *_ in found] == list(range(20))
    assert {state for _, state, *_ in found} <= {"COMPLETE", "PRUNED"}
    refits = [*tmp_path.glob("*/refit-*")]
    assert len(refits) == 1, "of several machines one trains the best settings anew"


def test_the_death_of_a_worker_is_made_good_by_the_command(tmp_path: Path) -> None:
    out = tmp_path / "s"
    settings = ("--trials", "16", "--study-name", "s", "--workers", "2", "--no-refit", "--epochs", "40")
    command = start(out, *settings)
    url, killed = f"sqlite:///{out / 'study.db'}", 0
    while command.poll() is None and killed < 3:
        time.sleep(0.3)
        for child in workers_of(command.pid):
            if finished(url, "s") > killed:
                os.kill(child, signal.SIGKILL)
                killed += 1
                break
    assert command.wait(SECONDS) == 0
    assert killed >= 1
    assert [number for number, *_ in results(url, "s")] == list(range(16))
    assert {state for _, state, *_ in results(url, "s")} <= {"COMPLETE", "PRUNED"}


def test_ctrl_c_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "s"
    settings = ("--study-name", "s", "--workers", "2", "--no-refit")
    command = start(out, "--trials", "400", *settings)
    url = f"sqlite:///{out / 'study.db'}"
    while not (out / "study.db").exists() or finished(url, "s") < 2:
        assert command.poll() is None
        time.sleep(0.02)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
    assert command.wait(60) == 130
    assert workers_of(command.pid) == []
    begun = results(url, "s")
    assert len(begun) < 400
    total = len(begun) + 2
    assert start(out, "--trials", str(total), *settings).wait(SECONDS) == 0
    found = results(url, "s")
    assert [number for number, *_ in found] == list(range(total))
    assert {state for _, state, *_ in found} <= {"COMPLETE", "PRUNED"}


def test_workers_end_with_the_command_that_started_them(tmp_path: Path) -> None:
    out = tmp_path / "s"
    command = start(out, "--trials", "40", "--study-name", "s", "--workers", "2", "--no-refit")
    url = f"sqlite:///{out / 'study.db'}"
    while not (out / "study.db").exists() or finished(url, "s") < 1:
        assert command.poll() is None
        time.sleep(0.02)
    children = workers_of(command.pid)
    assert children
    command.kill()
    command.wait()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() and not is_zombie(child) for child in children):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def workers_of(pid: int) -> list[int]:
    """The processes that run trials: forked by one that a command started for that."""
    of: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"forkserver" in (folder / "cmdline").read_bytes():
                of.setdefault(parent, []).append(int(folder.name))
    return [worker for server in of.get(pid, []) for worker in of.get(server, [])]
