"""The routes, and nothing else: what each does stands in the modules beside this one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import Response
from torch import Tensor

from stoker._version import __version__
from stoker.serving.batching import Batcher, queue_length
from stoker.serving.images import ImageReader
from stoker.serving.limits import Guard, Receive, Scope, Send, json_bytes
from stoker.serving.measures import CONTENT_TYPE, Measures
from stoker.serving.oip_routes import add_oip_routes, counted_path
from stoker.serving.openapi import PREDICT_HELP, describe
from stoker.serving.problems import Problem
from stoker.serving.served import ServedModel, answer_size
from stoker.serving.settings import ServeSettings

__all__ = ["build_app", "wants_csv"]

Result = TypeVar("Result")

_INLINE = 1 << 14  # bytes of a body that are read at once; more are read in a thread, so that others need not wait
_READERS = 2
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


def build_app(model: ServedModel, settings: ServeSettings, token: str | None = None) -> Guard:
    """Make the application.

    Args:
        model: What is served.
        settings: How.
        token: What requests must bear; ``None`` for nothing.

    Returns:
        An ASGI application.
    """
    measures = Measures(shared=settings.shared)
    batcher: Batcher | None = None
    readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal batcher
        wait = settings.max_wait_ms / 1000
        batcher = Batcher(
            model.backend.predict,
            max_batch=settings.max_batch,
            max_wait=wait,
            max_queue=queue_length(model.reader.max_rows, settings.max_batch),
            at_once=model.at_once,
            observe=measures.batch,
        )
        batcher.start()
        measures.waiting = lambda: batcher.waiting if batcher is not None else 0
        writing = asyncio.create_task(_write_every_second(measures))
        try:
            yield
        finally:
            writing.cancel()
            await batcher.stop()
            readers.shutdown(wait=False, cancel_futures=True)
            with suppress(OSError):
                measures.write()

    app = FastAPI(
        title=f"{model.name}, served by Stoker",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )

    async def read(size: int, function: Callable[[], Result]) -> Result:
        if size <= _INLINE:
            return function()
        return await asyncio.get_running_loop().run_in_executor(readers, function)

    def is_ready() -> bool:
        return batcher is not None and batcher.open

    async def outputs(inputs: dict[str, Tensor]) -> Tensor:
        assert batcher is not None  # begun before the first request
        return await batcher(inputs)

    @app.post("/predict", description=PREDICT_HELP, openapi_extra=describe(model))
    async def predict(
        request: Request,
        proba: Annotated[bool, Query(description="Add the probability of each class.")] = False,
        top_k: Annotated[int | None, Query(description="Add so many of the most probable classes.")] = None,
    ) -> Response:
        model.check_wanted(proba, top_k)
        names: tuple[str, ...] = ()
        if isinstance(model.reader, ImageReader):
            reader = model.reader
            files = await _files(request, reader)
            inputs = await read(_INLINE + 1, lambda: reader.files(files))
            names = tuple(name for name, _ in files)
        else:
            kind = _content_type(request)
            if kind not in ("application/json", "text/csv"):
                raise _unsupported(kind, "application/json or text/csv")
            body = await request.body()
            parse = model.reader.csv if kind == "text/csv" else model.reader.json
            inputs = await read(len(body), lambda: parse(body))
        found = model.predictions(await outputs(inputs), names)
        if wants_csv(request.headers.get("accept", "")):
            text = await read(len(found.outputs) * 8, lambda: found.frame(proba=proba, top_k=top_k).write_csv())
            return Response(text, media_type="text/csv")
        return _json(await read(answer_size(found), lambda: json_bytes(model.answer(found, proba=proba, top_k=top_k))))

    @app.get("/health", description="Whether predictions are served.")
    async def health() -> Response:
        ready = is_ready()
        return _json(json_bytes({"status": "ready" if ready else "stopping"}), 200 if ready else 503)

    @app.get("/info", description="What the model is: schema, classes, metrics, versions.")
    async def info() -> Response:
        return _json(json_bytes(model.info() | {"max_body": settings.max_body}))

    @app.get("/metrics", description="Measures of the server, for Prometheus.")
    async def metrics() -> Response:
        return Response(measures.render(), headers={"content-type": CONTENT_TYPE})

    add_oip_routes(app, model, is_ready=is_ready, outputs=outputs, read=read)
    for path, (file, kind) in _PAGES.items():
        content = resources.files("stoker.serving").joinpath("page", file).read_bytes()
        app.add_api_route(path, _static(content, kind), include_in_schema=False)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        """Past the routing, and the reading of parameters, where there are none: they take as long as a prediction."""
        if _is_plain(scope):
            response = await predict(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await app(scope, receive, send)

    app.add_exception_handler(Problem, _answer)
    app.add_exception_handler(HTTPException, _of_starlette)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    return Guard(
        serve,
        paths=_counted,
        max_body=settings.max_body,
        body_timeout=settings.body_timeout_s,
        token=token,
        measures=measures,
    )


async def _files(request: Request, reader: ImageReader) -> list[tuple[str, bytes]]:
    """The images of a request: its body, or the files of its form."""
    kind = _content_type(request)
    if kind == "multipart/form-data":
        await _check_end(request)
        try:
            async with request.form(max_files=reader.max_rows, max_fields=reader.max_rows) as form:
                uploads = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
                return [(part.filename or "image", await part.read()) for part in uploads]
        except (MultiPartException, HTTPException) as error:
            reason = getattr(error, "message", None) or getattr(error, "detail", "")
            raise Problem(422, "invalid-form", f"body: must be a form with files, got a fault ({reason}).") from None
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [("image", await request.body())]
    raise _unsupported(kind, "image/png, image/jpeg or multipart/form-data")


async def _check_end(request: Request) -> None:
    """Make sure that a form has come to its end: the parser takes what is whole of one that was cut off.

    Raises:
        Problem: It has not.
    """
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary")
    if boundary is not None and b"--%b--" % boundary not in await request.body():
        raise Problem(422, "invalid-form", "body: must be a form with files, got one without its last boundary.")


def _is_plain(scope: Scope) -> bool:
    """Whether a request is for predictions, and asks for nothing besides."""
    if scope["type"] != "http" or scope["path"] != "/predict":
        return False
    return scope["method"] == "POST" and not scope["query_string"]


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def wants_csv(accept: str) -> bool:
    """Whether an ``Accept`` header names CSV, with a weight above nought and not below JSON's (RFC 9110, 12.5.1)."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        weights[kind] = float(weight) if _WEIGHT.fullmatch(weight) else 0.0
    csv = weights.get("text/csv", 0.0)
    return csv > 0 and csv >= weights.get("application/json", 0.0)


