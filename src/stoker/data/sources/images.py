"""Image folders and image files to tensors: all images in one size and number of channels, whole and in memory."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.data.dataset import ImageSet, Provenance
from stoker.data.sources.files import open_checked, short_name
from stoker.data.sources.fingerprint import fingerprint_files
from stoker.data.sources.folders import ImageFile, Layout, find_images
from stoker.data.sources.limits import physical_memory, read_whole
from stoker.data.sources.pixels import BadImageError, ImageInfo, decode, probe
from stoker.errors import ConfigError, DataError, SourceFormatError

__all__ = ["Shape", "check_shape", "load_image_file", "load_image_folder"]

Shape = tuple[int, int, int]
"""``(channels, height, width)``."""

Result = TypeVar("Result")
Skipped = tuple[tuple[str, str], ...]

_WORKERS = min(16, os.cpu_count() or 1)  # threads: decoders release the interpreter's lock


def load_image_folder(root: Path, *, skip_bad: bool = False, image_shape: Shape | None = None) -> ImageSet:
    """Read a folder of images (see :mod:`stoker.data.sources.folders`), whole, into uint8 tensors of one shape.

    Memory peaks a little above the result: it is made first, and each image is decoded into its place.

    Args:
        root: The folder.
        skip_bad: Whether unreadable images are left out and listed in ``skipped``, rather than an error.
        image_shape: ``(channels, height, width)`` of the result, with 1 or 3 channels. By default the most common size
            among the files to train on (the smallest of the most common), with 1 channel if none has colours, else 3.

    Returns:
        The images, sorted by name; sorted names of the sub-folders are the classes. Images of another size are resized
        (bilinear, with antialiasing, without keeping proportions); see :mod:`stoker.data.sources.pixels`.

    Raises:
        ConfigError: ``image_shape`` is not a shape of images.
        DataError: There are no images, a class has none, folders are laid out in another way, or the images do not fit
            into memory.
        SourceFormatError: An image is unreadable; the text names it.
        SourceNotFoundError: The folder may not be read.
    """
    check_shape(image_shape)
    layout = find_images(root)
    files = layout.train
    unread: Skipped = ()
    if image_shape is None:
        probed = _each(root, files, lambda _, file: probe(file.path), skip_bad=skip_bad)
        files, headers, unread = _sort_out(files, probed)
        image_shape = _common_shape(root, headers)
    train = _read(root, files, image_shape, skip_bad=skip_bad)
    test = _read(root, layout.test, image_shape, skip_bad=skip_bad) if layout.test else None
    _check_left(root, layout, train, test)
    fingerprint = fingerprint_files(train.digests | (test.digests if test else {}))
    provenance = Provenance(short_name(root, ""), str(root), fingerprint, len(train.images))
    whole = train.as_set(layout.classes, provenance)
    return replace(
        whole,
        test=test.as_set(layout.classes, provenance) if test else None,
        skipped=tuple(sorted(unread + whole.skipped)),
    )


def load_image_file(path: Path, *, image_shape: Shape | None = None) -> ImageSet:
    """Read one image file, as a set of one image without a label.

    Args:
        path: The file.
        image_shape: ``(channels, height, width)`` of the result; by default the image's own.

    Returns:
        The set.

    Raises:
        ConfigError: ``image_shape`` is not a shape of images.
        SourceFormatError: The file is not a readable image.
        SourceNotFoundError: There is no file, or it may not be read.
    """
    check_shape(image_shape)
    with open_checked(path) as file:
        data = read_whole(file, str(path))
    try:
        if image_shape is None:
            info = probe(path)
            image_shape = (1 if info.grey else 3, info.height, info.width)
        pixels = decode(data, *image_shape)
    except BadImageError as error:
        raise SourceFormatError(str(path), "must be a readable image", error, "Replace it.") from None
    provenance = Provenance(
        short_name(path, path.suffix), str(path), f"sha256:{hashlib.sha256(data).hexdigest()}", rows=1
    )
    return ImageSet(torch.from_numpy(pixels[None].copy()), None, (), provenance, names=(path.name,))


def check_shape(shape: Shape | None) -> None:
    """Make sure that a shape is one that images can be brought into.

    Raises:
        ConfigError: It is not.
    """
    if shape is not None and (len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1):
        rule = "must be (channels, height, width), with 1 or 3 channels"
        raise ConfigError("image_shape", rule, str(shape), "For example: (3, 64, 64).")


@dataclass(frozen=True)
class _Images:
    """Images as they were read: the array, the files that are in it, and what else belongs to a set of images."""

    images: NDArray[np.uint8]
    files: tuple[ImageFile, ...]
    digests: dict[str, str]
    skipped: Skipped

    def as_set(self, classes: tuple[str, ...], whole: Provenance) -> ImageSet:
        index = {name: place for place, name in enumerate(classes)}
        labels = torch.tensor([index[str(file.label)] for file in self.files], dtype=torch.int64) if classes else None
        return ImageSet(
            images=torch.from_numpy(self.images),
            labels=labels,
            classes=classes,
            provenance=replace(whole, rows=len(self.images)),
            names=tuple(file.name for file in self.files),
            skipped=self.skipped,
        )


def _check_left(root: Path, layout: Layout, train: _Images, test: _Images | None) -> None:
    """Make sure that skipping left images of each class, and some to test on."""
    left = {file.label for file in train.files}
    emptied = sorted(name for name in layout.classes if name not in left)
    where = root / "test" if test is not None and not test.files else None
    if emptied or not train.files:
        folder = root / "train" if layout.test else root
        where = folder / emptied[0] if emptied else folder
    if where is not None:
        fix = "All of them are unreadable: replace or delete them."
        raise DataError(str(where), "must hold readable images", "none that can be read", fix)


def _read(root: Path, files: Sequence[ImageFile], shape: Shape, *, skip_bad: bool) -> _Images:
    check_memory(root, len(files), shape, physical_memory())
    images = np.empty((len(files), *shape), dtype=np.uint8)

    def decode_into(place: int, file: ImageFile) -> str:
        try:
            with file.path.open("rb") as opened:
                data = read_whole(opened, file.name)
        except DataError as error:
            raise BadImageError(f"{error.rule}, got {error.got}") from None
        except OSError as error:
            raise BadImageError(error.strerror or str(error)) from None
        images[place] = decode(data, *shape)
        return hashlib.sha256(data).hexdigest()

    results = _each(root, files, decode_into, skip_bad=skip_bad)
    kept, digests, skipped = _sort_out(files, results)
    for new, old in enumerate(place for place, result in enumerate(results) if isinstance(result, str)):
        if new != old:
            images[new] = images[old]
    names = (file.name for file in kept)
    return _Images(images[: len(kept)], kept, dict(zip(names, digests, strict=True)), skipped)


def _each(
    root: Path, files: Sequence[ImageFile], work: Callable[[int, ImageFile], Result], *, skip_bad: bool
) -> list[Result | BadImageError]:
    """Do something with each file, several at once; the first bad one is an error, unless they are to be skipped."""

    def attempt(place: int) -> Result | BadImageError:
        try:
            return work(place, files[place])
        except BadImageError as error:
            return error

    results = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        for file, result in zip(files, pool.map(attempt, range(len(files))), strict=True):
            if isinstance(result, BadImageError) and not skip_bad:
                pool.shutdown(wait=False, cancel_futures=True)
                fix = "Replace or delete it, or leave such images out with --skip-bad (skip_bad=True)."
                raise SourceFormatError(str(root / file.name), "must be a readable image", result, fix)
            results.append(result)
    return results


def _sort_out(
    files: Sequence[ImageFile], results: Sequence[Result | BadImageError]
) -> tuple[tuple[ImageFile, ...], list[Result], Skipped]:
    """The files that went well, their results, and the name and reason of each file that did not."""
    pairs = list(zip(files, results, strict=True))
    return (
        tuple(file for file, result in pairs if not isinstance(result, BadImageError)),
        [result for result in results if not isinstance(result, BadImageError)],
        tuple((file.name, str(result)) for file, result in pairs if isinstance(result, BadImageError)),
    )


def _common_shape(root: Path, headers: Sequence[ImageInfo]) -> Shape:
    if not headers:
        fix = "Are they images? Their headers say not."
        raise DataError(str(root), "must hold readable images", "none that can be read", fix)
    sizes = Counter((info.height, info.width) for info in headers)
    height, width = max(sizes, key=lambda size: (sizes[size], -size[0] * size[1], size))
    return 1 if all(info.grey for info in headers) else 3, height, width


def check_memory(root: Path, count: int, shape: Shape, available: int | None) -> None:
    """Make sure that images fit into memory before any is decoded.

    Args:
        root: Their folder.
        count: How many there are.
        shape: The shape of each.
        available: The machine's memory in bytes; ``None`` if it is not known.

    Raises:
        DataError: They take more than all of it.
    """
    channels, height, width = shape
    needed = count * channels * height * width
    if available is not None and needed > available:
        got = f"{needed / 2**30:.1f} GiB for {count} images of {channels} × {height} × {width}"
        fix = "Choose a smaller size: image_shape=(3, 128, 128)."
        raise DataError(str(root), f"images must fit into memory ({available / 2**30:.1f} GiB)", got, fix)
