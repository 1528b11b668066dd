from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stoker.data.sources.fingerprint import fingerprint_files
from stoker.data.sources.images import check_memory, load_image_file, load_image_folder
from stoker.errors import ConfigError, DataError, SourceFormatError, SourceNotFoundError


def save(path: Path, value: int = 100, size: tuple[int, int] = (8, 6), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value)).save(path)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for place, name in enumerate(["dog/1.png", "dog/2.bmp", "cat/1.png", "cat/2.png"]):
        save(root / name, 10 * place)
    return root


def test_a_folder_of_classes(pets: Path) -> None:
    data = load_image_folder(pets)
    assert data.classes == ("cat", "dog")
    assert data.names == ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.bmp")
    assert data.images.shape == (4, 1, 6, 8)
    assert data.images.dtype == torch.uint8
    assert data.images[:, 0, 0, 0].tolist() == [20, 30, 0, 10]
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.test is None
    assert data.skipped == ()
    digests = {name: hashlib.sha256((pets / name).read_bytes()).hexdigest() for name in data.names}
    assert data.provenance.fingerprint == fingerprint_files(digests)
    assert (data.provenance.name, data.provenance.origin, data.provenance.rows) == ("pets", str(pets), 4)


def test_a_folder_without_classes(tmp_path: Path) -> None:
    save(tmp_path / "2.png", 2)
    save(tmp_path / "1.png", 1)
    data = load_image_folder(tmp_path)
    assert data.labels is None
    assert data.classes == ()
    assert data.names == ("1.png", "2.png")


def test_train_and_test(tmp_path: Path) -> None:
    for name in ("train/b/1.png", "train/a/1.png", "valid/a/9.png"):
        save(tmp_path / name)
    save(tmp_path / "test/b/1.png", 7, (4, 4))
    data = load_image_folder(tmp_path)
    assert len(data) == data.provenance.rows == 3
    assert data.names == ("train/a/1.png", "train/b/1.png", "valid/a/9.png")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0]
    assert data.test is not None
    assert data.test.images.shape == (1, 1, 6, 8)  # in the shape of those to train on
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [1]
    assert data.test.classes == data.classes == ("a", "b")
    assert data.test.provenance.fingerprint == data.provenance.fingerprint
    assert data.test.provenance.rows == 1


def test_the_most_common_size_and_the_channels_of_most_colour(pets: Path) -> None:
    save(pets / "cat/3.png", size=(20, 20))
    assert load_image_folder(pets).images.shape == (5, 1, 6, 8)
    save(pets / "cat/4.png", size=(8, 6), mode="RGB")
    data = load_image_folder(pets)
    assert data.images.shape == (6, 3, 6, 8)
    assert data.images[data.names.index("cat/4.png"), :, 0, 0].tolist() == [100, 0, 155]
    for place in range(5):
        save(pets / f"dog/large{place}.png", size=(30, 20))
    assert load_image_folder(pets).images.shape[2:] == (6, 8)  # five of each: the smaller
    assert load_image_folder(pets, image_shape=(1, 5, 4)).images.shape == (11, 1, 5, 4)


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 0, 8), (3, 8), (4, 8, 8)])
def test_shapes_that_are_none(pets: Path, shape: tuple[int, int, int]) -> None:
    text = r"image_shape: must be \(channels, height, width\), with 1 or 3 channels, got \(.*\)\. For example: \(3, 64"
    with pytest.raises(ConfigError, match=text):
        load_image_folder(pets, image_shape=shape)
    with pytest.raises(ConfigError, match=text):
        load_image_file(pets / "cat/1.png", image_shape=shape)


@pytest.mark.parametrize("shape", [None, (1, 6, 8)])
def test_unreadable_images(pets: Path, shape: tuple[int, int, int] | None) -> None:
    whole = (pets / "cat/1.png").read_bytes()
    (pets / "cat/3.png").write_bytes(b"text")
    (pets / "cat/4.png").write_bytes(whole[:-30])
    (pets / "dog/0.png").touch()
    text = r"pets/cat/3\.png: must be a readable image, got not an image of a known format \(PNG, .*\)\. .*--skip-bad "
    with pytest.raises(SourceFormatError, match=text):
        load_image_folder(pets, image_shape=shape)
    data = load_image_folder(pets, image_shape=shape, skip_bad=True)
    assert [name for name, _ in data.skipped] == ["cat/3.png", "cat/4.png", "dog/0.png"]
    assert all(reason for _, reason in data.skipped)
    assert data.names == ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.bmp")
    assert data.images[:, 0, 0, 0].tolist() == [20, 30, 0, 10]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.provenance.fingerprint == load_image_folder(shutil_copy(data.names, pets)).provenance.fingerprint