def _unsupported(kind: str, wanted: str) -> Problem:
    text = f"Content-Type: must be {wanted}, got {kind[:60] or 'none'}. Say it: curl -H 'Content-Type: …'."
    return Problem(415, "unsupported-media-type", text)


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


def _static(content: bytes, kind: str) -> Callable[[], Any]:
    async def serve() -> Response:
        return Response(content, headers={"content-type": kind})

    return serve


async def _write_every_second(measures: Measures) -> None:
    while True:
        await asyncio.sleep(1)
        with suppress(OSError):  # a full disk is no reason to stop
            measures.write()


async def _answer(_: Request, problem: Any) -> Response:
    return Response(json_bytes(problem.body), problem.status, problem.headers, "application/json")


async def _of_starlette(request: Request, error: Any) -> Response:
    """What the routing has to say, in our words."""
    path = request.url.path[:60]
    if error.status_code == 404:
        problem = Problem(404, "unknown-path", f"path: must be one of the server's, got {path!r}. /docs lists them.")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        text = f"{path}: must be asked with {allowed}, got {request.method[:20]}."
        problem = Problem(405, "wrong-method", text, headers=error.headers)
    else:
        problem = Problem(error.status_code, "refused", f"request: {error.detail}.")
    return await _answer(request, problem)


async def _of_parameters(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    name = str(first["loc"][-1])
    rule = "must be true or false" if name == "proba" else "must be a whole number"
    got = str(first.get("input"))[:60]
    text = f"{name}: {rule}, got {got!r}."
    return await _answer(request, Problem(422, "invalid-parameter", text, value=got))


def _counted(path: str) -> str:
    """A path as measures name it: no client can make up new ones."""
    if path in _PAGES or path in ("/predict", "/health", "/info", "/metrics", "/openapi.json"):
        return path
    return counted_path(path) or "other"
