"""Whether images are laid out with the channels innermost, as convolutions like it."""

from __future__ import annotations

import torch
from torch import nn

from stoker.errors import ConfigError

__all__ = ["channels_innermost"]

FEWEST = 8  # channels, below which oneDNN's gradient of a strided 1 x 1 convolution writes beside its memory


def channels_innermost(model: nn.Module, asked: bool | None, device: torch.device) -> bool:
    """The layout of a model's images.

    Args:
        model: Any.
        asked: What the user has said.
        device: Where it is trained.

    Returns:
        What was asked for; else whether there are 2-D convolutions, and none that PyTorch has no safe gradient of.

    Raises:
        ConfigError: It was asked for, and the model has such a convolution.
    """
    unsafe = _unsafe(model) if device.type == "cpu" and asked is not False else None
    if asked and unsafe is not None:
        fix = "Leave channels_last out, or give the layer 8 input channels or more."
        raise ConfigError(
            "channels_last", "must not be set for a model with a strided 1 x 1 convolution of few channels", unsafe, fix
        )
    if asked is not None:
        return asked
    return unsafe is None and any(isinstance(one, (nn.Conv2d, nn.ConvTranspose2d)) for one in model.modules())


def _unsafe(model: nn.Module) -> str | None:
    """A convolution whose backward pass corrupts memory in this layout, with torch 2.13 and 2.14 on CPUs.

    The process then dies at once or later (``free(): invalid next size``); seen for 2, 3, 4, 5, 6 and 7 channels, each
    time the same in plain PyTorch, and for neither 1 nor 8 and more.
    """
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Conv2d)
            and set(module.kernel_size) == {1}
            and max(module.stride) > 1
            and module.in_channels != 1
            and module.in_channels < FEWEST  # 0 where a lazy layer does not know them yet
        ):
            return name or "the model"
    return None
