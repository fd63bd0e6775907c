"""Axes that exist."""

__all__ = ["check_axis"]


def check_axis(x, axis):
    """Raise unless `axis` names axes of `x`.

    Args:
        x: Tensor.
        axis: Integer, tuple of integers or `None`.

    Raises:
        ValueError: If an axis is out of bounds.
    """
    rank = len(x.shape)
    for a in axis if isinstance(axis, (tuple, list)) else (axis,):
        if a is not None and not -rank <= a < rank:
            raise ValueError(
                f"axis {a} is out of bounds. "
                f"Received: axis={axis}, x.shape={tuple(x.shape)}. "
                f"Pass an axis from {-rank} to {rank - 1}."
            )
