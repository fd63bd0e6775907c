"""The books of a `ClippedOptimizer`: what was measured, clipped and skipped."""

import math

from keras import ops

from stablekeras.errors import NonFiniteError, TooManySkipsError
from stablekeras.optimizers import backends

__all__ = ["Tally"]


class Tally:
    """Counts and norms, in variables of the optimizer.

    A committed step writes its norms and `clipped_updates`, a skipped one
    `skips`, and nothing else. As every variable costs time in every step,
    written or not, there are three, and whatever can be computed from these
    on demand is.

    Args:
        variables: The trainable variables.
        add_variable: See `ClippingRule.build`.
        steps: Variable that counts the committed steps.
        steps_per_update: Int, more than 1 with gradient accumulation.
        stops_at_once: Whether the first step that is not finite is an error.
        max_consecutive_skips: Int or `None`: how many steps in a row may be
            skipped before that is an error.
    """

    def __init__(
        self,
        variables,
        add_variable,
        *,
        steps,
        steps_per_update,
        stops_at_once,
        max_consecutive_skips,
    ):
        self._paths = [getattr(v, "path", None) or v.name for v in variables]
        self._steps = steps
        self._steps_per_update = steps_per_update
        self._stops_at_once = stops_at_once
        self._max_consecutive_skips = max_consecutive_skips
        # Of the last update: norm of each gradient, and of all when clipped.
        self._norms = add_variable((len(variables) + 1,), name="norms")
        self._clipped = add_variable((), "int", name="clipped_updates")
        # Skipped steps; how many of them in a row at the last one; steps
        # committed before it; 1 + number of the step that is an error. Then,
        # of the last one, for each gradient: 1 if not finite, last one first.
        self._skips = add_variable((4 + len(variables),), "int", name="skips")

    @property
    def can_fail(self):
        """Whether a skipped step can be an error at all."""
        return self._stops_at_once or self._max_consecutive_skips is not None

    def has_failed(self):
        """Whether an error was met that `check` has not raised yet."""
        return self._skips[3] > 0

    @staticmethod
    def figures(arriving, clipped):
        """Returns what there is to write of gradients.

        Args:
            arriving: `Gradients` before clipping.
            clipped: `Gradients` after it.

        Returns:
            `(norms, differ)`: vector of the norm of each before and of all
            after clipping, and bool scalar, whether it changed any.
        """
        norms = ops.append(arriving.tensor_norms, clipped.norm)
        return norms, clipped.differ_from(arriving)

    def write_commit(self, figures, is_update):
        """Writes a step that is committed.

        Args:
            figures: What `figures` returned.
            is_update: Bool scalar; `False` for a micro-batch that is only
                accumulated. `None` means `True`.
        """
        norms, clipped = figures
        if is_update is not None:
            norms = ops.where(is_update, norms, self._norms.value)
            clipped = ops.logical_and(clipped, is_update)
        self._norms.assign(norms)
        backends.add_to(self._clipped, ops.cast(clipped, self._clipped.dtype))

    def write_skip(self, figures, finite):
        """Writes a step that is skipped; after an error, nothing.

        Args:
            figures: What `figures` returned.
            finite: Bool scalar, whether the gradient was finite and the step
                skipped for another reason.
        """
        dtype = self._skips.dtype
        steps = ops.cast(self._steps, dtype)
        skipped = self._skips[0] + 1
        goes_on = ops.cast(self._skips[2] == steps, dtype)
        in_a_row = self._skips[1] * goes_on + 1
        fails = ops.zeros((), "bool")
        if self._stops_at_once:
            fails = ops.logical_not(finite)
        if self._max_consecutive_skips is not None:
            streak = in_a_row > self._max_consecutive_skips
            fails = ops.logical_or(fails, streak)
        failure = (steps + skipped) * ops.cast(fails, dtype)
        written = [skipped, in_a_row, steps, failure]
        # Turned round only for XLA, which makes selections of a conditional
        # with nothing but elementwise operations, and for these copies every
        # slot of the inner optimizer: 7% of a step of 1.5 ms.
        bad = ops.logical_not(ops.isfinite(figures[0][:-1]))
        culprits = ops.flip(ops.cast(bad, dtype))
        written = ops.concatenate([ops.stack(written), culprits])
        if self.can_fail:
            written = ops.where(self.has_failed(), self._skips.value, written)
        self._skips.assign(written)

    def report(self):
        """Returns what was counted, as Python numbers."""
        steps = int(ops.convert_to_numpy(self._steps))
        updates = steps // self._steps_per_update
        skipped, in_a_row, steps_then, *_ = _numbers(self._skips)
        *norms, update_norm = _numbers(self._norms)
        return {
            "grad_norm": math.hypot(*norms),
            "update_norm": update_norm,
            "clip_rate": _numbers(self._clipped) / updates if updates else 0.0,
            "skipped": skipped,
            "consecutive_skips": in_a_row if steps == steps_then else 0,
            "worst_variable": self._paths[norms.index(max(norms))]
            if updates
            else None,
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
        skipped, in_a_row, steps, failure, *culprits = _numbers(self._skips)
        if not failure:
            return
        flags = zip(self._paths, reversed(culprits), strict=True)
        paths = [path for path, bad in flags if bad]
        limit = self._max_consecutive_skips
        # A new start, for those who catch the error and go on.
        self._skips.assign([skipped, 0, steps, 0, *culprits])
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


def _numbers(variable):
    """Returns the value of a variable as Python numbers."""
    return ops.convert_to_numpy(variable).tolist()
