"""Serving a run until it is told to stop: the socket, one process or several, and how they end."""

from __future__ import annotations

import ipaddress
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from stoker.errors import ConfigError, MissingExtraError, StokerError
from stoker.serving.settings import TOKEN, ServeSettings, token_of

if TYPE_CHECKING:
    from stoker.serving.limits import Guard
    from stoker.serving.served import ServedModel

__all__ = ["load_model", "make_app", "serve"]

Tell = Callable[[str], None]

SETTINGS = "STOKER_SERVE_SETTINGS"
"""The environment variable by which worker processes learn their settings."""

_READY_WITHIN = 120.0  # seconds for a worker to load the run


def serve(settings: ServeSettings, *, tell: Tell, warn: Tell) -> int:
    """Serve a run until SIGINT or SIGTERM; what is being answered then is answered first.

    Args:
        settings: How.
        tell: Told where it listens, once it does, and before that what takes a while.
        warn: Told of what is unwise.

    Returns:
        The number of the signal that stopped it.

    Raises:
        MissingExtraError: FastAPI or uvicorn is not installed, or what the backend needs.
        RunNotFoundError, RunError: There is no run, or it is damaged.
        ExportError: It is to be served as ONNX, and cannot be exported.
        ConfigError: The address cannot be listened on, a setting does not fit the run, or the token is blank.
        Terminated: SIGTERM came before it listened; what was made for it is gone.
    """
    from stoker.exporting.place import terminable

    check_extra()
    token = token_of()
    with ExitStack() as stack:
        if settings.workers > 1:
            shared = stack.enter_context(tempfile.TemporaryDirectory(prefix="stoker-serve-"))
            settings = settings.model_copy(update={"shared": Path(shared)})
        with terminable():  # before there are workers, so that what is wrong is said once
            model = load_model(settings, tell)
        listening = stack.enter_context(listen(settings.host, settings.port))
        if token is None and not is_loopback(settings.host):
            warn(f"{settings.host} can be reached from elsewhere, by anyone: set {TOKEN} to ask for a token.")
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{host}:{listening.getsockname()[1]}"
        told = f"{model.name} ({model.run.task}, {model.backend.name}) is served at {address} - Ctrl-C stops it."
        if settings.workers == 1:
            return _serve_here(settings, model, token, listening, lambda: tell(told))
        return _serve_in_workers(settings, listening, lambda: tell(told))


def load_model(settings: ServeSettings, tell: Tell) -> ServedModel:
    """Load the run, and predict once, so that what does not work shows now and the first request need not wait.

    Args:
        settings: How it is served.
        tell: Told what takes a while.

    Raises:
        RunNotFoundError, RunError: There is no run, or it is damaged.
        ConfigError: The backend, the device or the model do not fit the run.
        ExportError, MissingExtraError: The run is to be served as ONNX, and cannot be exported; or not here.
    """
    from stoker.jobs.run import Run
    from stoker.serving.backends import device_of, open_backend
    from stoker.serving.images import ImageReader
    from stoker.serving.served import ServedModel

    run = Run(settings.run, device=device_of(settings.backend, settings.device), model=settings.model)
    folder = None if settings.shared is None else settings.shared / "export"
    model = ServedModel(run, open_backend(settings.backend, run, folder=folder, tell=tell), settings.max_rows)
    if isinstance(model.reader, ImageReader):
        import torch

        model.backend.predict({"images": torch.zeros(1, *model.reader.shape, dtype=torch.uint8)})
    else:
        model.backend.predict(model.reader.read({name: [None] for name in model.reader.columns.names}))
    return model


def make_app() -> Guard:
    """The application of a worker process, by the settings in its environment.

    Raises:
        SystemExit: The run cannot be loaded; with the status by which uvicorn knows that another try would be in vain.
    """
    from uvicorn.config import STARTUP_FAILURE

    from stoker.serving.app import build_app

    _end_with_parent()
    settings = ServeSettings.model_validate_json(os.environ[SETTINGS])
    try:
        return build_app(load_model(settings, lambda text: _say(f"{text}\n")), settings, token_of())
    except StokerError as error:
        _say(f"error: {error}\n")
        raise SystemExit(STARTUP_FAILURE) from None


def _end_with_parent() -> None:
    """Stop when the first process is killed: it cannot say so any more, and its port would stay taken."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _say(text: str) -> None:
    sys.stderr.write(text)


def check_extra() -> None:
    """Make sure that what the server stands on is installed.

    Raises:
        MissingExtraError: It is not.
    """
    for module, package in (("fastapi", "fastapi"), ("uvicorn", "uvicorn"), ("python_multipart", "python-multipart")):
        if find_spec(module) is None:
            raise MissingExtraError("stoker serve", package, "serve")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, and listens, so that who connects while the model is loaded waits for it.

    Raises:
        ConfigError: There is no such address here, or another program has the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, for else asyncio does not know it for such, and leaves Nagle's algorithm on: 40 ms an answer.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two programs have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(1024)
    except OSError as error:
        bound.close()
        if isinstance(error, socket.gaierror) or error.errno in (99, 49):
            fix = "127.0.0.1 is this machine alone, 0.0.0.0 every address it has."
            raise ConfigError("--host", "must be an address of this machine", host, fix) from None
        fix = "Choose another, or 0 for any that is free."
        got = f"{port} at {host} ({error.strerror})"
        raise ConfigError("--port", "must be free to listen on", got, fix) from None
    bound.set_inheritable(True)
    return bound


def _config(app: Any, settings: ServeSettings, **more: Any) -> Any:
    import uvicorn

    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=settings.grace_s,
        **more,
    )


def _serve_here(
    settings: ServeSettings, model: ServedModel, token: str | None, listening: socket.socket, ready: Callable[[], None]
) -> int:
    import uvicorn

    from stoker.serving.app import build_app

    stopped: list[int] = []

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            stopped.append(sig)
            super().handle_exit(sig, frame)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    server = Server(_config(build_app(model, settings, token), settings))
    # uvicorn raises the signal once more when it is done, for whoever had it before: nobody, as the caller is told
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return stopped[0] if stopped else signal.SIGTERM


def _serve_in_workers(settings: ServeSettings, listening: socket.socket, ready: Callable[[], None]) -> int:
    from uvicorn.supervisors import Multiprocess

    stopped: list[int] = []

    class Workers(Multiprocess):
        def init_processes(self) -> None:
            super().init_processes()
            if all(process.wait_until_ready(_READY_WITHIN, self.should_exit) for process in self.processes):
                ready()

        def handle_int(self) -> None:
            stopped.append(signal.SIGINT)
            super().handle_int()

        def handle_term(self) -> None:
            stopped.append(signal.SIGTERM)
            super().handle_term()

    settings = settings.model_copy(update={"run": settings.run.resolve()})
    os.environ[SETTINGS] = settings.model_dump_json()
    config = _config(f"{__name__}:make_app", settings, factory=True, workers=settings.workers)
    Workers(config, sockets=[listening]).run()
    if not stopped:
        raise ConfigError("--workers", "every worker must start", "one that did not", "What it said stands above.")
    return stopped[0]
