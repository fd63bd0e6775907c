"""The gradients of one step with their norms: what a clipping rule works on."""

import keras
from keras import ops

from stablekeras.optimizers import backends, norms

__all__ = ["Gradients", "multiplied", "scale_down"]


class Gradients:
    """The gradients of one step, one for each variable, and their norms.

    Immutable. Scaling them scales the norms at once and the tensors only in
    the end, so that a chain of rules costs one pass over the tensors.

    Args:
        tensors: List of tensors or `IndexedSlices` without duplicate rows;
            `None` where a variable has no gradient in this step.
        variables: The variables, in the same order.
        dtype: `"float32"` or `"float64"`, in which norms are computed.
        tensor_norms: Vector of the norm of each tensor; computed if absent.
        norm: Scalar, the norm of all tensors together; computed if absent.
        factor: What the tensors are still to be multiplied by, scalar or
            vector of one number for each tensor.
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
        factor=None,
        every_tensor=False,
    ):
        self._tensors = list(tensors)
        self._factor = factor
        self._every_tensor = every_tensor
        self.variables = list(variables)
        self.dtype = dtype
        if norm is None:
            tensor_norms, norm = norms.tensor_norms(
                self._tensors, dtype, every_tensor
            )
        self._unscaled_norms = tensor_norms
        self.norm = norm

    @property
    def tensor_norms(self):
        """Vector of the norm of each tensor, 0 where there is none."""
        if self._factor is None:
            return self._unscaled_norms
        return self._unscaled_norms * self._factor

    @property
    def present(self):
        """Tuple of bool: which variables have a gradient in this step."""
        return tuple(x is not None for x in self._tensors)

    @property
    def tensors(self):
        """The gradients as tensors, `None` where there is none."""
        return multiplied(*self.pending)

    @property
    def pending(self):
        """`(tensors, factor)`: the arguments of `multiplied`."""
        return self._tensors, self._factor

    def multiply(self, factor):
        """Multiplies all tensors by one number, or each by its own.

        Args:
            factor: Scalar, or vector of one number for each tensor; of the
                dtype of the norms, in [0, 1].

        Returns:
            New `Gradients`.
        """
        if self._factor is not None:
            combined = self._factor * factor
        else:
            combined = factor
        if len(factor.shape) == 0:
            norm = self.norm * factor
        else:
            norm = norms.euclidean(self.tensor_norms * factor)
        return Gradients(
            self._tensors,
            self.variables,
            self.dtype,
            tensor_norms=self._unscaled_norms,
            norm=norm,
            factor=combined,
            every_tensor=self._every_tensor,
        )

    def clip_to(self, threshold):
        """Scales all tensors so that their common norm is at most a threshold.

        Args:
            threshold: Python number or scalar, >= 0.

        Returns:
            New `Gradients`.
        """
        return self.multiply(_factor(self.norm, threshold))

    def clip_each_to(self, thresholds):
        """Scales each tensor so that its norm is at most its threshold.

        Args:
            thresholds: Python number, scalar or vector, >= 0.

        Returns:
            New `Gradients`.
        """
        return self.multiply(_factor(self.tensor_norms, thresholds))

    def map(self, function):
        """Replaces every tensor; the norms are computed anew.

        Args:
            function: Called as `function(values, variable, indices)`, must
                return new values of the same shape and dtype, 0 where they
                were 0. For an `IndexedSlices`, `values` are the rows of
                `variable` at `indices`; else `indices` is `None`.

        Returns:
            New `Gradients`.
        """

        def replaced(x, variable):
            indices = backends.indices_of(x)
            return backends.map_values(
                lambda values: function(values, variable, indices), x
            )

        tensors = [
            None if x is None else replaced(x, v)
            for x, v in zip(self.tensors, self.variables, strict=True)
        ]
        return Gradients(
            tensors,
            self.variables,
            self.dtype,
            every_tensor=self._every_tensor,
        )

    def differ_from(self, others):
        """Whether any tensor has another norm than in `others`; bool scalar."""
        factor = self._factor
        if factor is not None and len(factor.shape) == 0:
            return self.norm < others.norm
        return ops.any(self.tensor_norms < others.tensor_norms)


def multiplied(tensors, factor):
    """Multiplies tensors by one number, or each by its own.

    Args:
        tensors: List of tensors, `IndexedSlices` or `None`.
        factor: Scalar, vector of one number for each, or `None` for 1.

    Returns:
        List of tensors of the same dtypes.
    """
    if factor is None:
        return list(tensors)
    if len(factor.shape) == 0:
        factors = [factor] * len(tensors)
    else:
        factors = ops.unstack(factor, len(tensors))
    return [
        None
        if x is None
        else backends.map_values(lambda values, f=f: scale_down(values, f), x)
        for x, f in zip(tensors, factors, strict=True)
    ]


def _factor(norm, threshold):
    """Computes `min(1, threshold / norm)`; 1 for a norm of 0."""
    if isinstance(threshold, (int, float)):
        return ops.minimum(threshold / norm, 1.0)
    threshold = ops.cast(threshold, norm.dtype)
    return ops.where(norm > threshold, threshold / norm, ops.ones_like(norm))


def scale_down(values, factor):
    """Multiplies values; a 16-bit product is rounded towards zero.

    Rounded to nearest it could exceed a threshold by half a unit, 5e-4 of it.

    Args:
        values: Tensor of any floating dtype.
        factor: Tensor in [0, 1] of the dtype of the norms, of a shape that
            broadcasts.

    Returns:
        Tensor of the shape and dtype of `values`.
    """
    if values.dtype == factor.dtype:
        return values * factor
    product = ops.cast(values, factor.dtype) * factor
    rounded = ops.cast(product, values.dtype)
    spacing = _SPACINGS.get(keras.backend.standardize_dtype(values.dtype))
    if spacing is None:
        return rounded
    # One or two units nearer to zero; at least the smallest subnormal.
    magnitude = ops.abs(ops.cast(rounded, factor.dtype))
    relative, absolute = spacing
    nearer = magnitude - ops.maximum(relative * magnitude, absolute)
    nearer = ops.sign(product) * ops.maximum(nearer, 0.0)
    return ops.where(
        magnitude > ops.abs(product), ops.cast(nearer, values.dtype), rounded
    )


# Three quarters of a unit in the last place at the top of a binade, and the
# smallest subnormal number.
_SPACINGS = {
    "float16": (1.5 * 2.0**-11, 2.0**-24),
    "bfloat16": (1.5 * 2.0**-8, 2.0**-133),
}
