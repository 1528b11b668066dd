"""What is done in a process of its own, as it may end it: importing packages, compiling, and multiplying matrices.

``python -m stoker.doctor.child import NAME…``, ``… compile`` and ``… rates SECONDS CPUS`` print a JSON object a line,
as each is done.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["main"]

_SIZES = {"cpu": (64, 256, 1024), "cuda": (512, 2048, 8192)}


def main(arguments: list[str]) -> None:
    """Do what the arguments say."""
    out = sys.stdout
    said = sys.stderr if arguments[0] == "rates" else io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match arguments:
            case ["import", *names]:
                found = _imports(names)
            case ["compile"]:
                found = _compiles()
            case _:
                found = _rates(float(arguments[1]), int(arguments[2]))
        for one in found:
            print(json.dumps(one), file=out, flush=True)  # this is what the process is for


def _imports(names: list[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        try:
            module = importlib.import_module(name)
            yield {"name": name, "error": "", "facts": _facts(name, module)}
        except BaseException as error:  # whatever it is
            text = " ".join(str(error).split())
            yield {"name": name, "error": f"{type(error).__name__}: {text}"[:300], "facts": {}}


def _facts(name: str, module: Any) -> dict[str, Any]:
    """What more there is to say of a package that was imported."""
    if name == "torch":
        facts: dict[str, Any] = {"version": str(module.__version__), "threads": module.get_num_threads(), "gpus": []}
        with contextlib.suppress(Exception):
            facts["cpu"] = str(module.backends.cpu.get_cpu_capability())
        facts["built for"] = module.version.cuda or module.version.hip or ""
        with contextlib.suppress(Exception):
            for index in range(module.cuda.device_count()):
                about = module.cuda.get_device_properties(index)
                facts["gpus"].append(f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
        try:
            module.ones(2, 2).mm(module.ones(2, 2))
            if facts["gpus"]:
                module.ones(2, 2, device="cuda").mm(module.ones(2, 2, device="cuda")).cpu()
        except Exception as error:
            facts["trouble"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        return facts
    if name == "jax":
        from stoker.engines.xla.cache import directory

        return {"backend": str(module.default_backend()), "cache": str(directory())}
    return {}


def _compiles() -> Iterator[dict[str, Any]]:
    """Whether ``torch.compile`` makes a program of a tiny function, on the CPU, that gives the function's numbers."""
    import torch

    def small(x: Any) -> Any:
        return torch.where(x > 0, x.sin() * 2, x.exp()).cumsum(0)

    given = torch.linspace(-2, 2, 97)
    began = time.perf_counter()
    try:
        found = torch.compile(small, fullgraph=True)(given)
        error = "" if torch.allclose(found, small(given), rtol=1e-4, atol=1e-5) else "its numbers are others"
    except BaseException as failure:
        text = " ".join(str(failure).split())
        error = f"{type(failure).__name__}: {text}"[:300]
    yield {"error": error, "seconds": time.perf_counter() - began}


def _rates(seconds: float, cpus: int) -> Iterator[dict[str, Any]]:
    """Rates for each size, dtype and number of threads, in about so many seconds in all."""
    import torch

    counts = sorted({1, *(count for count in (2, 4, 8, 16, 32, 64) if count < cpus), cpus})
    counts = counts if len(counts) <= 4 else [counts[0], counts[len(counts) // 3], counts[2 * len(counts) // 3], cpus]
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    each = seconds / (len(_SIZES["cpu"]) * len(counts) + 3 * len(_SIZES["cuda"]) * min(gpus, 1))
    for count in counts:
        torch.set_num_threads(count)
        for size in _SIZES["cpu"]:
            rate = _rate(size, "cpu", torch.float32, each)
            yield {"device": "cpu", "dtype": "float32", "threads": count, "size": size, "gflops": rate}
    if not gpus:
        return
    precisions = (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "high"),
    )
    for dtype, kind, precision in precisions:
        torch.set_float32_matmul_precision(precision)
        for size in _SIZES["cuda"]:
            rate = _rate(size, "cuda:0", kind, each)
            yield {"device": "cuda:0", "dtype": dtype, "threads": 0, "size": size, "gflops": rate}


def _rate(size: int, device: str, dtype: Any, seconds: float) -> float:
    """The best of several blocks of multiplications, in GFLOP/s."""
    import torch

    left, right, into = (torch.rand(size, size, device=device).to(dtype) for _ in range(3))

    def block(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            torch.mm(left, right, out=into)
        if device != "cpu":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / times

    block(2)  # the first ones set things up
    times = max(1, min(10_000, int(seconds / 6 / max(block(1), 1e-9))))
    until, best = time.perf_counter() + 0.8 * seconds, float("inf")
    while True:
        best = min(best, block(times))
        if time.perf_counter() >= until:
            return 2 * size**3 / best / 1e9


if __name__ == "__main__":
    main(sys.argv[1:])
