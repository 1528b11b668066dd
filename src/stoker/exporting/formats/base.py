"""What a format is: how it is written, how it is loaded, and what it promises."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from stoker.errors import ExportError, MissingExtraError
from stoker.exporting.check import Tolerance
from stoker.exporting.signature import Served, Signature
from stoker.runs.artifact import Artifact

__all__ = ["TAKES_VALUES", "Format", "Options", "Subject", "code_line", "failed", "summary", "users_line"]

EXAMPLE_ROWS = 5  # more than one, since a size of one is often taken for a constant
CHOOSES = ("data-dependent", "DataDependent", "Dynamic control flow")
TAKES_VALUES = "the model must not take values out of tensors, to choose by or to compute with"


@dataclass(frozen=True)
class Subject:
    """What is exported.

    Attributes:
        artifact: The run's model, with its recipe.
        module: The same behind its signature, in evaluation mode.
        signature: Its inputs and outputs.
        rows: Raw rows by input name, for those formats that watch the model at work.
        contract: The text that says what goes in and comes out, for formats that can hold it.
    """

    artifact: Artifact
    module: Served
    signature: Signature
    rows: dict[str, Tensor]
    contract: str

    @property
    def example(self) -> tuple[Tensor, ...]:
        """A few rows, an input each, in order."""
        return tuple(values[:EXAMPLE_ROWS].clone() for values in self.rows.values())


@dataclass(frozen=True)
class Options:
    """What the user asked for beside the format.

    Attributes:
        optimize: Make it faster, if the format has a way.
        tell: Told what the user should know.
    """

    optimize: bool
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: As the user writes it.
        suffix: Of its files; what comes first in it tells formats apart that share a suffix.
        loader: How :mod:`stoker.exporting.loader` loads it.
        tolerance: How far its numbers may be from the model's.
        write: Makes the file.
        packages: What must be installed, all of it in the extra ``export``.
        optimizes: Whether it has a way to be made faster.
        quantizes: Whether it can hold 8-bit numbers.
        program: Whether it answers rows; else it holds weights alone.
        deprecated: What to say of it, once; empty if there is nothing to say.
    """

    name: str
    suffix: str
    loader: str
    tolerance: Tolerance
    write: Callable[[Subject, Path, Options], None]
    packages: tuple[str, ...] = ()
    optimizes: bool = False
    quantizes: bool = False
    program: bool = True
    deprecated: str = ""

    def require(self) -> None:
        """Make sure that what it needs is installed.

        Raises:
            MissingExtraError: It is not.
        """
        for package in self.packages:
            if find_spec(package) is None:
                raise MissingExtraError(f"--format {self.name}", package, "export")


def summary(error: BaseException) -> str:
    """The first line of an exporter's error that says something; whole stories stand in the log."""
    lines = (line.strip() for line in str(error).splitlines())
    said = next((line for line in lines if line and not set(line) <= set("=-*#")), "")
    return f"{type(error).__name__}: {said[:240]}".rstrip(": .")


def users_line(error: BaseException) -> str:
    """Where in the user's own code an error arose: the last line that is neither torch's nor Stoker's."""
    ours = (str(Path(__file__).parents[2]), str(Path(torch.__file__).parent))
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((one for one in reversed(frames) if not one.filename.startswith((*ours, "<"))), None)
    return "its forward" if frame is None else code_line(frame.filename, frame.lineno or 0)


def code_line(file: str, number: int) -> str:
    """``net.py, line 7: if x.sum() > 0``."""
    code = linecache.getline(file, number).strip().rstrip(":")
    return f"{Path(file).name}, line {number}" + (f": {code[:100]}" if code else "")


def failed(name: str, error: BaseException, log: str, fix: str = "") -> ExportError:
    """An exporter that could not write the model, as an error of ours with all of its text.

    Args:
        name: The format's.
        error: The exporter's.
        log: What it said before.
        fix: What to do about it.
    """
    cause = error
    while (cause.__cause__ or cause.__context__) is not None and "torch.onnx" in type(cause).__module__:
        cause = cause.__cause__ or cause.__context__ or cause  # which wraps what torch.export said
    rule, got = "the exporter must take the model", summary(cause)
    if any(word in f"{type(cause).__name__} {cause}" for word in CHOOSES):
        rule, got = TAKES_VALUES, f"that in {users_line(cause)}"
        fix = "Use --format torchscript-script, which keeps it, or write the choice with torch.where or torch.cond."
    refused = ExportError(f"--format {name}", rule, got, fix)
    refused.log = f"{log}\n{type(error).__name__}: {error}"
    return refused
