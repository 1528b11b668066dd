"""What an engine must know to go on: as plain data and back, and nothing malformed is taken for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from stoker.engines.eager import EagerEngine
from stoker.engines.standing import Standing
from stoker.errors import CheckpointError


@pytest.mark.parametrize(
    "standing",
    [
        Standing("eager"),
        Standing("auto", program=True, idle=frozenset({"b", "a"}), exported=True, noise=3, timed=True, since="epoch 2"),
        Standing("compiled", refusal="a hook on 0", reason="a hook on 0", changes=2, form="ab", rates_constant=True),
    ],
)
def test_as_plain_data_and_back(standing: Standing) -> None:
    assert Standing.from_dict(json.loads(json.dumps(standing.as_dict()))) == standing


@pytest.mark.parametrize("later", ["same", "rates_constant"])
def test_one_of_before_more_was_kept(later: str) -> None:
    data = Standing("compiled", changes=2).as_dict()
    del data[later]
    assert Standing.from_dict(data) == Standing("compiled", changes=2)


@pytest.mark.parametrize(
    "wrong", [{"program": 1}, {"idle": [1]}, {"idle": "a"}, {"noise": "3"}, {"engine": None}, {"more": 1}]
)
def test_malformed(wrong: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint: must say how its engine stood, got \{.*It is damaged\."):
        Standing.from_dict(Standing("eager").as_dict() | wrong)


def test_only_what_a_clock_decided_is_a_choice() -> None:
    assert Standing("compiled", program=True).choice is None
    assert Standing("auto", program=True, timed=True).choice == (True, None)


def test_without_a_program_a_programs_training_does_not_go_on() -> None:
    with pytest.raises(CheckpointError, match=r"engine: must be the one that the training began with, got a program's"):
        EagerEngine().resume(Standing("compiled", program=True))


def test_the_digest_of_a_form_does_not_depend_on_how_texts_are_hashed() -> None:
    code = """
import torch
from torch import nn
from stoker.data.resident import ResidentBatches
from stoker.engines.capture import State
from stoker.engines.plan import form_digest
from stoker.engines.step import Step
model = nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True)
step = Step(model, nn.MSELoss(), optimizer)
print(form_digest(step, ResidentBatches(torch.zeros(8, 4), torch.zeros(8, 1)), State.of(step)))
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3", "4")
    }
    assert len(found) == 1
