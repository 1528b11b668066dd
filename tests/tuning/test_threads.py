"""How many threads each process of a study has: torch's, and those of compiled programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

import stoker
from stoker.errors import ConfigError
from stoker.tuning.threads import having_threads, threads_each

CORES = os.cpu_count() or 1
SAID = {"OMP_NUM_THREADS": "8"}


@pytest.mark.parametrize(
    ("asked", "workers", "own", "environ", "each"),
    [
        ("auto", 1, 8, {}, 8),
        ("auto", 2, 8, {}, 4),
        ("auto", 3, 8, {}, 2),
        ("auto", 9, 8, {}, 1),
        ("auto", 2, 8, SAID, 8),
        ("auto", 2, 8, {"OMP_NUM_THREADS": ""}, 4),
        (1, 1, 8, {}, 1),
        (CORES, 2, 8, SAID, CORES),
    ],
)
def test_the_cores_are_shared_out(asked: Any, workers: int, own: int, environ: dict[str, str], each: int) -> None:
    assert threads_each(asked, workers, own=own, environ=environ) == each


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("many", "--threads: must be auto, or a whole number from 1 on, got 'many'."),
        (1.5, "--threads: must be auto, or a whole number from 1 on, got 1.5."),
        (True, "--threads: must be auto, or a whole number from 1 on, got True."),
        (0, f"--threads: must be from 1 to the cores of this machine, {CORES}, got 0. More threads than cores wait"),
        (CORES + 1, f"--threads: must be from 1 to the cores of this machine, {CORES}, got {CORES + 1}."),
    ],
)
def test_what_is_no_number_of_threads_is_refused(asked: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        stoker.tune(told, trials=1, threads=asked, progress="none", out=tmp_path / "s")
    assert text in str(caught.value)
    assert not (tmp_path / "s").exists()


def told(trial: optuna.Trial) -> float:
    from stoker.engines.xla.device import threads

    trial.suggest_float("x", 0.0, 1.0)
    trial.set_user_attr("programs", threads())
    return float(torch.get_num_threads())


def test_one_worker_has_what_is_asked_for_and_afterwards_what_it_had(tmp_path: Path) -> None:
    with having_threads(1):
        result = stoker.tune(told, trials=1, threads=CORES, progress="none", out=tmp_path / "s")
        assert torch.get_num_threads() == 1
    assert result.best_value == CORES
    assert json.loads((tmp_path / "s" / "study.json").read_text())["workers"] == {"count": 1, "threads": CORES}


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "own", "each"), [(CORES, 1, CORES), ("auto", 4, 2), ("auto", 1, 1)])
def test_workers_have_theirs_and_so_have_their_programs(
    threads: Any, own: int, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    with having_threads(own):
        result = stoker.tune(told, trials=2, workers=2, threads=threads, progress="none", out=tmp_path / "s")
    assert [trial.value for trial in result.trials] == [each, each]
    assert [trial.user_attrs["programs"] for trial in result.trials] == [each, each]
    assert json.loads((tmp_path / "s" / "study.json").read_text())["workers"] == {"count": 2, "threads": each}
