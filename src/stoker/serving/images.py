"""A request's images to the model's raw tensor, decoded as ``stoker predict`` decodes files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stoker.data.sources.images import Shape
from stoker.data.sources.pixels import BadImageError, decode
from stoker.serving.problems import Problem

__all__ = ["ImageReader"]


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
        """Decode files: PNG, JPEG and whatever else pillow reads.

        Args:
            files: The name and the bytes of each.

        Returns:
            ``"images"``: uint8, ``[n, channels, height, width]``.

        Raises:
            Problem: One cannot be decoded, which is named; or there is none, or there are too many.
        """
        self.check_count(len(files))
        images = np.empty((len(files), *self.shape), np.uint8)
        for place, (name, data) in enumerate(files):
            try:
                images[place] = decode(data, *self.shape)
            except BadImageError as error:
                got = "nothing" if not data else str(error)
                text = f"image {name!r}: must be a readable image, got {got}. Send a PNG or JPEG file."
                raise Problem(422, "invalid-image", text, row=place, value=name[:100]) from None
        return {"images": torch.from_numpy(images)}

    def check_count(self, count: int) -> None:
        """Make sure that there are images, and not too many.

        Raises:
            Problem: 422 if there are none, 413 if there are too many.
        """
        if count == 0:
            raise Problem(422, "no-rows", "body: must have images, got none.")
        if count > self.max_rows:
            text = f"body: must have at most {self.max_rows:,} images, got {count:,}. Send them in several requests."
            raise Problem(413, "too-many-rows", text)
