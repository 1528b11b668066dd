"""scikit-learn's MLPRegressor and MLPClassifier: plain SGD, no penalty, no stopping early.

Its squared error is half of the mean squared error, so a regression's rate is doubled. It offers no callback and no
first weights: two of its private methods are extended for them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from benchmarks.jobs import Array, Data, Job, dense_layers, first_weights
from benchmarks.sides import Mark, Trained


def train(job: Job, data: Data, epochs: int, batch_size: int, mark: Mark) -> Trained:
    base = MLPRegressor if job.task == "regression" else MLPClassifier
    layers = dense_layers(first_weights(job, data))

    class Marked(base):  # type: ignore[misc, valid-type]
        def _initialize(self, *arguments: Any) -> None:
            super()._initialize(*arguments)
            self.coefs_ = [weight.copy() for weight, _ in layers]
            self.intercepts_ = [bias.copy() for _, bias in layers]

        def _update_no_improvement_count(self, *arguments: Any) -> None:
            super()._update_no_improvement_count(*arguments)
            mark()

    model = Marked(
        hidden_layer_sizes=job.hidden,
        solver="sgd",
        alpha=0.0,
        batch_size=batch_size,
        learning_rate_init=2 * job.lr if job.task == "regression" else job.lr,
        momentum=0.0,
        nesterovs_momentum=False,
        max_iter=epochs,
        tol=0.0,
        n_iter_no_change=epochs + 1,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit(_flat(data.inputs), data.targets.ravel())

    def outputs(inputs: tuple[Array, ...]) -> Array:
        X = _flat(inputs)
        result: Array = model.predict(X) if job.task == "regression" else model.predict_log_proba(X)
        return result

    return Trained(outputs)


def _flat(inputs: tuple[Array, ...]) -> Array:
    return np.asarray(inputs[0].reshape(len(inputs[0]), -1))
