from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from stoker.data import encoder as room
from stoker.data.encoder import ImageEncoder
from stoker.errors import InputTypeError, SchemaError


def images(n: int = 50, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, channels, 5, 7, generator=generator) * torch.tensor([10.0, 40.0, 3.0])[:channels, None, None]
    return (noise + 100).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("at_once", [1, 100, 1 << 24])
def test_it_standardises_each_channel(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PIXELS_AT_ONCE", at_once)
    encoder = ImageEncoder.fit(images())
    pixels = images().double().transpose(0, 1).reshape(3, -1)
    # the exact values, rounded once to float32
    assert torch.equal(encoder.mean, pixels.mean(1).float())
    torch.testing.assert_close(encoder.std, pixels.std(1).float(), rtol=1.2e-7, atol=0)
    encoded = encoder(images())
    assert encoded.dtype == torch.float32
    exact = (images().double() - pixels.mean(1)[:, None, None]) / pixels.std(1)[:, None, None]
    # three roundings of values up to 10, and one of a mean of 100 at a deviation of 3
    torch.testing.assert_close(encoded.double(), exact, rtol=4e-7, atol=2e-6)


def test_a_channel_that_does_not_vary_is_zero() -> None:
    encoder = ImageEncoder.fit(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8))
    assert (encoder.mean.item(), encoder.std.item()) == (7, 1)
    assert encoder(torch.full((1, 1, 2, 2), 8, dtype=torch.uint8)).eq(1).all()
    assert ImageEncoder.fit(torch.full((1, 1, 1, 1), 9, dtype=torch.uint8)).std.item() == 1


def test_channels_last_stays_channels_last() -> None:
    batch = images().to(memory_format=torch.channels_last)
    encoder = ImageEncoder.fit(batch)
    assert encoder(batch).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(encoder.mean, ImageEncoder.fit(images()).mean)


def test_config_and_state_make_the_same_encoder() -> None:
    encoder = ImageEncoder.fit(images())
    again = ImageEncoder.from_config(json.loads(json.dumps(encoder.to_config())))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(images()), encoder(images()))
    assert str(again) == "ImageEncoder(channels=3)"
    assert list(encoder.parameters()) == []


@pytest.mark.parametrize(
    "data",
    [None, {}, {"channels": "3"}, {"channels": 0}, {"channels": True}, {"channels": 10**9}, {"channels": 1, "x": 1}],
)
def test_a_damaged_config_is_refused(data: Any) -> None:
    with pytest.raises(SchemaError, match=r"encoder: must have a number of channels, got .* Take it from a file"):
        ImageEncoder.from_config(data)


def test_it_exports_and_traces_with_any_batch_size() -> None:
    encoder = ImageEncoder.fit(images())
    program = torch.export.export(encoder, (images(),), dynamic_shapes={"images": {0: torch.export.Dim("n", min=1)}})
    with warnings.catch_warnings():
        # TorchScript itself is deprecated, and which kind of warning says so depends on the version of torch
        warnings.filterwarnings("ignore", message=".*`torch.jit.*deprecated")
        traced = torch.jit.trace(encoder, images())  # type: ignore[no-untyped-call]
    for n in (1, 9):
        assert torch.equal(program.module()(images()[:n]), encoder(images()[:n]))
        assert torch.equal(traced(images()[:n]), encoder(images()[:n]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.zeros(2, 3, 4, dtype=torch.uint8),
            r"images: must have shape \[n, channels, height, width\], got shape \[2,",
        ),
        (torch.zeros(2, 3, 4, 4), r"images: must be uint8, got torch.float32\. Give them as they are"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), r"images: must be at least one, got \(0, 3, 4, 4\)"),
        ([1], r"images: must have shape \[n, channels, height, width\], got list"),
    ],
)
def test_fit_errors(given: Any, message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        ImageEncoder.fit(given)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(
        InputTypeError, match=r"images: must have shape \[n, 3, height, width\], got shape \[50, 1, 5, 7\]"
    ):
        ImageEncoder.fit(images())(images(channels=1))