def shutil_copy(names: tuple[str, ...], root: Path) -> Path:
    for name in names:
        (root.parent / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, root.parent / "copy" / name)
    return root.parent / "copy"


def test_a_truncated_image_is_named(pets: Path) -> None:
    path = pets / "dog/1.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SourceFormatError, match=r"dog/1\.png: must be a readable image, got .*truncated"):
        load_image_folder(pets)


def test_unreadable_images_among_those_to_test_on(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "test/a/1.png"):
        save(tmp_path / name)
    (tmp_path / "test/a/2.png").write_bytes(b"text")
    with pytest.raises(SourceFormatError, match=r"test/a/2\.png: must be a readable image"):
        load_image_folder(tmp_path)
    data = load_image_folder(tmp_path, skip_bad=True)
    assert data.skipped == ()
    assert data.test is not None
    assert data.test.skipped == (
        ("test/a/2.png", "not an image of a known format (PNG, JPEG, BMP, GIF, TIFF, WebP, PPM)"),
    )


@pytest.mark.parametrize("shape", [None, (1, 6, 8)])
def test_nothing_left_after_skipping(pets: Path, shape: tuple[int, int, int] | None) -> None:
    for path in (pets / "cat").iterdir():
        path.write_bytes(b"text")
    with pytest.raises(DataError, match=r"pets/cat: must hold readable images, got none that can be read"):
        load_image_folder(pets, image_shape=shape, skip_bad=True)
    for path in (pets / "dog").iterdir():
        path.write_bytes(b"text")
    with pytest.raises(DataError, match=r"pets(/cat)?: must hold readable images, got none that can be read"):
        load_image_folder(pets, image_shape=shape, skip_bad=True)


def test_nothing_left_to_test_on(tmp_path: Path) -> None:
    save(tmp_path / "train/a/1.png")
    save(tmp_path / "test/a/1.png").write_bytes(b"text")
    with pytest.raises(
        DataError, match=r"test: must hold readable images, got none that can be read\. All of them are"
    ):
        load_image_folder(tmp_path, skip_bad=True)


def test_files_that_go_while_they_are_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _: str) -> bytes:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceFormatError, match=r"cat/1\.png: must be a readable image, got No such file or directory"):
        load_image_folder(pets)


def test_images_that_do_not_fit_into_memory() -> None:
    check_memory(Path("big"), 10, (3, 100, 100), None)
    check_memory(Path("big"), 10, (3, 100, 100), 300_000)
    text = (
        r"big: images must fit into memory \(0\.0 GiB\), got 0\.0 GiB for 10 images of 3 × 100 × 100\. Choose a smaller"
    )
    with pytest.raises(DataError, match=text):
        check_memory(Path("big"), 10, (3, 100, 100), 299_999)


def test_a_single_file(tmp_path: Path) -> None:
    path = save(tmp_path / "my cat.png", 9, mode="RGB")
    data = load_image_file(path)
    assert data.images.shape == (1, 3, 6, 8)
    assert data.labels is None
    assert data.names == ("my cat.png",)
    provenance = data.provenance
    assert (provenance.name, provenance.rows) == ("my-cat", 1)
    assert provenance.fingerprint == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert load_image_file(path, image_shape=(1, 3, 4)).images.shape == (1, 1, 3, 4)


def test_a_single_file_that_is_bad_or_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(SourceFormatError, match=r"a\.png: must be a readable image, got not an image.*Replace it\."):
        load_image_file(tmp_path / "a.png")
    with pytest.raises(SourceNotFoundError, match=r"b\.png: must be a file, got no such file"):
        load_image_file(tmp_path / "b.png")


def test_real_images_agree_with_numpy(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for place in range(100):
        path = tmp_path / str(bunch.target[place]) / f"{place:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((bunch.images[place] * 15).astype(np.uint8)).save(path)
    data = load_image_folder(tmp_path)
    order = np.argsort(bunch.target[:100], kind="stable")
    np.testing.assert_array_equal(data.images[:, 0].numpy(), bunch.images[order] * 15)
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels.numpy(), bunch.target[order])


MEASURE = """
import resource, sys
from pathlib import Path
from stoker.data.sources.images import load_image_folder
load_image_folder(Path(sys.argv[1]), image_shape=(1, 4, 4))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = load_image_folder(Path(sys.argv[1])).images
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(images.numel(), (after - before) * 1024 / images.numel())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has other units elsewhere")
def test_memory_stays_close_to_the_result(tmp_path: Path) -> None:
    save(tmp_path / "a/0.png", size=(512, 512), mode="RGB")
    for place in range(1, 100):
        (tmp_path / f"a/{place}.png").hardlink_to(tmp_path / "a/0.png")
    result = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    size, ratio = result.stdout.split()
    assert int(size) == 100 * 3 * 512 * 512
    assert float(ratio) < 1.5
