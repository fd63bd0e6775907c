"""AGC: clipping each unit's gradient by the norm of its weights."""

import keras
from keras import ops

from stablekeras.optimizers.gradients import scale_down
from stablekeras.optimizers.norms import unit_norms
from stablekeras.optimizers.rule import ClippingRule, check_positive

__all__ = ["AdaptiveGradient"]


@keras.saving.register_keras_serializable(package="stablekeras")
class AdaptiveGradient(ClippingRule):
    """AGC: a unit's gradient is limited to a fraction of its weights' norm.

    For each unit i, `Gᵢ · min(1, λ · max(‖Wᵢ‖, ε) / ‖Gᵢ‖)`. A unit is what
    feeds one output: all axes of a kernel but the last. A vector such as a
    bias is one unit. The rows of an embedding are one unit each, as is a row
    of any gradient that arrives as `tf.IndexedSlices`.

    Args:
        ratio: Float > 0, the λ: a unit's largest gradient, relative to its
            weights.
        epsilon: Float > 0, the least norm of weights that is reckoned with,
            so that units of zeros can learn.
        exclude_last_layer: Bool. Whether the variables of the last layer pass
            as they are, as the paper recommends. A model whose variables all
            belong to one layer, or to none, has no last layer.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> import keras, stablekeras
    >>> rule = stablekeras.optimizers.AdaptiveGradient(0.1)
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), rule
    ... )
    >>> v = keras.Variable([[2.0, 1.0]])
    >>> optimizer.apply([keras.ops.array([[50.0, 0.05]])], [v])
    >>> v.numpy().round(4).tolist()
    [[1.7999..., 0.9499...]]

    Reference: Brock, De, Smith and Simonyan (2021), "High-performance
    large-scale image recognition without normalization".
    """

    def __init__(self, ratio=0.01, *, epsilon=1e-3, exclude_last_layer=True):
        self.ratio = check_positive("ratio", ratio, "The paper uses 0.01.")
        self.epsilon = check_positive(
            "epsilon", epsilon, "The paper uses 0.001."
        )
        self.exclude_last_layer = bool(exclude_last_layer)

    def build(self, variables, add_variable):
        """Finds the last layer; has no memory."""
        layers = [_layer_of(v) for v in variables]
        last = layers[-1]
        several = last != "" and any(layer != last for layer in layers)
        excludes = self.exclude_last_layer and several
        self._excluded = {
            v.path
            for v, layer in zip(variables, layers, strict=True)
            if excludes and layer == last
        }

    def clip(self, gradients):
        """Clips; remembers nothing."""

        def limit(values, variable, indices):
            excluded = getattr(variable, "path", None) in self._excluded
            if excluded or 0 in values.shape:
                return values
            rank = len(values.shape)
            axes: tuple[int, ...] | None
            if indices is not None or variable.name == "embeddings":
                axes = tuple(range(1, rank))
            else:
                axes = tuple(range(rank - 1)) if rank > 1 else None
            weights = ops.convert_to_tensor(variable)
            if indices is not None:
                weights = ops.take(weights, indices, axis=0)
            limits = self.ratio * ops.maximum(
                unit_norms(ops.cast(weights, gradients.dtype), axes),
                self.epsilon,
            )
            norms = unit_norms(ops.cast(values, gradients.dtype), axes)
            factor = ops.where(norms > limits, limits / norms, 1.0)
            return scale_down(values, factor)

        return gradients.map(limit), []

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            "ratio": self.ratio,
            "epsilon": self.epsilon,
            "exclude_last_layer": self.exclude_last_layer,
        }


def _layer_of(variable):
    """Returns the path of the layer a variable belongs to, or ""."""
    return getattr(variable, "path", "").rpartition("/")[0]
