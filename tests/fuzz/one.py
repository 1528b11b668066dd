"""Fuzz one target, guided by the lines of Stoker that are reached.

python one.py TARGET GOOD [libFuzzer's options] SEEDS
"""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from pathlib import Path

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

with atheris.instrument_imports(include=["stoker"]):
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "hostile")]
    from targets import TARGETS

    from stoker.errors import StokerError
    from stoker.serving.problems import Problem

    target = TARGETS[sys.argv[1]]
    read = target.reader(Path(sys.argv[2]), Path(tempfile.mkdtemp(prefix="stoker-fuzz-")))
    for seed in target.seeds(Path(sys.argv[2])):
        read(seed)  # what is imported on the way is looked at too


def one_input(data: bytes) -> None:
    """Read an input; what is not an error of ours is a finding."""
    try:
        read(data)
    except (StokerError, Problem) as error:
        if ": " not in str(error):
            raise AssertionError("not the form of our errors") from error


def changed(data: bytes, max_size: int, seed: int) -> bytes:
    """As libFuzzer changes bytes, or by the input's structure."""
    chance = random.Random(seed)
    if chance.random() < 0.4:
        return bytes(atheris.Mutate(data, max_size))
    return target.damage(data, chance)[:max_size]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup([sys.argv[0], *sys.argv[3:]], one_input, custom_mutator=changed)
    atheris.Fuzz()
