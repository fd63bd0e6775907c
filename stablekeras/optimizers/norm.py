"""Clipping by the norm of each gradient."""

import keras

from stablekeras.optimizers.rule import ClippingRule, check_positive

__all__ = ["Norm"]


@keras.saving.register_keras_serializable(package="stablekeras")
class Norm(ClippingRule):
    """Scales the gradient of each variable so that its norm is at most `norm`.

    `g · min(1, norm / ‖g‖)` for each variable by itself, as `clipnorm` of the
    Keras optimizers does.

    Args:
        norm: Float, finite and > 0: the largest norm that passes.

    Raises:
        ValueError: If `norm` is not finite and > 0.

    Example:
    >>> import keras, stablekeras
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), stablekeras.optimizers.Norm(1.0)
    ... )
    >>> v, w = keras.Variable([0.0, 0.0]), keras.Variable([0.0])
    >>> gradients = keras.ops.array([30.0, 40.0]), keras.ops.array([0.5])
    >>> optimizer.apply(gradients, [v, w])
    >>> v.numpy().round(4).tolist(), w.numpy().tolist()
    ([-0.6..., -0.8...], [-0.5])

    Reference: Pascanu, Mikolov and Bengio (2013), "On the difficulty of
    training recurrent neural networks", for each variable by itself.
    """

    every_tensor = True

    def __init__(self, norm):
        self.norm = check_positive(
            "norm", norm, "Leave the rule out to disable clipping."
        )

    def clip(self, gradients):
        """Clips; remembers nothing."""
        return gradients.clip_each_to(self.norm), []

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"norm": self.norm}
