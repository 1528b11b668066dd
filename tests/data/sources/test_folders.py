from __future__ import annotations

from pathlib import Path

import pytest

from stoker.data.sources.folders import find_images
from stoker.errors import DataError, SourceNotFoundError


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def test_a_class_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "dog/b.JPG", "dog/a.png", "cat/deep/er/1.webp", "cat/2.tiff")
    make(tmp_path, "cat/.hidden.png", "cat/notes.txt", ".git/x.png", "__MACOSX/cat/2.png", "README.md")
    layout = find_images(tmp_path)
    assert layout.classes == ("cat", "dog")
    assert [(file.name, file.label) for file in layout.train] == [
        ("cat/2.tiff", "cat"),
        ("cat/deep/er/1.webp", "cat"),
        ("dog/a.png", "dog"),
        ("dog/b.JPG", "dog"),
    ]
    assert all(file.path.is_file() for file in layout.train)
    assert layout.test == ()


def test_images_without_classes(tmp_path: Path) -> None:
    layout = find_images(make(tmp_path, "b.png", "a.png", "empty/", "notes/x.txt"))
    assert [(file.name, file.label) for file in layout.train] == [("a.png", None), ("b.png", None)]
    assert layout.classes == ()


@pytest.mark.parametrize("valid", ["valid", "val"])
def test_split_beforehand(tmp_path: Path, valid: str) -> None:
    make(tmp_path, "train/cat/1.png", "train/dog/2.png", f"{valid}/cat/3.png", "test/dog/4.png", "test/cat/5.png")
    layout = find_images(tmp_path)
    assert layout.classes == ("cat", "dog")
    assert {file.name for file in layout.train} == {"train/cat/1.png", "train/dog/2.png", f"{valid}/cat/3.png"}
    assert [file.name for file in layout.test] == ["test/cat/5.png", "test/dog/4.png"]


def test_train_alone_is_no_class_but_one_among_classes_is(tmp_path: Path) -> None:
    assert find_images(make(tmp_path / "a", "train/cat/1.png")).classes == ("cat",)
    assert find_images(make(tmp_path / "b", "train/1.png", "bus/2.png")).classes == ("bus", "train")
    assert find_images(make(tmp_path / "c", "test/1.png", "valid/2.png")).classes == ("test", "valid")
    assert find_images(make(tmp_path / "d", "train/1.png")).classes == ("train",)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            [],
            r"root: must hold images, in a sub-folder a class or directly inside, got none\. Known suffixes",
        ),
        (["a.txt", "b/c.txt"], r"must hold images.*, got none\. Known suffixes"),
        (["a.txt", "t.csv.gz"], r"must hold images.*, got none\. To read a table, name its file: .*t\.csv\.gz\."),
        (
            ["cat/1.png", "dog/"],
            r"dog: each class's folder must hold images, got none\. Delete the folder, or add",
        ),
        (["cat/1.png", "dog/1.txt"], r"dog: each class's folder must hold images"),
        (
            ["cat/1.png", "2.png"],
            r"images must be all in sub-folders or all directly inside, got both \(such as 2\.png\)",
        ),
        (
            ["train/cat/1.png", "test/"],
            r"test: must have a sub-folder of images a class, got no images\. Sort its images",
        ),
        (
            ["train/cat/1.png", "test/1.png"],
            r"test: must have a sub-folder of images a class, got images without classes",
        ),
        (
            ["train/cat/1.png", "test/cow/1.png"],
            r"test: may only have classes that train has, got cow\. Move its images",
        ),
        (
            ["train/cat/1.png", "test/cat/1.png", "more/1.png"],
            r"beside train may only be test and valid, got more\. Move",
        ),
    ],
)
def test_other_layouts(tmp_path: Path, names: list[str], text: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(DataError, match=text):
        find_images(make(root, *names))


def test_folders_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read every folder, and tests may run as root
    with pytest.raises(SourceNotFoundError, match=r"must be readable, got permission denied\. Run: chmod u\+rx"):
        find_images(tmp_path)
