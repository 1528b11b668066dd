"""Images with what was said of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from stoker.data.dataset import ImageSet
from stoker.reporting.calibration import probabilities
from stoker.reporting.html.measured import Split
from stoker.reporting.html.tables import percent, short

__all__ = ["Card", "cards"]

_LARGEST = 96  # pixels of a side
_DIM = 64  # images whose brightest pixel is below are brightened to be seen


@dataclass(frozen=True)
class Card:
    """An image.

    Attributes:
        address: Its data as ``data:`` URI.
        alt: What it shows, in words.
        name: Its file, or its number.
        says: What it is and what it was taken for.
        below: How sure the model was.
    """

    address: str
    alt: str
    name: str
    says: str
    below: str


def cards(split: Split, rows: Sequence[int], classes: Sequence[str]) -> list[Card]:
    """Images of a split, as small PNG files within the page.

    Args:
        split: Of images.
        rows: Which of them.
        classes: Their names.
    """
    assert isinstance(split.data, ImageSet)
    brightest = int(split.data.images.max())
    factor = 255 / brightest if 0 < brightest < _DIM else 1.0
    found = []
    for row in rows:
        table = probabilities(split.outputs[row : row + 1])[0]
        true, said = int(split.targets[row]), int(split.outputs[row].argmax())
        name = short(split.data.names[row] if split.data.names else f"image {split.rows[row] + 1:,}")
        says = f"{short(classes[true], 30)} taken for {short(classes[said], 30)}"
        below = f"p(predicted) {percent(float(table[said]))}, p(true) {percent(float(table[true]))}"
        found.append(Card(_address(split.data, row, factor), f"{name}: {says}", name, says, below))
    return found


def brightened(split: Split) -> bool:
    """Whether :func:`cards` show images brighter than they are."""
    return isinstance(split.data, ImageSet) and 0 < int(split.data.images.max()) < _DIM


def _address(images: ImageSet, row: int, factor: float) -> str:
    from PIL import Image

    pixels = (images.images[row].permute(1, 2, 0).double() * factor).round().byte().numpy()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((_LARGEST, _LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
