"""How a folder of images is laid out: which files it holds, of which classes, for training or for testing.

::

    animals/cat/1.png      the class "cat"         animals/train/cat/1.png     split beforehand: these are the set,
    animals/dog/7.jpg      the class "dog"         animals/test/cat/2.png      and these its ``test``
    unseen/1.png           no sub-folders: images without labels, for prediction

Images in ``valid`` (or ``val``) beside ``train`` are added to those of ``train``: Stoker splits off its own validation
set. Hidden files, and files of other suffixes, are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stoker.data.sources.files import table_suffix
from stoker.data.sources.pixels import IMAGE_SUFFIXES
from stoker.errors import DataError, SourceNotFoundError

__all__ = ["ImageFile", "Layout", "find_images"]

_PARTS = {"train": "train", "valid": "train", "val": "train", "test": "test"}


@dataclass(frozen=True)
class ImageFile:
    """An image file in a folder.

    Attributes:
        name: Its path relative to the folder, with ``/`` between the parts.
        path: Where it is.
        label: The class that its folder stands for; ``None`` if there are no classes.
    """

    name: str
    path: Path
    label: str | None


@dataclass(frozen=True)
class Layout:
    """The images of a folder, sorted by name.

    Attributes:
        train: Those of the set itself.
        test: Those that are held back for testing.
        classes: The classes, sorted by name; empty if there are none.
    """

    train: tuple[ImageFile, ...]
    test: tuple[ImageFile, ...]
    classes: tuple[str, ...]


def find_images(root: Path) -> Layout:
    """Find the images of a folder.

    Args:
        root: The folder, laid out as shown at the top of this file. Folders within a class's folder belong to it.

    Returns:
        Its images; there is at least one.

    Raises:
        DataError: There are no images, a class has none, or the folder is laid out in another way.
        SourceNotFoundError: The folder, or one in it, may not be read.
    """
    try:
        parts = _find_parts(root)
    except PermissionError as error:
        where = str(error.filename)
        raise SourceNotFoundError(where, "must be readable", "permission denied", f"Run: chmod u+rx {where}") from None
    classes = sorted({file.label for file in parts["train"] if file.label is not None})
    strange = sorted({str(file.label) for file in parts["test"]} - set(classes))
    if strange:
        fix = "Move its images to a class that train has, or away."
        raise DataError(str(root / "test"), "may only have classes that train has", ", ".join(strange[:10]), fix)
    return Layout(tuple(parts["train"]), tuple(parts["test"]), tuple(classes))


def _find_parts(root: Path) -> dict[str, list[ImageFile]]:
    folders = _subfolders(root)
    parts = [name for name in folders if name in _PARTS]
    if "train" not in parts or (len(parts) == 1 and not _subfolders(root / "train")):
        files = _files_of(root, root)
        if not files:
            tables = sorted(entry.name for entry in root.iterdir() if table_suffix(entry.name))
            known = f"Known suffixes of images: {', '.join(IMAGE_SUFFIXES)}."
            fix = f"To read a table, name its file: {root / tables[0]}." if tables else known
            raise DataError(str(root), "must hold images, in a sub-folder a class or directly inside", "none", fix)
        return {"train": files, "test": []}
    if len(parts) < len(folders):
        others = ", ".join(name for name in folders if name not in parts)
        fix = "Move them away, or rename train if it is a class."
        raise DataError(str(root), "beside train may only be test and valid", others, fix)
    found: dict[str, list[ImageFile]] = {"train": [], "test": []}
    for name in parts:
        files = _files_of(root, root / name)
        if not files or files[0].label is None:
            got = "images without classes" if files else "no images"
            fix = "Sort its images into classes, or move them away."
            raise DataError(str(root / name), "must have a sub-folder of images a class", got, fix)
        found[_PARTS[name]] += files
    return found


def _files_of(root: Path, folder: Path) -> list[ImageFile]:
    """The images of a folder: those of its sub-folders with their class, or those directly inside without one."""
    loose = [ImageFile(path.relative_to(root).as_posix(), path, None) for path in _images_in(folder.iterdir())]
    by_class = {name: list(_images_in((folder / name).rglob("*"))) for name in _subfolders(folder)}
    if not any(by_class.values()):
        return loose
    if loose:
        rule, fix = (
            "images must be all in sub-folders or all directly inside",
            "Move those that are in no class's folder.",
        )
        raise DataError(str(folder), rule, f"both (such as {loose[0].name})", fix)
    for name, paths in by_class.items():
        if not paths:
            fix = f"Delete the folder, or add images ({', '.join(IMAGE_SUFFIXES)})."
            raise DataError(str(folder / name), "each class's folder must hold images", "none", fix)
    return [
        ImageFile(path.relative_to(root).as_posix(), path, label) for label, paths in by_class.items() for path in paths
    ]


def _images_in(paths: Iterable[Path]) -> Iterator[Path]:
    for path in sorted(paths):
        if path.suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(path.name) and path.is_file():
            yield path


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))  # the latter is what macOS leaves in unpacked archives
