"""The base class of clipping rules, and the checks of their arguments."""

import math

from keras import ops

__all__ = ["ClippingRule", "check_count", "check_fraction", "check_positive"]


class ClippingRule:
    """Decides how the gradients of a step are clipped.

    A subclass overrides `clip`, or `accept`, or both; a rule with a memory
    also `build`. Both methods only *read* variables: what is to be remembered
    they return, and `ClippedOptimizer` assigns it if the step is committed.
    So no statistic ever sees a step that was skipped.

    Example:
    >>> import keras
    >>> from stablekeras import optimizers
    >>> class Halve(optimizers.ClippingRule):
    ...     def clip(self, gradients):
    ...         half = keras.ops.cast(0.5, gradients.dtype)
    ...         return gradients.multiply(half), []
    >>> optimizer = optimizers.ClippedOptimizer(keras.optimizers.SGD(), Halve())
    """

    #: Whether the rule compares the norms of single tensors, so that these
    #: must be accurate even for tensors that are tiny beside the others.
    every_tensor = False
    #: Whether the rule overrides `accept`.
    vetoes = False
    #: Whether the rule overrides `clip`.
    clips = True
    #: Whether an optimizer has called `build`; set by the optimizer.
    is_built = False

    def build(self, variables, add_variable):
        """Creates the memory of the rule.

        Args:
            variables: The trainable variables, in the order of all gradients.
            add_variable: Called as `add_variable(shape, dtype, initializer,
                name)`, returns a variable of the optimizer: saved, restored
                and mirrored with it. `dtype=None` is that of the norms.
        """

    def clip(self, gradients):
        """Clips the gradients of a step that is accepted.

        Args:
            gradients: `Gradients` of the step, as the rule before left them.

        Returns:
            `(gradients, memory)`: new `Gradients` and a list of pairs of a
            variable and the value it gets if the step is committed.
        """
        return gradients, []

    def accept(self, norm, loss):
        """Decides whether a step whose gradients are finite is taken at all.

        Args:
            norm: Scalar, the norm of the gradients as they arrived.
            loss: Scalar, or `None` where the loss is not known.

        Returns:
            `(accepted, memory)`: a bool scalar, and as in `clip`.
        """
        return ops.ones((), "bool"), []

    def get_config(self):
        """Returns the arguments of the constructor as a dictionary."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Creates a rule from what `get_config` returned."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(
            f"{k}={v!r}" for k, v in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"


def check_positive(name, value, remedy):
    """Returns a finite number > 0 as float, or raises `ValueError`."""
    return _check(
        name, value, lambda x: 0 < x < math.inf, "finite and > 0", remedy
    )


def check_fraction(name, value, remedy):
    """Returns a number in [0, 1) as float, or raises `ValueError`."""
    return _check(name, value, lambda x: 0 <= x < 1, "in [0, 1)", remedy)


def check_count(name, value, remedy, least=1):
    """Returns an int of at least `least`, or raises `ValueError`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        valid = False
    else:
        valid = value.__index__() >= least
    if not valid:
        raise ValueError(
            f"{name} must be an integer >= {least}. "
            f"Received: {name}={value!r}. {remedy}"
        )
    return value.__index__()


def _check(name, value, is_valid, rule, remedy):
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not is_valid(number):
        raise ValueError(
            f"{name} must be {rule}. Received: {name}={value!r}. {remedy}"
        )
    return number
