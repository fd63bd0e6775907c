"""Decide what is done about a refused step."""

__all__ = ["Policy"]


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
