"""Batches: ``(inputs, targets)``, once per epoch, again and again, in an order that ``(seed, epoch)`` alone decides.

Data that fit into memory stay on the device as tensors, and a batch is an index into them
(:mod:`stoker.data.resident`); a user's own ``DataLoader`` goes through as it is (:mod:`stoker.data.loaders`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from stoker.data.loaders import EpochSampler, IterableBatches, LoaderBatches, split_item
from stoker.data.resident import ResidentBatches, check_batch_size
from stoker.data.trees import Batch, Tree
from stoker.errors import ConfigError, DataError, InputTypeError

__all__ = [
    "Batches",
    "as_batches",
]


@runtime_checkable
class Batches(Protocol):
    """What every engine trains on and every evaluation reads."""

    @property
    def rows(self) -> int | None:
        """How many samples an epoch has, if that is known beforehand."""

    @property
    def batch_size(self) -> int | None:
        """How many samples a batch has (the last may have fewer), if that is known."""

    def __len__(self) -> int:
        """How many batches an epoch has."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch ``number`` (from 0), on the device."""


def as_batches(
    data: Any,
    *,
    batch_size: int | None = 32,
    shuffle: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    with_targets: bool = True,
    target_names: Collection[str] = (),
    loader_args: Mapping[str, Any] | None = None,
) -> Batches:
    """Make batches of whatever holds samples.

    Args:
        data: ``(inputs, targets)`` of tensors or arrays; a ``TensorDataset`` (made resident, unless there are
            ``loader_args``); any other ``Dataset`` (read by a ``DataLoader``); a ``DataLoader`` (kept as it is, with
            its own batch size and order); or batches, which keep theirs.
        batch_size: Rows of a batch; ``None`` means all rows in one (32 of a ``Dataset`` that does not know its length).
        shuffle: Whether each epoch has an order of its own.
        seed: Seeds the orders.
        device: Where the batches shall live.
        with_targets: If false, ``data`` are inputs alone.
        target_names: Which entries are targets where ``data`` is a dict of inputs and targets, or yields such.
        loader_args: Handed to the ``DataLoader`` made for a ``Dataset``, over its defaults: pinned memory on CUDA, and
            persistent workers where there are workers.

    Raises:
        InputTypeError: ``data`` is none of these.
        ConfigError: ``batch_size`` is below 1, or the ``DataLoader`` refuses its ``loader_args``.
        DataError: There are no rows, or inputs and targets differ in their number.
    """
    reading: dict[str, Any] = {"device": device, "with_targets": with_targets, "target_names": target_names}
    if isinstance(data, DataLoader):
        return LoaderBatches(data, **reading)
    if isinstance(data, LoaderBatches):
        return LoaderBatches(data.loader, **(reading | {"with_targets": data.with_targets}))
    if isinstance(data, ResidentBatches):
        return data.to(device)
    settings: dict[str, Any] = {"batch_size": batch_size, "shuffle": shuffle, "seed": seed, "device": device}
    # A subclass may change what a sample is, and loader_args may say which are drawn: those are read by a DataLoader.
    if type(data) is TensorDataset and not loader_args:
        inputs, targets = split_item(data.tensors, with_targets)
        return ResidentBatches(inputs, targets, **settings)
    if isinstance(data, Dataset):
        loader = _loader(data, batch_size, shuffle, seed, torch.device(device), loader_args or {})
        return LoaderBatches(loader, **reading)
    if isinstance(data, Mapping) and (target_names or not with_targets):
        inputs, targets = split_item(data, with_targets, target_names)
        return ResidentBatches(
            _tensors(inputs, "inputs"), None if targets is None else _tensors(targets, "targets"), **settings
        )
    if isinstance(data, Iterator):
        fix = "Pass a DataLoader, a list's tensors, or an object whose __iter__ begins anew."
        raise InputTypeError(
            "data", "must be iterable anew for each epoch", f"a {type(data).__name__}, which is not", fix
        )
    if _yields_batches(data):
        return IterableBatches(data, **reading)
    if not with_targets:
        return ResidentBatches(_tensors(data, "inputs"), None, **settings)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return ResidentBatches(_tensors(data[0], "inputs"), _tensors(data[1], "targets"), **settings)
    if isinstance(data, Batches):
        return data
    raise InputTypeError(
        "data",
        "must be (inputs, targets), a Dataset, a DataLoader or batches",
        type(data).__name__,
        "Tables and images by name or path go to stoker.fit.",
    )


def _loader(
    data: Dataset[Any], batch_size: int | None, shuffle: bool, seed: int, device: torch.device, extra: Mapping[str, Any]
) -> DataLoader[Any]:
    check_batch_size(batch_size)
    arguments: dict[str, Any] = {"pin_memory": device.type == "cuda"}
    if extra.get("num_workers"):
        arguments["persistent_workers"] = True
    if isinstance(data, IterableDataset):
        arguments["batch_size"] = 32 if batch_size is None else batch_size
    elif "batch_sampler" not in extra:  # which decides size and order itself
        if not isinstance(data, Sized):
            raise InputTypeError("data", "a Dataset must know its length", type(data).__name__, "Give it a __len__.")
        rows = len(data)
        if rows == 0:
            raise DataError(
                "data", "must have at least one sample", "an empty Dataset", "Check the filter that made it."
            )
        arguments["batch_size"] = rows if batch_size is None else batch_size
        if shuffle:
            arguments["sampler"] = EpochSampler(rows, seed)
    try:
        return DataLoader(data, **{**arguments, **extra})
    except (ValueError, TypeError) as error:
        raise ConfigError("loader_args", f"the DataLoader refused them: {error}", dict(extra)) from error


def _tensors(data: Any, what: str) -> Tree:
    """Make tensors of arrays, keeping tuples and dicts; float64 arrays become float32, torch's own default."""
    if isinstance(data, Mapping):
        return {str(name): _tensor(leaf, f"{what}[{name!r}]") for name, leaf in data.items()}
    if isinstance(data, tuple):
        return tuple(_tensor(leaf, f"{what}[{index}]") for index, leaf in enumerate(data))
    return _tensor(data, what)


def _tensor(data: Any, what: str) -> Tensor:
    if isinstance(data, Tensor):
        return data
    try:
        array = np.asarray(data)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        plain = array.flags.writeable and all(stride >= 0 for stride in array.strides)
        tensor = torch.from_numpy(array if plain else array.copy())
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError(
            what, "must be tensors or numeric arrays", _describe(data), "Encode text and dates as numbers first."
        ) from None
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _describe(data: Any) -> str:
    dtype = getattr(data, "dtype", None)
    return f"{type(data).__name__} of {dtype}" if dtype is not None else type(data).__name__


def _yields_batches(data: Any) -> bool:
    """Whether an object is no data itself, but goes through batches: an iterable without places, names or values."""
    values = isinstance(data, (Batches, Sequence, Mapping, str, bytes)) or hasattr(data, "__array__")
    return isinstance(data, Iterable) and not values and not hasattr(data, "__getitem__")
