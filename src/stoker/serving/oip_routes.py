"""The routes of the Open Inference Protocol; what each says stands in :mod:`stoker.serving.oip`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response
from torch import Tensor

from stoker._version import __version__
from stoker.serving import oip
from stoker.serving.limits import json_bytes
from stoker.serving.openapi import describe_infer
from stoker.serving.served import ServedModel, answer_size

__all__ = ["MODEL", "add_oip_routes", "counted_path"]

MODEL, VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
Result = TypeVar("Result")


class Read(Protocol):
    """Calls a function here if it has few bytes to do with, else in a thread."""

    async def __call__(self, size: int, function: Callable[[], Result]) -> Result: ...


def add_oip_routes(
    app: FastAPI,
    model: ServedModel,
    *,
    is_ready: Callable[[], bool],
    outputs: Callable[[dict[str, Tensor]], Awaitable[Tensor]],
    read: Read,
) -> None:
    """Add the protocol's routes, those of a model with its version and without.

    Args:
        app: What has the routes.
        model: What is served.
        is_ready: Whether predictions are.
        outputs: Computes raw tensors.
        read: Where bodies are read and written.
    """

    async def server() -> Response:
        return _json({"name": "stoker", "version": __version__, "extensions": []})

    async def live() -> Response:
        return _json({"live": True})

    async def ready() -> Response:
        # the specification says "live" here, servers say "ready"
        return _json({"live": True, "ready": is_ready()}, 200 if is_ready() else 503)

    async def metadata() -> Response:
        return _json(oip.metadata(model))

    async def model_ready() -> Response:
        return _json({"name": model.name, "ready": is_ready()})

    async def infer(request: Request) -> Response:
        body = await request.body()
        inputs, asked = await read(len(body), lambda: oip.parse_infer(body, model))
        found = model.predictions(await outputs(inputs))
        content = await read(answer_size(found), lambda: json_bytes(oip.infer_response(found, asked, model)))
        return Response(content, media_type="application/json")

    async def check_name(name: str) -> None:
        oip.check_name(name, model)

    async def check_version(name: str, version: str) -> None:
        oip.check_name(name, model)
        oip.check_version(version, model)

    def add(path: str, answer: Callable[..., Any], text: str, **how: Any) -> None:
        app.add_api_route(path, answer, description=f"Open Inference Protocol: {text}.", **how)

    add("/v2", server, "the server")
    add("/v2/", server, "the server", include_in_schema=False)  # as the protocol's own OpenAPI file has it
    add("/v2/health/live", live, "whether the server is there")
    add("/v2/health/ready", ready, "whether predictions are served")
    for base, check in ((MODEL, check_name), (VERSION, check_version)):
        named: dict[str, Any] = {"dependencies": [Depends(check)]}
        add(base, metadata, "what goes in and comes out", **named)
        add(f"{base}/ready", model_ready, "whether the model is served", **named)
        add(f"{base}/infer", infer, "predict", methods=["POST"], openapi_extra=describe_infer(model), **named)


def counted_path(path: str) -> str | None:
    """A path as measures name it, whatever model and version it names; ``None`` if it is none of the protocol's."""
    if path in ("/v2", "/v2/"):
        return "/v2"
    if path in ("/v2/health/live", "/v2/health/ready"):
        return path
    parts = path.split("/")
    if parts[:3] != ["", "v2", "models"] or len(parts) < 4:
        return None
    base, rest = (VERSION, parts[6:]) if len(parts) >= 6 and parts[4] == "versions" else (MODEL, parts[4:])
    return "/".join([base, *rest]) if rest in ([], ["ready"], ["infer"]) else None


def _json(data: dict[str, Any], status: int = 200) -> Response:
    return Response(json_bytes(data), status, media_type="application/json")
