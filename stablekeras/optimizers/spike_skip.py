"""SpikeSkip: leaving out steps whose loss or gradient stands out."""

import keras
from keras import ops

from stablekeras.optimizers.history import History
from stablekeras.optimizers.rule import (
    ClippingRule,
    check_count,
    check_positive,
)

__all__ = ["SpikeSkip"]


@keras.saving.register_keras_serializable(package="stablekeras")
class SpikeSkip(ClippingRule):
    """Skips a step whose loss or gradient norm stands out from the last ones.

    A step is skipped if its loss or the norm of its gradients exceeds the
    mean of the last `window` steps by more than `deviations` standard
    deviations. It judges the gradient as it arrives, wherever it stands in a
    list of rules; with gradient accumulation, that of each micro-batch. It
    acts once it has seen half a window. A skipped step is not remembered, so
    that after a lasting change of level every step is skipped: set
    `max_consecutive_skips` to be told. A norm or loss of exactly 0 is no
    measurement and not remembered either, and a deviation below 1e-6 of the
    mean is rounding and counts as that.

    The loss decides as well where the optimizer gets to see it:

    - in `fit` on TensorFlow and torch;
    - under a `LossScaleOptimizer`, which keeps the loss to itself, with the
      callback `LogClipping`;
    - in a loop of your own, after `scale_loss` or `see_loss` in the same
      graph as `apply`.

    The norm of the gradients decides alone

    - under a `LossScaleOptimizer` without `LogClipping`;
    - on JAX, which takes the gradient in a function of its own;
    - in a loop of your own that shows no loss.

    A loss that is not finite stands out.

    Args:
        deviations: Float > 0, how many standard deviations pass.
        window: Int >= 2, how many steps are remembered.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> import keras, stablekeras
    >>> rule = stablekeras.optimizers.SpikeSkip(window=4)
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), rule
    ... )
    >>> v = keras.Variable([0.0])
    >>> for g in (1.0, 2.0, 3.0, 300.0, 2.0):
    ...     optimizer.apply([keras.ops.array([g])], [v])
    >>> optimizer.report()["skipped"], v.numpy().tolist()
    (1, [-8.0])

    Reference: OLMo Team (2025), "2 OLMo 2 Furious", which skips such steps in
    pretraining, with the same defaults.
    """

    vetoes = True
    clips = False

    def __init__(self, deviations=6.0, *, window=128):
        self.deviations = check_positive(
            "deviations", deviations, "The default is 6."
        )
        self.window = check_count(
            "window", window, "The default is 128.", least=2
        )

    def build(self, variables, add_variable):
        """Creates the histories."""
        self._norms = History(self.window, add_variable, "spike_skip_norms")
        self._losses = History(self.window, add_variable, "spike_skip_losses")

    def accept(self, norm, loss):
        """Rejects a step that stands out; remembers norm and loss."""
        accepted, memory = self._judge(norm, self._norms)
        if loss is not None:
            loss = ops.cast(loss, norm.dtype)
            usual, remembered = self._judge(loss, self._losses)
            accepted = ops.logical_and(accepted, usual)
            memory = memory + remembered
        return accepted, memory

    def _judge(self, value, history):
        mean, deviation = history.mean_and_deviation()
        # Norms that are equal in exact arithmetic differ by their rounding.
        deviation = ops.maximum(deviation, 1e-6 * ops.abs(mean))
        seen_enough = history.count >= max(self.window // 2, 1)
        limit = ops.where(
            seen_enough, mean + self.deviations * deviation, float("inf")
        )
        usual = ops.logical_and(value <= limit, ops.isfinite(value))
        return usual, history.with_value(value)[2]

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"deviations": self.deviations, "window": self.window}
