"""The command ``stoker serve``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stoker.cli import failures, options

__all__ = ["HELP", "serve"]

HELP = (
    "Serve a trained network over HTTP: predictions, the Open Inference Protocol, and a page to try it.\n\n"
    "With a token in the environment's STOKER_SERVE_TOKEN every request must bear it. Ctrl-C answers what has come in, "
    "and ends.\n\n"
    "What stands in brackets is the default."
)


def _option(text: str, metavar: str, *names: str) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, show_default=False)


def serve(
    run: options.RunPath,
    host: Annotated[str | None, _option("Address to listen at (127.0.0.1).", "ADDRESS")] = None,
    port: Annotated[int | None, _option("Port to listen at; 0 is any that is free (8000).", "NUMBER")] = None,
    backend: Annotated[str | None, _option("torch or onnx; auto is torch (auto).", "NAME")] = None,
    device: Annotated[str | None, _option("auto, cpu, cuda, cuda:1, mps, xpu (auto).", "NAME")] = None,
    workers: Annotated[int | None, _option("How many processes serve (1).", "COUNT")] = None,
    max_batch: Annotated[int | None, _option("Most rows to compute at once (256).", "COUNT")] = None,
    max_wait_ms: Annotated[float | None, _option("How long to wait for more of them (0).", "MS")] = None,
    max_body_mb: Annotated[float | None, _option("Largest body of a request, in MiB (16).", "MIB")] = None,
    max_rows: Annotated[int | None, _option("Most rows of a request (10000; images: 256).", "COUNT")] = None,
    grace_s: Annotated[int | None, _option("How long to finish when stopped (10).", "SECONDS")] = None,
    model: options.OwnModel = None,
) -> None:
    """Serve a trained network."""
    from stoker.serving.server import serve as serve_run
    from stoker.serving.settings import ServeSettings
    from stoker.settings import parse_settings

    given = {
        "run": run,
        "host": host,
        "port": port,
        "backend": backend,
        "device": device,
        "workers": workers,
        "max_batch": max_batch,
        "max_wait_ms": max_wait_ms,
        "max_body_mb": max_body_mb,
        "max_rows": max_rows,
        "grace_s": grace_s,
        "model": model,
    }
    said = {name: value for name, value in given.items() if value is not None}
    settings = parse_settings(ServeSettings, said, "serve")
    stopped = serve_run(
        settings,
        tell=lambda text: typer.echo(text, err=True),
        warn=lambda text: failures.say("warning", text, "yellow"),
    )
    raise typer.Exit(128 + stopped)
