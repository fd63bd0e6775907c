"""AdaGC: clipping each gradient by the moving average of its own norm."""

import keras
from keras import ops

from stablekeras.optimizers.rule import (
    ClippingRule,
    check_count,
    check_fraction,
    check_positive,
)

__all__ = ["AdaGC"]


@keras.saving.register_keras_serializable(package="stablekeras")
class AdaGC(ClippingRule):
    """AdaGC: each gradient is clipped by the history of its own norm.

    After the warm-up, `g · min(1, λγ / ‖g‖)` for each variable, where γ is an
    exponential moving average of its clipped norms, `γ ← βγ + (1-β)‖ĝ‖`.
    During the warm-up the norm of all gradients together is clipped to
    `warmup_norm`, and γ is the smallest norm of the variable so far.

    A gradient of exactly 0 is no measurement: it leaves γ as it is, and a
    variable that has only had such gradients is not clipped yet. (Taken
    literally, one zero during the warm-up would freeze a variable for good.)

    Args:
        ratio: Float > 0, the λ: how far a norm may exceed its average.
        momentum: Float in [0, 1), the β of the moving average.
        warmup: Int >= 0, the number of steps of the warm-up.
        warmup_norm: Float > 0, the largest norm during the warm-up.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> import keras, stablekeras
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), stablekeras.optimizers.AdaGC(warmup=1)
    ... )
    >>> v = keras.Variable([0.0])
    >>> for g in (0.5, 300.0):
    ...     optimizer.apply([keras.ops.array([g])], [v])
    >>> round(optimizer.report()["update_norm"], 4)
    0.525

    Reference: Wang, Li, Chen, Zeng, Yang, Yu, Ma and Shen (2025), "AdaGC:
    Enhancing LLM pretraining stability via adaptive gradient clipping".
    """

    every_tensor = True

    def __init__(
        self, ratio=1.05, *, momentum=0.98, warmup=100, warmup_norm=1.0
    ):
        self.ratio = check_positive("ratio", ratio, "The paper uses 1.05.")
        self.momentum = check_fraction(
            "momentum", momentum, "The paper uses 0.98."
        )
        self.warmup = check_count(
            "warmup", warmup, "The paper uses 100.", least=0
        )
        self.warmup_norm = check_positive(
            "warmup_norm", warmup_norm, "The paper uses 1.0."
        )

    def build(self, variables, add_variable):
        """Creates one average for each variable; 0 means none yet."""
        self._averages = add_variable((len(variables),), name="ada_gc_averages")
        self._count = add_variable((), "int32", name="ada_gc_count")

    def clip(self, gradients):
        """Clips; remembers the clipped norms."""
        averages = self._averages.value
        warm = self._count.value >= self.warmup
        known = averages > 0
        norms = gradients.tensor_norms
        local = ops.where(known, self.ratio * averages, norms)
        together = ops.minimum(self.warmup_norm / gradients.norm, 1.0)
        # As 0 · min(1, c / 0) has it, a gradient of 0 has a factor of 1.
        alone = ops.where(norms > local, local / norms, 1.0)
        clipped = gradients.multiply(ops.where(warm, alone, together))

        new = clipped.tensor_norms
        moving = self.momentum * averages + (1.0 - self.momentum) * new
        smallest = ops.minimum(averages, new)
        tracked = ops.where(known, ops.where(warm, moving, smallest), new)
        measured = ops.logical_and(
            new > 0, ops.array(gradients.present, "bool")
        )
        return clipped, [
            (self._averages, ops.where(measured, tracked, averages)),
            (self._count, self._count + 1),
        ]

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            "ratio": self.ratio,
            "momentum": self.momentum,
            "warmup": self.warmup,
            "warmup_norm": self.warmup_norm,
        }
