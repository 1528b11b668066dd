"""Whether a file is the export of a run as the run is now, and the very bytes that were compared with its model."""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from stoker._version import __version__
from stoker.errors import ExportError, RunError
from stoker.exporting.formats.base import Format
from stoker.jobs.run import Run
from stoker.runs.files import read_json, refuse_link_out

__all__ = ["contract_path", "read_current", "seal", "versions"]

MOST_BYTES = 1 << 31  # as protobuf has it, which ONNX is written in
_MATTER = ("stoker", "torch", "onnxruntime")
"""What answered in the comparison: with another version of these, the file has to be compared again."""

_RULES = {
    "file": "must have the bytes that were compared",
    "weights": "must be made of the run's weights",
    "recipe": "must be made of the run's recipe",
}


def contract_path(file: Path) -> Path:
    """The JSON beside an exported file: what goes in, what comes out, how far it was compared."""
    return file.with_name(f"{file.name}.json")


def versions(one: Format) -> dict[str, str]:
    """What a file of a format is made and compared with; without what is not installed."""
    found = {"stoker": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    for package in one.packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def seal(run: Run, file: Path) -> dict[str, str]:
    """SHA-256 digests, in hexadecimal, of an exported file and of what it was made from.

    Args:
        run: The run.
        file: The file.

    Returns:
        ``file``: of its bytes; ``weights``: of ``model.safetensors``; ``recipe``: of the recipe in ``config.json``.
    """
    return {"file": _digest(file.read_bytes()), **_of_run(run)}


def read_current(run: Run, one: Format, file: Path) -> bytes:
    """Read an exported file, if it is the run's as the run is now, and as it was when it was compared.

    The code of a model of the user's own is not looked at: it may have changed since.

    Args:
        run: The run.
        one: The file's format.
        file: The file; its contract is beside it.

    Returns:
        The bytes that were compared.

    Raises:
        ExportError: The file or its contract is not there, damaged, of another state of the run, of another kind, or
            was compared with other versions than there are here.
    """
    try:
        contract = read_json(contract_path(file))
        refuse_link_out(file, file.parent)
        if not file.is_file() or file.stat().st_size > MOST_BYTES:  # a pipe, a file of holes
            raise FileNotFoundError
        content = file.read_bytes()
    except (OSError, RunError) as error:
        raise _not_current(file, "must be there with its contract", type(error).__name__) from None
    if contract.get("format") != one.name or "quantized" in contract:
        raise _not_current(file, f"must be the run's export as {one.name}, of full precision", "another")
    sealed = contract.get("sha256")
    for name, found in {"file": _digest(content), **_of_run(run)}.items():
        if not isinstance(sealed, dict) or sealed.get(name) != found:
            raise _not_current(file, _RULES[name], "others" if sealed else "one without their digests")
    known, here = contract.get("versions"), versions(one)
    for package in _MATTER:
        was = known.get(package) if isinstance(known, dict) else None
        if was != here.get(package):
            raise _not_current(file, f"must be compared with {package} {here.get(package)}", was)
    return content


def _not_current(file: Path, rule: str, got: object) -> ExportError:
    return ExportError(str(file), rule, got, "Export it again.")


def _of_run(run: Run) -> dict[str, str]:
    recipe = json.dumps(run.record.recipe, sort_keys=True)
    with (run.path / "model.safetensors").open("rb") as weights:
        return {
            "weights": hashlib.file_digest(weights, "sha256").hexdigest(),
            "recipe": _digest(recipe.encode()),
        }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
