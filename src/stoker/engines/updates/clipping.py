"""Clipping gradients by their total norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["clip_grad_norm"]


def clip_grad_norm(gradients: Sequence[Tensor], max_norm: Tensor) -> tuple[list[Tensor], Tensor]:
    """``g ← g · min(1, c/(‖g‖₂ + 10⁻⁶))``, the norm being that of all gradients together.

    The numbers are those of ``torch.nn.utils.clip_grad_norm_``, without changing anything in place.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", ICML 2013
    (arXiv:1211.5063), Algorithm 1.

    Args:
        gradients: Of any shapes, on one device.
        max_norm: ``c``, 0-d.

    Returns:
        The clipped gradients, and the norm before, 0-d.
    """
    if not gradients:
        return [], torch.zeros_like(max_norm)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    # a Python number over a tensor, as torch has it there, is the number times the reciprocal
    factor = ((norm + 1e-6).reciprocal() * max_norm).clamp(max=1.0)
    return [(gradient * factor).to(gradient.dtype) for gradient in gradients], norm
