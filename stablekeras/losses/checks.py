"""Rules for the arguments of losses, each with its remedy."""

import numbers

__all__ = [
    "check_axes",
    "check_axis",
    "check_fraction",
    "check_not_negative",
    "check_positive",
    "check_reduction",
]

REDUCTIONS = (
    "sum_over_batch_size",
    "sum",
    "mean",
    "mean_with_sample_weight",
    "none",
    None,
)


def check_reduction(reduction):
    """Returns `reduction` if Keras knows it."""
    if reduction not in REDUCTIONS:
        raise ValueError(
            "Invalid value for argument `reduction`: it must be one of "
            f"{REDUCTIONS}. Received: reduction={reduction!r}. "
            'Use "sum_over_batch_size" unless you scale the loss yourself.'
        )
    return reduction


def check_axis(axis):
    """Raises unless `axis` is an integer."""
    if isinstance(axis, bool) or not isinstance(axis, numbers.Integral):
        raise ValueError(
            "`axis` must be of type `int`. "
            f"Received: axis={axis} of type {type(axis)}. Pass axis=-1."
        )


def check_axes(axis):
    """Raises unless `axis` is an integer, several integers, or None."""
    several = axis if isinstance(axis, (tuple, list)) else (axis,)
    if axis is not None and not all(
        isinstance(a, numbers.Integral) and not isinstance(a, bool)
        for a in several
    ):
        raise ValueError(
            "axis must be an integer, a tuple of integers, or None. "
            f"Received: axis={axis}. Pass axis=-1."
        )


def check_fraction(name, value):
    """Raises unless a number is in [0, 1]."""
    if isinstance(value, (int, float)) and not 0 <= value <= 1:
        raise ValueError(
            f"{name} must be in [0, 1]. Received: {name}={value}. "
            f"Pass {name}=0.0 for none."
        )


def check_not_negative(name, value):
    """Raises unless a number is finite and at least 0."""
    if isinstance(value, (int, float)) and not 0 <= value < float("inf"):
        raise ValueError(
            f"{name} must be finite and >= 0. Received: {name}={value}. "
            f"Pass {name}=0.0 for none."
        )


def check_positive(name, value):
    """Raises unless a number is finite and greater than 0."""
    if isinstance(value, (int, float)) and not 0 < value < float("inf"):
        raise ValueError(
            f"{name} must be finite and > 0. Received: {name}={value}. "
            f"Pass {name}=1.0 for the usual loss."
        )
