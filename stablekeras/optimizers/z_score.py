"""ZClip: clipping norms that stand out from their moving average."""

import keras
from keras import ops

from stablekeras.optimizers.norms import euclidean
from stablekeras.optimizers.rule import (
    ClippingRule,
    check_count,
    check_fraction,
    check_positive,
)

__all__ = ["ZScore"]


@keras.saving.register_keras_serializable(package="stablekeras")
class ZScore(ClippingRule):
    """ZClip: clips a norm that stands out from the norms before it.

    With mean μ and standard deviation σ of the norms, both exponential moving
    averages, and `z = (‖g‖ - μ) / σ`: if `z` exceeds the threshold `t`, the
    gradients are scaled to the norm `μ + (t² / z) · σ`; the wilder the spike,
    the nearer to the mean. The averages are fed the clipped norm,
    `μ ← αμ + (1-α)n` and then `σ² ← ασ² + (1-α)(n-μ)²`. They start from the
    mean and variance of the first `warmup` norms, during which nothing is
    clipped. A norm of exactly 0 is no measurement and changes neither: after
    a warm-up of zeros, everything would be clipped to 0 for good.

    Args:
        threshold: Float > 0, the largest z-score that passes.
        momentum: Float in [0, 1), the α of the moving averages.
        warmup: Int >= 1, the number of steps before the rule acts.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> import keras, stablekeras
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), stablekeras.optimizers.ZScore(warmup=3)
    ... )
    >>> v = keras.Variable([0.0])
    >>> for g in (1.0, 2.0, 3.0, 300.0):
    ...     optimizer.apply([keras.ops.array([g])], [v])
    >>> round(optimizer.report()["update_norm"], 4)
    2.014

    Reference: Kumar, Owen, Chowdhury and Güra (2025), "ZClip: Adaptive spike
    mitigation for LLM pre-training".
    """

    def __init__(self, threshold=2.5, *, momentum=0.97, warmup=25):
        self.threshold = check_positive(
            "threshold", threshold, "The paper uses 2.5."
        )
        self.momentum = check_fraction(
            "momentum", momentum, "The paper uses 0.97."
        )
        self.warmup = check_count("warmup", warmup, "The paper uses 25.")

    def build(self, variables, add_variable):
        """Creates the averages."""
        self._mean = add_variable((), name="z_score_mean")
        self._deviation = add_variable((), name="z_score_deviation")
        self._count = add_variable((), "int32", name="z_score_count")

    def clip(self, gradients):
        """Clips after the warm-up; remembers the clipped norm."""
        norm = gradients.norm
        mean, deviation = self._mean.value, self._deviation.value
        warm = self._count.value >= self.warmup
        # t²/z·σ = (tσ)²/(‖g‖-μ), which has no division by σ = 0.
        excess = norm - mean
        allowed = self.threshold * deviation
        spike = ops.logical_and(warm, excess > allowed)
        threshold = mean + allowed * (allowed / ops.where(spike, excess, 1.0))
        clipped = gradients.clip_to(ops.where(spike, threshold, norm))

        # σ² ← keep·σ² + add·d². While warming up, that is the exact variance
        # so far (Welford). By way of a hypotenuse, as d² could overflow.
        weight = ops.where(
            warm,
            1.0 - self.momentum,
            1.0 / ops.cast(self._count.value + 1, norm.dtype),
        )
        keep = ops.sqrt(1.0 - weight)
        d = clipped.norm - mean
        new_mean = mean + weight * d
        d = ops.where(warm, clipped.norm - new_mean, d * keep)
        new_deviation = euclidean(
            ops.stack([keep * deviation, ops.abs(ops.sqrt(weight) * d)])
        )
        measured = norm > 0
        return clipped, [
            (self._mean, ops.where(measured, new_mean, mean)),
            (self._deviation, ops.where(measured, new_deviation, deviation)),
            (self._count, self._count + ops.cast(measured, "int32")),
        ]

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            "threshold": self.threshold,
            "momentum": self.momentum,
            "warmup": self.warmup,
        }
