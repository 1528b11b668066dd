"""Several processes under torchrun against one: the same script, the same global batches, the same weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stoker.engines.replicas import share_rows

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("together.py")
SECONDS = 120


def environment(**more: str) -> dict[str, str]:
    alone = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    return alone | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | more


def run(job: str, out: Path, processes: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Any]]]:
    """Each process's weights and history."""
    out.mkdir()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(SCRIPT), job, str(out)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    weights = [load_file(out / f"weights-{rank}.safetensors") for rank in range(processes)]
    return weights, [json.loads((out / f"history-{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize(
    ("job", "processes"),
    [("sgd", 2), ("sgd", 3), ("adam", 2), ("classes", 2), ("dataset", 2), ("loader", 2), ("lbfgs", 2), ("unused", 2)],
)
def test_they_come_to_what_one_comes_to(job: str, processes: int, tmp_path: Path) -> None:
    (alone,), (history,) = run(job, tmp_path / "alone", 1)
    together, histories = run(job, tmp_path / "together", processes)
    for weights in together[1:]:
        assert all(torch.equal(weights[name], together[0][name]) for name in weights)  # bit for bit
    for name, tensor in together[0].items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(histories[0]["rows"], history["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    for other in histories:
        assert other["metrics"] == pytest.approx(history["metrics"], rel=1e-5, abs=1e-6)
        assert other["rows"] == histories[0]["rows"]
    # callbacks are told in the first process alone, and of the loss over all samples
    assert histories[0]["steps"] == pytest.approx(history["steps"], rel=1e-5, abs=1e-6)
    assert all(other["steps"] == [] for other in histories[1:])


def test_no_sample_counts_twice_in_metrics(tmp_path: Path) -> None:
    # 41 rows on 2: were the shares padded to the same size, one row would count twice
    _, (history,) = run("classes", tmp_path / "alone", 1)
    _, histories = run("classes", tmp_path / "together", 2)
    right = history["metrics"]["accuracy"] * 41
    assert right == pytest.approx(round(right))
    assert histories[0]["metrics"]["accuracy"] * 41 == pytest.approx(right)


def test_noise_differs_and_running_statistics_end_the_same(tmp_path: Path) -> None:
    together, histories = run("norm", tmp_path / "together", 2)
    assert all(torch.equal(together[0][name], together[1][name]) for name in together[0])
    assert int(together[0]["1.num_batches_tracked"]) == 4 * 5
    assert histories[0]["rows"] == histories[1]["rows"]


def test_a_split_with_fewer_rows_than_processes(tmp_path: Path) -> None:
    _, (history,) = run("tiny", tmp_path / "alone", 1)
    _, histories = run("tiny", tmp_path / "together", 2)
    assert histories[1]["metrics"]["loss"] == pytest.approx(history["metrics"]["loss"], rel=1e-5)


def test_a_callback_of_the_first_stops_all(tmp_path: Path) -> None:
    _, histories = run("callback", tmp_path / "together", 2)
    assert [len(history["rows"]) for history in histories] == [2, 2]
    assert [history["stopped"] for history in histories] == ["callback", "callback"]


def test_if_one_dies_the_job_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(SCRIPT), "die", str(tmp_path)]
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
    command = [sys.executable, str(SCRIPT), "die", str(tmp_path)]
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
