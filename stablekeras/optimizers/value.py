"""Clipping each entry of the gradients."""

import keras
from keras import ops

from stablekeras.optimizers.rule import ClippingRule, check_positive

__all__ = ["Value"]


@keras.saving.register_keras_serializable(package="stablekeras")
class Value(ClippingRule):
    """Limits every entry of the gradients to `[-value, value]`.

    The direction of the step changes. In a 16-bit gradient the bound is
    `value` as that dtype has it.

    Args:
        value: Float, finite and > 0: the largest magnitude that passes.

    Raises:
        ValueError: If `value` is not finite and > 0.

    Example:
    >>> import keras, stablekeras
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), stablekeras.optimizers.Value(1.0)
    ... )
    >>> v = keras.Variable([0.0, 0.0])
    >>> optimizer.apply([keras.ops.array([30.0, -0.5])], [v])
    >>> v.numpy().tolist()
    [-1.0, 0.5]

    Reference: Mikolov (2012), "Statistical language models based on neural
    networks", section 3.2.
    """

    def __init__(self, value):
        self.value = check_positive(
            "value", value, "Leave the rule out to disable clipping."
        )

    def clip(self, gradients):
        """Clips; remembers nothing."""

        def limit(values, variable, indices):
            return ops.clip(values, -self.value, self.value)

        return gradients.map(limit), []

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"value": self.value}
