from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from stoker.data import resident as room
from stoker.data.batches import Batches, as_batches
from stoker.data.loaders import LoaderBatches
from stoker.data.resident import ResidentBatches, epoch_order
from stoker.data.trees import batch_rows, call_model, leaves, tree_map
from stoker.errors import ConfigError, DataError, InputTypeError

X = torch.arange(30, dtype=torch.float32).reshape(10, 3)
Y = torch.arange(10)


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """A map-style data set."""

    def __init__(self, rows: int = 10) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index], Y[index]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """A data set that does not know its length."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(X, Y, strict=True)


def targets_of(batches: Batches, epoch: int = 0) -> list[list[int]]:
    found = []
    for inputs, targets in batches.epoch(epoch):
        assert torch.equal(inputs, X[targets])  # rows and targets stay together
        found.append(targets.tolist())
    return found


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


class TestOrder:
    def test_is_a_function_of_seed_and_epoch(self) -> None:
        torch.manual_seed(1)
        first = epoch_order(100, 3, 7)
        torch.manual_seed(2)
        assert torch.equal(epoch_order(100, 3, 7), first)
        assert not torch.equal(epoch_order(100, 4, 7), first)
        assert not torch.equal(epoch_order(100, 3, 8), first)
        assert sorted(first.tolist()) == list(range(100))

    def test_leaves_the_global_generator_alone(self) -> None:
        before = torch.get_rng_state()
        epoch_order(10, 0, 0)
        list(ResidentBatches(X, Y, shuffle=True).epoch(0))
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("data", [(X, Y), Rows()], ids=["resident", "data set"])
    def test_is_the_same_however_often_and_in_which_turn_epochs_are_asked_for(self, data: Any) -> None:
        batches = as_batches(data, batch_size=4, shuffle=True, seed=3)
        later = targets_of(batches, 2)
        assert targets_of(batches, 0) != later
        assert targets_of(batches, 2) == later
        assert targets_of(as_batches(data, batch_size=4, shuffle=True, seed=3), 2) == later
        assert flat(later) == epoch_order(10, 3, 2).tolist()

    def test_does_not_depend_on_the_batch_size(self) -> None:
        orders = [flat(targets_of(as_batches((X, Y), batch_size=size, shuffle=True))) for size in (1, 3, 10, None)]
        assert orders == [orders[0]] * 4


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("size", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (99, [10]), (None, [10])]
)
@pytest.mark.parametrize("data", [(X, Y), Rows(), TensorDataset(X, Y)], ids=["tensors", "data set", "tensor data set"])
def test_every_row_once_an_epoch(data: Any, size: int | None, sizes: list[int], shuffle: bool) -> None:
    batches = as_batches(data, batch_size=size, shuffle=shuffle)
    for epoch in range(3):
        found = targets_of(batches, epoch)
        assert [len(batch) for batch in found] == sizes
        assert sorted(flat(found)) == list(range(10))
        assert (flat(found) == list(range(10))) != shuffle
    assert len(batches) == len(sizes)
    assert batches.rows == 10


class TestGathering:
    @pytest.mark.parametrize("limit", [1, 12, 4 * (12 + 8), 5 * 20, 1 << 20])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_in_chunks_of_any_size(self, limit: int, shuffle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = targets_of(ResidentBatches(X, Y, batch_size=4, shuffle=shuffle))
        monkeypatch.setattr(room, "GATHER_BYTES", limit)  # a row has 3 · 4 + 8 = 20 bytes
        assert targets_of(ResidentBatches(X, Y, batch_size=4, shuffle=shuffle)) == expected
        assert [len(batch) for batch in expected] == [4, 4, 2]

    def test_rows_larger_than_a_chunk(self) -> None:
        wide = torch.randn(3, room.GATHER_BYTES // 4 + 1)
        batches = list(ResidentBatches(wide, torch.arange(3), batch_size=2, shuffle=True).epoch(0))
        assert [len(targets) for _, targets in batches] == [2, 1]
        assert all(torch.equal(inputs, wide[targets]) for inputs, targets in batches)

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_a_model_that_works_in_place_does_not_change_the_data(self, shuffle: bool) -> None:
        inputs, targets = X.clone(), Y.clone()
        batches = as_batches((inputs, targets), batch_size=4, shuffle=shuffle)
        for x, y in batches.epoch(0):
            x.zero_()
            y.zero_()
        assert torch.equal(inputs, X)
        assert torch.equal(targets, Y)
        assert targets_of(batches, 1)

    def test_data_that_come_out_of_a_graph(self) -> None:
        # The batches of one gather are views of one tensor: with a graph behind it, the second could not go backward.
        layer = nn.Linear(3, 2)
        batches = ResidentBatches(layer(X), Y, batch_size=2, shuffle=True)
        head = nn.Linear(2, 1)
        for inputs, _ in batches.epoch(0):
            head(inputs).sum().backward()
        assert layer.weight.grad is None


class TestForms:
    def test_tuples_and_dicts_of_tensors(self) -> None:
        inputs = {"a": X, "b": (X * 2)}
        targets = (Y, Y.float()[:, None])
        seen = 0
        for x, y in ResidentBatches(inputs, targets, batch_size=4, shuffle=True).epoch(1):
            assert torch.equal(x["b"], 2 * x["a"])
            assert torch.equal(x["a"], X[y[0]])
            assert torch.equal(y[1][:, 0], y[0].float())
            seen += batch_rows(x, y)
        assert seen == 10

    def test_arrays_become_tensors(self) -> None:
        inputs, targets = next(iter(as_batches((X.numpy().astype("float64"), Y.numpy()), batch_size=10).epoch(0)))
        assert inputs.dtype == torch.float32  # torch's own default
        assert targets.dtype == torch.int64
        assert torch.equal(inputs, X)

    def test_a_tensor_keeps_its_dtype(self) -> None:
        inputs, _ = next(iter(as_batches((X.double(), Y)).epoch(0)))
        assert inputs.dtype == torch.float64

    @pytest.mark.parametrize(
        "array",
        [
            X.numpy()[::-1][::-1],
            X.numpy()[::-1, ::-1][::-1, ::-1],
            np.asfortranarray(X.numpy()),
            X.numpy().astype(">f4"),
            X.numpy().astype("<f8"),
            X.tolist(),
            pd.DataFrame(X.numpy()),
        ],
        ids=["steps back", "steps back twice", "columns first", "big-endian", "double", "lists", "data frame"],
    )
    def test_arrays_however_they_lie_in_memory(self, array: Any) -> None:
        inputs, _ = next(iter(as_batches((array, Y), batch_size=10).epoch(0)))
        assert torch.equal(inputs, X)

    def test_reversed_arrays(self) -> None:
        inputs, _ = next(iter(as_batches((X.numpy()[::-1], Y), batch_size=10).epoch(0)))
        assert torch.equal(inputs, X.flip(0))

    def test_a_read_only_array_is_copied(self) -> None:
        array = X.numpy().copy()
        array.flags.writeable = False
        inputs, _ = next(iter(as_batches((array, Y), batch_size=10).epoch(0)))
        assert torch.equal(inputs, X)

    def test_inputs_alone(self) -> None:
        ((inputs, targets),) = list(as_batches(X, batch_size=10, with_targets=False).epoch(0))
        assert torch.equal(inputs, X)
        assert targets is None
        ((inputs, _),) = list(as_batches((X, X), batch_size=10, with_targets=False).epoch(0))
        assert isinstance(inputs, tuple)

    def test_a_tensor_data_set_of_several_inputs(self) -> None:
        inputs, targets = next(iter(as_batches(TensorDataset(X, X, Y), batch_size=10).epoch(0)))
        assert isinstance(inputs, tuple)
        assert len(inputs) == 2
        assert torch.equal(targets, Y)


class TestDataSets:
    def test_a_data_set_of_dicts(self) -> None:
        class Named(Dataset[Any]):
            def __len__(self) -> int:
                return 10

            def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
                return {"x": X[index]}, Y[index]

        found = list(as_batches(Named(), batch_size=4).epoch(0))
        assert [len(targets) for _, targets in found] == [4, 4, 2]
        assert torch.equal(found[1][0]["x"], X[4:8])

    def test_a_stream(self) -> None:
        batches = as_batches(Stream(), batch_size=4)
        assert targets_of(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert targets_of(batches, 1) == targets_of(batches, 0)
        assert batches.rows is None
        assert batches.batch_size == 4
        with pytest.raises(TypeError):
            len(batches)

    def test_a_subclass_of_tensor_data_set_keeps_what_it_does(self) -> None:
        class Augmented(TensorDataset):
            def __getitem__(self, index: int) -> tuple[Tensor, ...]:
                return self.tensors[0][index] + 1, self.tensors[1][index]

        inputs, _ = next(iter(as_batches(Augmented(X, Y), batch_size=10).epoch(0)))
        assert torch.equal(inputs, X + 1)

    def test_a_data_loader_goes_through_as_it_is(self) -> None:
        loader = DataLoader(Rows(), batch_size=3, drop_last=True)
        batches = as_batches(loader, batch_size=7, shuffle=True, seed=1)
        assert targets_of(batches) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
        assert batches.batch_size == 3
        assert batches.rows == 9
        assert len(batches) == 3

    def test_a_shuffling_data_loader_draws_from_the_global_generator(self) -> None:
        batches = as_batches(DataLoader(Rows(), batch_size=10, shuffle=True))
        torch.manual_seed(4)
        first = targets_of(batches)
        assert targets_of(batches) != first
        torch.manual_seed(4)
        assert targets_of(batches) == first

    def test_a_sampler_is_told_the_epoch(self) -> None:
        class Told(SequentialSampler):
            epochs: list[int] = []  # noqa: RUF012

            def set_epoch(self, epoch: int) -> None:
                self.epochs.append(epoch)

        batches = as_batches(DataLoader(Rows(), sampler=Told(Y)))
        list(batches.epoch(5))
        list(batches.epoch(6))
        assert Told.epochs == [5, 6]

    # Python 3.12 and later warn of every fork beside threads, such as torch's
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_workers(self) -> None:
        batches = as_batches(Rows(), batch_size=4, shuffle=True, seed=2, loader_args={"num_workers": 1})
        assert isinstance(batches, LoaderBatches)
        assert batches.loader.persistent_workers
        assert flat(targets_of(batches, 1)) == epoch_order(10, 2, 1).tolist()
        assert flat(targets_of(batches, 0)) == epoch_order(10, 2, 0).tolist()

    def test_loader_args_decide(self) -> None:
        sampler = BatchSampler(SequentialSampler(Y), batch_size=6, drop_last=False)
        batches = as_batches(TensorDataset(X, Y), shuffle=True, loader_args={"batch_sampler": sampler})
        assert targets_of(batches) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
        assert batches.rows is None  # the sampler alone knows
        assert len(batches) == 2

    def test_batches_keep_their_order_and_size(self) -> None:
        mine = ResidentBatches(X, Y, batch_size=3)
        assert as_batches(mine, batch_size=5, shuffle=True) is mine
        loader = LoaderBatches(DataLoader(Rows(), batch_size=3))
        assert targets_of(as_batches(loader, batch_size=5, shuffle=True)) == targets_of(mine)

    def test_batches_follow_to_the_device(self) -> None:
        mine = ResidentBatches(X, Y, batch_size=3, shuffle=True, seed=4)
        moved = as_batches(mine, device="meta")
        assert isinstance(moved, ResidentBatches)
        assert leaves(moved.inputs)[0].device.type == leaves(moved.targets)[0].device.type == "meta"
        assert (moved.batch_size, moved.shuffle, moved.seed) == (3, True, 4)

    def test_batches_of_the_users_own_kind(self) -> None:
        class Twice:
            rows = 20
            batch_size = 10

            def __len__(self) -> int:
                return 2

            def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
                yield X[number:], Y[number:]
                yield X, Y

        assert [len(batch) for batch in targets_of(as_batches(Twice()), 3)] == [7, 10]


def no_len() -> Any:
    class Endless(Dataset[Any]):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return X[0], Y[0]

    return Endless()


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (
            (X, Y[:9]),
            DataError,
            r"data: inputs and targets must have the same number of rows, got inputs \[10, 3\], ta",
        ),
        (
            (X[:0], Y[:0]),
            DataError,
            r"data: must have at least one row, got inputs \[0, 3\], targets \[0\]\. Check the",
        ),
        (
            (torch.tensor(1.0), Y),
            DataError,
            r"inputs and targets must be tensors with a first dimension of rows, got i",
        ),
        (({}, Y[:0]), DataError, r"data: must have at least one row"),
        (Rows(0), DataError, r"data: must have at least one sample, got an empty Dataset\. Check the filter"),
        (no_len(), InputTypeError, r"data: a Dataset must know its length, got Endless\. Give it a __len__\."),
        ("file.csv", InputTypeError, r"data: must be \(inputs, targets\), a Dataset, .*, got str\. Tables and images"),
        (X, InputTypeError, r"data: must be \(inputs, targets\), a Dataset, a DataLoader or batches, got Tensor\."),
        (
            (np.array(["a"] * 10), Y),
            InputTypeError,
            r"inputs: must be tensors or numeric arrays, got ndarray of <U1\. Encode text and dates as numbers first\.",
        ),
        (
            ({"price": np.array([None] * 10)}, Y),
            InputTypeError,
            r"inputs\['price'\]: must be tensors or numeric arrays",
        ),
        (((X, object()), Y), InputTypeError, r"inputs\[1\]: must be tensors or numeric arrays, got object\."),
        ((X, np.array(["2020-01-01"] * 10, dtype="M8[D]")), InputTypeError, r"targets: must be .* got ndarray of date"),
        ((X, [[1], [1, 2]]), InputTypeError, r"targets: must be tensors or numeric arrays, got list\."),
    ],
)
def test_data_that_are_none(data: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        as_batches(data)


@pytest.mark.parametrize("size", [0, -1, 2.5, "32"])
@pytest.mark.parametrize("data", [(X, Y), Rows(), Stream()], ids=["tensors", "data set", "stream"])
def test_a_batch_size_below_one(data: Any, size: Any) -> None:
    text = rf"batch_size: must be a whole number from 1 on, got {size!r}\. Use None for all rows in one batch\."
    with pytest.raises(ConfigError, match=text):
        as_batches(data, batch_size=size)


@pytest.mark.parametrize("wrong", [{"num_workers": -1}, {"workers": 2}, {"shuffle": True}])
def test_loader_args_that_the_data_loader_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"loader_args: the DataLoader refused them: .*, got \{'"):
        as_batches(Rows(), shuffle=True, loader_args=wrong)


@pytest.mark.parametrize(
    ("item", "got"),
    [
        (X, r"Tensor\. Let the Dataset return both\."),
        ([X], r"1 element\. Let the Dataset return both\."),
        ({"x": X, "y": Y}, r"a dict of x, y\. Say which entries are targets: Loss\(criterion, target='y'\)\."),
    ],
    ids=["tensor", "one", "dict"],
)
def test_a_loader_that_yields_no_targets(item: Any, got: str) -> None:
    batches = as_batches(DataLoader([item], batch_size=None))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"batches: a batch must be \(inputs, targets\), got {got}"):
        next(iter(batches.epoch(0)))


def test_a_loader_of_inputs_alone() -> None:
    loader = DataLoader(TensorDataset(X, X), batch_size=4)
    inputs, targets = next(iter(as_batches(loader, with_targets=False).epoch(0)))
    assert isinstance(inputs, tuple)
    assert targets is None


class TestTrees:
    def test_map_keeps_the_structure(self) -> None:
        from typing import NamedTuple

        class Pair(NamedTuple):
            left: Tensor
            right: Any

        tree = {"a": X, "b": [Pair(Y, None), "text"]}
        found: Mapping[str, Any] = tree_map(lambda leaf: leaf + 1, tree)
        assert torch.equal(found["a"], X + 1)
        pair, text = found["b"]
        assert isinstance(pair, Pair)
        assert torch.equal(pair.left, Y + 1)
        assert pair.right is None
        assert text == "text"
        assert [len(leaf) for leaf in leaves(tree)] == [10, 10]

    def test_rows_are_counted_by_the_targets(self) -> None:
        sequence_first = torch.zeros(7, 4, 2)
        assert batch_rows(sequence_first, torch.zeros(4)) == 4
        assert batch_rows({"x": X}, None) == 10
        assert batch_rows(X, torch.tensor(1.0)) == 10
        assert batch_rows("graph", None) == 1

    def test_models_are_called_as_the_inputs_say(self) -> None:
        def model(*inputs: Any, **named: Any) -> Any:
            return inputs, named

        assert call_model(model, X)[0][0] is X
        assert call_model(model, (1, 2)) == ((1, 2), {})
        assert call_model(model, {"a": 1}) == ((), {"a": 1})
