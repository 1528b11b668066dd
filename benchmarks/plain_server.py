"""What one writes by hand to serve a model: FastAPI, pydantic, and a call of the model for each request.

    python -m benchmarks.plain_server RUN def|async

The model is the run's, encoder included, so that both servers compute the same. ``def`` is FastAPI's usual way, which
calls the function in a thread; ``async`` calls the model within the event loop.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import create_model

import stoker


def main() -> None:
    run = stoker.load(sys.argv[1])
    columns = run.artifact.columns
    assert columns is not None
    names = [column.name for column in columns.numeric]
    fields: dict[str, Any] = dict.fromkeys(names, (float, ...))
    row_type: Any = create_model("Row", **fields)
    model = run.model.eval()
    app = FastAPI()

    def compute(rows: list[Any]) -> dict[str, list[dict[str, float]]]:
        numeric = torch.tensor([[getattr(row, name) for name in names] for row in rows], dtype=torch.float64)
        with torch.no_grad():
            outputs = model(numeric=numeric)
        return {"predictions": [{"prediction": value} for value in outputs[:, 0].tolist()]}

    def predict(rows: list[Any]) -> dict[str, list[dict[str, float]]]:
        return compute(rows)

    async def predict_in_loop(rows: list[Any]) -> dict[str, list[dict[str, float]]]:
        return compute(rows)

    endpoint = predict if sys.argv[2] == "def" else predict_in_loop
    endpoint.__annotations__["rows"] = list[row_type]
    app.post("/predict")(endpoint)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    print(f"is served at http://127.0.0.1:{port}", file=sys.stderr, flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
