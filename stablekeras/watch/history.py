"""What the last steps were like, and what clipping did to them."""

import collections
from typing import Any

from stablekeras.optimizers.log_clipping import (
    clipping_logs,
    find_clipped_optimizer,
)

__all__ = ["StepHistory", "check_clipping", "show_clipping"]


class StepHistory:
    """Loss and gradient norm of the last calls of the train function.

    Args:
        length: Most rows kept.
    """

    def __init__(self, length=200):
        self._rows: Any = collections.deque(maxlen=length)

    def add(self, loss, gradient_norm):
        """Notes a call.

        Args:
            loss: The loss as logged, the mean of the epoch so far in Keras'
                own steps; `None` without one.
            gradient_norm: Global norm of the gradients of its last step,
                unscaled; `None` where it is not known.
        """
        figures = {"loss": loss, "gradient_norm": gradient_norm}
        row = {k: float(v) for k, v in figures.items() if v is not None}
        if row:
            self._rows.append(row)

    def rows(self):
        """Returns the rows, oldest first."""
        return tuple(self._rows)


def show_clipping(logs, model, skipped):
    """Adds what a `ClippedOptimizer` of the model did to the logs.

    Args:
        logs: Dictionary, changed; what a step logs itself under the same name
            stays, unless it is what the optimizer says.
        model: The compiled model.
        skipped: Number of steps the watch skipped before the optimizer saw
            them.
    """
    shown = clipping_logs(getattr(model, "optimizer", None))
    for name, value in shown.items():
        # A LogClipping before the watch knows only of the optimizer's skips.
        if logs.get(name, value) == value:
            logs[name] = value + (skipped if name == "skipped_steps" else 0)


def check_clipping(model):
    """Raises what a compiled step of a `ClippedOptimizer` could not raise.

    Raises:
        NonFiniteError: See `nonfinite` of `ClippedOptimizer`.
        TooManySkipsError: See `max_consecutive_skips` there.
    """
    optimizer = find_clipped_optimizer(getattr(model, "optimizer", None))
    if optimizer is not None:
        optimizer.check()
