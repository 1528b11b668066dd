"""Which packages are there, and which of them can be imported; each failure with the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stoker
from stoker.doctor.findings import Finding

__all__ = ["PACKAGES", "Imported", "Lines", "Package", "compiling", "findings", "import_each", "versions"]

_LIMIT = 120.0  # seconds without a word from the process, after which it is taken to hang
_COMPILE_LIMIT = 60.0  # that a tiny function may take
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Package:
    """A package that Stoker uses.

    Attributes:
        module: What is imported.
        distribution: What is installed.
        use: What for; empty for what nothing works without.
        extra: The extra that brings it; empty for the core.
    """

    module: str
    distribution: str
    use: str = ""
    extra: str = ""


PACKAGES = (
    Package("torch", "torch"),
    Package("torchmetrics", "torchmetrics"),
    Package("numpy", "numpy"),
    Package("polars", "polars"),
    Package("sklearn", "scikit-learn"),
    Package("safetensors.torch", "safetensors"),
    Package("pydantic", "pydantic"),
    Package("matplotlib", "matplotlib"),
    Package("PIL", "pillow"),
    Package("optuna", "optuna"),
    Package("jax", "jax", "compiled engine"),
    Package("torchvision", "torchvision", "models and transforms of your own", "vision"),
    Package("onnx", "onnx", "export to ONNX", "export"),
    Package("onnxruntime", "onnxruntime", "export to ONNX", "export"),
    Package("onnxscript", "onnxscript", "export to ONNX", "export"),
    Package("fastapi", "fastapi", "stoker serve", "serve"),
    Package("uvicorn", "uvicorn", "stoker serve", "serve"),
    Package("python_multipart", "python-multipart", "stoker serve", "serve"),
    Package("psycopg", "psycopg", "studies on PostgreSQL", "postgres"),
    Package("tensorboard", "tensorboard", "--log tensorboard", "tensorboard"),
    Package("mlflow", "mlflow", "--log mlflow", "mlflow"),
)


@dataclass(frozen=True)
class Imported:
    """How an import went: ``error`` is empty if well; ``facts`` are what the package says of itself."""

    error: str
    facts: dict[str, Any]


def versions() -> dict[str, str]:
    """Of Python, Stoker and the packages that are installed, without importing any."""
    from stoker._version import __version__

    found = {"stoker": __version__, "python": sys.version.split()[0]}
    for package in PACKAGES:
        with suppress(Exception):  # damaged metadata, too
            found[package.distribution] = importlib.metadata.version(package.distribution)
    return found


def import_each(
    names: Sequence[str],
    tell: Callable[[str], None],
    *,
    environ: Mapping[str, str] | None = None,
    limit: float = _LIMIT,
) -> dict[str, Imported]:
    """Import packages, one after the other, in a process of their own.

    A package that ends the process, or hangs, is found out, and the rest tried in another.

    Args:
        names: Which.
        tell: Told which one is being imported.
        environ: Of the process; by default this one's.
        limit: Seconds that one may take.
    """
    found: dict[str, Imported] = {}
    left = list(names)
    while left:
        tell(left[0])
        for line in (lines := Lines(["import", *left], environ=environ, limit=limit)):
            name = str(line.get("name"))
            if name in left:
                found[name] = Imported(str(line.get("error", "")), dict(line.get("facts", {})))
                left.remove(name)
                if left:
                    tell(left[0])
        if left:
            found[left.pop(0)] = Imported(lines.ending, {})
    return found


class Lines:
    """The JSON lines that a process of :mod:`stoker.doctor.child` prints, as they come.

    Args:
        arguments: Of the process.
        environ: Its environment; by default this one's.
        limit: Seconds without a line, after which it is ended.

    Attributes:
        ending: Afterwards, how it ended.
    """

    def __init__(
        self, arguments: list[str], *, environ: Mapping[str, str] | None = None, limit: float = _LIMIT
    ) -> None:
        self.ending = ""
        self._limit = limit
        environ = dict(os.environ if environ is None else environ)
        environ |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3", "ORT_DISABLE_TELEMETRY": "1"}
        # wherever this Stoker is, the process shall find it; but nothing in the directory that it happens to be in
        places = [one for one in (environ.get("PYTHONPATH"), str(Path(stoker.__file__).parents[1])) if one]
        environ["PYTHONPATH"] = os.pathsep.join(places)
        self._environ = environ
        self._arguments = arguments

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stoker.doctor.child", *self._arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                errors="replace", env=self._environ,
            )  # fmt: skip
        except OSError as error:
            self.ending = f"no process could be started ({error.strerror or error})"
            return
        output = process.stdout
        assert output is not None  # it was asked for
        said: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            for line in output:
                said.put(line)
            said.put(None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            while (line := said.get(timeout=self._limit)) is not None:
                with suppress(ValueError):
                    if isinstance(found := json.loads(line), dict):
                        yield found
            self.ending = _ending(process.wait(timeout=self._limit))
        except (queue.Empty, subprocess.TimeoutExpired):
            self.ending = f"says nothing for {self._limit:.0f} s"
        finally:
            process.kill()
            process.wait()
            reader.join()
            output.close()


def compiling(
    compiler: Finding | None, *, environ: Mapping[str, str] | None = None, limit: float = _COMPILE_LIMIT
) -> Finding:
    """Whether ``torch.compile`` works on the CPU: tried on a tiny function, with nothing compiled before.

    Stoker itself needs it to measure exports beside it; models of your own may.

    Args:
        compiler: What was found of the C++ compiler.
        environ: Of the process; by default this one's.
        limit: Seconds that it may take.
    """
    name = "torch.compile"
    with tempfile.TemporaryDirectory(prefix="stoker-doctor-", ignore_cleanup_errors=True) as folder:
        # by itself and in one process, so that nothing is left where it is ended
        own = {"TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        lines = Lines(["compile"], environ={**(os.environ if environ is None else environ), **own}, limit=limit)
        found = next(iter(list(lines)), {"error": lines.ending})
    error = str(found.get("error", ""))
    if not error:
        return Finding(name, "works", f"a small function on the CPU, in {float(found['seconds']):.1f} s")
    if compiler is not None and compiler.status != "works":
        return Finding(name, "absent", f"needs a C++ compiler ({error[:100]})", compiler.fix)
    return Finding(name, "broken", f"does not compile: {error}", "pip install --force-reinstall torch")


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"ends the process with {signal.Signals(-code).name}"
    return f"ends the process with exit code {code}"


def findings(found: Mapping[str, Imported], installed: Mapping[str, str]) -> Iterator[Finding]:
    """What to say of each package, those that work and that everyone has in one line.

    Args:
        found: By module, how its import went; those that are not installed are not in it.
        installed: Versions by distribution.
    """
    core = [package for package in PACKAGES if not package.use and package.module != "torch"]
    well = [package for package in core if package.module in found and not found[package.module].error]
    yield _torch(found.get("torch"))
    yield from _gpu(found.get("torch"))
    if well:
        names = ", ".join(package.distribution for package in well)
        yield Finding("the core's packages", "works", names)
    for package in PACKAGES:
        if package in well or package.module == "torch":
            continue
        imported, version = found.get(package.module), installed.get(package.distribution, "")
        name = package.distribution
        if imported is None:
            status = "broken" if not package.use else "absent"
            says = f"not installed; for {package.use}" if package.use else "not installed"
            yield Finding(name, status, says, _install(package, installed))  # type: ignore[arg-type]
        elif imported.error:
            yield Finding(name, "broken", f"{version}: {imported.error}".removeprefix(": "), _mend(package, installed))
        else:
            backend = imported.facts.get("backend")
            says = f"{version}; {package.use}".removeprefix("; ") + (f" on {backend}" if backend else "")
            yield Finding(name, "works", says)


def _torch(imported: Imported | None) -> Finding:
    if imported is None:
        return Finding("torch", "broken", "not installed", "pip install torch")
    facts = imported.facts
    trouble = imported.error or str(facts.get("trouble", ""))
    if trouble:
        return Finding("torch", "broken", trouble, "pip install --force-reinstall torch")
    says = str(facts.get("version", ""))
    return Finding("torch", "works", says + (f"; {facts['cpu']}" if facts.get("cpu") else ""))


def _gpu(imported: Imported | None) -> Iterator[Finding]:
    if imported is None or imported.error:
        return
    gpus, built = imported.facts.get("gpus", []), imported.facts.get("built for", "")
    if gpus:
        yield Finding("GPU", "works", "; ".join(map(str, gpus)))
    elif built:
        yield Finding(
            "GPU", "absent", f"none that torch, built for CUDA {built}, can use", "nvidia-smi (is there a driver?)"
        )
    else:
        yield Finding("GPU", "absent", "none; this build of torch is for CPUs")


def _install(package: Package, installed: Mapping[str, str]) -> str:
    if package.module == "torchvision" and "+cpu" in installed.get("torch", ""):
        return f"pip install torchvision --index-url {_CPU_INDEX}"
    return f'pip install "stoker[{package.extra}]"' if package.extra else f"pip install {package.distribution}"


def _mend(package: Package, installed: Mapping[str, str]) -> str:
    if package.module == "torchvision":
        index = f" --index-url {_CPU_INDEX}" if "+cpu" in installed.get("torch", "") else ""
        return f"pip install --force-reinstall torch torchvision{index}"
    return f"pip install --force-reinstall {package.distribution}"
