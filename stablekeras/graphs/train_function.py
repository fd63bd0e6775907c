"""A train function like Keras' own that stops at a step it cannot commit.

Keras calls `model.train_function(iterator)` once a chunk of
`steps_per_execution` steps. The one built here runs the same steps, leaves
the chunk at the first step that reports a trip, and can go on from there. The
state of the model is then exactly that before the failing step, and the
failing batch is still in the hand of the device: nothing was copied.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from stablekeras.errors import VersionError

try:
    from keras.src.backend.tensorflow.trainer import (
        reduce_per_replica as _reduce_per_replica,
    )
except ImportError as error:
    raise VersionError(
        "NaNWatch runs Keras' training step inside a function of its own. "
        f"Received: keras {keras.__version__}, whose TensorFlow trainer has "
        "changed. Install a Keras version that stablekeras lists as supported."
    ) from error

__all__ = [
    "COLUMNS",
    "Chunk",
    "compile_step",
    "installed",
    "is_distributed",
    "is_iterator",
    "overrides_train_function",
    "run_chunk",
    "swap",
]


# Of the facts of a step: what tripped, whether the loss scale overflowed, the
# loss, half the squared gradient norm, the first replica of all with a fault
# of its own, counted from 1.
COLUMNS = 5


@dataclasses.dataclass
class Chunk:
    """What one call of a chunk function did.

    Args:
        good: Number of steps that were committed.
        facts: Float array `(replicas, columns)` of the last step.
        logs: Logs of the last committed step, or `None` without one.
        batch: Returns the batch of the last step.
        overflows: Number of loss-scale overflows among the committed steps.
    """

    good: int
    facts: Any
    logs: Any
    batch: Any
    overflows: int


def overrides_train_function(model):
    """Returns whether the model's class builds its own train function."""
    return type(model).make_train_function is not (
        keras.Model.make_train_function
    )


def is_distributed(model):
    """Returns whether the model was made under a distribution strategy."""
    return getattr(model, "_distribute_strategy", None) is not None


def is_iterator(data):
    """Returns whether `data` is what `fit` hands to a train function."""
    return isinstance(data, tf.data.Iterator) or hasattr(
        data, "get_next_as_optional"
    )


def installed(model, name="train_function"):
    """Returns the train (or test) function that Keras would call now."""
    return model.__dict__.get(name)


def swap(model, function, name="train_function"):
    """Makes `function` the train function and returns the former one."""
    before = model.__dict__.get(name)
    # Past Keras' attribute tracking: this happens at every chunk.
    model.__dict__[name] = function
    return before


def _without_optionals(data):
    """Returns `data` with empty optionals as `None`, as Keras does."""
    return keras.tree.map_structure(
        lambda x: None if isinstance(x, tf.experimental.Optional) else x, data
    )


