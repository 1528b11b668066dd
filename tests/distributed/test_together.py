"""Several processes under torchrun against one: the same script, the same global batches, the same weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import stoker
from stoker.engines.replicas import share_rows

pytestmark = pytest.mark.slow
Results: TypeAlias = dict[str, list[tuple[dict[str, Tensor], dict[str, Any]]]]
SCRIPT = Path(__file__).with_name("together.py")
SECONDS = 120


def environment(**more: str) -> dict[str, str]:
    alone = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    return alone | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | more


def run(out: Path, processes: int, *jobs: str) -> Results:
    """Each job's weights and history, by process; no thread of the group may outlive Python."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(SCRIPT), str(out), *jobs]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    ranks = range(processes)
    for file in out.glob("threads-*.json"):
        assert not [name for name in json.loads(file.read_text()) if "gloo" in name]
    return {
        job: [
            (
                load_file(out / job / f"weights-{rank}.safetensors"),
                json.loads((out / job / f"history-{rank}.json").read_text()),
            )
            for rank in ranks
        ]
        for job in jobs
    }


SAME = ("sgd", "adam", "classes", "dataset", "loader", "lbfgs", "unused", "tiny")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(tmp_path_factory.mktemp("one"), 1, *SAME)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(tmp_path_factory.mktemp("two"), 2, *SAME, "norm", "callback")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(tmp_path_factory.mktemp("three"), 3, "sgd", "classes")


@pytest.mark.parametrize(
    ("job", "processes"), [*((job, "two") for job in SAME), ("sgd", "three"), ("classes", "three")]
)
def test_they_come_to_what_one_comes_to(
    job: str, processes: str, alone: Results, request: pytest.FixtureRequest
) -> None:
    ((weights, history),) = alone[job]
    together = request.getfixturevalue(processes)[job]
    (first, told), *others = together
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(told["rows"], history["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6, nan_ok=True)
    assert told["metrics"] == pytest.approx(history["metrics"], rel=1e-5, abs=1e-6, nan_ok=True)
    # callbacks are told in the first process alone, and of the loss over all samples
    assert told["steps"] == pytest.approx(history["steps"], rel=1e-5, abs=1e-6)
    for state, other in others:
        assert all(torch.equal(state[name], first[name]) for name in first)  # bit for bit
        assert (other["rows"], other["metrics"], other["steps"]) == (told["rows"], told["metrics"], [])


def test_no_sample_counts_twice_in_metrics(two: Results) -> None:
    # 41 rows on 2: were the shares padded to the same size, one row would count twice
    right = two["classes"][0][1]["metrics"]["accuracy"] * 41
    assert right == pytest.approx(round(right))


def test_running_statistics_end_the_same(two: Results) -> None:
    (first, told), (second, other) = two["norm"]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert int(first["1.num_batches_tracked"]) == 4 * 5
    assert told["rows"] == other["rows"]


def test_a_callback_of_the_first_stops_all(two: Results) -> None:
    assert [len(history["rows"]) for _, history in two["callback"]] == [2, 2]
    assert [history["stopped"] for _, history in two["callback"]] == ["callback", "callback"]


def test_a_whole_job_is_written_by_the_first(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    command += [str(tmp_path), "whole"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / "whole" / f"history-{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    alone = stoker.fit("iris", epochs=3, seed=1, out=tmp_path / "alone", progress="none", device="cpu")
    for split, metrics in alone.metrics.items():
        assert found[0]["metrics"][split] == pytest.approx(metrics, rel=1e-5)
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["history-0.json", "history-1.json", "run"]


def test_if_one_dies_the_job_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(SCRIPT), str(tmp_path), "die"]
    started = time.monotonic()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode != 0
    assert "exitcode  : 13" in done.stderr  # torchrun names the one that died
    assert time.monotonic() - started < SECONDS / 2


def test_if_one_dies_the_others_say_so(tmp_path: Path) -> None:
    # without torchrun, which would end them at once
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, str(SCRIPT), str(tmp_path), "die"]
    both = [
        subprocess.Popen(
            command,
            env=environment(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        texts = [process.communicate(timeout=SECONDS)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [1, 13]
    assert "stoker.errors.TrainingError: process 0 of 2: must reach the others, got " in texts[0]
    assert "Another process has ended or hangs: what it printed says why. Start all of them again." in texts[0]


class TestShares:
    @pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 16, 17])
    @pytest.mark.parametrize("world", [1, 2, 3, 4])
    @pytest.mark.parametrize("least", [1, 2])
    def test_every_row_is_somebodys_and_nobody_elses(self, rows: int, world: int, least: int) -> None:
        shares = [share_rows(rows, rank, world, least=least) for rank in range(world)]
        owned = [row for first, last in shares for row in range(first, last)]
        assert owned == list(range(rows))
        sizes = [last - first for first, last in shares if last > first]
        assert not sizes or max(sizes) - min(sizes) <= 1
        assert rows < least or all(size >= least for size in sizes)
