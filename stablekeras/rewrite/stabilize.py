"""`stabilize`: a function whose formulas are stable before they are derived."""

import functools
import inspect
import warnings
import weakref

import keras
import tensorflow as tf

from stablekeras.graphs.emit import as_written, current_graph, transparent
from stablekeras.rewrite.model import stabilize_model
from stablekeras.rewrite.plan import rewrite
from stablekeras.rewrite.tapes import before_derivatives

__all__ = ["stabilize"]


def stabilize(fn):
    """Makes a function's own formulas stable, before they are differentiated.

    When the function is called while a graph is built (in `fit`, under
    `tf.function`), the formulas that led to its result are read, and those
    that round to zero, overflow or have no derivative are replaced by a form
    that computes the same function without that: `log(1 / (1 + exp(-z)))`
    becomes `log_sigmoid(z)`. The formulas that made its arguments are read as
    well, so that the logits behind a probability are found. Called eagerly,
    the function is traced first; what its arguments were made of is then not
    known.

    Nothing is replaced by another function. A guard against zero whose
    constant is at most 1e-5 (`clip(p, 1e-7, 1)`) gives way once the logits
    are found; an added constant does where the dtype cannot tell it from 0
    beside 1. `0 * log(0)`, the mean over an empty mask and the softmax of a
    fully masked row are 0, the derivative of `sqrt` and of norms at 0 is 0.
    The logarithm of a negative number stays NaN.

    Args:
        fn: A function of tensors: a loss, an activation, a step with a
            `tf.GradientTape`. Or a `keras.Model`, whose training step is
            then stabilized as a whole; its predictions stay as they are.

    Returns:
        A function with the name and the arguments of `fn` and a list
        `rewrites`, filled when it is called: what was replaced, where, by
        what. Given a model, the model itself, with such a list. A function
        with nothing to replace is called as it is.

    Raises:
        TypeError: If `fn` cannot be called.

    Example:
    >>> import stablekeras
    >>> import tensorflow as tf
    >>> @stablekeras.stabilize
    ... def loss(z):
    ...     return -tf.math.log(1 / (1 + tf.exp(-z)))
    >>> loss(tf.constant([-200.0, 0.0])).numpy()
    array([200.       ,   0.6931472], dtype=float32)
    >>> loss.rewrites[0].code
    'SK102'
    """
    if isinstance(fn, keras.Model):
        return stabilize_model(fn)
    if not callable(fn):
        raise TypeError(
            "fn must be a function or a keras.Model. "
            f"Received: fn={fn!r}. Pass the loss itself, not its result."
        )
    if hasattr(fn, "rewrites") and hasattr(fn, "__wrapped__"):
        return fn
    name = getattr(fn, "__name__", None) or getattr(fn, "name", None)
    name = str(name or type(fn).__name__)
    stabilizer = _Stabilizer(fn, name)

    def stabilized(*args, **kwargs):
        return stabilizer(args, kwargs)

    functools.update_wrapper(stabilized, fn)
    stabilized.__name__ = name
    vars(stabilized)["__wrapped__"] = fn
    vars(stabilized)["rewrites"] = stabilizer.rewrites
    return transparent(stabilized)


class _Stabilizer:
    """Calls a function and rewrites what it made.

    Args:
        fn: The function.
        name: Its name, for messages.
    """

    def __init__(self, fn, name):
        self.fn = fn
        self.inner = getattr(fn, "python_function", fn)
        self.name = name
        self.rewrites: list = []
        # By the form of the call, which `tf.function` cannot generalize.
        self.traced: dict = {}
        self.changed: weakref.WeakSet = weakref.WeakSet()
        self.gave_up = keras.backend.backend() != "tensorflow"
        if self.gave_up:
            self._warn(f"the Keras backend is {keras.backend.backend()}")

    def __call__(self, args, kwargs):
        if self.gave_up or _is_symbolic((args, kwargs)):
            return self.fn(*args, **kwargs)
        graph = current_graph()
        if graph is not None:
            return self._in_graph(graph, args, kwargs, as_written(self.inner))
        return self._eager(args, kwargs)

    def _in_graph(self, graph, args, kwargs, fn):
        first = len(graph.get_operations())

        def stable(result):
            try:
                return self._stable(graph, first, args, kwargs, result)
            except Exception as error:
                self._warn(
                    f"its graph could not be rewritten: {_reason(error)}"
                )
                return result

        with before_derivatives(stable):
            result = fn(*args, **kwargs)
        return stable(result)

    def _stable(self, graph, first, args, kwargs, result):
        flat = tf.nest.flatten(result, expand_composites=True)
        places = [
            i
            for i, t in enumerate(flat)
            if tf.is_symbolic_tensor(t) and t.graph is graph
        ]
        own = set(graph.get_operations()[first:])
        given = tf.nest.flatten((args, kwargs), expand_composites=True)
        border = [
            t for t in given if tf.is_symbolic_tensor(t) and t.graph is graph
        ]
        new, rewrites = rewrite(
            [flat[i] for i in places], own.__contains__, border
        )
        if not rewrites:
            return result
        for place, tensor in zip(places, new, strict=True):
            flat[place] = tensor
        self._note(rewrites)
        self.changed.add(graph)
        return tf.nest.pack_sequence_as(result, flat, expand_composites=True)

    def _note(self, rewrites):
        for found in rewrites:
            if found not in self.rewrites:
                self.rewrites.append(found)

    def _eager(self, args, kwargs):
        form = (len(args), *sorted(kwargs))
        if form not in self.traced:
            self.traced[form] = self._function(self.inner)
        try:
            try:
                concrete = self._concrete(form, args, kwargs)
            except tf.errors.OperatorNotAllowedInGraphError:
                # Python control flow on tensors, which ran eagerly.
                self.traced[form] = self._function(
                    tf.__internal__.autograph.tf_convert(
                        self.inner,
                        tf.__internal__.autograph.control_status_ctx(),
                    )
                )
                concrete = self._concrete(form, args, kwargs)
        except Exception as error:
            self._warn(f"it cannot be traced: {_reason(error)}")
            self.gave_up = True
            return self.fn(*args, **kwargs)
        if concrete.graph not in self.changed:
            return self.fn(*args, **kwargs)
        return self.traced[form](*args, **kwargs)

    def _concrete(self, form, args, kwargs):
        return self.traced[form].get_concrete_function(*args, **kwargs)

    def _function(self, fn):
        def body(*args, **kwargs):
            return self._in_graph(current_graph(), args, kwargs, fn)

        if inspect.isfunction(self.inner):
            # Its own argument names stand in the listed rewrites.
            body = functools.wraps(self.inner)(body)
        return tf.function(body, autograph=False, reduce_retracing=True)

    def _warn(self, why):
        warnings.warn(
            f"stabilize left {self.name!r} as it is: {why}", stacklevel=5
        )


def _reason(error):
    """Returns an exception in one line; AutoGraph puts the cause last."""
    lines = str(error).strip().splitlines() or [""]
    if lines[0].startswith("in user code"):
        return lines[-1].strip()
    return f"{type(error).__name__}: {lines[0]}"


def _is_symbolic(structure):
    return any(
        isinstance(t, keras.KerasTensor) for t in tf.nest.flatten(structure)
    )
