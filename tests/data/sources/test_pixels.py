from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stoker.data.sources.pixels import BadImageError, ImageInfo, decode, probe

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def probed(data: bytes, path: Path) -> ImageInfo:
    path.write_bytes(data)
    assert probe(data) == probe(path)
    return probe(path)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_greys_come_back_as_they_were(form: str, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(RAMP), form)
    np.testing.assert_array_equal(decode(data, 1, 6, 8), RAMP[None])
    np.testing.assert_array_equal(decode(data, 3, 6, 8), np.stack([RAMP] * 3))
    assert probed(data, tmp_path / "a") == ImageInfo(6, 8, grey=True)


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_colours_come_back_as_they_were(form: str, options: dict[str, Any], tmp_path: Path) -> None:
    data = encoded(Image.fromarray(COLOURS), form, **options)
    np.testing.assert_array_equal(decode(data, 3, 6, 8), COLOURS.transpose(2, 0, 1))
    assert probed(data, tmp_path / "a") == ImageInfo(6, 8, grey=False)


def test_colours_turn_grey_by_their_luma() -> None:
    luma = COLOURS @ np.array([299, 587, 114]) / 1000
    grey = decode(encoded(Image.fromarray(COLOURS)), 1, 6, 8)[0]
    assert np.abs(grey - luma).max() <= 0.51  # rounded to whole numbers, in fixed-point arithmetic


def test_black_and_white(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(RAMP > 100))
    np.testing.assert_array_equal(decode(data, 1, 6, 8)[0], (RAMP > 100) * np.uint8(255))
    assert probed(data, tmp_path / "a").grey


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    for form in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(deep), form)
        np.testing.assert_array_equal(decode(data, 1, 1, 6)[0], [[0, 0, 1, 1, 128, 255]])
        assert probed(data, tmp_path / "a") == ImageInfo(1, 6, grey=True)
    pgm = b"P5 2 1 65535\n" + struct.pack(">HH", 65535, 257)
    np.testing.assert_array_equal(decode(pgm, 1, 1, 2)[0], [[255, 1]])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_known_range_are_refused(dtype: type) -> None:
    data = encoded(Image.fromarray(RAMP.astype(dtype)), "TIFF")
    with pytest.raises(BadImageError, match=r"pixels of 32 bits \(mode [FI]\), whose range is unknown"):
        decode(data, 1, 6, 8)


def test_transparency_is_laid_onto_white() -> None:
    alpha = np.full((6, 8), 51, np.uint8)  # a fifth
    alpha[0] = 0
    expected = np.rint(255 + (COLOURS.astype(float) - 255) * (alpha / 255)[..., None]).transpose(2, 0, 1)
    mixed = decode(encoded(Image.fromarray(np.dstack([COLOURS, alpha]))), 3, 6, 8)
    assert np.abs(mixed - expected).max() <= 1  # pillow blends in fixed-point arithmetic
    assert (mixed[:, 0] == 255).all()
    grey = decode(encoded(Image.fromarray(np.dstack([RAMP, alpha]), "LA")), 1, 6, 8)[0]
    assert np.abs(grey - np.rint(255 + (RAMP - 255.0) * (alpha / 255))).max() <= 1


def test_palettes(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP % 4, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)[RAMP % 4].transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(encoded(image), 3, 6, 8), expected)
    assert not probed(encoded(image), tmp_path / "a").grey
    clear = decode(encoded(image, transparency=0), 3, 6, 8)
    np.testing.assert_array_equal(clear, np.where(RAMP % 4 == 0, 255, expected))
    image.putpalette([7, 7, 7, 60, 60, 60, 90, 90, 90, 255, 255, 255])
    assert probed(encoded(image), tmp_path / "a").grey
    np.testing.assert_array_equal(decode(encoded(image), 1, 6, 8)[0], np.array([7, 60, 90, 255], np.uint8)[RAMP % 4])


def test_other_colour_models() -> None:
    for mode in ("CMYK", "YCbCr", "LAB"):
        image = Image.new("RGB", (8, 6), (200, 30, 60))
        if mode == "LAB":
            from PIL import ImageCms

            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
            assert converted is not None
            image = converted
        else:
            image = image.convert(mode)
        data = encoded(image, "TIFF")
        with Image.open(io.BytesIO(data)) as opened:
            expected = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(decode(data, 3, 6, 8), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(form: str, orientation: int, tmp_path: Path) -> None:
    corner = np.zeros((16, 32), np.uint8)
    corner[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(corner), form, exif=exif, **options)
    height, width = (16, 32) if orientation < 5 else (32, 16)
    info = probed(data, tmp_path / "a")
    assert (info.height, info.width) == (height, width)
    upright = decode(data, 1, height, width)[0] > 127
    bottom, right = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[
        orientation
    ]
    expected = np.zeros((height, width), bool)
    expected[bottom * (height - 8) :, right * (width - 8) :][:8, :8] = True
    np.testing.assert_array_equal(upright, expected)


def test_resizing_averages_what_it_leaves_out() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = decode(encoded(Image.fromarray(stripes)), 1, 8, 8)[0]
    assert np.abs(small.astype(int) - 127).max() <= 8  # without antialiasing it would be black or white
    large = decode(encoded(Image.fromarray(np.array([[0, 200]], np.uint8))), 1, 2, 6)[0]
    assert (np.diff(large.astype(int), axis=1) >= 0).all()
    assert set(large[0]) > {0, 200}


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.fromarray(np.full((6, 8), value, np.uint8)) for value in (10, 20)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data, 1, 6, 8), np.full((1, 6, 8), 10))


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICO", "TGA", "PCX"])
def test_other_formats_are_not_handed_to_their_decoders(form: str, tmp_path: Path) -> None:
    """Least of all PostScript, which pillow has Ghostscript run."""
    data = encoded(Image.fromarray(COLOURS), form)
    with pytest.raises(BadImageError, match=r"^not an image of a known format \(PNG, JPEG, .*\)$"):
        decode(data, 3, 6, 8)
    with pytest.raises(BadImageError, match="not an image of a known format"):
        probed(data, tmp_path / "a.png")


def test_unreadable_images(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))
    for data in (whole[: len(whole) // 2], whole[:100] + bytes(100) + whole[200:], whole[:40]):
        with pytest.raises(BadImageError, match=r"\w"):
            decode(data, 3, 64, 64)
    for data in (b"", b"text", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(BadImageError, match="not an image of a known format"):
            probed(data, tmp_path / "a")
    with pytest.raises(BadImageError, match="No such file or directory"):
        probe(tmp_path / "b")


def test_decompression_bombs_are_not_decoded(tmp_path: Path) -> None:
    """A PNG of a hundred bytes that claims a hundred billion pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (300_000, 10_000):  # beyond twice the limit pillow itself refuses, below it warns
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        with pytest.raises(BadImageError, match=r"more than 89,478,485 pixels, too many to be decoded safely"):
            decode(bomb, 1, 8, 8)
        with pytest.raises(BadImageError, match=r"more than 89,478,485 pixels, too many to be decoded safely"):
            probed(bomb, tmp_path / "a")


def test_the_limit_holds_where_warnings_do_not_raise(
    recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)
    with pytest.raises(BadImageError, match=r"more than 40 pixels"):
        decode(encoded(Image.fromarray(RAMP)), 1, 6, 8)
