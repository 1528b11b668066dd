from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stoker.data.sources.download import RemoteFile, default_data_home, http_download, obtain
from stoker.errors import DiskFullError, SourceFormatError, SourceNotFoundError

BODY = b"the right bytes" * 20_000
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
MD5 = "md5:" + hashlib.md5(BODY, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404, "Not Found")
            return
        if self.path == "/garbage":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            return
        self.send_response(200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(
            BODY[: len(BODY) // 2] if self.path == "/cut" else BODY[::-1] if self.path == "/wrong" else BODY
        )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the parent's own name
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def closed_port() -> str:
    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        return f"http://127.0.0.1:{http.server_port}"


def remote(*urls: str, checksum: str = SHA, places: tuple[str, ...] = ("set/file.gz",)) -> RemoteFile:
    return RemoteFile(places=places, urls=urls, checksum=checksum)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_good_file_is_downloaded_once(server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = remote(f"{server}/good")
    for _ in range(2):
        found = obtain("set", {"data": file}, tmp_path, http_download)
        assert found == {"data": tmp_path / "set/file.gz"}
        assert found["data"].read_bytes() == BODY
        assert files_in(tmp_path) == {"set/file.gz"}
        file = remote(f"{server}/missing")  # from here on it would fail
    assert found["data"].stat().st_mode & 0o777 == 0o644
    assert capfd.readouterr().out == ""


def test_md5_and_answers_without_a_size(server: str, tmp_path: Path) -> None:
    obtain("set", {"data": remote(f"{server}/unsized", checksum=MD5)}, tmp_path, http_download)
    assert (tmp_path / "set/file.gz").read_bytes() == BODY


@pytest.mark.parametrize("first", ["missing", "wrong", "cut", "garbage"])
def test_mirrors_are_tried_in_turn(server: str, closed_port: str, tmp_path: Path, first: str) -> None:
    urls = (f"{server}/{first}", f"{closed_port}/good", f"{server}/good")
    obtain("set", {"data": remote(*urls)}, tmp_path, http_download)
    assert (tmp_path / "set/file.gz").read_bytes() == BODY
    assert files_in(tmp_path) == {"set/file.gz"}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "HTTP 404 Not Found"),
        ("cut", r"the connection broke off after 150,000 of 300,000 bytes"),
        ("garbage", "this is not HTTP"),
    ],
)
def test_failures_say_why_and_leave_nothing_behind(server: str, tmp_path: Path, path: str, reason: str) -> None:
    text = (
        rf"^set: .*set/file\.gz must be there or be downloaded, got no such file and no download \(.*/{path}: {reason}"
    )
    with pytest.raises(SourceNotFoundError, match=text) as caught:
        obtain("set", {"data": remote(f"{server}/{path}")}, tmp_path, http_download)
    assert f"download by hand:\n  {server}/{path} to {tmp_path / 'set/file.gz'}" in str(caught.value)
    assert files_in(tmp_path) == set()


def test_no_connection(closed_port: str, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no download \(.*: \[Errno 111\] Connection refused\)"):
        obtain("set", {"data": remote(f"{closed_port}/good")}, tmp_path, http_download)
    assert files_in(tmp_path) == set()


def test_a_wrong_checksum(server: str, tmp_path: Path) -> None:
    got = "sha256:" + hashlib.sha256(BODY[::-1]).hexdigest()
    text = (
        rf"set: file\.gz must have the checksum {SHA}, got {got} from {server}/wrong\. Set STOKER_DATA to where it is"
    )
    with pytest.raises(SourceFormatError, match=text):
        obtain("set", {"data": remote(f"{server}/wrong")}, tmp_path, http_download)
    assert files_in(tmp_path) == set()


def test_all_files_that_are_missing_are_named(tmp_path: Path) -> None:
    def offline(url: str, to: Path) -> None:
        raise OSError("no network")

    (tmp_path / "b").write_bytes(b"b")
    files = {name: remote(f"http://x/{name}", places=(name, f"other/{name}")) for name in "abc"}
    with pytest.raises(SourceNotFoundError, match="no network") as caught:
        obtain("set", files, tmp_path, offline)
    assert str(caught.value).endswith(f"\n  http://x/a to {tmp_path / 'a'}\n  http://x/c to {tmp_path / 'c'}")


def test_where_files_are_looked_for(tmp_path: Path) -> None:
    def never(url: str, to: Path) -> None:
        raise AssertionError("it is there already")

    system = tmp_path / "system"
    file = RemoteFile(("a/x.gz", "b/raw/x"), ("http://x",), SHA, system=(str(system / "x.gz"), str(system / "x")))
    for place in (system / "x", system / "x.gz", tmp_path / "home/b/raw/x", tmp_path / "home/a/x.gz"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()  # each comes before the one that was made before it
        assert obtain("set", {"data": file}, tmp_path / "home", never) == {"data": place}


def test_interrupted_downloads_leave_nothing_behind(tmp_path: Path) -> None:
    def interrupted(url: str, to: Path) -> None:
        to.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain("set", {"data": remote("http://x")}, tmp_path, interrupted)
    assert files_in(tmp_path) == set()


def test_no_room(tmp_path: Path) -> None:
    def full(url: str, to: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        DiskFullError, match=r"set/file\.gz: no room to download http://x\. Free some, or set STOKER_DATA"
    ):
        obtain("set", {"data": remote("http://x")}, tmp_path, full)
    assert files_in(tmp_path) == set()


def test_a_data_home_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    text = r"set: .*home/set/file\.gz must be there, or be writable to download it, got .* at .*home.*Set STOKER_DATA"
    with pytest.raises(SourceNotFoundError, match=text):
        obtain("set", {"data": remote("http://x")}, tmp_path / "home", http_download)


def test_the_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_DATA", "~/sets")
    assert default_data_home() == Path.home() / "sets"
    monkeypatch.delenv("STOKER_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_data_home() == Path("/somewhere/stoker")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_data_home() == Path.home() / ".cache" / "stoker"
