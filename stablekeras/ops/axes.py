"""Axes that exist."""

__all__ = ["check_axis", "rank_of"]


def rank_of(x):
    """Return the number of axes of `x`, or `None` where a graph lacks it."""
    try:
        return len(x.shape)
    except ValueError:
        return None


def check_axis(x, axis):
    """Raise unless `axis` names axes of `x`, each once.

    Of a tensor of unknown rank nothing can be said.

    Args:
        x: Tensor.
        axis: Integer, tuple of integers or `None`.

    Raises:
        ValueError: If an axis is out of bounds or named twice.
    """
    rank = rank_of(x)
    if rank is None:
        return
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    for a in axes:
        if a is not None and not -rank <= a < rank:
            raise ValueError(
                f"axis {a} is out of bounds. "
                f"Received: axis={axis}, x.shape={tuple(x.shape)}. "
                f"Pass an axis from {-rank} to {rank - 1}."
            )
    if len({a if a is None else a % rank for a in axes}) < len(axes):
        raise ValueError(
            "axis must name each axis once. "
            f"Received: axis={axis}, x.shape={tuple(x.shape)}. "
            "Remove the repetition."
        )
