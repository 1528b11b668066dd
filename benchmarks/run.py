"""Stoker beside its peers, in one run: each measurement in a process of its own, the sides in turn.

    make bench                   # all of it, long; then the report
    make bench-quick             # in small, minutes
    python -m benchmarks.run [--jobs california,fashion] [--sides stoker-auto,loop] [--threads 1,2] [--rounds 3] ...
    python -m benchmarks.run --after benchmarks/results/latest.json --jobs lstm --keep     # added to what there is

Results go to ``benchmarks/results/<date>.json`` after each measurement, so that a run that is ended has those so far.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import plan, report
from benchmarks.jobs import JOBS
from benchmarks.machine import committed, described
from benchmarks.measure import ROOT, Measurement, Spec, measure
from benchmarks.plan import Limits, Setting
from benchmarks.sides import SIDES

RESULTS = ROOT / "benchmarks" / "results"


def in_turn(
    settings: Iterable[Setting], limits: Limits, measure_one: Callable[[Spec], Measurement]
) -> Iterable[Measurement]:
    """Measure table after table; within one, round after round; within a round, side after side.

    The first round finds out how long each side's calls can be; the others repeat these calls.
    """
    for setting in settings:
        calls: dict[str, list[int]] = {}
        for turn in range(setting.rounds):
            for side in setting.sides:
                one = partial(_call, setting, side, turn, measure_one)
                if turn:
                    yield from map(one, calls[side])
                    continue
                made: list[int] = []
                for result in _first_round(setting.lengths, limits, one):
                    if "epochs_s" in result:
                        made.append(result["epochs"])
                    yield result
                guess = len(made) > 2 and plan.FEWEST not in setting.lengths
                calls[side] = [epochs for epochs in made if not guess or epochs != plan.FEWEST]


def _call(
    setting: Setting, side: str, turn: int, measure_one: Callable[[Spec], Measurement], epochs: int
) -> Measurement:
    spec = Spec(setting.job, side, setting.batch_size, setting.threads, epochs, setting.rows, turn)
    return measure_one(spec)


def _first_round(
    lengths: Iterable[int], limits: Limits, measure_one: Callable[[int], Measurement]
) -> Iterable[Measurement]:
    done: list[list[float]] = []
    for length in lengths:
        epochs = plan.next_call(length, done, limits)
        while epochs is not None:
            result = measure_one(epochs)
            yield result
            if "epochs_s" not in result:
                return
            done.append(result["epochs_s"])
            epochs = None if epochs == length else plan.next_call(length, done, limits)


def prepare(jobs: Iterable[str], folder: Path) -> dict[str, str]:
    """Have the jobs' data written to a folder; returns what is missing, and why."""
    command = [sys.executable, "-m", "benchmarks.jobs", str(folder), *jobs]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    missing: dict[str, str] = json.loads(process.stdout.splitlines()[-1])
    return missing


def told(m: Measurement) -> str:
    what = f"{m['job']:10} batch {m['batch_size']:<5} {m['threads']} thread(s)  {SIDES[m['side']].label:36}"
    if "epochs_s" not in m:
        return what + (f"skipped: {m['skipped']}" if "skipped" in m else f"FAILED: {m['failed']}")
    step = f"{min(m['epochs_s']) / m['steps'] * 1e6:9.0f} µs/step at best"
    return f"{what}{m['epochs']:4} epochs {m['total_s']:8.2f} s {step}, loss {m['loss']:.4f}"


