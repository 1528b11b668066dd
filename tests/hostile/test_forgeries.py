"""Checkpoints edited by chance whose digests fit: training goes on from each, or refuses it with an error of ours."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import pytest
from forgeries import KINDS, forged, go_on, make_checkpoints, parts_of, resealed, resumed

from stoker.errors import StokerError
from stoker.training.checkpoints.resuming import CheckpointWarning


def tried(kind: str, place: Path, count: int) -> tuple[int, int]:
    """How many were gone on from, and how many refused; anything but an error of Stoker's goes through."""
    good = make_checkpoints(kind, place / "good")
    went, refused = 0, 0
    for number in range(count):
        chance = random.Random(f"{kind} {number}")
        name = chance.choice(sorted(good))
        data = forged(good[name], chance)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CheckpointWarning)
                resumed(kind, data, place / "forged", 3 if name == "end" else 2)
        except StokerError as error:
            refused += ": " in str(error)
        else:
            went += 1
    return went, refused


@pytest.mark.parametrize("kind", KINDS)
def test_forged_checkpoints_are_gone_on_from_or_refused(kind: str, tmp_path: Path) -> None:
    went, refused = tried(kind, tmp_path, 60)
    assert went > 0  # with a harmless change, or training would refuse whatever it gets
    assert went + refused == 60
    assert refused > went


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_forged_checkpoints_are_gone_on_from_or_refused(kind: str, tmp_path: Path) -> None:
    went, refused = tried(kind, tmp_path, 800)
    assert went > 30
    assert went + refused == 800
    assert refused > went


@pytest.mark.parametrize("name", ["within", "after", "between", "end"])
@pytest.mark.parametrize("kind", KINDS)
def test_those_that_nobody_forged_are_gone_on_from(kind: str, name: str, tmp_path: Path) -> None:
    data = make_checkpoints(kind, tmp_path / "good")[name]
    resumed(kind, resealed(*parts_of(data)), tmp_path / "again", 3 if name == "end" else 2)


def test_of_one_that_holds_what_stoker_never_writes_the_one_before_is_used(tmp_path: Path) -> None:
    good = make_checkpoints("adam", tmp_path / "good")
    _, tensors = parts_of(good["within"])
    folder = tmp_path / "again"
    folder.mkdir()
    (folder / "step-0000000001.safetensors").write_bytes(good["between"])
    (folder / "step-0000000002.safetensors").write_bytes(resealed(json.dumps({"run": "this"}), tensors))
    with pytest.warns(CheckpointWarning) as told:
        go_on("adam", folder)
    texts = [str(one.message) for one in told]
    assert "passed over a checkpoint that is damaged" in texts[0]
    assert "must hold what Stoker writes" in texts[0]
    assert texts[1].startswith("going on from the one before")
