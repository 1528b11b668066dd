"""The step that ``fit`` would make, explained without making it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small import learning, quick_fit, write_images, write_table

import stoker
from stoker.errors import ConfigError, SourceNotFoundError, UnknownNameError


def test_it_is_the_step_that_fit_makes(tmp_path: Path) -> None:
    path = write_table(learning("grade", rows=300), tmp_path / "grades.csv")
    settings: dict[str, Any] = {
        "target": "grade",
        "hidden": (8,),
        "optimizer": "sgd",
        "batch_size": 16,
        "device": "cpu",
    }
    found = stoker.explain(path, **settings)
    assert (found.rows, found.device, found.reason) == (16, "cpu", None)
    run = quick_fit(path, tmp_path / "run", engine="compiled", **settings)
    assert run.record.training.engine_reason == "compiled: as asked"
    sizes = [parameter.numel() for parameter in run.model.parameters()]
    update = Counter(call.operator for call in found.calls if call.phase == "update")
    assert update["aten.add.Tensor"] == 2 * len(sizes)  # g + decay · p, p + descent · g
    products = Counter(call.operator for call in found.calls if call.phase == "forward")
    assert products["aten.addmm.default"] == 2  # a hidden layer and the output
    assert "%network.layers.0.weight: f32[8, " in found.graph
    assert "%inputs.categorical: i64[16, " in found.graph
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grades.csv", "run"]  # nothing was kept


def test_settings_come_as_for_fit(tmp_path: Path) -> None:
    config = tmp_path / "job.toml"
    config.write_text('[model]\nhidden = [8]\n[training]\noptimizer = "lbfgs"\nbatch_size = 64\n')
    found = stoker.explain("iris", config=config, assignments=["training.clip_norm=1.0"])
    assert found.reasons == (
        "the optimizer LBFGS, which has no pure update",
        "an epoch has fewer than four whole updates",
    )
    assert not [call for call in found.calls if call.phase == "update"]
    assert "%network.layers.0.weight: f32[8, 4]" in found.graph


def test_images(tmp_path: Path) -> None:
    found = stoker.explain(write_images(tmp_path / "animals"), batch_size=4, model="cnn", channels=(2,))
    rooms = {kind.operator: kind.room for kind in found.kinds}
    assert rooms["aten.convolution.default"] == "convolution"
    assert found.reason is None


def test_what_there_is_to_say_of_the_data_is_told() -> None:
    told: list[str] = []
    stoker.explain(learning("price"), target="price", hidden=(8,), ignore=("seen",), notify=told.append)
    run_told: list[str] = []
    quick_fit(learning("price"), None, target="price", ignore=("seen",), notify=run_told.append)
    assert told == run_told


def test_what_is_wrong_is_an_error() -> None:
    with pytest.raises(SourceNotFoundError):
        stoker.explain("nonsense.csv")
    with pytest.raises(UnknownNameError, match=r"got 'adamm'\. Did you mean 'adam'"):
        stoker.explain("iris", optimizer="adamm")
    with pytest.raises(ConfigError, match="hidden"):
        stoker.explain("iris", hidden=(0,))
