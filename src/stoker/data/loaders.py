"""Batches out of a ``DataLoader``, whose collating, sampling and workers stay the user's, or of any iterable."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from stoker.data.resident import epoch_order
from stoker.data.trees import Batch, tree_map
from stoker.errors import DataError

__all__ = [
    "EpochSampler",
    "IterableBatches",
    "LoaderBatches",
    "split_item",
]


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
        self._orders: list[torch.Tensor] = []

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
        self._orders = self.orders(under_way=False)
        for item in self.loader:
            yield _move(split_item(item, self.with_targets, self.target_names), self.device)

    def _generators(self) -> list[torch.Generator]:
        """The generators of its own, from which orders are drawn; those that torch shares are not among them."""
        batches = self.loader.batch_sampler
        holders = (self.loader, self.loader.sampler, batches, getattr(batches, "sampler", None))
        found = (getattr(holder, "generator", None) for holder in holders)
        return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())

    def orders(self, *, under_way: bool) -> list[torch.Tensor]:
        """The states of the loader's own generators.

        Args:
            under_way: Whether as of the beginning of the epoch that is under way, whose order can then be drawn again.
        """
        return self._orders if under_way else [one.get_state() for one in self._generators()]

    def set_orders(self, states: Sequence[torch.Tensor]) -> None:
        """Set the generators to what :meth:`orders` gave.

        Raises:
            ValueError: There are more of them, or fewer.
        """
        for one, state in zip(self._generators(), states, strict=True):
            one.set_state(state)


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


def _move(batch: Batch, device: torch.device) -> Batch:
    inputs, targets = (tree_map(lambda leaf: leaf.to(device, non_blocking=True), tree) for tree in batch)
    return inputs, targets
