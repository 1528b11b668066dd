"""One image file to an array of pixels, through pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["FORMATS", "IMAGE_SUFFIXES", "BadImageError", "ImageInfo", "decode", "probe"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What is read, as pillow names it. Never all that pillow knows: it hands PostScript to a program that runs it."""

_GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_ORIENTATION = 0x0112  # the EXIF tag; its values 5 to 8 swap width and height


class BadImageError(Exception):
    """An image that cannot be read, and why; its reader makes it an error of Stoker's or skips the file."""


@dataclass(frozen=True)
class ImageInfo:
    """What an image's header says.

    Attributes:
        height: Pixels from top to bottom, once turned as its EXIF orientation asks.
        width: Pixels from left to right, likewise.
        grey: Whether it has no colours.
    """

    height: int
    width: int
    grey: bool


def probe(file: Path | bytes) -> ImageInfo:
    """Read an image's header, not its pixels.

    Args:
        file: Where it is, or what is in it.

    Raises:
        BadImageError: The file cannot be read, or is not an image.
    """
    with _reasons(), Image.open(_opened(file), formats=FORMATS) as image:
        _check_size(image)
        width, height = image.size
        if "exif" in image.info and image.getexif().get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        return ImageInfo(height, width, image.mode in _GREY_MODES or _has_grey_palette(image))


def decode(data: bytes, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """Decode an image file: turned as its EXIF orientation asks, transparency laid onto white, in the size asked for.

    Args:
        data: The bytes of the file. Of an animation the first frame is taken.
        channels: 1 for grey (of colours, their luma: ITU-R 601-2), 3 for red, green and blue.
        height: Pixels; an image of another size is resized, with antialiasing, without keeping its proportions.
        width: Pixels, likewise.

    Returns:
        uint8 ``[channels, height, width]``. Greys of 16 bits are scaled to 8.

    Raises:
        BadImageError: It cannot be decoded, is too large to be decoded safely, or has pixels without a known range.
    """
    with _reasons(), Image.open(_opened(data), formats=FORMATS) as image:
        _check_size(image)
        if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):  # those hold 16 bits
            raise BadImageError(f"pixels of 32 bits (mode {image.mode}), whose range is unknown")
        plain = _plain(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
        if plain.size != (width, height):
            plain = plain.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(plain).reshape(height, width, channels).transpose(2, 0, 1)


def _opened(file: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(file) if isinstance(file, bytes) else file


def _plain(image: Image.Image) -> Image.Image:
    """The same image in mode L or RGB."""
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        return Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    grey = image.mode in _GREY_MODES
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def _has_grey_palette(image: Image.Image) -> bool:
    palette = image.palette if image.mode == "P" else None
    if palette is None or (palette.rawmode or palette.mode) != "RGB":
        return False
    entries = bytes(palette.palette)
    return entries[0::3] == entries[1::3] == entries[2::3]


def _check_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BadImageError(_too_large(limit))


def _too_large(limit: int | None) -> str:
    return f"more than {limit:,} pixels, too many to be decoded safely (PIL.Image.MAX_IMAGE_PIXELS sets the limit)"


@contextmanager
def _reasons() -> Iterator[None]:
    """Give whatever decoders raise on damaged files (they raise all kinds) one kind, with a reason in words."""
    try:
        yield
    except (BadImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(_too_large(Image.MAX_IMAGE_PIXELS)) from None
    except UnidentifiedImageError:
        raise BadImageError("not an image of a known format (PNG, JPEG, BMP, GIF, TIFF, WebP, PPM)") from None
    except Exception as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise BadImageError(reason) from None
