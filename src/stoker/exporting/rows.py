"""The rows that an export is tried on: real ones where the source is there, and the awkward ones that few have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from stoker.data.cells import missing_mask
from stoker.data.columns import MISSING, UNKNOWN, Columns
from stoker.data.dataset import DataSet, ImageSet, Table
from stoker.data.encoder import TableEncoder
from stoker.data.target import drop_missing_target, encode_target
from stoker.errors import StokerError
from stoker.jobs.run import Run
from stoker.jobs.run_data import RunData
from stoker.models.inputs import ImageSpec
from stoker.randomness import derive_seed

__all__ = ["Real", "check_rows", "name_of_row", "real_rows"]

Tensors = dict[str, Tensor]
REAL = 64  # of the rows compared; one by one, each is a call of its own
AWKWARD = 32  # of each kind, at most: with more columns than that, several share a row
ONCE = 4096  # rows that are measured or calibrated with


@dataclass(frozen=True)
class Real:
    """Rows of the run's own source, or of one that the user named.

    Attributes:
        origin: Where they are from.
        held_out: Which split they are of: ``"test"``, ``"valid"``, or ``"rows"`` for a source that was named.
        inputs: Raw tensors as the model takes them, by name.
        targets: As :func:`stoker.data.target.encode_target` gives them; ``None`` where they are not known.
        training: Raw tensors of training rows; ``None`` where they are not known.
        training_targets: Theirs, likewise.
        numbers: Which rows or images of ``origin`` they are, from 0, int64 ``[n]``; ``None`` where that is not known.
    """

    origin: str
    held_out: str
    inputs: Tensors
    targets: Tensor | None
    training: Tensors | None = None
    training_targets: Tensor | None = None
    numbers: Tensor | None = None


def real_rows(run: Run, source: Any = None) -> Real:
    """Read rows held back from the training, as they were then; or rows of a source that is named.

    Args:
        run: The run.
        source: What the user named instead of the run's own.

    Raises:
        SourceNotFoundError: The source is not there.
        DataError: The source cannot be used, or is not what it was.
    """
    own = RunData(run.path, run.config, run.record, run.artifact, "export", "Name rows: --rows SOURCE.")
    if source is not None:
        data = own.load(source)
        held = data.test if data.test is not None else data.frame if isinstance(data, Table) else data
        training: tuple[Tensors | None, Tensor | None] = None, None
        with suppress(StokerError):  # which may be gone: why others are named
            training = _tensors(run, _rows(own.splits()["train"].data))[:2]
        inputs, targets, places = _tensors(run, held)
        numbers = places if data.test is None else None
        return Real(data.provenance.origin, "rows", inputs, targets, *training, numbers)
    found = own.splits()
    name = next(name for name in ("test", "valid", "train") if name in found)
    inputs, targets, places = _tensors(run, _rows(found[name].data))
    origin = run.record.sources[name if name in run.record.sources else "train"].origin
    numbers = torch.from_numpy(found[name].rows)[places]
    return Real(origin, name, inputs, targets, *_tensors(run, _rows(found["train"].data))[:2], numbers)


def _rows(data: DataSet) -> pl.DataFrame | ImageSet:
    return data.frame if isinstance(data, Table) else data


def _tensors(run: Run, rows: pl.DataFrame | ImageSet) -> tuple[Tensors, Tensor | None, Tensor]:
    """Raw tensors and targets of rows, and which of them; of very many, some that lie evenly among them."""
    if isinstance(rows, ImageSet):
        places = _evenly(len(rows), ONCE)
        labels = None
        if rows.labels is not None and set(rows.classes) <= set(run.classes):
            labels = torch.tensor([run.classes.index(name) for name in rows.classes])[rows.labels[places]]
        return {"images": rows.images[places]}, labels, places
    schema, columns = run.schema, run.artifact.columns
    assert schema is not None  # tables have one
    assert schema.target is not None  # and it has a target
    assert columns is not None  # and they have columns
    known = schema.target.name in rows.columns
    places = torch.arange(rows.height)
    if known:
        places = torch.from_numpy((~missing_mask(rows[schema.target.name])).arg_true().to_numpy().astype("int64"))
        rows, _ = drop_missing_target(rows, schema.target.name)
    chosen = _evenly(rows.height, ONCE)
    rows = rows[chosen.tolist()]
    targets = encode_target(rows[schema.target.name], schema.target) if known else None
    return columns.read(rows), targets, places[chosen]


def check_rows(run: Run, tell: Callable[[str], None], source: Any = None) -> tuple[Tensors, Real | None]:
    """The rows that an export is compared on.

    To real rows, or rows made from the schema, come copies of them: with each column's value missing, with each
    category unknown, missing, the rarest, and out of range, and a row in which all is missing.

    Args:
        run: The run.
        tell: Told if there are no real rows, and why.
        source: What the user named instead of the run's own source.

    Returns:
        Raw tensors by name, and the real rows that are there.

    Raises:
        StokerError: A source was named and cannot be used.
    """
    real: Real | None = None
    try:
        real = real_rows(run, source)
    except StokerError as error:
        if source is not None:
            raise
        tell(f"compared on rows made from the schema, as the run's source cannot be read ({error.rule})")
    if real is not None and all(len(values) == 0 for values in real.inputs.values()):
        real = None
    encoder, spec = run.artifact.model.encoder, run.artifact.recipe.spec
    generator = torch.Generator().manual_seed(derive_seed(run.config.training.seed, "export"))
    if isinstance(spec, ImageSpec):
        images = None if real is None else _some(real.inputs)["images"]
        return {"images": _with_extremes(images, spec, generator)}, real
    assert isinstance(encoder, TableEncoder)  # what is no image is a table
    columns = run.artifact.columns
    assert columns is not None  # tables have them
    rows = _made(encoder, columns, generator) if real is None else _some(real.inputs)
    return _with_awkward(rows, columns, rows if real is None else real.inputs), real


def name_of_row(row: int, real: Real | None) -> str:
    """What to call a row of those that :func:`check_rows` gives, so that the user finds it.

    Args:
        row: Which of them, from 0.
        real: The real rows among them; the others are copies of these, in turn.

    Returns:
        Such as ``row 17 of homes.csv``, counted from 1 as reports do.
    """
    if real is None:
        return f"row {row} of those made from the schema"
    count = len(next(iter(real.inputs.values())))
    places = _evenly(count, REAL)
    if real.numbers is None:
        return f"row {row}"
    if "images" in real.inputs and row >= len(places):
        return f"image {row}, one of noise or of one shade,"
    what = "image" if "images" in real.inputs else "row"
    found = f"{what} {int(real.numbers[places[row % len(places)]]) + 1:,} of {real.origin}"
    return found if row < len(places) else f"a copy with other values of {found}"


def _some(rows: Tensors) -> Tensors:
    return {name: values[_evenly(len(values), REAL)] for name, values in rows.items()}


def _evenly(rows: int, most: int) -> Tensor:
    """Places of at most ``most`` rows that lie evenly among all."""
    return torch.arange(min(rows, most)) * rows // max(1, min(rows, most))


def _made(encoder: TableEncoder, columns: Columns, generator: torch.Generator) -> Tensors:
    """Rows with numbers of the training's mean and deviation, and any of the known categories."""
    rows: Tensors = {}
    if encoder.config.numeric:
        drawn = torch.randn(REAL, encoder.config.numeric, generator=generator, dtype=torch.float64)
        rows["numeric"] = drawn * encoder.std.cpu() + encoder.mean.cpu()
    if columns.categorical:
        codes = [torch.randint(0, size, (REAL,), generator=generator) for size in columns.cardinalities]
        rows["categorical"] = torch.stack(codes, dim=1)
    return rows


