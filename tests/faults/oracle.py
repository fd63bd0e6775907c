"""What is true of a faulty training: found by Keras alone, and by brute force.

The judge trains the plain model one step a call. Every variable is copied
before each step and put back if the step's loss is not finite or if it wrote
something that is not finite: what remains is the list of the steps that a
watch has to refuse. The expected state is then that of a real run without
those batches.
"""

import keras
import numpy as np

from tests.faults.draw import EPOCHS
from tests.faults.training import infected, nonfinite, values, variables

__all__ = ["Judge", "expected_runs", "without"]


class Judge(keras.callbacks.Callback):
    """Finds the bad steps of a plain training, and undoes each by copies.

    Attributes:
        bad: Steps `(epoch, step)` that must not be committed.
        overflows: Number of steps in which only the loss scale had to give.
        losses: `(epoch, step)` to the running mean of the loss there.
    """

    def __init__(self):
        super().__init__()
        self.bad = []
        self.overflows = 0
        self.losses = {}
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._before = values(self.model, metrics=True)

    def on_train_batch_end(self, batch, logs=None):
        after = values(self.model, metrics=True)
        self.losses[self._epoch, batch] = logs["loss"]
        wrong = not np.isfinite(logs["loss"]) or self._spread(after)
        scale = self._scale(self._before)
        if not wrong and self._scale(after) < scale:
            # Keras has skipped the update: the gradient was not finite.
            wrong = scale <= 1.0
            self.overflows += not wrong
        if wrong:
            self.bad.append((self._epoch, batch))
            model = self.model
            owned = [v for m in model.metrics for v in m.variables]
            for v, value in zip(
                [*variables(model), *owned], self._before, strict=True
            ):
                v.assign(value)

    def _spread(self, after):
        """Whether the step wrote what is not finite."""
        count = len(variables(self.model))
        # A statistic is written anew by every step; a weight that was bad
        # before is the user's.
        statistics = {
            id(v)
            for v in self.model.non_trainable_variables
            if not any(v is w for m in self.model.metrics for w in m.variables)
        }
        allowed = [
            None if id(v) in statistics else mask
            for v, mask in zip(
                variables(self.model),
                nonfinite(self._before[:count]),
                strict=True,
            )
        ]
        return infected(nonfinite(after[:count]), allowed)

    def _scale(self, state):
        optimizer = self.model.optimizer
        if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return 1.0
        which = [v is optimizer.dynamic_scale for v in variables(self.model)]
        return float(state[which.index(True)])


def without(epochs, bad):
    """Returns the epochs without the batches at the steps `bad`."""
    return [
        [b for step, b in enumerate(epoch) if (e, step) not in set(bad)]
        for e, epoch in enumerate(epochs)
    ]


def expected_runs(fault, epochs, bad):
    """Yields the runs of which one must end as the watched training did.

    Args:
        fault: The `Fault`.
        epochs: All batches.
        bad: The steps that must not be committed, not empty.

    Returns:
        A list of `(parts, losses)`. A part is a list of epochs, with the
        number of the first and whether the learning rate is halved before it.
        `losses` says which epochs of the watched History it must give.
    """
    (epoch, step), *_ = bad
    if fault.action == "skip":
        return [([(without(epochs, bad), 0, False)], range(EPOCHS))]
    if fault.action in ("stop", "raise"):
        upto = [*epochs[:epoch], epochs[epoch][:step]]
        shown = range(epoch + (fault.action == "stop"))
        return [([(upto, 0, False)], shown)]
    runs = []
    rest = [epochs[epoch][step + 1 :], *epochs[epoch + 1 :]]
    for start in range(epoch, -1, -1):  # The last snapshot, or one before.
        before = [(epochs[:start], 0, False)] if start else []
        runs.append(([*before, (rest, epoch, True)], range(epoch, EPOCHS)))
    return runs
