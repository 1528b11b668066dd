"""Every error that Stoker raises on purpose.

::

    StokerError
    ├── ConfigError             (ValueError)         a setting that is unknown, misspelt or out of range
    │   └── UnknownNameError                         a name that is not in a list of valid ones
    ├── InputTypeError          (TypeError)          an object of a kind that Stoker does not take
    ├── DataError               (ValueError)         data that cannot be used as they are
    │   ├── CheckError                               a model, data or settings that training would fail with
    │   ├── SourceFormatError                        a file that is empty, truncated, ragged or of another format
    │   ├── SchemaError                              columns that are missing, duplicate or unusable
    │   ├── SplitError                               a split that cannot be made
    │   └── EncodingError                            a value that does not fit its column
    ├── SourceNotFoundError     (FileNotFoundError)  a file, directory or data set that is not there
    ├── TrainingError           (RuntimeError)       training that cannot go on
    │   ├── NonFiniteLossError                       the loss became NaN or infinite
    │   └── OutOfMemoryError    (MemoryError)        a batch that does not fit into memory
    ├── LoweringError           (NotImplementedError) a step that cannot be made into a program for XLA
    ├── RunError                (ValueError)         a run directory that cannot be read
    │   └── CheckpointError                          a checkpoint that training cannot go on from
    ├── RunNotFoundError        (FileNotFoundError)  no run directory there
    ├── RunExistsError          (FileExistsError)    an existing directory would be overwritten
    ├── DiskFullError           (OSError)            no room to write
    ├── ExportError             (RuntimeError)       a model that a format cannot hold as it is
    └── MissingExtraError       (ImportError)        an optional dependency that is not installed

Each text reads ``<where>: <rule>, got <value>. <what to do>``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "CheckError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DiskFullError",
    "EncodingError",
    "ExportError",
    "InputTypeError",
    "LoweringError",
    "MissingExtraError",
    "NonFiniteLossError",
    "OutOfMemoryError",
    "RunError",
    "RunExistsError",
    "RunNotFoundError",
    "SchemaError",
    "SourceFormatError",
    "SourceNotFoundError",
    "SplitError",
    "StokerError",
    "TrainingError",
    "UnknownNameError",
]


class StokerError(Exception):
    """The root of the tree: catch it to catch everything that Stoker raises on purpose.

    Args:
        where: What the error is about: a setting, a file, a column.
        rule: What would have been right, or what went wrong.
        got: The offending value, already as text; empty if the rule says it all.
        fix: What to do about it, as full sentences; empty if there is nothing to say.
    """

    def __init__(self, where: str, rule: str, got: object = "", fix: str = "") -> None:
        # Not super(): OSError's constructor would take the texts for a number, a message and a file name.
        Exception.__init__(self, where, rule, str(got), fix)
        self.where = where
        self.rule = rule
        self.got = str(got)
        self.fix = fix

    def __str__(self) -> str:
        got = f", got {self.got}" if self.got else ""
        fix = f" {self.fix}" if self.fix else ""
        return f"{self.where}: {self.rule}{got}.{fix}"


class ConfigError(StokerError, ValueError):
    """A setting that is unknown, misspelt or out of range."""


class UnknownNameError(ConfigError):
    """A name that is not in a list of valid ones; the text lists them and the nearest.

    Args:
        where: What was being named, such as ``"optimizer"``.
        name: The name that is not known.
        valid: The names that are.
    """

    def __init__(self, where: str, name: str, valid: Iterable[str]) -> None:
        names = list(valid)
        # the parent's arguments differ from ours, so pickling would call us with four: see __reduce__
        super().__init__(where, "must be one of the known names", repr(name), suggest(name, names))
        self.name = name
        self.valid = names

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]], dict[str, object]]:
        return type(self), (self.where, self.name, self.valid), self.__dict__


class InputTypeError(StokerError, TypeError):
    """An object of a kind that Stoker does not take."""


class DataError(StokerError, ValueError):
    """Data that cannot be used as they are."""


class CheckError(DataError):
    """The checks before the first step found that training would fail or be in vain; the text lists all errors.

    Attributes:
        findings: Every :class:`stoker.training.preflight.Finding`, warnings too.
    """

    findings: tuple[Any, ...] = ()  # Findings; named so, this lowest room would know of one above it

    def __str__(self) -> str:
        errors = [f"\n- {finding}" for finding in self.findings if finding.severity == "error"]
        return super().__str__() + "".join(errors)


class SourceFormatError(DataError):
    """A file that is empty, truncated, ragged or of another format than its name says."""


class SchemaError(DataError):
    """Columns that are missing, duplicate or unusable."""


class SplitError(DataError):
    """A split that cannot be made."""


class EncodingError(DataError):
    """A value that does not fit its column; the text names column, row and value."""


class SourceNotFoundError(StokerError, FileNotFoundError):
    """A file, a directory or a data set that is not there."""


class TrainingError(StokerError, RuntimeError):
    """Training that cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite; the model was given back its last good weights.

    Attributes:
        history: The :class:`stoker.training.history.History` of the epochs before.
    """

    history: Any = None  # a History; named so, this lowest room would know of one above it


class OutOfMemoryError(TrainingError, MemoryError):
    """A batch that does not fit into the device's memory."""


class LoweringError(StokerError, NotImplementedError):
    """A step that cannot be made into a program for XLA: it has an operator without a lowering."""


class RunError(StokerError, ValueError):
    """A run directory that cannot be read."""


class CheckpointError(RunError):
    """A checkpoint that is damaged, of another training, or of another version."""


class RunNotFoundError(StokerError, FileNotFoundError):
    """No run directory there."""


class RunExistsError(StokerError, FileExistsError):
    """An existing directory would be overwritten."""


class DiskFullError(StokerError, OSError):
    """No room left to write; the text says where the work was kept instead, if anywhere."""


class ExportError(StokerError, RuntimeError):
    """A model that a format cannot hold, or an exported file whose answers are not the model's.

    Attributes:
        log: All that the exporter said; empty if that is nothing more.
    """

    log: str = ""


class MissingExtraError(StokerError, ImportError):
    """An optional dependency that is not installed.

    Args:
        where: What needs it.
        package: The package that is missing.
        extra: The extra of Stoker that brings it.
    """

    def __init__(self, where: str, package: str, extra: str) -> None:
        super().__init__(
            where, f"needs the package {package}, which is not installed", "", f'Run: pip install "stoker[{extra}]"'
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str], dict[str, object]]:
        return type(self), (self.where, self.package, self.extra), self.__dict__


def suggest(name: str, valid: Iterable[str]) -> str:
    """Say which names are valid, and which of them is nearest to ``name``.

    Args:
        name: The name that is not known.
        valid: The names that are; listed in the order given, the first 60 of them.

    Returns:
        A sentence or two, such as ``"Did you mean 'adam'? Known: adam, sgd."``.
    """
    names = list(valid)
    lowered = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    hint = f"Did you mean {lowered[near[0]]!r}? " if near else ""
    more = f" and {len(names) - 60} more" if len(names) > 60 else ""
    return f"{hint}Known: {', '.join(names[:60])}{more}."
