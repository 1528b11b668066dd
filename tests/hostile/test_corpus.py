"""Every loader and each hostile file that concerns it: no code runs, memory stays bounded, the error is ours."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corpus import CASES, cases_of
from loaders import LOADERS, Loader, make_good, needed
from zygote import Outcome, Zygote, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it forks, and limits a process's memory"),
]

IN_SHORT = {
    "run: config.json",
    "run: model.safetensors",
    "checkpoint",
    "import-weights: .pt",
    "source: .csv",
    "predict: rows",
    "serve: model.onnx",
    "server: JSON rows",
    "server: form of images",
    "tune: state of CMA-ES",
}
NAMES = [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.long) for name in LOADERS]

PEAK = 640 << 20
"""Bytes that a loader of a hostile file may take at most; docs/files.md says so."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_good(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def zygote(good: Path) -> Iterator[Zygote]:
    with running(good) as process:
        yield process


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder, with one beside its files that nothing may touch."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("as it was")
    return tmp_path


def untouched(place: Path) -> bool:
    """Whether nothing was made beside the files, and the secret is as it was."""
    beside = sorted(path.name for path in place.iterdir())
    return beside == ["files", "secret"] and (place / "secret" / "file").read_text() == "as it was"


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def faults(outcome: Outcome, may_be_read: bool) -> list[str]:
    """What is wrong with how a file was read."""
    found = list(outcome.acts)
    if outcome.how not in ("refused", "read"):
        found.append(f"{outcome.how}: {outcome.text} {outcome.trace}")
    if outcome.how == "read" and not may_be_read:
        found.append("it was read")
    if outcome.how == "refused" and ": " not in outcome.text:
        found.append(f"not our form: {outcome.text}")
    if outcome.peak > PEAK:
        found.append(f"{outcome.peak >> 20} MB of memory")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_good_files_are_read(name: str, good: Path, zygote: Zygote, place: Path) -> None:
    outcome = zygote.read(name, needed(LOADERS[name], good, place / "files"))
    assert (outcome.how, outcome.acts) == ("read", []), outcome


@pytest.mark.parametrize("name", NAMES)
def test_hostile_files(name: str, good: Path, zygote: Zygote, place: Path) -> None:
    loader = LOADERS[name]
    wrong = []
    for case in cases_of(loader.kind):
        folder = needed(loader, good, place / "files")
        file = folder / loader.file
        file.write_bytes(case.make(file.read_bytes(), place / "made"))
        before = contents(folder)
        outcome = zygote.read(name, folder)
        found = faults(outcome, loader.lenient or case.may_be_read(loader.kind))
        if not untouched(place):
            found.append(f"there is something else: {sorted(place.rglob('*'))[:5]}")
        after = contents(folder)
        if not loader.writes and after != before:
            found.append("the files are others")
        if lost := before.keys() - after.keys():
            found.append(f"lost: {sorted(lost)}")
        wrong += [f"{case.name}: {fault}" for fault in found]
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)


def link_out(file: Path, place: Path) -> None:
    """The good file, but elsewhere: what it says may be another's secret."""
    target = place / "secret" / file.name
    file.rename(target)
    file.symlink_to(target)


def link_to_zeros(file: Path, _: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def loop(file: Path, _: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def nowhere(file: Path, _: Path) -> None:
    file.unlink()
    file.symlink_to(file.with_name("nowhere"))


def pipe(file: Path, _: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def directory(file: Path, _: Path) -> None:
    file.unlink()
    file.mkdir()


def holes(file: Path, _: Path) -> None:
    """A file that says it has a terabyte, and takes no room."""
    with file.open("wb") as opened:
        opened.truncate(1 << 40)


PLACED: dict[str, Callable[[Path, Path], None]] = {
    "a link to a good file elsewhere": link_out,
    "a link to a device without an end": link_to_zeros,
    "a link to itself": loop,
    "a link to nowhere": nowhere,
    "a pipe": pipe,
    "a directory": directory,
    "a terabyte of nothing": holes,
}


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, loader in LOADERS.items() if not loader.carried])
def test_what_stands_in_a_files_place(name: str, good: Path, zygote: Zygote, place: Path) -> None:
    loader, wrong = LOADERS[name], []
    passed_over = loader.lenient or "folder" in name
    for what, put in PLACED.items():
        folder = needed(loader, good, place / "files")
        put(folder / loader.file, place)
        outcome = zygote.read(name, folder)
        linked = what == "a link to a good file elsewhere"
        # what is told of is that it was read in Python; refused, it was not even looked at
        acts = [] if linked and loader.link else outcome.acts
        wrong += [
            f"{what}: {fault}"
            for fault in (*faults(outcome, passed_over or (linked and loader.link))[len(outcome.acts) :], *acts)
        ]
        if linked and (place / "secret" / Path(loader.file).name).exists():
            (place / "secret" / Path(loader.file).name).unlink()
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)


def test_every_case_concerns_a_loader() -> None:
    kinds = {loader.kind for loader in LOADERS.values()}
    assert not [case.name for case in CASES.values() if not set(case.kinds) <= kinds | {"gz", "zip"}]
    assert all(case.why for case in CASES.values())


@pytest.mark.parametrize("target", ["figures", "tensorboard", "checkpoints"])
def test_a_run_whose_folder_is_elsewhere_is_not_written(target: str, good: Path, zygote: Zygote, place: Path) -> None:
    loader: Loader = LOADERS["resume: job.json"]
    folder = needed(loader, good, place / "files")
    run, elsewhere = folder / "grade", place / "secret" / target
    if (run / target).is_dir():
        shutil.move(run / target, elsewhere)
    else:
        elsewhere.mkdir()
    (run / target).symlink_to(elsewhere)
    before = contents(place / "secret")
    outcome = zygote.read(loader.name, folder)
    assert (outcome.how, outcome.acts) == ("refused", []), outcome
    assert f"{target}: must be in the run, got a link out of it." in outcome.text
    assert contents(place / "secret") == before
