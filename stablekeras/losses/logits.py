"""From predictions to logits: what every loss on probabilities asks first."""

import warnings

from keras import ops as kops

from stablekeras.losses.origin import Origin, find_origin, log_probabilities

__all__ = ["logits_of", "origin_of"]


def origin_of(y_pred, natural, dtype):
    """Finds the logits behind probabilities, in the dtype to compute in.

    Args:
        y_pred: Tensor of probabilities.
        natural: `"softmax"` or `"sigmoid"`, the activation this loss expects;
            taken where the values allow both.
        dtype: Dtype of the logits returned.

    Returns:
        `Origin` of one kind, or None.
    """
    origin = find_origin(y_pred)
    if origin is None:
        return None
    kind = natural if natural in origin.kinds else origin.kinds[0]
    axis = origin.axis if kind == "softmax" else None
    return Origin((kind,), kops.cast(origin.logits, dtype), axis)


def logits_of(y_pred, from_logits, natural, axis, dtype, name):
    """Returns logits for a cross-entropy, or None if there are none.

    Args:
        y_pred: Tensor of logits or probabilities, in the compute dtype.
        from_logits: What the caller says of it.
        natural: `"softmax"` or `"sigmoid"`.
        axis: Axis of the classes.
        dtype: Compute dtype.
        name: Name of the loss, for the warning.
    """
    origin = origin_of(y_pred, natural, dtype)
    if from_logits:
        if origin is None or origin.kinds[0] != natural:
            return y_pred
        warnings.warn(
            f'"`{name}` received `from_logits=True`, but the `y_pred` '
            f"argument was produced by a {natural.capitalize()} activation "
            "and thus does not represent logits. Was this intended?",
            stacklevel=3,
        )
    if origin is None:
        return None
    if origin.kinds[0] != natural:
        # The logarithms of any weights are logits of their normalisation.
        return log_probabilities(origin) if natural == "softmax" else None
    if natural == "softmax" and origin.axis != axis % len(y_pred.shape) - len(
        y_pred.shape
    ):
        return log_probabilities(origin)
    return origin.logits
