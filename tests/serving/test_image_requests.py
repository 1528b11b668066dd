"""Images that a client sends: which are decoded, and what is said of the others."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stoker.data.sources.pixels import BadImageError
from stoker.serving import images
from stoker.serving.images import ImageReader
from stoker.serving.problems import Problem

READER = ImageReader((3, 6, 8), max_rows=256)
COLOURS = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)


def encoded(form: str, image: Image.Image | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    (image or Image.fromarray(COLOURS)).save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_images_are_decoded(form: str) -> None:
    found = READER.files([("a", encoded(form))])["images"]
    np.testing.assert_array_equal(found[0].numpy(), COLOURS.transpose(2, 0, 1))


def test_postscript_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", never)
    text = r"^image 'a': must be a readable image, got one that cannot be decoded\."
    with pytest.raises(Problem, match=text) as caught:
        READER.files([("a", encoded("EPS"))])
    assert (caught.value.status, caught.value.code) == (422, "invalid-image")


def test_a_decoder_s_own_words_do_not_leave_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise BadImageError("Command '['gs', '/home/me/secret']' returned non-zero exit status 1.")

    monkeypatch.setattr(images, "decode", failing)
    with pytest.raises(Problem) as caught:
        READER.files([("a", encoded("PNG"))])
    assert "secret" not in str(caught.value.body)


def test_large_images_are_refused_by_their_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes of one colour, for which decoding would take gigabytes."""
    decoded: list[int] = []

    def noting(data: bytes, *_: int) -> int:
        decoded.append(len(data))
        return 0

    monkeypatch.setattr(images, "decode", noting)
    large = encoded("PNG", Image.new("1", (4097, 4096)))
    with pytest.raises(Problem, match=r"^image 'b': must have at most 16,777,216 pixels, got 16,781,312\.") as caught:
        READER.files([("a", encoded("PNG")), ("b", large)])
    assert (caught.value.status, caught.value.code, caught.value.body["row"]) == (422, "invalid-image", 1)
    many = [("a", encoded("PNG", Image.new("1", (4096, 4096))))] * 4
    with pytest.raises(Problem, match=r"^body: must have images of at most 67,108,864 pixels together, got") as caught:
        READER.files([*many, ("b", encoded("PNG"))])
    assert (caught.value.status, caught.value.code) == (413, "too-many-pixels")
    assert decoded == []
    READER.files(many)
    assert len(decoded) == 4
