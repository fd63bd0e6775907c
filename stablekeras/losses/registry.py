"""Finding losses by name, and writing them down."""

import inspect

import keras

from stablekeras.losses.binary_crossentropy import (
    BinaryCrossentropy,
    binary_crossentropy,
)
from stablekeras.losses.categorical_crossentropy import (
    CategoricalCrossentropy,
    categorical_crossentropy,
)
from stablekeras.losses.circle import Circle, circle
from stablekeras.losses.ctc import CTC, ctc
from stablekeras.losses.divergence import (
    KLDivergence,
    Poisson,
    kl_divergence,
    poisson,
)
from stablekeras.losses.focal import (
    BinaryFocalCrossentropy,
    CategoricalFocalCrossentropy,
    binary_focal_crossentropy,
    categorical_focal_crossentropy,
)
from stablekeras.losses.generalized import (
    CategoricalGeneralizedCrossEntropy,
    categorical_generalized_cross_entropy,
)
from stablekeras.losses.hinge import (
    CategoricalHinge,
    Hinge,
    SquaredHinge,
    categorical_hinge,
    hinge,
    squared_hinge,
)
from stablekeras.losses.loss import Loss
from stablekeras.losses.regression import (
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
)
from stablekeras.losses.robust import Huber, LogCosh, huber, log_cosh
from stablekeras.losses.segmentation import Dice, Tversky, dice, tversky
from stablekeras.losses.similarity import CosineSimilarity, cosine_similarity
from stablekeras.losses.sparse_crossentropy import (
    SparseCategoricalCrossentropy,
    sparse_categorical_crossentropy,
)
from stablekeras.losses.wrapper import LossFunctionWrapper

__all__ = ["CLASSES", "FUNCTIONS", "deserialize", "get", "serialize"]

CLASSES = (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CTC,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    CategoricalHinge,
    Circle,
    CosineSimilarity,
    Dice,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
    Tversky,
)

FUNCTIONS = (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    categorical_hinge,
    circle,
    cosine_similarity,
    ctc,
    dice,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
    tversky,
)

_SHORT = {
    "bce": binary_crossentropy,
    "kld": kl_divergence,
    "mae": mean_absolute_error,
    "mape": mean_absolute_percentage_error,
    "mse": mean_squared_error,
    "msle": mean_squared_logarithmic_error,
}

_BY_NAME = {
    x.__name__: x for x in (Loss, LossFunctionWrapper, *CLASSES, *FUNCTIONS)
}
_BY_NAME |= _SHORT | {name.upper(): fn for name, fn in _SHORT.items()}


def serialize(loss):
    """Describes a loss as a dictionary.

    Args:
        loss: A `Loss` or a loss function.

    Returns:
        Dictionary from which `deserialize` makes the loss again.

    Raises:
        ValueError: If the object cannot be described.

    Accuracy: computes nothing.
    Gradient: none.

    Example:
    >>> from stablekeras import losses
    >>> losses.serialize(
    ...     losses.Huber(delta=2.0))["config"]["delta"]
    2.0
    """
    return keras.saving.serialize_keras_object(loss)


def deserialize(name, custom_objects=None):
    """Makes the loss that `serialize` described.

    Args:
        name: Dictionary, or name of a loss.
        custom_objects: Optional dictionary of further names.

    Returns:
        A `Loss` or a loss function.

    Raises:
        ValueError: If the name is unknown.

    Accuracy: computes nothing.
    Gradient: none.

    Example:
    >>> from stablekeras import losses
    >>> config = losses.serialize(losses.Huber())
    >>> losses.deserialize(config).name
    'huber_loss'
    """
    return keras.saving.deserialize_keras_object(
        name, module_objects=_BY_NAME, custom_objects=custom_objects
    )


def get(identifier):
    """Returns the loss of a name, a dictionary, or the loss itself.

    Args:
        identifier: Name of a class or function (`"mse"` and the like too), a
            dictionary from `serialize`, a loss, or None.

    Returns:
        A `Loss`, a loss function, or None.

    Raises:
        ValueError: If the name is unknown.

    Accuracy: computes nothing.
    Gradient: none.

    Example:
    >>> from stablekeras import losses
    >>> losses.get("mse").__name__
    'mean_squared_error'
    """
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        found = deserialize(identifier)
    elif isinstance(identifier, str):
        found = _BY_NAME.get(identifier)
    else:
        found = identifier
    if not callable(found):
        raise ValueError(
            "identifier must name a loss. "
            f"Received: identifier={identifier!r}, which could not be "
            "interpreted. See stablekeras.losses.__all__ for the names."
        )
    return found() if inspect.isclass(found) else found
