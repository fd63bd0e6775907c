"""The gradients of one step with their norms: what a clipping rule works on."""

import keras
from keras import ops

from stablekeras.optimizers import backends, norms

__all__ = ["Gradients", "divided"]


class Gradients:
    """The gradients of one step, one for each variable, and their norms.

    Immutable. Dividing them divides the norms at once and the tensors only in
    the end, so that a chain of rules costs one pass over the tensors.

    Args:
        tensors: List of tensors or `IndexedSlices` without duplicate rows;
            `None` where a variable has no gradient in this step.
        variables: The variables, in the same order.
        dtype: `"float32"` or `"float64"`, in which norms are computed.
        tensor_norms: Vector of the norm of each tensor; computed if absent.
        norm: Scalar, the norm of all tensors together; computed if absent.
        divisor: What the tensors are still to be divided by, scalar or vector
            of one number for each tensor.
        every_tensor: See `stablekeras.optimizers.norms.tensor_norms`.
    """

    def __init__(
        self,
        tensors,
        variables,
        dtype="float32",
        *,
        tensor_norms=None,
        norm=None,
        divisor=None,
        every_tensor=False,
    ):
        self._tensors = list(tensors)
        self._divisor = divisor
        self._every_tensor = every_tensor
        self.variables = list(variables)
        self.dtype = dtype
        if norm is None:
            tensor_norms, norm = norms.tensor_norms(
                self._tensors, dtype, every_tensor
            )
        self.tensor_norms = tensor_norms
        self.norm = norm

    @property
    def present(self):
        """Tuple of bool: which variables have a gradient in this step."""
        return tuple(x is not None for x in self._tensors)

    @property
    def tensors(self):
        """The gradients as tensors, `None` where there is none."""
        return divided(*self.pending)

    @property
    def pending(self):
        """`(tensors, divisor)`: the arguments of `divided`."""
        return self._tensors, self._divisor

    def divide(self, divisor):
        """Divides all tensors by one number, or each by its own.

        Args:
            divisor: Scalar, or vector of one number for each tensor; at least
                1, of the dtype of the norms.

        Returns:
            New `Gradients`.
        """
        tensor_norms = self.tensor_norms / divisor
        each = len(divisor.shape) > 0
        return Gradients(
            self._tensors,
            self.variables,
            self.dtype,
            tensor_norms=tensor_norms,
            norm=norms.euclidean(tensor_norms) if each else self.norm / divisor,
            divisor=divisor
            if self._divisor is None
            else self._divisor * divisor,
            every_tensor=self._every_tensor,
        )

    def clip_to(self, threshold):
        """Scales all tensors so that their common norm is at most a threshold.

        Args:
            threshold: Python number or scalar, >= 0.

        Returns:
            New `Gradients`.
        """
        return self.divide(_divisor(self.norm, threshold))

    def clip_each_to(self, thresholds):
        """Scales each tensor so that its norm is at most its threshold.

        Args:
            thresholds: Python number, scalar or vector, >= 0.

        Returns:
            New `Gradients`.
        """
        return self.divide(_divisor(self.tensor_norms, thresholds))

    def map(self, function):
        """Replaces every tensor; the norms are computed anew.

        Args:
            function: Called as `function(values, variable, is_sparse)`, must
                return new values of the same shape and dtype, 0 where they
                were 0. For an `IndexedSlices`, `values` are its rows.

        Returns:
            New `Gradients`.
        """
        tensors = [
            None
            if x is None
            else backends.map_values(
                lambda values, v=v, x=x: function(
                    values, v, backends.values_of(x) is not x
                ),
                x,
            )
            for x, v in zip(self.tensors, self.variables, strict=True)
        ]
        return Gradients(
            tensors,
            self.variables,
            self.dtype,
            every_tensor=self._every_tensor,
        )


def divided(tensors, divisor):
    """Divides tensors by one number, or each by its own.

    Args:
        tensors: List of tensors, `IndexedSlices` or `None`.
        divisor: Scalar, vector of one number for each, or `None` for 1.

    Returns:
        List of tensors of the same dtypes.
    """
    if divisor is None:
        return list(tensors)
    if len(divisor.shape) == 0:
        divisors = [divisor] * len(tensors)
    else:
        divisors = ops.unstack(divisor, len(tensors))
    return [
        None if x is None else _divide(x, d)
        for x, d in zip(tensors, divisors, strict=True)
    ]


def _divisor(norm, threshold):
    """Computes `norm / threshold` where that is more than 1, else 1.

    A division of the gradient by this reaches further than the usual product
    with `threshold / norm`, which underflows for large norms. A threshold of
    0 makes it so large that the gradient becomes 0.
    """
    if not isinstance(threshold, (int, float)):
        tiny = 1e-300 if norm.dtype == "float64" else 1.2e-38
        threshold = ops.maximum(ops.cast(threshold, norm.dtype), tiny)
    return ops.maximum(norm / threshold, 1.0)


def _divide(x, divisor):
    """Divides a gradient; a 16-bit quotient is rounded towards zero.

    Rounded to nearest it could exceed a threshold by half a unit, 5e-4 of it.
    """

    def divide(values):
        if values.dtype == divisor.dtype:
            return values / divisor
        quotient = ops.cast(values, divisor.dtype) / divisor
        rounded = ops.cast(quotient, values.dtype)
        spacing = _SPACINGS.get(keras.backend.standardize_dtype(values.dtype))
        if spacing is None:
            return rounded
        # One or two units nearer to zero; at least the smallest subnormal.
        magnitude = ops.abs(ops.cast(rounded, divisor.dtype))
        relative, absolute = spacing
        nearer = magnitude - ops.maximum(relative * magnitude, absolute)
        nearer = ops.sign(quotient) * ops.maximum(nearer, 0.0)
        return ops.where(
            magnitude > ops.abs(quotient),
            ops.cast(nearer, values.dtype),
            rounded,
        )

    return backends.map_values(divide, x)


# Three quarters of a unit in the last place at the top of a binade, and the
# smallest subnormal number.
_SPACINGS = {
    "float16": (1.5 * 2.0**-11, 2.0**-24),
    "bfloat16": (1.5 * 2.0**-8, 2.0**-133),
}
