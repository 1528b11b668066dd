from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stoker.errors import ConfigError, DiskFullError
from stoker.reporting.canvas import as_array, dress, new_figure, number, text, width_of, write_png


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.97234, "0.972"),
        (0.1, "0.100"),
        (0.0873912, "0.0874"),
        (0.000617, "0.000617"),
        (0.00003, "3.0e-05"),
        (0.99961, "0.9996"),
        (1.0, "1.00"),
        (1.4999, "1.50"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (1e30, "1.0e+30"),
        (-0.5, "−0.500"),
        (-400.0, "−400"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_number(value: float, shown: str) -> None:
    assert number(value) == shown


def test_arrays_of_tensors_and_sequences() -> None:
    assert as_array([1, 2]).dtype == np.int64
    assert as_array(torch.tensor([1.5], dtype=torch.bfloat16, requires_grad=True)).tolist() == [1.5]
    assert as_array(torch.tensor([1, 2])).dtype == np.int64


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "figures" / "picture.png"
    figure = new_figure(2, 1)
    text(figure, 0.1, 0.5, "first")
    assert write_png(figure, str(path)) == path
    before = path.read_bytes()
    with Image.open(path) as image:
        assert image.size == (300, 150)
        assert "Software" not in image.info  # nor a date
        assert set(image.info) <= {"dpi"}

    def broken(self: Path, target: Path) -> Path:
        raise OSError("unplugged")

    monkeypatch.setattr(Path, "replace", broken)
    text(figure, 0.5, 0.5, "second")
    with pytest.raises(OSError, match="unplugged"):
        write_png(figure, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a file that can be written, got Is a directory"):
        write_png(new_figure(1, 1), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/figure\.png: must be a file that can be written, got "):
        write_png(new_figure(1, 1), tmp_path / "file" / "figure.png")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match=r"picture\.png: no room left on the disk, got No space left on device"):
        write_png(new_figure(1, 1), tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_measuring_leaves_nothing_behind() -> None:
    figure = new_figure(3, 1)
    short, long = width_of(figure, "ab"), width_of(figure, "abab", fontsize=9)
    assert 0 < short < long < 3
    assert not figure.texts


def test_a_dollar_starts_no_formula(tmp_path: Path) -> None:
    figure = new_figure(2, 1)
    axes = figure.add_axes((0.2, 0.2, 0.7, 0.6))
    dress(axes, r"cost in $ of \frac{$")
    text(axes, 0.5, 0.5, r"$\nonsense{$")
    assert write_png(figure, tmp_path / "a.png").stat().st_size > 1000


def test_nothing_heavy_is_imported_and_pyplot_never() -> None:
    code = (
        "import sys; import stoker.reporting.figures as f; assert 'matplotlib' not in sys.modules, 'too early';"
        "import tempfile, pathlib; d = pathlib.Path(tempfile.mkdtemp());"
        "f.learning_curves([{'epoch': 1, 'train_loss': 1.0}], d / 'a.png');"
        "f.confusion_matrix([0, 1], [0, 1], ['a', 'b'], d / 'b.png');"
        "f.predicted_vs_true([0.0, 1.0], [0.0, 1.0], d / 'c.png', name='y');"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
