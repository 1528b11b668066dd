"""Keras, on the backend that ``KERAS_BACKEND`` names: ``compile`` and ``fit`` as its guides have them.

Images are ``[row, column, channel]``, as Keras has them by default. Its LSTM has one bias where torch's has two, which
plain SGD trains half as fast.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from benchmarks.jobs import Array, Data, Job, dense_layers, first_weights
from benchmarks.sides import Mark, Trained
from benchmarks.sides.layouts import channels_innermost, rows_innermost


class Marks(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark = mark

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.mark()


def network(job: Job, data: Data) -> Any:
    L = keras.layers
    weights = first_weights(job, data)
    dense = dense_layers(weights)
    ours: list[Array] = []
    if job.kind == "cnn":
        depth = len(job.hidden)
        channels, height, width = data.inputs[0].shape[1:]
        inputs = [keras.Input((height, width, channels))]
        x = inputs[0]
        for place, units in enumerate(job.hidden):
            x = L.MaxPooling2D(2)(L.Conv2D(units, 3, padding="same", activation="relu")(x))
            kernel = weights[f"convolutions.{place}.weight"].transpose(2, 3, 1, 0)
            ours += [kernel, weights[f"convolutions.{place}.bias"]]
        x = L.Flatten()(x)
        dense = rows_innermost(weights, (channels, height, width), depth)
    elif job.kind == "lstm":
        inputs = [keras.Input(data.inputs[0].shape[1:])]
        x = L.LSTM(job.hidden[0])(inputs[0])
        ours += [weights["lstm.weight_ih_l0"].T, weights["lstm.weight_hh_l0"].T]
        ours += [weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]]
    elif job.kind == "embedding":
        tables = [table for name, table in weights.items() if name.startswith("embeddings.")]
        inputs = [keras.Input((data.inputs[0].shape[1],)), keras.Input((len(tables),), dtype="int32")]
        vectors = [L.Embedding(*table.shape)(inputs[1][:, place]) for place, table in enumerate(tables)]
        x = L.Concatenate()([inputs[0], *vectors])
        ours += tables
    else:
        inputs = [keras.Input(data.inputs[0].shape[1:])]
        x = L.Flatten()(inputs[0]) if data.inputs[0].ndim > 2 else inputs[0]
    for place, (weight, bias) in enumerate(dense):
        x = L.Dense(len(bias), activation=None if place == len(dense) - 1 else "relu")(x)
        ours += [weight, bias]
    model = keras.Model(inputs, x)
    model.set_weights(ours)
    return model


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    keras.utils.set_random_seed(0)
    model = network(job, data)
    losses = keras.losses
    loss = losses.MeanSquaredError() if job.task == "regression" else losses.SparseCategoricalCrossentropy(True)
    model.compile(optimizer=keras.optimizers.SGD(job.lr), loss=loss)

    def shaped(inputs: tuple[Array, ...]) -> Any:
        turned = channels_innermost(inputs) if job.kind == "cnn" else inputs
        return turned[0] if len(turned) == 1 else list(turned)

    model.fit(
        shaped(data.inputs), data.targets, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[Marks(mark)]
    )

    def outputs(inputs: tuple[Array, ...]) -> Array:
        return np.asarray(model.predict(shaped(inputs), verbose=0))

    return Trained(outputs)
