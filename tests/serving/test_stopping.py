"""How the server starts, says what is wrong, and stops."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_process import TABLE_ROW, Server, client, serving
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.errors import ConfigError, MissingExtraError, UnknownNameError
from stoker.serving import server as serving_server
from stoker.serving.backends import open_backend
from stoker.serving.settings import ServeSettings, token_of


def in_thread(call: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    return thread, found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_being_answered_is_answered_first(number: signal.Signals, grade_run: stoker.Run) -> None:
    with serving(grade_run.path, "--max-wait-ms", "1500") as server, client(server) as opened:
        waiting = [
            in_thread(lambda: httpx.post(f"{server.url}/predict", json=TABLE_ROW, trust_env=False)) for _ in range(4)
        ]
        time.sleep(0.5)
        began = time.monotonic()
        status = server.stop(number)
        for thread, found in waiting:
            thread.join(5)
            assert [answer.status_code for answer in found] == [200]
        assert status == 128 + number
        assert time.monotonic() - began < 10
        assert "Traceback" not in server.said
        with pytest.raises(httpx.ConnectError):
            opened.get("/health")


@pytest.mark.slow
def test_it_does_not_wait_for_ever(grade_run: stoker.Run) -> None:
    with serving(grade_run.path, "--max-wait-ms", "9000", "--grace-s", "1") as server:
        thread, found = in_thread(lambda: httpx.post(f"{server.url}/predict", json=TABLE_ROW, trust_env=False))
        time.sleep(0.5)
        began = time.monotonic()
        assert server.stop() == 143
        assert time.monotonic() - began < 6
        thread.join(5)
        assert not found or found[0].status_code >= 500


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def test_a_port_that_is_taken(grade_run: stoker.Run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(str(grade_run.path), "--port", str(port))
    wanted = f"error: --port: must be free to listen on, got {port} at 127.0.0.1 (Address already in use)."
    assert said == f"{wanted} Choose another, or 0 for any that is free."


def test_an_address_that_is_not_this_machines(grade_run: stoker.Run) -> None:
    assert "--host: must be an address of this machine, got 192.0.2.1." in refused(
        str(grade_run.path), "--host", "192.0.2.1"
    )
    assert "--host: must be an address of this machine, got no.such" in refused(
        str(grade_run.path), "--host", "no.such.invalid"
    )


def test_a_run_that_is_missing_or_damaged(grade_run: stoker.Run, tmp_path: Path) -> None:
    assert "error: run: no such directory, got nowhere." in refused("nowhere")
    damaged = shutil.copytree(grade_run.path, tmp_path / "run")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "must be a safetensors file" in refused(str(damaged))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--backend", "tensorflow"], "--backend: must be one of the known names, got 'tensorflow'. Known: auto,"),
        (["--device", "tpu"], "device: must be"),
        (["--max-batch", "0"], "serve.max_batch: must be greater than or equal to 1, got 0."),
        (["--port", "99999"], "serve.port: must be less than or equal to 65535, got 99999."),
        (["--max-wait-ms", "-1"], "serve.max_wait_ms: must be greater than or equal to 0"),
        (["--model", "a:B"], "model"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(options: list[str], text: str, grade_run: stoker.Run) -> None:
    assert text in refused(str(grade_run.path), *options)


def test_an_extra_that_is_missing(grade_run: stoker.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_server, "find_spec", lambda name: None if name == "uvicorn" else name)
    text = r'^stoker serve: needs the package uvicorn, which is not installed\. Run: pip install "stoker\[serve\]"'
    with pytest.raises(MissingExtraError, match=text):
        serving_server.check_extra()
    assert 'pip install "stoker[serve]"' in refused(str(grade_run.path))


def test_backends(grade_run: stoker.Run) -> None:
    assert open_backend("auto", grade_run).name == "torch"
    with pytest.raises(UnknownNameError, match=r"^--backend: must be one of the known names, got 'jax'\."):
        open_backend("jax", grade_run)


@pytest.mark.parametrize(
    ("host", "inside"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_what_is_loopback(host: str, inside: bool) -> None:
    assert serving_server.is_loopback(host) is inside


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "secret"])
def test_others_are_warned_of_unless_there_is_a_token(token: str, grade_run: stoker.Run) -> None:
    with serving(grade_run.path, "--host", "0.0.0.0", STOKER_SERVE_TOKEN=token) as server:
        warning = "warning: 0.0.0.0 can be reached from elsewhere, by anyone: set STOKER_SERVE_TOKEN"
        assert (warning in server.said) is not bool(token)


def test_the_token_is_the_environments() -> None:
    assert (token_of({}), token_of({"STOKER_SERVE_TOKEN": ""}), token_of({"STOKER_SERVE_TOKEN": "a"})) == (
        None,
        None,
        "a",
    )


@pytest.mark.parametrize("token", ["a\n", "a\r\n", " a", "\ta "])
def test_white_space_around_the_token_does_not_count(token: str) -> None:
    assert token_of({"STOKER_SERVE_TOKEN": token}) == "a"


@pytest.mark.parametrize("token", ["\n", " ", "\t\r\n"])
def test_a_blank_token_is_refused(token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^STOKER_SERVE_TOKEN: must be the token .*, got nothing but white space\."):
        token_of({"STOKER_SERVE_TOKEN": token})
    monkeypatch.setenv("STOKER_SERVE_TOKEN", token)
    result = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert result.exit_code == 1
    assert "STOKER_SERVE_TOKEN: must be the token" in result.stderr


def test_help_is_quick_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, stoker.cli\n"
        "sys.argv = ['stoker', 'serve', '--help']\n"
        "try: stoker.cli.main()\n"
        "except SystemExit: pass\n"
        "print('heavy:', *sorted({'torch', 'polars', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.slow
def test_a_worker_that_cannot_start_ends_them_all(grade_run: stoker.Run, tmp_path: Path) -> None:
    """As when the run goes away between the command's look at it and the worker's."""
    code = (
        "import sys\n"
        "from stoker.serving import server\n"
        "from stoker.serving.settings import ServeSettings\n"
        "if __name__ == '__main__':\n"
        "    server.SETTINGS = 'ELSEWHERE'  # workers read what the environment below says\n"
        "    try: server.serve(ServeSettings(run=sys.argv[1], port=0, workers=2), tell=print, warn=print)\n"
        "    except server.ConfigError as error: print(error)\n"
    )
    (tmp_path / "serve.py").write_text(code)
    gone = ServeSettings(run=tmp_path / "gone").model_dump_json()
    done = subprocess.run(
        [sys.executable, str(tmp_path / "serve.py"), str(grade_run.path)],
        env=os.environ | {"STOKER_SERVE_SETTINGS": gone},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    said = "--workers: every worker must start, got one that did not. What it said stands above."
    assert done.stdout.splitlines()[-1] == said
    assert "error: run: no such directory, got " in done.stderr
    assert "is served at" not in done.stdout


def answers(server: Server) -> bool:
    try:
        httpx.get(f"{server.url}/health", trust_env=False)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(grade_run: stoker.Run) -> None:
    """Else they would go on serving, and hold the port."""
    with serving(grade_run.path, "--workers", "2") as server:
        port = httpx.URL(server.url).port
        server.process.kill()
        until = time.monotonic() + 60
        while answers(server) and time.monotonic() < until:
            time.sleep(0.1)
        assert not answers(server)
        server.stop()
        with serving(grade_run.path, "--port", str(port)) as again, client(again) as opened:
            assert opened.get("/health").status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells of child processes so")
def test_several_processes(grade_run: stoker.Run) -> None:
    """Each request is answered alike, their measures are added up, one that dies is replaced, all of them end."""
    with serving(grade_run.path, "--workers", "2") as server:
        wanted = None
        for _ in range(40):
            with client(server) as opened:  # a connection each, so that both have some
                answer = opened.post("/predict?proba=1", json=TABLE_ROW).json()
            wanted = wanted or answer
            assert answer == wanted
        series = 'stoker_requests_total{method="POST",path="/predict",status="200"} 40'
        until = time.monotonic() + 20
        text = ""
        while series not in text and time.monotonic() < until:
            time.sleep(0.3)
            text = httpx.get(f"{server.url}/metrics", trust_env=False).text
        assert series in text
        parent = server.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children")

        def workers() -> list[int]:
            found = children.read_text().split()
            return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

        before = workers()
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        time.sleep(0.5)  # until then it may have taken a connection
        until = time.monotonic() + 60
        while (len(workers()) < 2 or before[0] in workers()) and time.monotonic() < until:
            assert httpx.post(f"{server.url}/predict?proba=1", json=TABLE_ROW, trust_env=False).json() == wanted
            time.sleep(0.2)
        assert len(workers()) == 2
        assert before[0] not in workers()
        assert server.stop() == 143
        assert not children.exists()
        assert "Traceback" not in server.said
