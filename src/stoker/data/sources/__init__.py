"""From what a user names to data in memory: the one entrance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoker.data.dataset import DataSet, ImageSet, Table
from stoker.errors import DataError, SchemaError, SourceNotFoundError, suggest

if TYPE_CHECKING:
    from stoker.data.sources.download import Download

__all__ = ["load"]

Shape = tuple[int, int, int]


def load(
    source: Any,
    *,
    target: str | None = None,
    skip_bad: bool = False,
    image_shape: Shape | None = None,
    data_home: Path | None = None,
    download: Download | None = None,
) -> DataSet:
    """Load data, from a path, a name or an object.

    Args:
        source: One of

            - a path, as text or ``Path``: a table file (:mod:`stoker.data.sources.files`); an image file; a folder
              of images (:func:`stoker.data.sources.images.load_image_folder`) or of IDX files
              (:func:`stoker.data.sources.idx.load_idx_folder`),
            - text that is not a path: a named data set (:data:`stoker.data.sources.named.NAMED_SETS`),
            - an object in memory (:func:`stoker.data.sources.objects.from_object`),
            - data that were loaded before, which are returned as they are.
        target: The target column, to make sure that it is there. Of ``(X, y)`` it is what y is to be called.
        skip_bad: Whether unreadable images are left out and listed in ``skipped``, rather than an error.
        image_shape: ``(channels, height, width)`` that images must have; files of others are converted.
        data_home: Where the files of named data sets are kept; by default ``$STOKER_DATA``, or ``stoker`` in the user's
            cache directory.
        download: What downloads them; by default over HTTP, with a progress bar.

    Returns:
        The data.

    Raises:
        SourceNotFoundError: There is no such file, directory or data set; or it cannot be read or downloaded.
        SourceFormatError: A file is empty, damaged, ragged or of another format.
        SchemaError: The target is not a column, or two columns have the same name.
        DataError: The data cannot be used as they are.
        InputTypeError: An object is of a kind that is not taken.
        ConfigError: ``image_shape`` is not a shape of images.
        DiskFullError: There is no room for a download.
    """
    if isinstance(source, Table | ImageSet):
        data: DataSet = source
    elif isinstance(source, str | os.PathLike):
        data = _load_named_or_path(source, skip_bad=skip_bad, shape=image_shape, data_home=data_home, download=download)
    else:
        from stoker.data.sources.objects import from_object

        data = from_object(source, target=target)
        target = None if isinstance(source, tuple) else target
    _check_target(data, target)
    _check_image_shape(data, image_shape)
    return data


def _load_named_or_path(
    source: str | os.PathLike[str],
    *,
    skip_bad: bool,
    shape: Shape | None,
    data_home: Path | None,
    download: Download | None,
) -> DataSet:
    path = Path(source).expanduser()
    kind = _kind_of_path(path)
    if kind == "file":
        return _load_file(path, shape)
    if kind == "directory":
        from stoker.data.sources.idx import is_idx_folder, load_idx_folder
        from stoker.data.sources.images import load_image_folder

        if is_idx_folder(path):
            return load_idx_folder(path)
        return load_image_folder(path, skip_bad=skip_bad, image_shape=shape)

    from stoker.data.sources.named import NAMED_SETS, load_named

    if isinstance(source, str) and source in NAMED_SETS:
        return load_named(source, data_home=data_home, download=download)
    rule = "must be an existing file or directory, or a named data set"
    fix = suggest(str(source), NAMED_SETS).replace("Known:", "Named data sets:")
    raise SourceNotFoundError(repr(str(source)), rule, "no such file, and not a named data set", fix)


def _kind_of_path(path: Path) -> str:
    try:
        if path.is_dir():
            return "directory"
        return "file" if path.exists() else ""
    except PermissionError:
        raise SourceNotFoundError(str(path), "must be readable", "permission denied", "Ask its owner.") from None
    except (OSError, ValueError):  # too long for a path, or with a null byte: some other text
        return ""


def _load_file(path: Path, shape: Shape | None) -> DataSet:
    from stoker.data.sources.pixels import IMAGE_SUFFIXES

    if path.suffix.lower() in IMAGE_SUFFIXES:
        from stoker.data.sources.images import load_image_file

        return load_image_file(path, image_shape=shape)

    from stoker.data.sources.files import read_table

    return read_table(path)


def _check_target(data: DataSet, target: str | None) -> None:
    if target is None:
        return
    if isinstance(data, ImageSet):
        rule = "images have their classes from their folders or labels, not from a column"
        raise SchemaError("target", rule, repr(target), "Leave the target out.")
    if target not in data.frame.columns:
        columns = data.frame.columns
        raise SchemaError(
            "unknown target", "must be a column", repr(target), suggest(target, columns).replace("Known", "Columns")
        )


def _check_image_shape(data: DataSet, shape: Shape | None) -> None:
    if shape is None:
        return
    if isinstance(data, Table):
        raise DataError(data.provenance.origin, f"must be images of the shape {shape}", "a table", "Give images.")
    if tuple(data.images.shape[1:]) != tuple(shape):
        got = str(tuple(data.images.shape[1:]))
        fix = "Arrays, IDX files and named sets are taken as they are: bring them into that shape first."
        raise DataError(data.provenance.origin, f"must be images of the shape {shape}", got, fix)
