"""From raw tensors to the network's input: fixed arithmetic, fitted on the training rows, and a part of the model.

Both encoders are modules without parameters. They are made of tensor operations alone, take any batch size and branch
on no value, so that they can be traced and exported together with the network, which then takes raw values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stoker.data import strict
from stoker.data.columns import MISSING, UNKNOWN, Columns
from stoker.errors import ConfigError, EncodingError, InputTypeError, SchemaError, UnknownNameError

__all__ = ["ImageEncoder", "TableEncoder", "TableEncoderConfig"]

_CATEGORIES = ("auto", "embedding", "one-hot")
_LARGEST = torch.finfo(torch.float32).max
_FIX = "Take it from a file that Stoker wrote, unchanged."
_PIXELS_AT_ONCE = 1 << 24
_VALUES_AT_ONCE = (1 << 15) - 1  # torch uses threads from 32,768 values on


@dataclass(frozen=True)
class TableEncoderConfig:
    """All of a :class:`TableEncoder` but its means and standard deviations.

    Attributes:
        numeric: How many numeric features come in.
        categorical: How many columns of codes come in.
        flags: Which numeric features get a missing flag.
        one_hot: ``(column, code)`` for each one-hot feature.
        embedded: Which columns of codes go out as codes.
        cardinalities: How many codes each embedded column has, *unknown* and *missing* among them.
        seen_missing: Whether each embedded column had missing values in training.
        feature_names: The name of each feature of the numeric output.
        clip: The largest absolute standardised value, if there is one.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    numeric: int
    categorical: int
    flags: tuple[int, ...]
    one_hot: tuple[tuple[int, int], ...]
    embedded: tuple[int, ...]
    cardinalities: tuple[int, ...]
    seen_missing: tuple[bool, ...]
    feature_names: tuple[str, ...]
    clip: float | None


