"""Losses are differentiated by their labels too: a teacher may learn."""

import numpy as np
import pytest
import tensorflow as tf

from stablekeras import losses

SOFT = np.array([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]])
P = np.array([[0.3, 0.3, 0.4], [0.1, 0.6, 0.3]])
X = np.array([[0.5, -1.5, 2.0], [30.0, -2.0, 1.0]])
SMALL = X / 10

CASES = [
    ("categorical_crossentropy", X, {"from_logits": True}),
    (
        "categorical_crossentropy",
        X,
        {"from_logits": True, "label_smoothing": 0.25},
    ),
    ("categorical_crossentropy", P, {}),
    ("binary_crossentropy", X, {"from_logits": True}),
    ("binary_crossentropy", P, {}),
    ("categorical_focal_crossentropy", SMALL, {"from_logits": True}),
    ("categorical_focal_crossentropy", P, {"gamma": 0.5}),
    ("binary_focal_crossentropy", SMALL, {"from_logits": True}),
    ("binary_focal_crossentropy", P, {"gamma": 0.5}),
    ("kl_divergence", P, {}),
    ("poisson", P, {}),
    ("mean_squared_error", P, {}),
    ("mean_squared_logarithmic_error", P, {}),
    ("log_cosh", P, {}),
    ("huber", P, {}),
    ("cosine_similarity", P, {}),
    ("dice", P, {}),
    ("tversky", P, {}),
]
WEIGHTS = np.array([[1.0, -0.5, 2.0], [0.25, 1.5, -1.0]])


def _slopes(case, y, x):
    name, _, arguments = case
    y, x = tf.constant(y), tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(y)
        with tf.GradientTape() as inner:
            inner.watch((y, x))
            total = tf.reduce_sum(getattr(losses, name)(y, x, **arguments))
        by_label, by_prediction = inner.gradient(total, (y, x))
        mixed = tf.reduce_sum(by_prediction * WEIGHTS)
    return by_label.numpy(), mixed.numpy(), outer.gradient(mixed, y).numpy()


def _differences(function, y, step=1e-6):
    out = np.zeros_like(y)
    for i in np.ndindex(y.shape):
        up, down = y.copy(), y.copy()
        up[i] += step
        down[i] -= step
        out[i] = (function(up) - function(down)) / (2 * step)
    return out


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[2]}")
def test_gradient_and_mixed_derivative_by_the_labels(case):
    """Both agree with differences of the loss, and of its gradient."""
    name, x, arguments = case
    by_label, _, mixed = _slopes(case, SOFT, x)

    def loss(y):
        return np.sum(getattr(losses, name)(y, x, **arguments).numpy())

    wanted = _differences(loss, SOFT)
    np.testing.assert_allclose(by_label, wanted, rtol=1e-6, atol=1e-8)
    wanted = _differences(lambda y: _slopes(case, y, x)[1], SOFT)
    np.testing.assert_allclose(mixed, wanted, rtol=1e-6, atol=1e-8)
