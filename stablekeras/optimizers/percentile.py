"""AutoClip: clipping to a percentile of the norms seen so far."""

import keras
from keras import ops

from stablekeras.optimizers.history import History
from stablekeras.optimizers.rule import ClippingRule, check_count

__all__ = ["Percentile"]


@keras.saving.register_keras_serializable(package="stablekeras")
class Percentile(ClippingRule):
    """AutoClip: the threshold is a percentile of the norms seen so far.

    `c = percentile(‖g₁‖, …, ‖g_t‖)`, with linear interpolation and the step
    at hand included, then `g · min(1, c / ‖g‖)`. The history holds the norms
    *before* clipping. The paper keeps the norms of the whole training; here
    the last `history` of them are kept, so that memory and time are bounded,
    and a norm of exactly 0 is not kept: taken literally, a few gradients of 0
    would make the threshold 0 and stop the training.

    With a percentile of 10, nine in ten steps are clipped: the rule bounds
    the step length, rather than catching outliers only.

    Args:
        percentile: Float in [0, 100].
        history: Int, how many norms are kept.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> import keras, stablekeras
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), stablekeras.optimizers.Percentile(50)
    ... )
    >>> v = keras.Variable([0.0])
    >>> for g in (1.0, 2.0, 300.0):
    ...     optimizer.apply([keras.ops.array([g])], [v])
    >>> optimizer.report()["update_norm"]
    2.0

    Reference: Seetharaman, Wichern, Pardo and Le Roux (2020), "AutoClip:
    Adaptive gradient clipping for source separation networks".
    """

    def __init__(self, percentile=10.0, *, history=1000):
        try:
            self.percentile = float(percentile)
        except (TypeError, ValueError):
            self.percentile = -1.0
        if not 0.0 <= self.percentile <= 100.0:
            raise ValueError(
                "percentile must be in [0, 100]. "
                f"Received: percentile={percentile!r}. The paper uses 10."
            )
        self.history = check_count("history", history, "The default is 1000.")

    def build(self, variables, add_variable):
        """Creates the history."""
        self._norms = History(self.history, add_variable, "percentile_norms")

    def clip(self, gradients):
        """Clips; remembers the norm before clipping."""
        values, count, memory = self._norms.with_value(gradients.norm)
        # Empty places are infinite, and so last in the order.
        ordered = ops.sort(values)
        dtype = gradients.dtype
        place = ops.cast(count - 1, dtype) * (self.percentile / 100.0)
        below = ops.floor(place)
        low = ops.take(ordered, ops.cast(below, "int32"))
        above = ops.minimum(ops.cast(below, "int32") + 1, count - 1)
        high = ops.take(ordered, above)
        threshold = low + (high - low) * (place - below)
        return gradients.clip_to(threshold), memory

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"percentile": self.percentile, "history": self.history}