def continued(earlier: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """An earlier run's results, to which a later one's are to be added.

    Raises:
        ValueError: It was made with something else, so that figures of both are not to be compared.
    """
    before = earlier["about"]
    for name in ("cpu", "cores", "system", "python", "versions", "quick"):
        if before[name] != about[name]:
            raise ValueError(f"its {name} must be this run's, {about[name]}, got {before[name]}. Measure all anew.")
    return {
        "about": {**before, "runs": [*before["runs"], *about["runs"]]},
        "missing": dict(earlier["missing"]),
        "measurements": list(earlier["measurements"]),
    }


def written(results: dict[str, Any]) -> str:
    """Results as JSON, each measurement in a line of its own: some have five hundred epochs."""
    head = json.dumps({name: results[name] for name in ("about", "missing")}, indent=1).removesuffix("\n}")
    lines = ",\n".join(f"  {json.dumps(one)}" for one in results["measurements"])
    return f'{head},\n "measurements": [\n{lines}\n ]\n}}\n'


def _names(known: Iterable[str], what: str) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if wrong := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no {what} {wrong[0]!r}; there are {', '.join(known)}")
        return names

    return parse


def _counts(text: str) -> list[int]:
    counts = [int(part) if part.isdigit() else 0 for part in text.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"must be whole numbers from 1 on, got {text!r}. Such as 1,2.")
    return counts


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="in small: fewer rows, sides and epochs, one round")
    parser.add_argument("--jobs", type=_names(JOBS, "job"), default=[], help="with commas between; all by default")
    parser.add_argument("--sides", type=_names(SIDES, "side"), default=[], help="likewise")
    parser.add_argument("--threads", type=_counts, default=[], help="likewise; 1,2 by default, 1 with --quick")
    parser.add_argument("--rounds", type=int, default=3, help="of the tables whose ratios are wanted; 3 by default")
    parser.add_argument("--steady", type=float, default=Limits.steady_s, help="seconds at most to see steady steps")
    parser.add_argument("--longest", type=float, default=Limits.longest_s, help="seconds at most of the longest calls")
    parser.add_argument("--after", type=Path, help="results to which these are added: of the same machine and versions")
    parser.add_argument("--keep", action="store_true", help="as latest.json too, which is committed; then the report")
    asked = parser.parse_args(arguments)
    threads = asked.threads or ([1] if asked.quick else [1, 2])
    settings = plan.quick(threads) if asked.quick else plan.full(threads, asked.rounds)
    settings = plan.chosen(settings, asked.jobs, asked.sides)
    limits = Limits(steady_s=asked.steady, longest_s=asked.longest)
    began, now = time.perf_counter(), datetime.now().astimezone()
    about = {**described(now), "quick": asked.quick}
    about["runs"] = [{"date": about["date"], "commit": committed(ROOT), "limits": vars(limits), "seconds": 0.0}]
    about["runs"][0] |= {"jobs": asked.jobs, "sides": asked.sides, "threads": threads}
    results: dict[str, Any] = {"about": about, "missing": {}, "measurements": []}
    if asked.after is not None:
        try:
            results = continued(json.loads(asked.after.read_text()), about)
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"--after {asked.after}: {error}")
    file = RESULTS / f"{now:%Y%m%d-%H%M%S}{'-quick' if asked.quick else ''}.json"
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as temporary:
        folder = Path(temporary)
        missing = prepare(dict.fromkeys(setting.job for setting in settings), folder)
        results["missing"] |= missing
        for job, reason in missing.items():
            print(f"{job}: skipped: {reason}", flush=True)
        present = [setting for setting in settings if setting.job not in missing]
        measured = {setting.job for setting in present} | {one["job"] for one in results["measurements"]}
        results["missing"] = {job: reason for job, reason in results["missing"].items() if job not in measured}
        for result in in_turn(present, limits, lambda spec: measure(spec, folder, limits.timeout_s)):
            results["measurements"].append(result)
            results["about"]["runs"][-1]["seconds"] = round(time.perf_counter() - began, 1)
            file.write_text(written(results))
            print(told(result), flush=True)
    file.write_text(written(results))
    if asked.keep:
        report.LATEST.write_text(written(results))
        report.write(results)
    print("\n" + report.page(results))
    print(f"{file.relative_to(ROOT)}: all measurements, in {(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
