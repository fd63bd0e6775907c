"""Decide what is done about a refused step, and when a training ran away."""

import math

__all__ = ["Divergence", "Policy"]


class Policy:
    """Counts skips and rollbacks, and gives in when they do not help.

    Args:
        action: `"stop"`, `"skip"`, `"rollback"` or `"raise"`.
        max_skips: Most steps that may be skipped (or rolled back) in one
            training, or `None`.
        max_consecutive_skips: Most of them in a row, or `None`. A committed
            step ends a row of skips; a new snapshot, a row of rollbacks.
    """

    def __init__(self, action, max_skips, max_consecutive_skips):
        self._action = action
        self._max_skips = max_skips
        self._max_consecutive_skips = max_consecutive_skips
        self.reset()

    def reset(self):
        """Forgets what happened: a new training begins."""
        self.total = 0
        self.consecutive = 0

    def progress(self):
        """Says that things went well: the row has ended."""
        self.consecutive = 0

    def decide(self):
        """Returns the action for one more refused step, and counts it."""
        if self._action in ("stop", "raise"):
            return self._action
        for count, limit in (
            (self.total, self._max_skips),
            (self.consecutive, self._max_consecutive_skips),
        ):
            if limit is not None and count >= limit:
                return "stop"
        self.total += 1
        self.consecutive += 1
        return self._action


class Divergence:
    """Tells from the losses that a training ran away while still finite.

    The first losses, made by weights that training has hardly moved, are the
    reference. A training has run away when one call's loss is `steps` times
    the reference, or the mean of an epoch `epochs` times: far outside of what
    noise does to a training that learns.

    Args:
        steps: Factor for the loss of one call of the train function.
        epochs: Factor for the mean loss between two snapshots.
    """

    _FIRST = 3

    def __init__(self, steps=50.0, epochs=3.0):
        self._steps = steps
        self._epochs = epochs
        self._reference = math.inf
        self.restart()

    def restart(self):
        """Begins anew from the snapshot: the reference may only fall."""
        if getattr(self, "_calls", 0):
            self._reference = min(self._reference, self._first)
        self._first = 0.0
        self.new_epoch()
        self._calls = 0

    def new_epoch(self):
        """Says that Keras began a new mean."""
        self._sum, self._steps_seen = 0.0, 0

    @property
    def reference(self):
        """The loss that training began with."""
        return min(self._reference, self._first)

    def _limit(self, factor):
        return factor * self.reference

    def call(self, mean, steps):
        """Returns whether the last call of the train function ran away.

        Args:
            mean: Mean loss since `new_epoch`, as Keras logs it.
            steps: Number of committed steps of the call.
        """
        if not steps:
            return False
        total = mean * (self._steps_seen + steps)
        own = abs(total - self._sum) / steps
        self._sum, self._steps_seen = total, self._steps_seen + steps
        self._calls += 1
        if self._calls == 1:
            self._first = own
        elif self._calls <= self._FIRST:
            self._first = max(self._first, min(own, 3.0 * self._first))
        return own > self._limit(self._steps) > 0.0

    def period(self):
        """Returns whether the mean since `new_epoch` ran away."""
        if not self._steps_seen:
            return False
        mean = abs(self._sum) / self._steps_seen
        return mean > self._limit(self._epochs) > 0.0
