"""From the gradients as they arrive to those the optimizer is meant to see."""

from keras import ops

from stablekeras.optimizers import backends

__all__ = ["true_gradients"]


def true_gradients(grads, variables, loss, loss_scale):
    """Sums gradients over replicas and duplicate rows, and unscales them.

    Args:
        grads: List of gradients, one for each variable.
        variables: List of variables.
        loss: Scalar of this replica, or `None`.
        loss_scale: What the loss was multiplied by, or `None`.

    Returns:
        `(gradients, overwriting, loss, sound)`: the gradients, `None` for
        variables without one and for those that are overwritten by it; the
        values that overwrite, `None` for all others; the loss of the global
        batch; and a bool scalar, whether the values that overwrite are finite
        on all replicas, `None` if there are none.
    """
    overwriting = [
        g if getattr(v, "overwrite_with_gradient", False) else None
        for g, v in zip(grads, variables, strict=True)
    ]
    ordinary = [
        g if value is None else None
        for g, value in zip(grads, overwriting, strict=True)
    ]
    bad = _count_of_bad(overwriting)
    *ordinary, bad, loss = backends.all_reduce([*ordinary, bad, loss])
    unscaled = [
        None if g is None else _unscale(backends.sum_duplicates(g), loss_scale)
        for g in ordinary
    ]
    sound = None if bad is None else ops.equal(bad, 0.0)
    return unscaled, overwriting, loss, sound


def _count_of_bad(tensors):
    """Counts the entries that are not finite; `None` without tensors."""
    counts = [
        ops.sum(ops.cast(ops.logical_not(ops.isfinite(x)), "float32"))
        for x in tensors
        if x is not None
    ]
    return sum(counts[1:], counts[0]) if counts else None


def _unscale(gradient, loss_scale):
    if loss_scale is None:
        return gradient
    return backends.map_values(lambda x: x / loss_scale, gradient)