class TableEncoder(nn.Module):
    r"""Standardise numbers, fill and flag what is missing, and turn categories into one-hot features or safe codes.

    A numeric feature :math:`x` becomes :math:`(x - \mu) / \sigma`, with the mean and the unbiased standard deviation
    (:math:`n - 1`) of its training values, missing ones aside; a :math:`\sigma` of 0 is taken as 1. It is computed in
    float64, since a float32 has too few digits for, say, a date that varies by seconds, and then rounded to float32.

    A missing value becomes 0, the mean. Each column with missing values in training has a flag beside it, 1 where its
    value is missing and 0 elsewhere (one flag for all parts of a datetime). A column that is first missing after
    training has none, and nothing could have been learnt about one: there, missing means the same as average.

    Categories with few values become one-hot features: one for each category, all 0 for an unknown one; and one for
    missing, if that was seen in training. The others stay codes, to be embedded by the network: 0 for unknown, 1 for
    missing, from 2 on the known ones. *Missing* becomes *unknown* in a column where training saw none, so that no
    embedding is asked for that was never trained; and so does every code that is out of range.

    Standardised values of heavy-tailed features can be in the hundreds. That is the truth about them, and they are left
    alone unless ``clip`` is given: a limit of 10 or so guards the network against outliers, at the price of not telling
    these apart. In any case the output is finite.

    The buffers stay float64 when the module is moved to another dtype (``.half()``, ``.to(torch.bfloat16)``). MPS
    devices have no float64: encode on the CPU, and move what comes out.

    Args:
        config: The structure; :meth:`fit` makes it.

    Attributes:
        n_numeric: Features of the numeric output.
        cardinalities: How many codes each embedded column has, *unknown* and *missing* among them.
        feature_names: The name of each feature of the numeric output: ``age``, ``time.hour``, ``age is missing``,
            ``carrier=AA``, ``carrier is missing``.
        mean: Buffer, float64, shape ``[numeric]``.
        std: Buffer, float64, shape ``[numeric]``.
    """

    mean: Tensor
    std: Tensor
    flags: Tensor
    one_hot_columns: Tensor
    one_hot_codes: Tensor
    embedded: Tensor
    limits: Tensor
    seen_missing: Tensor

    def __init__(self, config: TableEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.n_numeric = len(config.feature_names)
        self.cardinalities = config.cardinalities
        self.feature_names = config.feature_names
        self.register_buffer("mean", torch.zeros(config.numeric, dtype=torch.float64))
        self.register_buffer("std", torch.ones(config.numeric, dtype=torch.float64))
        # these follow from the config, so a state_dict need not hold them
        columns, codes = [column for column, _ in config.one_hot], [code for _, code in config.one_hot]
        for name, indices in (
            ("flags", config.flags),
            ("one_hot_columns", columns),
            ("one_hot_codes", codes),
            ("embedded", config.embedded),
            ("limits", config.cardinalities),
        ):
            self.register_buffer(name, torch.tensor(indices, dtype=torch.int64), persistent=False)
        self.register_buffer("seen_missing", torch.tensor(config.seen_missing, dtype=torch.bool), persistent=False)

    @classmethod
    def fit(
        cls,
        raw: dict[str, Tensor],
        columns: Columns,
        *,
        categories: Literal["auto", "embedding", "one-hot"] = "auto",
        max_one_hot: int = 10,
        clip: float | None = None,
    ) -> TableEncoder:
        """Learn means, standard deviations and what can be missing, from training rows.

        Args:
            raw: The training rows, and no others, as :meth:`Columns.read` gave them.
            columns: The columns that read them.
            categories: ``"one-hot"`` or ``"embedding"`` for all categorical columns; ``"auto"`` makes those one-hot
                whose vocabulary has at most ``max_one_hot`` categories.
            max_one_hot: See ``categories``.
            clip: The largest absolute standardised value to let through; ``None`` for no limit.

        Raises:
            ConfigError: ``max_one_hot`` or ``clip`` is out of range.
            UnknownNameError: ``categories`` is none of the three.
            EncodingError: ``raw`` has no rows, or does not have the columns' shape.
        """
        if categories not in _CATEGORIES:
            raise UnknownNameError("categories", str(categories), _CATEGORIES)
        if max_one_hot < 0:
            raise ConfigError("max_one_hot", "must be 0 or more", str(max_one_hot), "Leave it at 10.")
        if clip is not None and not 0 < clip < math.inf:
            raise ConfigError("clip", "must be a positive number, or None", str(clip), "Try 10.")
        names, sources = columns.numeric_names, columns.numeric_sources
        numeric, codes = raw.get("numeric"), raw.get("categorical")
        _check_input("numeric", numeric, len(names))
        _check_input("categorical", codes, len(columns.categorical))
        if any(len(values) == 0 for values in raw.values()):
            raise EncodingError("raw", "must have training rows", "none", "Give the training part more rows.")

        stats = [_mean_std(numeric[:, i]) for i in range(len(names))] if numeric is not None else []
        flags = [
            i
            for i, source in enumerate(sources)
            if numeric is not None and source not in sources[:i] and not bool(numeric[:, i].isfinite().all())
        ]
        features = [*names, *(f"{columns.numeric[sources[i]].name} is missing" for i in flags)]
        one_hot: list[tuple[int, int]] = []
        embedded: list[int] = []
        seen_missing: list[bool] = []
        for i, column in enumerate(columns.categorical):
            assert codes is not None
            seen = bool((codes[:, i] == MISSING).any())
            if categories == "embedding" or (categories == "auto" and len(column.vocabulary) > max_one_hot):
                embedded.append(i)
                seen_missing.append(seen)
                continue
            one_hot += [(i, code) for code in range(2, 2 + len(column.vocabulary))] + [(i, MISSING)] * seen
            features += [f"{column.name}={name}" for name in column.vocabulary] + [f"{column.name} is missing"] * seen
        encoder = cls(
            TableEncoderConfig(
                numeric=len(names),
                categorical=len(columns.categorical),
                flags=tuple(flags),
                one_hot=tuple(one_hot),
                embedded=tuple(embedded),
                cardinalities=tuple(columns.cardinalities[i] for i in embedded),
                seen_missing=tuple(seen_missing),
                feature_names=tuple(features),
                clip=clip,
            )
        )
        encoder.mean.copy_(torch.tensor([mean for mean, _ in stats], dtype=torch.float64))
        encoder.std.copy_(torch.tensor([std for _, std in stats], dtype=torch.float64))
        return encoder

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> dict[str, Tensor]:
        """Encode a batch.

        Args:
            numeric: Shape ``[n, numeric]``, floating; NaN and ±inf are missing. Not needed if there are none.
            categorical: int64, shape ``[n, categorical]``, codes. Likewise.

        Returns:
            ``"numeric"``: float32, shape ``[n, n_numeric]``: the standardised features, the missing flags, the one-hot
            features, in this order. ``"categorical"``: int64, shape ``[n, len(cardinalities)]``, each code less than
            its cardinality. A key is left out if it has no features.

        Raises:
            EncodingError: A tensor is not there, or not of this shape.
        """
        config = self.config
        if not _is_tracing():
            _check_input("numeric", numeric, config.numeric)
            _check_input("categorical", categorical, config.categorical)
        features: list[Tensor] = []
        if numeric is not None and config.numeric:
            missing = ~torch.isfinite(numeric)
            limit = _LARGEST if config.clip is None else config.clip
            scaled = ((numeric.to(torch.float64) - self.mean) / self.std).clamp(-limit, limit).to(torch.float32)
            features.append(torch.where(missing, 0.0, scaled))
            if config.flags:
                features.append(missing.index_select(1, self.flags).to(torch.float32))
        if categorical is not None and config.one_hot:
            codes = categorical.index_select(1, self.one_hot_columns)
            features.append((codes == self.one_hot_codes).to(torch.float32))
        encoded: dict[str, Tensor] = {}
        if features:
            encoded["numeric"] = torch.cat(features, dim=1)
        if categorical is not None and config.embedded:
            codes = categorical.index_select(1, self.embedded)
            known = (codes >= 0) & (codes < self.limits) & ((codes != MISSING) | self.seen_missing)
            encoded["categorical"] = torch.where(known, codes, UNKNOWN)
        return encoded

    def encode(self, raw: dict[str, Tensor], *, rows_at_once: int | None = None) -> dict[str, Tensor]:
        """Encode all rows of a table, some at a time, so that float64 copies of the whole are never in memory.

        Args:
            raw: As :meth:`Columns.read` gave it.
            rows_at_once: How many rows to take at a time; the result does not depend on it. By default as many as fit
                into the caches, and are too few for torch to share them out over threads, whose waiting for each other
                takes longer than the work.

        Returns:
            What calling the encoder with ``raw`` gives, without a graph for gradients.

        Raises:
            EncodingError: A tensor is not there, or not of the encoder's shape.
        """
        n = max((len(values) for values in raw.values()), default=0)
        if rows_at_once is None:
            rows_at_once = max(1, _VALUES_AT_ONCE // max(1, self.n_numeric, self.config.numeric))
        with torch.no_grad():
            encoded = self(**{name: values[:rows_at_once] for name, values in raw.items()})
            if n <= rows_at_once:
                return dict(encoded)
            whole = {name: values.new_empty(n, *values.shape[1:]) for name, values in encoded.items()}
            for start in range(0, n, rows_at_once):
                rows = slice(start, start + rows_at_once)
                for name, values in self(**{name: values[rows] for name, values in raw.items()}).items():
                    whole[name][rows] = values
        return whole

    def columns_of_features(self, columns: Columns) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The name of the column that each feature is made from.

        Args:
            columns: Those that this encoder was fitted with.

        Returns:
            One for each feature of ``"numeric"``, as :meth:`forward` gives it, and one for each of ``"categorical"``.
        """
        numeric = [columns.numeric[place].name for place in columns.numeric_sources]
        flags = [numeric[place] for place in self.config.flags]
        one_hot = [columns.categorical[place].name for place, _ in self.config.one_hot]
        return (*numeric, *flags, *one_hot), tuple(columns.categorical[place].name for place in self.config.embedded)

    def to_config(self) -> dict[str, Any]:
        """Give the structure as JSON takes it, without the buffers' values, which are in the ``state_dict``."""
        return json.loads(json.dumps(asdict(self.config)))  # type: ignore[no-any-return]

    @classmethod
    def from_config(cls, data: object) -> TableEncoder:
        """Build an encoder of the structure that :meth:`to_config` gave, trusting nothing; load its values after that.

        Raises:
            SchemaError: A field is missing, unknown, of another type, or contradicts another.
        """
        config = strict.parse(TableEncoderConfig, data, "encoder")
        columns = {column for column, _ in config.one_hot} | set(config.embedded)
        coherent = (
            min(config.numeric, config.categorical) >= 0
            and all(0 <= i < config.numeric for i in config.flags)
            and all(0 <= i < config.categorical for i in columns)
            and all(MISSING <= code < 1 << 31 for _, code in config.one_hot)
            and all(2 <= size < 1 << 31 for size in config.cardinalities)
            and len(config.embedded) == len(config.cardinalities) == len(config.seen_missing)
            and len(config.feature_names) == config.numeric + len(config.flags) + len(config.one_hot)
            and (config.clip is None or 0 < config.clip < math.inf)
        )
        if not coherent:
            raise SchemaError("encoder", "must have a structure that fits together", "another", _FIX)
        return cls(config)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TableEncoder:
        """Move the buffers between devices, but keep them float64: a mean of 1e5 is infinite as float16."""
        before = {name: getattr(self, name) for name in ("mean", "std")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            if getattr(self, name).dtype != buffer.dtype:
                setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def extra_repr(self) -> str:
        """Say what comes in and goes out, for ``print(model)``."""
        config = self.config
        return f"{config.numeric} numeric, {config.categorical} categorical -> {self.n_numeric} features, " + (
            f"{len(self.cardinalities)} to embed"
        )


class ImageEncoder(nn.Module):
    r"""Standardise images: :math:`(x - \mu_c) / \sigma_c` with the training pixels' mean and unbiased std by channel.

    Args:
        channels: How many channels the images have.

    Attributes:
        mean: Buffer, float32, shape ``[channels]``, in the images' own units (0 to 255).
        std: Buffer, float32, shape ``[channels]``; 1 for a channel that does not vary.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @classmethod
    def fit(cls, images: Tensor) -> ImageEncoder:
        """Learn means and standard deviations from training images.

        They are computed from how often each of the 256 values occurs, hence exactly, and without a float copy of the
        images.

        Args:
            images: uint8, shape ``[n, channels, height, width]``: the training images, and no others.

        Raises:
            InputTypeError: The images are of another type or shape, or there is none.
        """
        _check_images(images)
        if images.numel() == 0:
            raise InputTypeError("images", "must be at least one", str(tuple(images.shape)), "Check the source.")
        encoder = cls(images.shape[1])
        at_once = max(1, _PIXELS_AT_ONCE // images[0, 0].numel())
        values = torch.arange(256, dtype=torch.float64)
        for channel in range(encoder.channels):
            counts = torch.zeros(256, dtype=torch.int64)
            for start in range(0, len(images), at_once):
                pixels = images[start : start + at_once, channel].reshape(-1)
                counts += torch.bincount(pixels, minlength=256).cpu()
            n = int(counts.sum())
            mean = (counts * values).sum() / n
            variance = (counts * (values - mean) ** 2).sum() / max(n - 1, 1)
            encoder.mean[channel] = mean
            encoder.std[channel] = variance.sqrt() if variance > 0 else 1.0
        return encoder

    def forward(self, images: Tensor) -> Tensor:
        """Encode a batch.

        Args:
            images: uint8, shape ``[n, channels, height, width]``.

        Returns:
            float32, the same shape and memory format.

        Raises:
            InputTypeError: The images are of another shape.
        """
        if not _is_tracing():
            _check_images(images, self.channels)
        return (images.to(self.mean.dtype) - self.mean[:, None, None]) / self.std[:, None, None]

    def to_config(self) -> dict[str, Any]:
        """Give the structure as JSON takes it, without the buffers' values, which are in the ``state_dict``."""
        return {"channels": self.channels}

    @classmethod
    def from_config(cls, data: object) -> ImageEncoder:
        """Build an encoder of the structure that :meth:`to_config` gave, trusting nothing; load its values after that.

        Raises:
            SchemaError: It is not the number of channels, and that alone.
        """
        channels = data.get("channels") if isinstance(data, dict) and len(data) == 1 else None
        if not isinstance(channels, int) or isinstance(channels, bool) or not 1 <= channels <= 1 << 16:
            raise SchemaError("encoder", "must have a number of channels", repr(data)[:60], _FIX)
        return cls(channels)

    def extra_repr(self) -> str:
        """Say what comes in, for ``print(model)``."""
        return f"channels={self.channels}"


def _mean_std(values: Tensor) -> tuple[float, float]:
    """The mean and the unbiased standard deviation of what is finite; 0 and 1 if nothing is.

    NumPy's sums do not depend on the number of threads, as torch's do.
    """
    array = values.detach().cpu().numpy().astype(np.float64)
    present = array[np.isfinite(array)]
    if present.size == 0:
        return 0.0, 1.0
    low, high = float(present.min()), float(present.max())
    if low == high:  # exactly, where rounding would give a deviation that is tiny but not 0
        return low, 1.0
    scale = max(abs(low), abs(high))
    if scale > 1e100 or scale < 1e-100:  # whose squares would overflow, or vanish
        present = present / scale
    else:
        scale = 1.0
    std = float(present.std(ddof=1)) * scale
    return float(present.mean()) * scale, std if 0 < std < math.inf else 1.0


def _is_tracing() -> bool:
    """Whether TorchScript traces: a shape is a tensor there, and comparing it a warning."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def _check_input(name: str, values: Tensor | None, width: int) -> None:
    if (values is None and width) or (values is not None and (values.ndim != 2 or values.shape[1] != width)):
        got = "none" if values is None else f"shape {list(values.shape)}"
        raise EncodingError(name, f"must have shape [n, {width}]", got, "Read the rows with the model's own columns.")


def _check_images(images: object, channels: int | None = None) -> None:
    """Refuse what is not uint8 ``[n, c, h, w]``; with ``channels``, float copies of such values are let through."""
    wanted = f"[n, {'channels' if channels is None else channels}, height, width]"
    if not isinstance(images, Tensor) or images.ndim != 4 or (channels is not None and images.shape[1] != channels):
        got = f"shape {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InputTypeError("images", f"must have shape {wanted}", got, "Add the dimensions that are missing.")
    if channels is None and images.dtype != torch.uint8:
        raise InputTypeError("images", "must be uint8", str(images.dtype), "Give them as they are in the files.")
