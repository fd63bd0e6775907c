"""A training step traced into a graph of its own, with what it revealed."""

import tensorflow as tf

from stablekeras.graphs import resources
from stablekeras.graphs.apply_calls import ApplyCall
from stablekeras.graphs.sums import half_square, total_of, values
from stablekeras.graphs.train_function import is_distributed

__all__ = ["TracedStep", "loss_of"]


def _is_loss(name):
    """Returns whether the log `name` holds a loss, not a metric.

    A metric may be NaN in health (a correlation over one row), a loss not.
    """
    return name == "loss" or name.endswith("_loss")


def loss_of(logs):
    """Returns the sum of the losses among the logs, 0 without one."""
    losses = []
    if isinstance(logs, dict):
        losses = [
            tf.reduce_mean(tf.cast(v, tf.float32))
            for k, v in logs.items()
            if _is_loss(k) and v is not None
        ]
    return tf.add_n(losses) if losses else tf.constant(0.0)


class TracedStep:
    """A step traced into a function of its own, with what it revealed.

    The function returns logs, loss, then for each call of `apply` gradients,
    the loss shown and half the squared norm of its gradients, and the sum
    that is finite if all of it is.
    """

    def __init__(self, model, step, data, log, gradients_count):
        self.calls: list[ApplyCall] = []
        strategy = model.distribute_strategy
        distributed = is_distributed(model)

        def replica(data):
            with log.recording() as calls:
                logs = step(data)
            self.calls[:] = calls
            grads = [c.tensors() if c.visible else [] for c in calls]
            loss = loss_of(logs)
            counted = grads if gradients_count else []
            half_norms = [
                total_of([half_square(values(g)) for g in own])
                for own in counted
            ]
            total = total_of([*half_norms, loss])
            if distributed:
                # A NaN or Inf on one replica is one on all.
                total = tf.distribute.get_replica_context().all_reduce(
                    tf.distribute.ReduceOp.SUM, total
                )
            shown = [[] if c.loss is None else [c.loss] for c in calls]
            return logs, loss, grads, shown, half_norms, total

        def compute():
            with log.watching():
                if distributed:
                    return strategy.run(replica, args=(data,))
                return replica(data)

        self.function = tf.function(
            compute, autograph=False
        ).get_concrete_function()
        self.written = resources.written(self.function.graph)

    def hasty(self):
        """Returns the numbers of the deferred calls that must not wait."""
        graph = self.function.graph
        result = set()
        for number, call in enumerate(self.calls):
            later = [c.touched for c in self.calls[number + 1 :]]
            used = resources.touched_after(graph, call.operations)
            if call.deferred and call.touched & used.union(*later):
                result.add(number)
        return result
