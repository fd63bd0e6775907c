"""Check a rewrite against the original where both can be trusted."""

import dataclasses

import numpy as np
import tensorflow as tf

from stablekeras.rewrite.pattern import Rewrite
from stablekeras.rewrite.stabilize import stabilize

__all__ = ["Verdict", "verify"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How far a stabilized function is from the original.

    Args:
        rewrites: What was replaced.
        value_error: Greatest relative difference of the values, over the
            entries that the original has finite; Inf where it has one and
            the stabilized function has not.
        gradient_error: The same of the derivatives of their sum.
    """

    rewrites: tuple[Rewrite, ...]
    value_error: float
    gradient_error: float


def verify(fn, *args):
    """Runs a function as it is and stabilized, and compares.

    Args:
        fn: Function of tensors that returns one tensor.
        *args: Its arguments. In float64 and away from its extremes the two
            agree to 1e-12.

    Returns:
        A `Verdict`.

    Raises:
        ValueError: If no argument is floating.

    Example:
    >>> import tensorflow as tf
    >>> from stablekeras.rewrite.verify import verify
    >>> z = tf.constant([-1.0, 0.5], "float64")
    >>> verdict = verify(lambda z: tf.math.log(tf.sigmoid(z)), z)
    >>> verdict.value_error < 1e-12 and verdict.gradient_error < 1e-12
    True
    """
    tensors = [tf.convert_to_tensor(a) for a in args]
    if not any(a.dtype.is_floating for a in tensors):
        raise ValueError(
            "verify needs a floating argument to derive by. "
            f"Received: dtypes {[a.dtype.name for a in tensors]}. "
            "Pass at least one float tensor."
        )
    stable = stabilize(fn)
    value, gradients = _run(fn, tensors)
    new_value, new_gradients = _run(stable, tensors)
    return Verdict(
        tuple(stable.rewrites),
        _error(value, new_value),
        max(
            _error(old, new)
            for old, new in zip(gradients, new_gradients, strict=True)
        ),
    )


def _run(fn, args):
    @tf.function(autograph=False)
    def both(*args):
        sources = [a for a in args if a.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            value = tf.convert_to_tensor(fn(*args))
        return value, tape.gradient(
            value, sources, unconnected_gradients="zero"
        )

    value, gradients = both(*args)
    return value.numpy(), [tf.convert_to_tensor(g).numpy() for g in gradients]


def _error(old, new):
    old = np.asarray(old, np.float64)
    new = np.asarray(new, np.float64)
    good = np.isfinite(old)
    if not good.any():
        return 0.0
    if not np.isfinite(new[good]).all():
        return np.inf
    scale = np.maximum(np.abs(old[good]), np.max(np.abs(old[good])) * 1e-3)
    gap = np.abs(new[good] - old[good])
    return float(np.max(gap / np.where(scale == 0, 1.0, scale)))
