"""A softmax head in float16, on real digits as they come, unscaled.

The first predictions are saturated. Through the probabilities the gradient is
1/p, which float16 cannot hold: Keras' loss scale halves with every step until
nothing is left of it. From the logits the gradient is at most 1.
"""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from stablekeras import losses

EPOCHS = 7
FIRST_SCALE = 2.0**15


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return images.astype("float32"), labels


def train(policy, loss, digits, jit=False):
    """Returns the accuracy, the last loss scale and the steps applied."""
    keras.utils.set_random_seed(0)
    policy = keras.DTypePolicy(policy)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu", dtype=policy),
            keras.layers.Dense(10, activation="softmax", dtype=policy),
        ]
    )
    inner = keras.optimizers.Adam(1e-2)
    optimizer = inner
    if policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(
            inner, initial_scale=FIRST_SCALE
        )
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit)
    model.fit(*digits, batch_size=64, epochs=EPOCHS, shuffle=False, verbose=0)
    _, accuracy = model.evaluate(*digits, verbose=0)
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    assert np.isfinite(weights).all()
    scale = None
    if optimizer is not inner:
        scale = float(optimizer.dynamic_scale.numpy())
    return accuracy, scale, int(inner.iterations.numpy())


@pytest.fixture(scope="module")
def wide(digits):
    return train("float32", losses.SparseCategoricalCrossentropy(), digits)


@pytest.mark.parametrize(
    "jit", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_float16_head_trains_like_its_float32_twin(digits, wide, jit):
    """The loss scale holds, and the accuracy is that of float32."""
    accuracy, scale, _ = train(
        "mixed_float16", losses.SparseCategoricalCrossentropy(), digits, jit
    )
    assert wide[0] > 0.95
    assert accuracy > wide[0] - 0.02
    assert scale >= 1024


def test_it_bites_keras_loss_scale_collapses(digits, wide):
    """The same model with Keras' loss loses its loss scale to nothing."""
    _, scale, steps = train(
        "mixed_float16", keras.losses.SparseCategoricalCrossentropy(), digits
    )
    assert scale < 1
    assert steps < wide[2] - 10
