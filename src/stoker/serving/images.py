"""A request's images to the model's raw tensor, decoded as ``stoker predict`` decodes files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stoker.data.sources.images import Shape
from stoker.data.sources.pixels import BadImageError, decode, probe
from stoker.serving.problems import Problem, check_count

__all__ = ["MOST_PIXELS", "MOST_PIXELS_TOGETHER", "ImageReader"]

MOST_PIXELS = 1 << 24
"""The most pixels of an image, 4096 × 4096: decoding takes up to 20 bytes for each, however few were sent."""

MOST_PIXELS_TOGETHER = 1 << 26
"""The most pixels of a request's images, which are decoded one after another: up to two seconds of processor."""


class ImageReader:
    """Reads images of one model.

    Args:
        shape: ``(channels, height, width)`` that the model takes; others are resized, as files are.
        max_rows: The most images of one request.
    """

    def __init__(self, shape: Shape, max_rows: int) -> None:
        self.shape = shape
        self.max_rows = max_rows

    def files(self, files: Sequence[tuple[str, bytes]]) -> dict[str, Tensor]:
        """Decode files, of :data:`stoker.data.sources.pixels.FORMATS`.

        Args:
            files: The name and the bytes of each.

        Returns:
            ``"images"``: uint8, ``[n, channels, height, width]``.

        Raises:
            Problem: One cannot be decoded or is too large, which is named; or there is none, or there are too many.
        """
        self.check_count(len(files))
        self._check_pixels(files)
        images = np.empty((len(files), *self.shape), np.uint8)
        for place, (name, data) in enumerate(files):
            try:
                images[place] = decode(data, *self.shape)
            except BadImageError:
                raise _unreadable(name, data, place) from None
        return {"images": torch.from_numpy(images)}

    def check_count(self, count: int) -> None:
        """Make sure that there are images, and not too many.

        Raises:
            Problem: 422 if there are none, 413 if there are too many.
        """
        check_count(count, self.max_rows, "images")

    def _check_pixels(self, files: Sequence[tuple[str, bytes]]) -> None:
        """By what the headers say, before anything is decoded."""
        together = 0
        for place, (name, data) in enumerate(files):
            try:
                header = probe(data)
            except BadImageError:
                raise _unreadable(name, data, place) from None
            pixels = header.height * header.width
            together += pixels
            if pixels > MOST_PIXELS:
                text = f"image {name!r}: must have at most {MOST_PIXELS:,} pixels, got {pixels:,}. Make it smaller."
                raise Problem(422, "invalid-image", text, row=place, value=name[:100])
            if together > MOST_PIXELS_TOGETHER:
                rule = f"body: must have images of at most {MOST_PIXELS_TOGETHER:,} pixels together"
                raise Problem(413, "too-many-pixels", f"{rule}, got more. Send them in several requests.")


def _unreadable(name: str, data: bytes, place: int) -> Problem:
    """Without the decoder's reason, which may have paths and the like in it: they are not for the network."""
    got = "one that cannot be decoded" if data else "nothing"
    text = f"image {name!r}: must be a readable image, got {got}. Send a PNG or JPEG file."
    return Problem(422, "invalid-image", text, row=place, value=name[:100])
