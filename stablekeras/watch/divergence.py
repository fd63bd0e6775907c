"""Tell from the losses that a training ran away while still finite."""

import math

__all__ = ["Divergence"]


class Divergence:
    """Tells from the losses that a training ran away while still finite.

    The first losses, made by weights that training has hardly moved, are the
    reference. A training has run away when the loss of one call is `steps`
    times the reference, or the mean of an epoch `epochs` times: far outside
    of what noise does to a training that learns; or when `patience` epochs in
    a row were no better than the beginning. Nothing is said of losses that
    begin at 0 or below.

    Args:
        steps: Factor for the loss of one call of the train function.
        epochs: Factor for the mean loss of an epoch.
        patience: Epochs above the reference before that is a divergence.
    """

    _FIRST = 3
    _SLACK = 1.1

    def __init__(self, steps=50.0, epochs=3.0, patience=3):
        self._steps = steps
        self._epochs = epochs
        self._patience = patience
        self._before = math.inf
        self._calls = 0
        self._first = self._very_first = 0.0
        self.restart()

    def restart(self):
        """Begins anew from a snapshot; the reference may only fall."""
        if self._calls:
            self._before = min(self._before, self._first)
        self._calls = 0
        self._above = 0
        self.new_epoch()

    def new_epoch(self):
        """Says that Keras began a new mean."""
        self._sum, self._seen = 0.0, 0

    @property
    def reference(self):
        """The loss that training began with."""
        return min(self._before, self._first)

    @property
    def mean(self):
        """Mean loss of the epoch so far, 0 before its first step."""
        return self._sum / self._seen if self._seen else 0.0

    def call(self, mean, steps):
        """Returns whether the last call of the train function ran away.

        Args:
            mean: Mean loss since `new_epoch`, as Keras logs it.
            steps: Number of committed steps of the call, not 0.
        """
        total = mean * (self._seen + steps)
        own = abs(total - self._sum) / steps
        self._sum, self._seen = total, self._seen + steps
        self._calls += 1
        if self._calls == 1:
            self._first = self._very_first = own
        elif self._calls <= self._FIRST:
            self._first = max(self._first, min(own, 3.0 * self._very_first))
        return own > self._steps * self.reference > 0.0

    def epoch(self):
        """Returns whether the epoch that ends ran away."""
        if self.mean > self._SLACK * self.reference:
            self._above += 1
        else:
            self._above = 0
        return 0.0 < self.reference < math.inf and (
            self.mean > self._epochs * self.reference
            or self._above >= self._patience
        )

    def is_good(self):
        """Returns whether the state now is one to come back to."""
        beginning = min(self._before, self._very_first)
        return beginning <= 0.0 or self.mean <= self._SLACK * beginning
