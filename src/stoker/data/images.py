"""Image folders: a class a sub-folder, or images without labels; and single image files.

::

    animals/cat/1.png      the class "cat"         animals/train/cat/1.png     split beforehand: these are the set,
    animals/dog/7.jpg      the class "dog"         animals/test/cat/2.png      and these its ``test``
    unseen/1.png           no sub-folders: images without labels, for prediction

Images in ``valid`` (or ``val``) beside ``train`` are added to those of ``train``: Stoker splits off its own validation
set, in which every image then has its chance. Hidden files and files of other suffixes are passed over.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.data.dataset import ImageSet, Provenance
from stoker.data.files import open_checked, short_name
from stoker.data.fingerprint import fingerprint_files
from stoker.data.pixels import IMAGE_SUFFIXES, BadImageError, ImageInfo, decode, probe
from stoker.errors import ConfigError, DataError, SourceFormatError, SourceNotFoundError

__all__ = ["load_image_file", "load_image_folder"]

Shape = tuple[int, int, int]
Result = TypeVar("Result")

_PARTS = {"train": "train", "valid": "train", "val": "train", "test": "test"}
_WORKERS = min(16, os.cpu_count() or 1)  # decoding releases the interpreter's lock


@dataclass(frozen=True)
class _File:
    name: str
    path: Path
    label: str | None


def load_image_folder(root: Path, *, skip_bad: bool = False, image_shape: Shape | None = None) -> ImageSet:
    """Read a folder of images, whole, into uint8 tensors of one shape.

    Args:
        root: The folder, laid out as shown at the top of this file. Folders within a class's folder belong to the class.
        skip_bad: Whether unreadable images are left out and listed in ``skipped``, rather than an error.
        image_shape: ``(channels, height, width)`` of the result, with 1 or 3 channels. By default the most common size
            among the files (of the smallest of them, if several are), with 1 channel if no file has colours, else 3.

    Returns:
        The images; sorted names of the sub-folders are the classes. Images of another size are resized (bilinear, with
        antialiasing, without keeping proportions); see :func:`stoker.data.pixels.decode` for the rest.

    Raises:
        ConfigError: ``image_shape`` is not a shape of images.
        DataError: There are no images, a class has none, folders are laid out in another way, or the images do not fit
            into memory.
        SourceFormatError: An image is unreadable; the text names it.
        SourceNotFoundError: The folder may not be read.
    """
    _check_shape(image_shape)
    try:
        parts = _find(root)
    except PermissionError as error:
        raise SourceNotFoundError(str(error.filename), "must be readable", "permission denied", "") from None
    found = sorted({file.label for file in parts["train"] if file.label is not None})
    classes = tuple(found)
    for file in parts["test"]:
        if file.label not in found:
            fix = "Move its images to a class that train has, or away."
            raise DataError(f"{root}/test", "may only have classes that train has", repr(file.label), fix)
    train, skipped = parts["train"], ()
    if image_shape is None:
        headers, train, skipped = _each(root, parts["train"], lambda _, file: probe(file.path), skip_bad=skip_bad)
        image_shape = _common_shape(root, headers)
    images, digests = _read(root, train, image_shape, classes, skip_bad=skip_bad)
    test, test_digests = None, {}
    if parts["test"]:
        test, test_digests = _read(root, parts["test"], image_shape, classes, skip_bad=skip_bad)
    name, fingerprint = short_name(root, ""), fingerprint_files(digests | test_digests)
    return _assemble(images, classes, Provenance(name, str(root), fingerprint, len(images.files)), skipped, test)
