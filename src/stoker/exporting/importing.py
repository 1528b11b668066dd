"""Weights that were trained elsewhere, put into a run: a new one, made from one that says what the network is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from stoker.errors import SourceFormatError, StokerError
from stoker.exporting.formats.tensors import plain_network
from stoker.exporting.weights_file import read_weights
from stoker.jobs.run import Run
from stoker.models.importing import Factory
from stoker.runs.artifact import save_weights
from stoker.runs.card import model_card
from stoker.runs.files import new_directory, refuse_bad_path, require_room, write_atomic, write_json

__all__ = ["Imported", "Matching", "import_weights", "match"]

Notify = Callable[[str], None]
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "head.network.module.", "head.network.")
SPARE_BYTES = 256 << 20
CARD_BYTES = 1 << 20
TIMES = 16  # a checkpoint may hold averages and an optimizer's moments, in double precision
LISTED = 10


@dataclass(frozen=True)
class Matching:
    """How a file's entries and a network's fit.

    Attributes:
        fitting: The network's names to the file's tensors.
        missing: Names that the network has and the file has not.
        unexpected: Names that the file has and the network has not.
        misshapen: Name, what the network has, what the file has.
        prefix: What stood before each name in the file, and was taken off.
    """

    fitting: dict[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, str, str], ...]
    prefix: str = ""

    @property
    def whole(self) -> bool:
        """Whether nothing is amiss."""
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def lines(self) -> list[str]:
        """The report, a line for each kind of entry."""
        counts = [f"{len(self.fitting)} entries fit"]
        if self.prefix:
            counts[0] += f" (each name without {self.prefix!r})"
        shapes = [f"{name} ({have} instead of {want})" for name, want, have in self.misshapen]
        for what, names in (("missing", self.missing), ("unexpected", self.unexpected), ("misshapen", shapes)):
            if names:
                more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
                counts.append(f"{len(names)} {what}: {', '.join(names[:LISTED])}{more}")
        return counts


@dataclass(frozen=True)
class Imported:
    """A run with weights from elsewhere.

    Attributes:
        run: The new run.
        matching: What became of each entry.
    """

    run: Run
    matching: Matching


def match(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> Matching:
    """Find each of a network's entries in a file, under its name or behind a prefix that wrappers put before it."""

    def stripped(names: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in names.items()}

    best, taken = given, ""
    for prefix in _prefixes(given):
        candidate = stripped(given, prefix)
        if len(candidate) == len(given) and len(candidate.keys() & wanted.keys()) > len(best.keys() & wanted.keys()):
            best, taken = candidate, prefix
    misshapen, fitting = [], {}
    for name in sorted(best.keys() & wanted.keys()):
        want, have = wanted[name], best[name]
        alike = want.dtype == have.dtype or (want.is_floating_point() and have.is_floating_point())
        if want.shape == have.shape and alike:
            fitting[name] = have
        else:
            misshapen.append((name, _shown(want), _shown(have)))
    missing = tuple(name for name in wanted if name not in best)
    return Matching(fitting, missing, tuple(sorted(best.keys() - wanted.keys())), tuple(misshapen), taken)


def _prefixes(given: dict[str, Tensor]) -> list[str]:
    """What all names may begin with, one or two of the usual prefixes."""
    pairs = (first + second for first in PREFIXES for second in ("", *PREFIXES))
    return [prefix for prefix in pairs if given and all(name.startswith(prefix) for name in given)]


