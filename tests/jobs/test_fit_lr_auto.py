"""``lr="auto"`` within a whole job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small import RUN_FILES, files_of, learning, quick_fit

import stoker
from stoker.errors import ConfigError, TrainingError
from stoker.jobs import rate


def test_it_is_the_same_as_with_the_rate_it_finds(tmp_path: Path) -> None:
    notices: list[str] = []
    found = quick_fit(learning("grade"), tmp_path / "auto", target="grade", lr="auto", notify=notices.append)
    lr = found.record.settings["training"]["lr"]
    assert 1e-6 < lr < 1
    given = quick_fit(learning("grade"), tmp_path / "given", target="grade", lr=lr)
    for file in ("model.safetensors", "metrics.json", "history.csv"):
        assert (tmp_path / "auto" / file).read_bytes() == (tmp_path / "given" / file).read_bytes()
    text = f"learning rate {lr:.3g}, a tenth of where the loss was lowest: figures/lr_finder.png"
    assert text in notices
    assert text in found.record.notices
    assert given.record.settings["training"] == found.record.settings["training"]


def test_the_picture_is_among_the_run(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", lr="auto", optimizer="sgd", pictures=True)
    extra = {"figures/lr_finder.png", "figures/predicted_vs_true.png"}
    assert files_of(run.path) == RUN_FILES | extra
    with Image.open(run.path / "figures" / "lr_finder.png") as image:
        assert image.size == (1035, 645)
    assert stoker.load(run.path).predict(learning("price")).frame().height == 150


def test_no_rate_no_run(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"target": "price", "optimizer": "sgd", "clip_norm": 1e-12}  # which moves nothing
    with pytest.raises(TrainingError, match="find_lr: the loss must fall somewhere between the rates tried"):
        quick_fit(learning("price"), tmp_path / "run", lr="auto", **settings)
    assert not (tmp_path / "run").exists()


def test_what_takes_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "QUIET_SECONDS", 0.0)
    notices: list[str] = []
    run = quick_fit(learning("grade"), tmp_path / "run", target="grade", lr="auto", notify=notices.append)
    assert [text for text in notices if text.startswith("looking")] == [
        "looking for a learning rate: 1 of at most 100 steps so far"
    ]
    assert not [text for text in run.record.notices if text.startswith("looking")]


@pytest.mark.parametrize("lr", ["fast", 0, -1.0, True])
def test_what_is_no_rate(lr: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.lr: must be a number above 0, or auto, got "):
        quick_fit(learning("grade"), tmp_path / "run", target="grade", lr=lr)
