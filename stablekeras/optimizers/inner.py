"""What must be known of the inner optimizer: may it be wrapped, and how."""

import keras
from keras import ops

from stablekeras.errors import VersionError

__all__ = [
    "Accumulation",
    "accumulators_of",
    "check_inner",
    "squares_gradients",
]

_CLIP_SETTINGS = ("global_clipnorm", "clipnorm", "clipvalue")


def _members(optimizer):
    """Returns the optimizers a `MultiOptimizer` is made of, or the one."""
    return getattr(optimizer, "optimizers", None) or [optimizer]


def check_inner(inner, wrapper_settings):
    """Refuses an optimizer that cannot be wrapped.

    Args:
        inner: The optimizer to wrap.
        wrapper_settings: String that names how the wrapper clips.

    Raises:
        TypeError: If it is not an optimizer.
        ValueError: If it is a wrapper already, or clips by itself.
    """
    if not isinstance(inner, keras.optimizers.Optimizer):
        raise TypeError(
            "inner_optimizer must be a keras.optimizers.Optimizer. "
            f"Received: inner_optimizer={inner!r}. Pass an instance, such as "
            "keras.optimizers.Adam(1e-3), or a name that Keras knows."
        )
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "inner_optimizer must not be a LossScaleOptimizer: its gradients "
            "are scaled, and a threshold would mean something else at every "
            f"step. Received: inner_optimizer={_name(inner)}. Write "
            "LossScaleOptimizer(ClippedOptimizer(...)), which compile does "
            "by itself under mixed_float16."
        )
    if hasattr(inner, "inner_optimizer"):
        raise ValueError(
            "inner_optimizer must not wrap an optimizer itself. Received: "
            f"inner_optimizer={_name(inner)} around "
            f"{_name(inner.inner_optimizer)}. Wrap "
            f"{_name(inner.inner_optimizer)} once and pass all rules as a "
            "list: clip=[...]."
        )
    members = _members(inner)
    for member in members:
        if member is not inner:
            check_inner(member, wrapper_settings)
        for setting in _CLIP_SETTINGS:
            value = getattr(member, setting, None)
            if value is not None:
                raise ValueError(
                    "The inner optimizer must not clip as well. Received: "
                    f"{_name(member)} with {setting}={value!r}, and "
                    f"ClippedOptimizer with {wrapper_settings}. Remove "
                    f"{setting} from {_name(member)}; for the same clipping "
                    f"of the true gradient, pass {setting}={value!r} to "
                    "ClippedOptimizer."
                )
        if member is not inner and member.gradient_accumulation_steps:
            raise ValueError(
                "A MultiOptimizer must not accumulate gradients in its "
                "members: their common norm would not be known. Received: "
                f"{_name(member)} with gradient_accumulation_steps="
                f"{member.gradient_accumulation_steps}. Use one optimizer, "
                "or a larger batch."
            )


def _name(optimizer):
    return type(optimizer).__name__


def squares_gradients(inner):
    """Whether the optimizer keeps squares of the gradient's entries.

    An optimizer that is not known to be without them is taken to have them.
    """
    without = (
        keras.optimizers.SGD,
        keras.optimizers.Lion,
        keras.optimizers.Adamax,
    )
    return not all(isinstance(x, without) for x in _members(inner))


def accumulators_of(inner):
    """Returns the variables in which an optimizer accumulates gradients."""
    return [
        v for v in inner.variables if v.name.endswith("gradient_accumulator")
    ]


class Accumulation:
    """The gradient accumulation of the inner optimizer, seen from outside.

    The inner optimizer goes on to count and to accumulate as it always does.
    Only with the last micro-batch of a window its accumulators are emptied
    and it is handed the clipped mean instead, times the number of
    micro-batches, by which it will divide.

    Args:
        steps: Int, the number of micro-batches in a window.
        iteration: The variable that counts the micro-batches.
        accumulators: List of variables, one for each trainable variable.
    """

    def __init__(self, steps, iteration, accumulators):
        self.steps = steps
        self.iteration = iteration
        self._accumulators = accumulators

    @classmethod
    def of(cls, inner, variables):
        """Returns the accumulation of a built optimizer; `None` without one.

        Raises:
            VersionError: If this Keras names the variables differently.
        """
        if not inner.gradient_accumulation_steps:
            return None

        accumulators = accumulators_of(inner)
        iterations = [
            v
            for v in inner.variables
            if v.name.endswith("iteration") and v.shape == ()
        ]
        if len(accumulators) != len(variables) or len(iterations) != 1:
            raise VersionError(
                "The accumulators of the inner optimizer must be among its "
                f"variables. Received: {len(accumulators)} for "
                f"{len(variables)} variables from {_name(inner)}. This Keras "
                "stores them differently: remove gradient_accumulation_steps."
            )
        return cls(
            inner.gradient_accumulation_steps, iterations[0], accumulators
        )

    def is_last(self):
        """Whether the micro-batch at hand is the last of its window."""
        return ops.equal((self.iteration + 1) % self.steps, 0)

    def mean(self, tensors):
        """Returns the mean of the window, the tensors at hand included."""
        return [
            None
            if x is None
            else (ops.convert_to_tensor(x, sparse=False) + a) / self.steps
            for x, a in zip(tensors, self._accumulators, strict=True)
        ]

    def hand_in(self, is_last, tensors, clipped):
        """Returns what the inner optimizer must get: see the class."""
        return [
            None
            if x is None
            else ops.where(
                is_last, c * self.steps, ops.convert_to_tensor(x, sparse=False)
            )
            for x, c in zip(tensors, clipped, strict=True)
        ]

    def empty(self, is_last):
        """Empties the accumulators before the last micro-batch is applied."""
        for a in self._accumulators:
            a.assign(ops.where(is_last, ops.zeros_like(a.value), a.value))
