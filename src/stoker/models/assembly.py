"""A whole model: encoder, network and output in one module, from raw values to predictions in the target's own unit."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from stoker.data.trees import call_model, tree_map

__all__ = ["Assembly", "Head", "Rescale"]


class Rescale(nn.Module):
    """``x·std + mean``: from a network's scale to the target's unit.

    Args:
        mean: Of the training targets, shape ``[k]``.
        std: Of the training targets, shape ``[k]``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, outputs: Any) -> Any:
        """``[n, k]`` → ``[n, k]``, of each where there are several by name."""
        return tree_map(lambda scaled: scaled * self.std + self.mean, outputs)


class Head(nn.Module):
    """What is trained: a network on encoded inputs, and what turns its outputs into the target's unit.

    Args:
        network: On encoded inputs.
        output: :class:`Rescale`, or ``nn.Identity`` where there is nothing to turn.
    """

    def __init__(self, network: nn.Module, output: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Encoded inputs → ``[n, n_outputs]``: predictions, or logits; several by name if the network gives several."""
        return self.output(self.network(*inputs, **named))


class Assembly(nn.Module):
    """Raw values in, predictions or logits out.

    Args:
        encoder: Raw tensors to encoded ones; nothing in it is trained.
        head: The rest.
    """

    def __init__(self, encoder: nn.Module, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Raw inputs, as the encoder takes them → ``[n, n_outputs]``; several by name if the network gives several."""
        return call_model(self.head, self.encoder(*inputs, **named))
