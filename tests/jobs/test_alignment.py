"""A row's product is the same to the last bit wherever it stands among others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stoker.jobs.alignment import aligned_rows, evenly


@pytest.mark.parametrize("width", [1, 3, 7, 8, 15, 17, 50, 101])
def test_rows_begin_at_multiples_of_a_register(width: int) -> None:
    x = torch.randn(32, width)
    found = evenly(x)
    assert torch.equal(found, x)
    assert all(row.data_ptr() % 16 == 0 for row in found)
    assert (found is x) == (width % 4 == 0)


def test_rows_of_another_tensor_begin_so_too() -> None:
    x = torch.randn(33, 8)
    within = x.flatten()[1:257].view(32, 8)
    assert all(row.data_ptr() % 16 == 0 for row in evenly(within))
    assert torch.equal(evenly(x[:, :4]), x[:, :4])


@pytest.mark.parametrize("outputs", [1, 2, 3, 7, 10, 11, 16, 64])
@pytest.mark.parametrize("width", [1, 3, 7, 8, 15, 17, 50, 101])
def test_each_place_gives_the_same_bits(width: int, outputs: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))
    with torch.no_grad(), aligned_rows(model):
        found = model(torch.randn(1, width).repeat(32, 1))
    assert torch.equal(found, found[:1].expand_as(found))


def test_nothing_stays_on_the_model() -> None:
    model = nn.Linear(7, 3)
    with aligned_rows(model):
        assert len(model._forward_pre_hooks) == 1
    assert not model._forward_pre_hooks
