"""Trainings killed with SIGKILL at random moments, again and again, and resumed: do they end with the same bits?

    python -m tests.chaos.campaign --kills 56 --seed 1

Each training is a process of its own, forked from this one, which has imported Stoker and done nothing else. A third of
the kills come at any moment from the first instruction on, a third at work after a new checkpoint, a third while a
checkpoint's temporary file is being written. What must be the same, bit for bit: the weights, ``metrics.json``,
``history.csv``, and ``config.json`` without how long it took.

A campaign of fifty kills or more must have met half-written checkpoints too, or it is no proof of what it is for: there
a third of the kills wait for one, and each that comes a moment too late is one of many.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CONFIGS: dict[str, list[str]] = {
    "eager, adam, dropout": ["--engine eager --optimizer adam --dropout 0.2 --checkpoint-every 1epoch"],
    "compiled, adam, dropout": [
        "--engine compiled --optimizer adam --dropout 0.2 --checkpoint-every 1epoch --epochs 50"
    ],
    "eager, cosine, ema, mid-epoch": [
        "--engine eager --dropout 0.1 --schedule cosine --ema 0.99 --checkpoint-every 37steps --keep 2"
    ],
    "compiled, cosine, ema, early stopping, mid-epoch": [
        "--engine compiled --dropout 0.1 --schedule cosine --ema 0.99 --patience 12 --epochs 80",
        "--checkpoint-every 53steps",
    ],
    "eager, one-cycle, early stopping, by the clock": [
        "--engine eager --optimizer sgd --momentum 0.9 --lr 0.05 --schedule one-cycle --patience 6",
        "--norm batch --checkpoint-every 0.05s",
    ],
    "compiled, batch norm, accumulation, clipping, by the clock": [
        "--engine compiled --norm batch --dropout 0.2 --accumulate 2 --clip-norm 1 --schedule exponential",
        "--checkpoint-every 0.05s --keep 1 --epochs 50",
    ],
    "eager, plateau, early stopping": [
        "--engine eager --optimizer nadam --schedule plateau --patience 8 --checkpoint-every 1epoch"
    ],
    "auto, deterministic, dropout": ["--engine auto --deterministic --dropout 0.2 --checkpoint-every 2epochs"],
}
KINDS = ("anywhere", "at work", "while writing")
MANY = 50  # kills, of which some must meet a checkpoint half-written; of a few, all may come too late
LONGEST = 300.0  # seconds that a training may take


def write_source(path: Path, rows: int = 2500) -> None:
    """A table with numbers, categories and gaps."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 6))
    kind = rng.choice(["a", "b", "c"], rows)
    y = x[:, 0] * x[:, 1] + np.sin(x[:, 2]) + (kind == "a") + rng.normal(0, 0.1, rows)
    lines = ["x0,x1,x2,x3,x4,x5,kind,y"]
    lines += [",".join([*(f"{v:.4f}" for v in row), str(k), f"{t:.5f}"]) for row, k, t in zip(x, kind, y, strict=True)]
    path.write_text("\n".join(lines) + "\n")


def start(arguments: list[str], log: Path) -> int:
    """The command in a forked process, which is the leader of a group of its own."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    os.setsid()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["stoker", *arguments]
    code = 70
    try:
        from stoker.cli import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        os._exit(code)


def ended(child: int) -> int | None:
    """Its exit code; ``None`` while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return None if pid == 0 else os.waitstatus_to_exitcode(status)


def finish(child: int) -> int:
    """Wait for it."""
    until = time.monotonic() + LONGEST
    while (code := ended(child)) is None:
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            raise RuntimeError("a training hangs")
        time.sleep(0.01)
    return code


def kill(child: int) -> None:
    """With all that it started."""
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


def wait_for(moment: str, child: int, run: Path, chance: random.Random, seconds: float) -> bool:
    """Wait for the moment to kill; whether it came before the training ended."""
    folder, until = run / "checkpoints", time.monotonic() + LONGEST
    before = names(folder)
    if moment == "anywhere":
        until = time.monotonic() + chance.uniform(0, seconds)
        while time.monotonic() < until:
            if has_ended(child):
                return False
            time.sleep(0.002)
        return not has_ended(child)
    skip = chance.randrange(3)  # not always the first
    seen: set[str] = set()
    while time.monotonic() < until:
        now = names(folder)
        found = {name for name in now - before if name.startswith(".tmp-") is (moment == "while writing")}
        seen |= {name for name in found if name.endswith(".safetensors")}
        if len(seen) > skip:
            break
        if has_ended(child):
            return False
        time.sleep(0 if moment == "while writing" else 0.002)
    if moment == "at work":
        time.sleep(chance.uniform(0, 0.2))
    elif (pause := chance.choice([0.0, 0.0, 0.0005, 0.002])) > 0:
        time.sleep(pause)
    return not has_ended(child)