def _with_extremes(images: Tensor | None, spec: ImageSpec, generator: torch.Generator) -> Tensor:
    shape = (spec.channels, spec.height, spec.width)
    noise = torch.randint(0, 256, (REAL if images is None else 4, *shape), generator=generator, dtype=torch.uint8)
    flat = torch.stack([torch.full(shape, value, dtype=torch.uint8) for value in (0, 255)])
    return torch.cat([noise, flat] if images is None else [images, noise, flat])


def _with_awkward(rows: Tensors, columns: Columns, whole: Tensors) -> Tensors:
    """Rows, and below them copies that differ from them in one column or some."""
    sources = columns.numeric_sources
    extra: list[Tensors] = []
    for group in _groups(len(columns.numeric)):
        features = [place for place, source in enumerate(sources) if source in group]
        for value in (float("nan"), float("inf")):  # infinity counts as missing
            extra.append(_changed(rows, len(extra), numeric=dict.fromkeys(features, value)))
    sizes = columns.cardinalities
    rarest = _rarest(whole.get("categorical"), sizes)
    for group in _groups(len(sizes)):
        choices = (dict.fromkeys(group, UNKNOWN), dict.fromkeys(group, MISSING), {c: rarest[c] for c in group})
        for codes in (*choices, {c: sizes[c] + 3 for c in group}, dict.fromkeys(group, -1)):
            extra.append(_changed(rows, len(extra), codes=codes))
    nothing = {place: float("nan") for place in range(len(sources))}
    extra.append(_changed(rows, len(extra), numeric=nothing, codes=dict.fromkeys(range(len(sizes)), MISSING)))
    return {name: torch.cat([values, *(row[name] for row in extra)]) for name, values in rows.items()}


def _groups(count: int) -> list[list[int]]:
    """Columns, dealt out so that there are not more than :data:`AWKWARD` groups."""
    return [list(range(first, count, AWKWARD)) for first in range(min(count, AWKWARD))]


def _changed(
    rows: Tensors, number: int, *, numeric: dict[int, float] | None = None, codes: dict[int, int] | None = None
) -> Tensors:
    place = number % max(len(values) for values in rows.values())
    row = {name: values[place : place + 1].clone() for name, values in rows.items()}
    for feature, value in (numeric or {}).items():
        row["numeric"][0, feature] = value
    for column, code in (codes or {}).items():
        row["categorical"][0, column] = code
    return row


def _rarest(codes: Tensor | None, sizes: tuple[int, ...]) -> list[int]:
    """Of each column, the known category that occurs least."""
    if codes is None:
        return []
    counts = [codes[:, place].clamp(0, size - 1).bincount(minlength=size) for place, size in enumerate(sizes)]
    return [MISSING + 1 + int(count[MISSING + 1 :].argmin()) if len(count) > 2 else UNKNOWN for count in counts]