def _reduce(logs, strategy):
    """Returns the means of the logs over all replicas."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        # Keras asks for an axis here, which scalars do not have.
        return keras.tree.map_structure(
            lambda v: strategy.reduce("MEAN", v, axis=None), logs
        )
    return _reduce_per_replica(logs, strategy, reduction="auto")


def compile_step(model, step):
    """Returns `step(data) -> (facts, logs)` compiled as Keras compiles it.

    Args:
        model: The compiled model, which says whether to jit.
        step: Takes a batch; returns the facts `(replicas, columns)` and the
            logs, both in cross-replica context.

    Returns:
        A function of a batch.
    """

    @tf.autograph.experimental.do_not_convert
    def one_step(data):
        facts, logs = step(data)
        return facts, _reduce(logs, model.distribute_strategy)

    if not model.run_eagerly:
        one_step = tf.function(
            one_step, reduce_retracing=True, jit_compile=model.jit_compile
        )

    @tf.autograph.experimental.do_not_convert
    def converted(data):
        return one_step(_without_optionals(data))

    return converted


def run_chunk(model, step, steps):
    """Returns the function that runs up to `steps` steps of an iterator.

    Args:
        model: The compiled model.
        step: What `compile_step` returned.
        steps: `model.steps_per_execution`.

    Returns:
        `chunk(iterator, remaining) -> Chunk`, which raises `StopIteration`
        or `tf.errors.OutOfRangeError` when the iterator is empty, as Keras
        does; and `trace(iterator)`, which only traces it.
    """
    if model.run_eagerly:
        return _eager_chunk(step)
    if steps == 1:
        return _single_step(step)
    rows = 1
    if is_distributed(model):
        rows = len(model.distribute_strategy.extended.worker_devices)
    return _many_steps(step, rows)


def _eager_chunk(step):
    def chunk(iterator, remaining):
        result = Chunk(0, None, None, None, 0)
        while result.good < remaining:
            optional = iterator.get_next_as_optional()
            if not bool(optional.has_value()):
                if result.facts is None:
                    raise StopIteration
                break
            data = optional.get_value()
            facts, logs = step(data)
            result.facts, result.batch = facts.numpy(), lambda data=data: data
            if result.facts[:, 0].any():
                break
            result.logs = logs
            result.good += 1
            result.overflows += int(result.facts[:, 1].any())
        return result

    return chunk, lambda iterator: None  # Nothing is traced eagerly.


def _single_step(step):
    @tf.autograph.experimental.do_not_convert
    def next_step(iterator):
        data = iterator.get_next()
        facts, logs = step(data)
        return facts, logs, data

    next_step = tf.function(next_step, reduce_retracing=True)

    def chunk(iterator, remaining):
        facts, logs, data = next_step(iterator)
        facts = facts.numpy()
        tripped = facts[:, 0].any()
        return Chunk(
            good=0 if tripped else 1,
            facts=facts,
            logs=None if tripped else logs,
            batch=lambda: data,
            overflows=int(facts[:, 1].any()),
        )

    return chunk, next_step.get_concrete_function


def _many_steps(step, rows):
    @tf.autograph.experimental.do_not_convert
    def next_steps(iterator, remaining):
        optional = tf.experimental.Optional
        # What a step logs is known once the body is traced; TensorFlow
        # compares the specs only after that.
        no_logs = optional.empty(None)

        def keep_going(good, tripped, overflows, facts, logs, data):
            return tf.logical_and(
                tf.logical_and(good < remaining, tf.logical_not(tripped)),
                data.has_value(),
            )

        def body(good, tripped, overflows, facts, logs, data):
            facts, new_logs = step(data.get_value())
            new_logs = optional.from_value(new_logs)
            no_logs._element_spec = new_logs.element_spec
            logs._element_spec = new_logs.element_spec
            tripped = tf.reduce_any(facts[:, 0] != 0)
            overflows += tf.cast(tf.reduce_any(facts[:, 1] != 0), tf.int32)
            logs = tf.cond(tripped, lambda: logs, lambda: new_logs)
            good += tf.cast(tf.logical_not(tripped), tf.int32)
            # The failing batch stays; past the last step nothing is fetched.
            data = tf.cond(
                tf.logical_or(tripped, good >= remaining),
                lambda: data,
                iterator.get_next_as_optional,
            )
            return good, tripped, overflows, facts, logs, data

        data = iterator.get_next_as_optional()
        good, _, overflows, facts, logs, data = tf.while_loop(
            keep_going,
            body,
            (
                tf.constant(0),
                tf.constant(False),
                tf.constant(0),
                tf.zeros((rows, COLUMNS), tf.float32),
                no_logs,
                data,
            ),
        )
        logs._element_spec = no_logs.element_spec
        return good, overflows, facts, logs, data

    next_steps = tf.function(next_steps, reduce_retracing=True)

    def chunk(iterator, remaining):
        good, overflows, facts, logs, data = next_steps(
            iterator, tf.constant(remaining)
        )
        good, facts = int(good), facts.numpy()
        if not good and not facts.any():
            raise StopIteration
        return Chunk(
            good=good,
            facts=facts,
            logs=logs.get_value() if good else None,
            batch=data.get_value,
            overflows=int(overflows),
        )

    def trace(iterator):
        next_steps.get_concrete_function(iterator, tf.constant(0))

    return chunk, trace
