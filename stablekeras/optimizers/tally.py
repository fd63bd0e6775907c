"""The books of a `ClippedOptimizer`: what was measured, clipped and skipped."""

from keras import ops

from stablekeras.errors import NonFiniteError, TooManySkipsError

__all__ = ["Tally"]


class Tally:
    """Counts and norms, in variables of the optimizer.

    A committed step writes `norms` and `counts`, a skipped one `skips` and
    `skip_culprits`, and nothing else. Each is a short vector, as every
    assignment costs time in every step.

    Args:
        variables: The trainable variables.
        add_variable: See `ClippingRule.build`.
        stops_at_once: Whether the first step that is not finite is an error.
        max_consecutive_skips: Int or `None`: how many steps in a row may be
            skipped before that is an error.
    """

    def __init__(
        self, variables, add_variable, stops_at_once, max_consecutive_skips
    ):
        self._paths = [getattr(v, "path", None) or v.name for v in variables]
        self._stops_at_once = stops_at_once
        self._max_consecutive_skips = max_consecutive_skips
        # Gradient norm before and after clipping, of the last update.
        self._norms = add_variable((2,), name="norms")
        # Updates, clipped updates, index of the variable with the largest
        # gradient.
        self._counts = add_variable((3,), "int", name="counts")
        # Skipped steps, skipped steps in a row, and 1 + number of the step
        # that is an error.
        self._skips = add_variable((3,), "int", name="skips")
        self._culprits = add_variable(
            (len(variables),), "bool", name="skip_culprits"
        )

    @property
    def can_fail(self):
        """Whether a skipped step can be an error at all."""
        return self._stops_at_once or self._max_consecutive_skips is not None

    def has_failed(self):
        """Whether an error was met that `check` has not raised yet."""
        return self._skips[2] > 0

    def write_commit(self, grad_norm, update_norm, clipped, worst, is_update):
        """Writes a step that is committed.

        Args:
            grad_norm: Scalar, norm of the gradient.
            update_norm: Scalar, norm of the clipped gradient.
            clipped: Bool scalar, whether they differ.
            worst: Int scalar, the variable with the largest gradient.
            is_update: Bool scalar; `False` for a micro-batch that is only
                accumulated. `None` means `True`.
        """
        measured = ops.stack([grad_norm, update_norm])
        dtype = self._counts.dtype
        counted = self._counts * ops.array([1, 1, 0], dtype) + ops.stack(
            [
                ops.ones((), dtype),
                ops.cast(clipped, dtype),
                ops.cast(worst, dtype),
            ]
        )
        if is_update is not None:
            measured = ops.where(is_update, measured, self._norms)
            counted = ops.where(is_update, counted, self._counts)
        self._norms.assign(measured)
        self._counts.assign(counted)
        self._skips.assign(self._skips * ops.array([1, 0, 1], dtype))

    def write_skip(self, step, finite, tensor_norms):
        """Writes a step that is skipped; after an error, nothing.

        Args:
            step: Int scalar, how many steps were committed before.
            finite: Bool scalar, whether the gradient was finite and the step
                skipped for another reason.
            tensor_norms: Vector of the norms of the gradients.
        """
        dtype = self._skips.dtype
        skipped = self._skips[0] + 1
        in_a_row = self._skips[1] + 1
        fails = ops.zeros((), "bool")
        if self._stops_at_once:
            fails = ops.logical_not(finite)
        if self._max_consecutive_skips is not None:
            streak = in_a_row > self._max_consecutive_skips
            fails = ops.logical_or(fails, streak)
        number = ops.cast(step, dtype) + skipped
        failure = ops.where(fails, number, ops.zeros_like(number))
        written = ops.stack([skipped, in_a_row, failure])
        culprits = ops.logical_not(ops.isfinite(tensor_norms))
        if self.can_fail:
            halted = self.has_failed()
            written = ops.where(halted, self._skips, written)
            culprits = ops.where(halted, self._culprits, culprits)
        self._skips.assign(written)
        self._culprits.assign(culprits)

    def report(self):
        """Returns what was counted, as Python numbers."""
        grad_norm, update_norm = ops.convert_to_numpy(self._norms).tolist()
        updates, clipped, worst = ops.convert_to_numpy(self._counts).tolist()
        skipped, in_a_row, _ = ops.convert_to_numpy(self._skips).tolist()
        return {
            "grad_norm": grad_norm,
            "update_norm": update_norm,
            "clip_rate": clipped / updates if updates else 0.0,
            "skipped": skipped,
            "consecutive_skips": in_a_row,
            "worst_variable": self._paths[worst] if updates else None,
        }

    @staticmethod
    def blank_report():
        """Returns the report of an optimizer that did nothing yet."""
        return {
            "grad_norm": 0.0,
            "update_norm": 0.0,
            "clip_rate": 0.0,
            "skipped": 0,
            "consecutive_skips": 0,
            "worst_variable": None,
        }

    def check(self):
        """Raises the error that was met, once."""
        _, in_a_row, failure = ops.convert_to_numpy(self._skips).tolist()
        if not failure:
            return
        culprits = ops.convert_to_numpy(self._culprits)
        paths = [p for p, bad in zip(self._paths, culprits, strict=True) if bad]
        limit = self._max_consecutive_skips
        # A new start, for those who catch the error and go on.
        self._skips.assign(
            self._skips * ops.array([1, 0, 0], self._skips.dtype)
        )
        where = f"Received: step {failure - 1} (counted from 0), " + (
            "NaN, Inf or overflow in the gradient of "
            + ", ".join(paths)
            + f" ({len(paths)} of {len(self._paths)} variables)."
            if paths
            else "a gradient norm or loss out of range."
        )
        kept = "All variables are as they were before that step."
        if limit is not None and in_a_row > limit:
            raise TooManySkipsError(
                f"At most max_consecutive_skips={limit} steps in a row can be "
                f"skipped. {where} {kept} Find the cause with "
                "stablekeras.NaNWatch, or lower the learning rate."
            )
        raise NonFiniteError(
            f"The gradient must be finite. {where} {kept} Find the cause with "
            'stablekeras.NaNWatch, or pass nonfinite="skip" to leave such '
            "steps out."
        )