def _shown(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def import_weights(
    file: str | Path,
    run: Run | str | Path,
    *,
    out: str | Path | None = None,
    partial: bool = False,
    model: str | Factory | None = None,
    notify: Notify | None = None,
    now: datetime | None = None,
) -> Imported:
    """Put the weights of a file into a run's network, as a new run; the run itself is not changed.

    Encoder and output stay the run's. The new run is measured on the run's own held-out rows, if they are there.

    Args:
        file: A ``.pt`` or ``.pth`` file with a ``state_dict`` (read with ``weights_only=True``), or safetensors.
        run: The run whose network the weights are for.
        out: The new run's directory, which must not exist; by default ``runs/<name>-<time>``.
        partial: Take what fits, and leave the rest as it is in the run.
        model: For a run with a model of your own: the model, as :func:`stoker.load` takes it.
        notify: Told the report, and what else the user should know.
        now: The time of the new run, by default the clock's.

    Raises:
        SourceNotFoundError: There is no such file.
        SourceFormatError: The file is no weights, holds code, is damaged or too large, or does not fit.
        RunError: The run is damaged.
        RunExistsError: ``out`` exists.
        DiskFullError: There is no room.

    Example:
        >>> stoker.import_weights("weights.pth", "runs/housing", out="runs/housing-weights").run.metrics
    """
    tell = notify or _silent
    refuse_bad_path(out)
    path = Path(file)
    run = Run(run.path if isinstance(run, Run) else run, device="cpu", model=model)
    network = plain_network(run.artifact)
    wanted = dict(network.state_dict())
    size = sum(tensor.nbytes for tensor in wanted.values())
    matching = match(wanted, read_weights(path, largest=TIMES * size + SPARE_BYTES))
    where = str(path)
    if not matching.whole and not partial:
        fix = "Say --partial to take what fits and leave the rest as it is in the run."
        raise SourceFormatError(where, f"must fit the run's network ({'; '.join(matching.lines)})", "", fix)
    if not matching.fitting:
        raise SourceFormatError(where, f"must fit the run's network ({'; '.join(matching.lines)})", "nothing that does")
    _refuse_nan(matching, wanted, dict(network.named_parameters()).keys(), where)
    for line in matching.lines:
        tell(line)
    with new_directory(out, run.record.name, now or datetime.now(UTC)) as folder:
        require_room(folder, 2 * size + CARD_BYTES)
        _write(folder, run, matching, path)
        metrics = _measured(Run(folder, device="cpu", model=model), tell)
        write_json(folder / "metrics.json", metrics)
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        write_atomic(folder / "README.md", model_card(record, metrics))
    return Imported(Run(folder, device="cpu", model=model), matching)


def _refuse_nan(matching: Matching, wanted: dict[str, Tensor], parameters: Container[str], where: str) -> None:
    """Refuse what is not finite in the network's own type, in which 1e300 is infinite.

    Of a buffer what the run has there may be infinite, as masks are.
    """
    for name, value in matching.fitting.items():
        mine = value.to(wanted[name].dtype)
        wrong = ~mine.isfinite()
        if name not in parameters:
            wrong &= wanted[name].isfinite()
        if bool(wrong.any()):
            got = f"NaN or infinity in {name}, as {str(mine.dtype).removeprefix('torch.')}"
            raise SourceFormatError(where, "weights must be finite", got, "Train it anew.")


def _write(folder: Path, run: Run, matching: Matching, path: Path) -> None:
    """The run's files with other weights; of a training that was not one, no curve and no picture is kept."""
    network = plain_network(run.artifact)
    with torch.no_grad():
        for name, target in network.state_dict().items():
            if name in matching.fitting:
                target.copy_(matching.fitting[name])
    save_weights(run.artifact.model, folder / "model.safetensors")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = f"{len(matching.fitting)} of {len(network.state_dict())} entries imported from {path.name}"
    training = {
        **run.record.training.model_dump(mode="json"),
        "engine": "none",
        "engine_reason": f"weights: {source}",
        "epochs": 0,
        "steps": 0,
        "monitor": None,
        "best_epoch": 0,
        "stopped": "imported",
        "seconds": 0.0,
    }
    record = {**run.record.model_dump(mode="json"), "training": training}
    record["notices"] = [*run.record.notices, f"{source}, sha256:{digest}"]
    write_json(folder / "config.json", record)
    write_json(folder / "metrics.json", {})
    header = (run.path / "history.csv").read_text(encoding="utf-8").splitlines()[:1]
    write_atomic(folder / "history.csv", "".join(f"{line}\n" for line in header))


def _measured(run: Run, tell: Notify) -> dict[str, dict[str, float]]:
    """The metrics of the rows that the run itself held back."""
    try:
        split = "test" if run.record.rows.get("test") else "valid"
        return {split: run.evaluate()}
    except StokerError as error:
        tell(f"not measured: {error.where}: {error.rule}")
        return {}


def _silent(_: str) -> None:
    """Tell nobody."""
