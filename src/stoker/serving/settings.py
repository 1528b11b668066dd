"""How a run is served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from stoker.errors import ConfigError
from stoker.settings import Settings

__all__ = ["TOKEN", "ServeSettings", "token_of"]

TOKEN = "STOKER_SERVE_TOKEN"
"""The environment variable with the token that requests must bear, if there shall be one."""

Count = Annotated[int, Field(ge=1)]


class ServeSettings(Settings):
    """How a run is served.

    Attributes:
        run: The run's directory.
        model: The model once more, for a run with a model of your own.
        host, port: Where to listen; port 0 is any that is free.
        backend: What computes; see :func:`stoker.serving.backends.open_backend`.
        device: Where it computes; ONNX on the CPU alone.
        workers: How many processes serve.
        max_batch: The most rows to compute at once.
        max_wait_ms: How long to wait for more rows before a batch that is not full.
        max_body_mb: The largest body, in MiB.
        max_rows: The most rows or images of one request; by default 10,000 rows, 256 images.
        grace_s: How long to wait for what is being answered when the server is stopped.
        body_timeout_s: How long a body may take to arrive.
        shared: Where several processes share their measures, and the model in ONNX that one of them made.
    """

    run: Path
    model: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    backend: str = "auto"
    device: str = "auto"
    workers: Count = 1
    max_batch: Count = 256
    max_wait_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    max_body_mb: Annotated[float, Field(gt=0)] = 16.0
    max_rows: Count | None = None
    grace_s: Annotated[int, Field(ge=0)] = 10
    body_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    shared: Path | None = None

    @property
    def max_body(self) -> int:
        """The largest body in bytes."""
        return int(self.max_body_mb * 2**20)


def token_of(environment: Mapping[str, str] | None = None) -> str | None:
    """The token that requests must bear; ``None`` if the variable is not set, or empty.

    White space around it is dropped: a file that it is read from ends in a newline, and no header can bear that.

    Args:
        environment: By default the process's own.

    Raises:
        ConfigError: It is nothing but white space: somebody wants a token, and would get a server open to all.
    """
    token = (os.environ if environment is None else environment).get(TOKEN)
    if not token:  # an empty variable is as good as none
        return None
    if not token.strip():
        fix = "Unset it to serve without a token."
        raise ConfigError(TOKEN, "must be the token that requests shall bear", "nothing but white space", fix)
    return token.strip()
