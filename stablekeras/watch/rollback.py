"""Keep a state of the training that was good, and return to it.

good epoch ─► snapshot ─► a step is refused, or the loss runs away
▲                     │
└── restore, lower the learning rate, go on
"""

import dataclasses
import math
from typing import Any

import tensorflow as tf

from stablekeras.graphs import learning_rate, resources

__all__ = ["Rollback", "Snapshot", "take"]

# Times that training may return to one snapshot before the first is taken.
_MOST_RETURNS = 3
# Times that the rate is lowered after training was brought back.
_MOST_SETTLED = 8


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Values of all variables at one point of the training.

    Holds references to the values, which TensorFlow copies when a variable
    is next written: a snapshot costs one copy of the state, once.

    Args:
        epoch: Epoch of the first step after it.
        step: Number of that step in the epoch.
        values: Pairs of variable and value.
    """

    epoch: int
    step: int
    values: tuple[tuple[resources.VariableRef, Any], ...]

    def restore(self):
        """Assigns every variable the value it had."""
        for variable, value in self.values:
            resources.assign(variable, value)


def take(variables, written=(), *, epoch=0, step=0, leave_out=()):
    """Takes a snapshot, unless the state is not one to return to.

    Args:
        variables: Keras variables: weights, optimizer state, seeds.
        written: Further `VariableRef` that the training step writes.
        epoch: Epoch of the next step.
        step: Number of the next step.
        leave_out: Variables that the training may not return to.

    Returns:
        A `Snapshot`, or `None` if a value is NaN or infinite; only NaN of
        what is further written, a minimum may begin at infinity.
    """
    skipped = {id(h) for v in leave_out for h in resources.handles(v)}
    found = {}
    for ref in [*resources.references(variables), *written]:
        if id(ref.handle) not in skipped:
            found[id(ref.handle)] = ref
    values = [(ref, resources.read(ref)) for ref in found.values()]
    listed = {id(h) for v in variables for h in resources.handles(v)}
    for ref, value in values:
        if ref.dtype.is_floating:
            bad = tf.math.is_nan(value)
            if id(ref.handle) in listed:
                bad |= tf.math.is_inf(value)
            if bool(tf.reduce_any(bad)):
                return None
    return Snapshot(epoch, step, tuple(values))


class Rollback:
    """Takes snapshots of a training, and brings it back to them.

    Args:
        every: `"epoch"` or a number of steps between snapshots.
        factor: The learning rate is multiplied by it at each return.
        divergence: The `Divergence` that knows how the loss fares.
    """

    def __init__(self, every, factor, divergence):
        self._every = every
        self._factor = factor
        self._divergence = divergence
        self._latest: Any = None
        self._first: Any = None
        self._returns = self._returns_in_all = 0
        self._since = 0
        self._good_epoch = True
        self._lowered = 1.0
        self._rates: Any = None
        self._best_mean = math.inf
        self._settled = 0

    @property
    def is_ready(self):
        """Whether there is a state to return to."""
        return self._latest is not None

    def committed(self, steps):
        """Told of steps that were committed."""
        self._since += steps

    def is_due(self, step):
        """Returns whether a snapshot should be taken before step `step`."""
        if self._latest is None:
            return True
        if self._every == "epoch":
            return step == 0 and self._since > 0 and self._good_epoch
        return self._since >= self._every and self._divergence.is_good()

    def take(self, variables, written, *, epoch, step, leave_out):
        """Takes a snapshot; returns whether the state was one to keep."""
        taken = take(
            variables,
            written,
            epoch=epoch,
            step=step,
            leave_out=leave_out,
        )
        self._since = 0
        if taken is None:
            return False
        self._first = self._first or taken
        self._latest = taken
        self._returns = 0
        return True

    def back(self, optimizers):
        """Restores the last snapshot and lowers the learning rate.

        Returns:
            Whether steps traced before see the new rate.
        """
        self._returns += 1
        self._returns_in_all += 1
        if self._returns > _MOST_RETURNS:
            # That state was finite but beyond help; the first one is not.
            self._latest = self._first
        self._latest.restore()
        self._divergence.restart()
        self._since = 0
        self._best_mean = math.inf
        return self._lower(optimizers)

    def epoch_ends(self, optimizers):
        """Lowers the rate after an epoch that brought no progress.

        Where training had to be brought back more than once, the rate that
        at last held is about the largest that does, and noisy.

        Returns:
            Whether steps traced before see the rate.
        """
        mean = self._divergence.mean
        self._good_epoch = self._divergence.is_good()
        if self._returns_in_all < 2 or not mean:
            return True
        if mean < 0.98 * self._best_mean:
            self._best_mean = mean
            return True
        if self._settled == _MOST_SETTLED:
            return True
        self._settled += 1
        return self._lower(optimizers)

    def keep_rates_low(self, optimizers):
        """Lowers rates that another callback has set high again."""
        if self._rates is None:
            return
        now = learning_rate.rates(optimizers)
        for optimizer, rate, before in zip(
            optimizers, now, self._rates, strict=True
        ):
            if rate > before * (1.0 + 1e-6):
                learning_rate.set_rate(optimizer, rate * self._lowered)
        self._rates = learning_rate.rates(optimizers)

    def _lower(self, optimizers):
        seen = [learning_rate.lower(o, self._factor) for o in optimizers]
        self._lowered *= self._factor
        self._rates = learning_rate.rates(optimizers)
        return all(seen)
