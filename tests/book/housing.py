"""California housing as the book splits and scales it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from stoker import Table

__all__ = ["Splits", "split_and_scaled"]


@dataclass(frozen=True)
class Splits:
    train: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def split_and_scaled(table: Table) -> Splits:
    """Test 25 %, then valid 25 % of the rest; standardised with the training mean and unbiased std, in float32."""
    X = table.frame.drop("MedHouseVal").to_numpy()
    y = table.frame["MedHouseVal"].to_numpy()
    X_full, X_test, y_full, y_test = train_test_split(X, y, random_state=42)
    X_train, X_valid, y_train, y_valid = train_test_split(X_full, y_full, random_state=42)
    mean = torch.FloatTensor(X_train).mean(dim=0, keepdim=True)
    std = torch.FloatTensor(X_train).std(dim=0, keepdim=True)

    def tensors(features: object, target: object) -> tuple[Tensor, Tensor]:
        return (torch.FloatTensor(features) - mean) / std, torch.FloatTensor(target).reshape(-1, 1)

    return Splits(tensors(X_train, y_train), tensors(X_valid, y_valid), tensors(X_test, y_test))
