"""Batches: ``(inputs, targets)``, once per epoch, again and again, in an order that ``(seed, epoch)`` alone decides.

Data that fit into memory stay on the device as tensors, and a batch is an index into them (:class:`ResidentBatches`):
no per-sample Python, no collating. A user's own ``DataLoader`` goes through as it is (:class:`LoaderBatches`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from numbers import Integral
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from stoker.errors import ConfigError, DataError, InputTypeError
from stoker.randomness import generator

__all__ = [
    "Batch",
    "Batches",
    "IterableBatches",
    "LoaderBatches",
    "ResidentBatches",
    "Tree",
    "as_batches",
    "batch_rows",
    "call_model",
    "epoch_order",
    "leaves",
    "tree_map",
]

Tree: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""One tensor, several by position, or several by name; the first dimension of each counts the rows."""

Batch: TypeAlias = tuple[Any, Any]
"""``(inputs, targets)``; targets are ``None`` where there are none."""

GATHER_BYTES = 4 << 20  # what one gather may copy: large enough to amortise its call, small enough to stay in cache


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


def tree_map(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply ``function`` to every tensor of a tree of tuples, lists and dicts; leave the rest as it is."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {name: tree_map(function, leaf) for name, leaf in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(tree_map(function, leaf) for leaf in tree))
    if isinstance(tree, (tuple, list)):
        return tuple(tree_map(function, leaf) for leaf in tree)
    return tree


def call_model(model: Callable[..., Any], inputs: Any) -> Any:
    """Call a model as its inputs say: ``model(x)``, ``model(*x)`` for a tuple, ``model(**x)`` for a dict."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


def leaves(tree: Any) -> list[Tensor]:
    """Every tensor of a tree, in order."""
    found: list[Tensor] = []

    def keep(leaf: Tensor) -> Tensor:
        found.append(leaf)
        return leaf

    tree_map(keep, tree)
    return found


def batch_rows(inputs: Any, targets: Any) -> int:
    """How many samples a batch has: the first dimension of its first tensor with dimensions, targets first."""
    for leaf in (*leaves(targets), *leaves(inputs)):
        if leaf.ndim:
            return int(leaf.shape[0])
    return 1


def epoch_order(rows: int, seed: int, epoch: int) -> Tensor:
    """The shuffled order of one epoch: int64, shape ``[rows]``, a function of its arguments alone."""
    return torch.randperm(rows, generator=generator(seed, "shuffle", epoch))


class ResidentBatches:
    """Batches out of tensors that stay on the device.

    Args:
        inputs: A tensor, a tuple or a dict of tensors, first dimension ``rows``.
        targets: Likewise, or ``None`` (for prediction).
        batch_size: Rows of a batch; ``None`` means all rows in one. The last, smaller batch is kept.
        shuffle: Whether each epoch has an order of its own; else it is the order of the rows.
        seed: Seeds the orders.
        device: Where the tensors shall live.

    Raises:
        ConfigError: ``batch_size`` is below 1.
        DataError: There are no rows, or the tensors disagree about how many there are.
    """

    def __init__(
        self,
        inputs: Tree,
        targets: Tree | None = None,
        *,
        batch_size: int | None = 32,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        rows = _common_rows(inputs, targets)
        _check_batch_size(batch_size)
        device = torch.device(device)
        # Detached: all batches of a gather would share the graph that the data came from, and the first frees it.
        self.inputs: Tree = tree_map(lambda leaf: leaf.detach().to(device), inputs)
        self.targets: Tree | None = tree_map(lambda leaf: leaf.detach().to(device), targets)
        self.shuffle = shuffle
        self.seed = seed
        self.device = device
        self._rows = rows
        self._batch_size = rows if batch_size is None else min(batch_size, rows)

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def __len__(self) -> int:
        return -(-self._rows // self._batch_size)

    def to(self, device: torch.device | str) -> ResidentBatches:
        """The same batches on another device; themselves if they are there."""
        if torch.device(device) == self.device:
            return self
        return ResidentBatches(
            self.inputs,
            self.targets,
            batch_size=self._batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            device=device,
        )

    def order(self, epoch: int) -> Tensor:
        """The row indices of an epoch, int64, shape ``[rows]``, on the CPU."""
        return epoch_order(self._rows, self.seed, epoch) if self.shuffle else torch.arange(self._rows)

    def epoch(self, number: int) -> Iterator[Batch]:
        size = self._batch_size
        order = self.order(number).to(self.device) if self.shuffle else None
        # Many batches are gathered at once and then cut into views: a gather costs more to call than to carry out.
        for start in range(0, self._rows, self._gather_rows):
            stop = min(start + self._gather_rows, self._rows)
            inputs, targets = self._gather(order, start, stop)
            for first in range(0, stop - start, size):
                last = min(first + size, stop - start)
                yield _slice(inputs, first, last), _slice(targets, first, last)

    @property
    def _gather_rows(self) -> int:
        tensors = (*leaves(self.inputs), *leaves(self.targets))
        row_bytes = max(1, sum(leaf.element_size() * leaf[0].numel() for leaf in tensors))
        return max(1, GATHER_BYTES // row_bytes // self._batch_size) * self._batch_size

    def _gather(self, order: Tensor | None, start: int, stop: int) -> Batch:
        if order is None:
            # Copies, as a DataLoader's batches are: a model that works in place must not change the data themselves.
            inputs = tree_map(lambda leaf: leaf[start:stop].clone(), self.inputs)
            return inputs, tree_map(lambda leaf: leaf[start:stop].clone(), self.targets)
        chosen = order[start:stop]
        inputs = tree_map(lambda leaf: leaf.index_select(0, chosen), self.inputs)
        targets = tree_map(lambda leaf: leaf.index_select(0, chosen), self.targets)
        return inputs, targets


class LoaderBatches:
    """Batches out of a ``DataLoader``, whose collating, sampling and workers stay the user's.

    Args:
        loader: Yields ``(inputs, targets)`` or ``(input, …, input, targets)``, as ``TensorDataset`` does.
        device: Where the batches go; copies do not block where the loader pins its memory.
        with_targets: Whether the last element is the targets; if not, all are inputs.
        target_names: Which entries are targets where the loader yields one dict of inputs and targets.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        device: torch.device | str = "cpu",
        with_targets: bool = True,
        target_names: Collection[str] = (),
    ) -> None:
        self.loader = loader
        self.device = torch.device(device)
        self.with_targets = with_targets
        self.target_names = target_names

    @property
    def rows(self) -> int | None:
        sampler, size = self.loader.sampler, self.loader.batch_size
        if not isinstance(sampler, Sized) or self._iterable or size is None:  # no size: batches are the user's own
            return None
        return len(sampler) // size * size if self.loader.drop_last else len(sampler)

    @property
    def batch_size(self) -> int | None:
        return self.loader.batch_size

    @property
    def _iterable(self) -> bool:
        return isinstance(self.loader.dataset, IterableDataset)

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int) -> Iterator[Batch]:
        sampler = self.loader.sampler
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(number)
        for item in self.loader:
            yield _move(split_item(item, self.with_targets, self.target_names), self.device)


