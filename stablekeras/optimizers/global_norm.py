"""Clipping by the norm of all gradients together."""

import keras

from stablekeras.optimizers.rule import ClippingRule, check_positive

__all__ = ["GlobalNorm"]


@keras.saving.register_keras_serializable(package="stablekeras")
class GlobalNorm(ClippingRule):
    """Scales all gradients so that their common norm is at most `norm`.

    `g · min(1, norm / ‖g‖)`, where `‖g‖` is the Euclidean norm of all
    gradients taken together. The direction of the step is kept.

    Args:
        norm: Float, finite and > 0: the largest norm that passes.

    Raises:
        ValueError: If `norm` is not finite and > 0.

    Example:
    >>> import keras, stablekeras
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), stablekeras.optimizers.GlobalNorm(1.0)
    ... )
    >>> v = keras.Variable([0.0, 0.0])
    >>> optimizer.apply([keras.ops.array([30.0, 40.0])], [v])
    >>> v.numpy().round(4).tolist()
    [-0.6..., -0.8...]

    Reference: Pascanu, Mikolov and Bengio (2013), "On the difficulty of
    training recurrent neural networks".
    """

    def __init__(self, norm):
        self.norm = check_positive(
            "norm", norm, "Leave the rule out to disable clipping."
        )

    def clip(self, gradients):
        """Clips; remembers nothing."""
        return gradients.clip_to(self.norm), []

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"norm": self.norm}