def has_ended(child: int) -> bool:
    """Without taking its exit code away."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208  # quicker, and the moment is short
    except OSError:
        return set()


def contents(run: Path) -> dict[str, Any]:
    """All that must be the same."""
    record = json.loads((run / "config.json").read_text())
    for name in ("seconds", "engine_reason"):
        del record["training"][name]
    files = ("model.safetensors", "metrics.json", "history.csv")
    return {name: (run / name).read_bytes() for name in files} | {"config.json": record}


@dataclass
class Campaign:
    """Kills, and what they came to.

    Attributes:
        folder: Where all of it happens.
        chance: Chooses moments.
        kills: How many of each kind there were.
        waits: How often a moment was waited for, kinds in turn; some trainings end before it comes.
        torn: How many of them left a half-written checkpoint behind.
        compared: Runs that were compared with one that was never killed.
        different: What differed.
    """

    folder: Path
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    waits: int = 0
    torn: int = 0
    compared: int = 0
    different: list[str] = field(default_factory=list)

    def command(self, name: str, run: Path) -> list[str]:
        source = self.folder / "table.csv"
        if not source.exists():
            write_source(source)
        arguments = " ".join(CONFIGS[name]).split()
        common = ["--target", "y", "--epochs", "12", "--hidden", "24,16", "--device", "cpu", "--quiet"]
        return ["fit", str(source), *common, *arguments, "--out", str(run)]

    def whole(self, name: str) -> tuple[dict[str, Any], float]:
        """The run that is never killed, and how long it takes."""
        run = self.folder / f"whole-{list(CONFIGS).index(name)}"
        began = time.monotonic()
        code = finish(start(self.command(name, run), self.folder / "log.txt"))
        if code:
            raise RuntimeError(f"{name}: the training that nobody killed ended with code {code}: {self.log()}")
        return contents(run), time.monotonic() - began

    def chain(self, name: str, wanted: dict[str, Any], seconds: float, kills: int) -> int:
        """Kill one run so many times, let it end, and compare; how many kills there were."""
        run = self.folder / f"killed-{self.compared}"
        for made in range(kills + 1):
            begun = (run / "checkpoints" / "job.json").exists()
            if run.exists() and not begun:
                shutil.rmtree(run)  # killed before there was anything to resume
            arguments = ["resume", str(run), "--quiet"] if begun else self.command(name, run)
            child = start(arguments, self.folder / "log.txt")
            moment = KINDS[self.waits % len(KINDS)]
            self.waits += 1
            if made == kills or not wait_for(moment, child, run, self.chance, seconds):
                code = finish(child)
                if code:
                    self.different.append(f"{name}: resuming ended with code {code}: {self.log()}")
                break
            kill(child)
            self.kills[moment] += 1
            self.torn += any(one.startswith(".tmp-") for one in names(run / "checkpoints"))
        self.compared += 1
        if (run / "config.json").exists():
            found = contents(run)
            self.different += [f"{name}: {part} of {run}" for part in wanted if found[part] != wanted[part]]
        else:
            self.different.append(f"{name}: no run in {run}")
        return made

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")[-800:]


def campaign(folder: Path, kills: int, seed: int, configs: list[str], show: Any = print) -> Campaign:
    """Kill so many times, over these configurations in turn."""
    import stoker.jobs.fit
    import stoker.jobs.resume  # noqa: F401  # what all processes need; what they must not share is begun in none

    done = Campaign(folder, random.Random(seed))
    references: dict[str, tuple[dict[str, Any], float]] = {}
    while sum(done.kills.values()) < kills and not done.different:
        name = configs[done.compared % len(configs)]
        if name not in references:
            references[name] = done.whole(name)
        left = kills - sum(done.kills.values())
        made = done.chain(name, *references[name], kills=min(left, done.chance.randint(2, 6)))
        same = "DIFFERENT" if done.different else "the same bits"
        show(f"{made} kills: {same}: {name}", flush=True)
    return done


def shortfall(kills: int, torn: int) -> str:
    """What a campaign has failed to try, in words; nothing where it is too short to be asked."""
    if kills < MANY or torn:
        return ""
    return f"none of {kills} kills met a half-written checkpoint: what must survive that was not tried"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=56)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="stoker-chaos-") as folder:
        os.environ.setdefault("STOKER_CACHE", f"{folder}/cache")
        began = time.monotonic()
        done = campaign(Path(folder), given.kills, given.seed, list(CONFIGS))
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(done.kills.items()))
        print(f"{sum(done.kills.values())} kills ({kinds}; {done.torn} left a half-written checkpoint behind),")
        print(f"{done.compared} runs compared, {len(done.different)} differences, {time.monotonic() - began:.0f} s")
        faults = [*done.different, *filter(None, [shortfall(sum(done.kills.values()), done.torn)])]
        for text in faults:
            print(text)
        sys.exit(bool(faults))


if __name__ == "__main__":
    main()