class EpochSampler(Sampler[int]):
    """Draws the order of a map-style ``Dataset`` from ``(seed, epoch)``; ``set_epoch`` says which epoch is next."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.next_epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.next_epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.rows, self.seed, self.next_epoch).tolist())


class IterableBatches:
    """Batches out of any iterable that can be gone through anew for each epoch, such as another library's loader.

    Args:
        source: Yields what a ``DataLoader`` does.
        device, with_targets, target_names: As for :class:`LoaderBatches`.
    """

    def __init__(
        self,
        source: Iterable[Any],
        *,
        device: torch.device | str = "cpu",
        with_targets: bool = True,
        target_names: Collection[str] = (),
    ) -> None:
        self.source = source
        self.device = torch.device(device)
        self.with_targets = with_targets
        self.target_names = target_names

    @property
    def rows(self) -> int | None:
        return None

    @property
    def batch_size(self) -> int | None:
        return None

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]  # raises the TypeError that says there is none

    def epoch(self, number: int) -> Iterator[Batch]:  # noqa: ARG002  # its order is its own
        for item in self.source:
            yield _move(split_item(item, self.with_targets, self.target_names), self.device)


def split_item(item: Any, with_targets: bool = True, target_names: Collection[str] = ()) -> Batch:
    """Part what a ``DataLoader`` yields into ``(inputs, targets)``.

    Args:
        item: A tensor, a dict, or a sequence whose last element is the targets.
        with_targets: If false, all of it is inputs.
        target_names: Which entries are targets where ``item`` is one dict of all.

    Raises:
        DataError: Targets are wanted, but there is one element alone, or a dict that lacks them.
    """
    if isinstance(item, Mapping):
        inputs = {name: leaf for name, leaf in item.items() if name not in target_names}
        if not with_targets:
            return inputs, None
        if not target_names:
            fix = "Say which entries are targets: Loss(criterion, target='y')."
            raise DataError("batches", "a batch must be (inputs, targets)", f"a dict of {', '.join(item)}", fix)
        if missing := sorted(set(target_names) - set(item)):
            fix = "Look at what the Dataset returns."
            raise DataError("batches", f"a batch must have the target {missing[0]!r}", ", ".join(map(str, item)), fix)
        return inputs, {name: item[name] for name in item if name in target_names}
    if not with_targets:
        return (tuple(item) if isinstance(item, list) else item), None
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        kind = f"{len(item)} element" if isinstance(item, (tuple, list)) else type(item).__name__
        raise DataError("batches", "a batch must be (inputs, targets)", kind, "Let the Dataset return both.")
    *inputs_list, targets = item
    return (inputs_list[0] if len(inputs_list) == 1 else tuple(inputs_list)), targets


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
    _check_batch_size(batch_size)
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


def _check_batch_size(batch_size: object) -> None:
    if batch_size is not None and not (isinstance(batch_size, Integral) and int(batch_size) >= 1):
        raise ConfigError(
            "batch_size", "must be a whole number from 1 on", repr(batch_size), "Use None for all rows in one batch."
        )


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


def _common_rows(inputs: Any, targets: Any) -> int:
    tensors = [("inputs", leaf) for leaf in leaves(inputs)] + [("targets", leaf) for leaf in leaves(targets)]
    if not tensors or any(leaf.ndim == 0 for _, leaf in tensors):
        raise DataError("data", "inputs and targets must be tensors with a first dimension of rows", _shapes(tensors))
    counts = {int(leaf.shape[0]) for _, leaf in tensors}
    if len(counts) > 1:
        raise DataError("data", "inputs and targets must have the same number of rows", _shapes(tensors))
    if counts == {0}:
        raise DataError("data", "must have at least one row", _shapes(tensors), "Check the filter that made it.")
    return counts.pop()


def _shapes(tensors: list[tuple[str, Tensor]]) -> str:
    return ", ".join(f"{what} {list(leaf.shape)}" for what, leaf in tensors) or "no tensors"


def _move(batch: Batch, device: torch.device) -> Batch:
    inputs, targets = (tree_map(lambda leaf: leaf.to(device, non_blocking=True), tree) for tree in batch)
    return inputs, targets


def _yields_batches(data: Any) -> bool:
    """Whether an object is no data itself, but goes through batches: an iterable without places, names or values."""
    values = isinstance(data, (Batches, Sequence, Mapping, str, bytes)) or hasattr(data, "__array__")
    return isinstance(data, Iterable) and not values and not hasattr(data, "__getitem__")


def _slice(tree: Any, first: int, last: int) -> Any:
    return tree_map(lambda leaf: leaf[first:last], tree)
