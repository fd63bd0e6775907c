"""Say why a run was not finite: root, cause, cure.

Trace ─► the entries that are not finite, from the loss or, where that is
         finite, from the gradients ─► the ops that made them ─► the first
         hazard of the catalogue that the values there show ─► Diagnosis
"""

import inspect

import keras
import numpy as np
import tensorflow as tf

from stablekeras.graphs.blame import Root, blame
from stablekeras.graphs.location import code_line, layer_path
from stablekeras.graphs.run import run
from stablekeras.graphs.trace import array_paths, trace
from stablekeras.hazards.catalogue import UNKNOWN, recognize
from stablekeras.hazards.data import is_feature
from stablekeras.hazards.division import is_selection
from stablekeras.hazards.site import Site
from stablekeras.watch.records import Diagnosis, Trace
from stablekeras.watch.wording import sink_facts, worded

__all__ = ["diagnose", "explain"]


def diagnose(fn, *args, variables=None):
    """Says why a function's value or gradient is not finite.

    The function is traced and run once, op by op. It has no effect: writes
    to variables go to copies, nothing is printed or saved.

    Args:
        fn: Function of tensors, for instance the loss of a training step
            with a `tf.GradientTape`. If it differentiates nothing itself,
            its floating results are differentiated.
        *args: Its arguments: arrays, tensors, or structures of them; the
            first axis of the first one is taken for the batch.
        variables: Variables to differentiate by. By default all trainable
            ones that `fn` reads; without any, its floating arguments.

    Returns:
        A `Diagnosis`, or `None` if value and gradient are finite.

    Raises:
        TypeError: If `fn` is not callable, or `variables` holds something
            else than variables.

    Example:
    >>> import stablekeras, tensorflow as tf
    >>> def loss(x):
    ...     return -tf.reduce_mean(tf.math.log(tf.nn.softmax(x)))
    >>> diagnosis = stablekeras.diagnose(loss, tf.constant([[0.0, 200.0]]))
    >>> diagnosis.code, diagnosis.title
    ('SK101', 'log of an underflowed softmax')
    """
    if not callable(fn):
        raise TypeError(
            f"fn must be callable. Received: fn={fn!r}. Pass the function "
            "that computes the loss."
        )
    if variables is not None and not all(map(_is_variable, variables)):
        raise TypeError(
            "variables must be a list of variables. Received: "
            f"variables={variables!r}. Pass model.trainable_variables."
        )
    traced = trace(
        fn,
        args,
        names=_names(fn, args),
        variables=variables or (),
        differentiate=tuple(variables or ()),
    )
    rows = _rows(traced.values)
    execution = run(traced, rows=rows)
    outputs = tuple((n, execution.ref(t)) for n, t in traced.outputs)
    found = Trace(
        execution=execution,
        losses=tuple((n, r) for n, r in outputs if r is not None)
        or tuple(("loss", execution.ref(t)) for t in traced.losses),
        gradients=tuple((n, execution.ref(t)) for n, t in traced.gradients),
        outputs=outputs,
        rows=rows,
        arrays=tuple(n for n, _ in traced.inputs),
    )
    return explain(found) if found.reproduced else None


def _is_variable(value):
    return isinstance(value, (tf.Variable, keras.Variable))


def _names(fn, args):
    """Names the array arguments as the function does."""
    try:
        own = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        own = []
    names = []
    for place, arg in enumerate(args):
        name = f"args[{place}]"
        if place < len(own) and own[place].kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            name = own[place].name
        names += [
            name + "".join(f"[{key!r}]" for key in path)
            for path in array_paths(arg)
        ]
    return names


def _rows(values):
    for value in values:
        if value.shape.rank:
            return int(value.shape[0])
    return None


def explain(trace):
    """Returns the `Diagnosis` of a `Trace`.

    A cause is named only where the run showed it: an op that gave what is
    not finite from finite entries, and values there that break a formula
    of the catalogue. All else is `"SK000"`, with what was measured.

    Args:
        trace: A `Trace`.

    Returns:
        A `Diagnosis`.
    """
    execution = trace.execution
    if execution.error is not None and _mislabelled(execution):
        return _of_error(trace)
    for phase, updates, sinks in _sinks(trace):
        bad = [(n, r) for n, r in sinks if execution.is_bad(r)]
        if bad:
            return _of_sinks(trace, phase, updates, bad)
    if execution.error is not None:
        return _of_error(trace)
    return _not_reproduced(trace)


def _mislabelled(execution):
    root = Root(execution.error, 0, np.ones((), bool))
    return Site(execution, None, root, "forward").label() is not None


def _sinks(trace):
    execution = trace.execution
    yield "forward", False, trace.losses
    yield "backward", False, trace.gradients
    yield "forward", False, trace.outputs
    yield "backward", True, execution.writes


def _of_error(trace):
    execution = trace.execution
    node = execution.error
    root = Root(node, 0, np.ones((), bool))
    site = Site(execution, None, root, "forward")
    evidence = (f"{node.type} ({node.op.name}) raised: {node.error}",)
    if site.label() is None:
        return Diagnosis(
            code=UNKNOWN.code,
            title=f"{node.type} failed",
            cause=node.error.splitlines()[0],
            remedy=UNKNOWN.fix,
            op_type=node.type,
            op_name=node.op.name,
            layer=layer_path(execution.traced, node),
            location=code_line(node.op),
            evidence=(*evidence, *trace.notes),
        )
    hazard, found = recognize(site)
    return Diagnosis(
        code=hazard.code,
        title=hazard.title,
        cause=hazard.cause(site, found),
        remedy=hazard.remedy,
        op_type=node.type,
        op_name=node.op.name,
        layer=layer_path(execution.traced, node),
        location=code_line(node.op),
        samples=tuple(site.label()[3]),
        evidence=(*evidence, *trace.notes),
    )


def _not_reproduced(trace):
    return Diagnosis(
        code=UNKNOWN.code,
        title="not reproduced",
        cause=(
            "the step, run again op by op on the recorded batch and state, "
            "was finite throughout"
        ),
        remedy=(
            "Look for what the replay leaves out: compilation "
            "(jit_compile=False tells), unseeded randomness, state outside "
            "the model."
        ),
        evidence=(
            f"{len(trace.execution.nodes)} ops ran, and every loss, gradient "
            "and written value was finite",
            *_compiled_facts(trace),
            *trace.notes,
        ),
    )


def _compiled_facts(trace):
    if trace.compiled is None:
        return
    bad = [name for name, finite in trace.compiled.items() if not finite]
    if bad:
        shown = ", ".join(bad[:5]) + (" …" if len(bad) > 5 else "")
        yield (
            f"compiled as in training, {len(bad)} of {len(trace.compiled)} "
            f"losses and gradients are not finite: {shown}; the compiler's "
            "form of the step breaks, its ops one by one do not"
        )
    else:
        yield "compiled as in training, the step is finite as well"


def _of_sinks(trace, phase, updates, bad):
    execution = trace.execution
    found = blame(execution, [ref for _, ref in bad])
    sites = []
    for root in _ranked(execution, found, phase):
        own = phase
        if execution.traced.ran_backward(root.node) and not updates:
            own = "backward"
        # A statistic that a layer writes is no update of the optimizer.
        by_layer = layer_path(execution.traced, root.node) is not None
        if updates and by_layer:
            own = "forward"
        site = Site(execution, found, root, own, trace.history)
        if updates and not by_layer:
            site.updates = bad[0][0]
        sites.append(site)
    if not sites:
        return _without_root(trace, phase, bad)
    site, hazard, captured = _choose(execution, found, sites)
    return worded(trace, site, hazard, captured, bad, sites)


def _ranked(execution, found, phase):
    """Roots, the one to name first: faults of the data, then by time.

    In the backward pass it is the time at which the entry enters that pass.
    """

    def key(root):
        node = root.node
        given = (
            node.number in execution.sources or node.type == "ReadVariableOp"
        )
        literal = node.type == "Const"
        entry = node.number
        if phase == "backward":
            chain = found.chain((node.number, root.output))
            entry = next(
                (
                    n
                    for n in chain
                    if execution.traced.ran_backward(execution.nodes[n])
                ),
                node.number,
            )
        return (not given, literal, entry, node.number)

    return sorted(found.roots, key=key)


def _choose(execution, found, sites):
    """Returns the first site that the catalogue knows, and what it is."""
    for site in sites:
        if site.is_opaque:
            return site, UNKNOWN, {}
        site = _past_deliberate(execution, found, site)
        hazard, captured = recognize(site)
        return site, hazard, captured
    raise AssertionError("no site")


def _is_log_of_mask(site):
    # log(mask) is a way to write 0 where a mask is on and -Inf where not.
    return site.root.node.type == "Log" and is_selection(site, site.inputs[0])


def _past_deliberate(execution, found, site):
    """Steps from an Inf that was meant, as in a mask, to what broke on it."""
    root = site.root
    stats = root.node.outputs[root.output].stats
    deliberate = stats.nan == 0 and (
        root.node.type == "Const"
        or root.node.number in execution.sources
        or _is_log_of_mask(site)
    )
    chain = found.chain((root.node.number, root.output))
    if not deliberate or is_feature(execution, chain):
        return site
    for number in chain[1:]:
        node = execution.nodes[number]
        for output, measured in enumerate(node.outputs):
            mask = found.wanted.get((number, output))
            if mask is None or measured.stats is None or not measured.stats.nan:
                continue
            moved = Site(
                execution,
                found,
                Root(node, output, mask),
                site.phase,
                site.history,
            )
            hazard, _ = recognize(moved)
            if hazard.code in ("SK505", "SK412", "SK404"):
                return moved
            return site
    return site


def _without_root(trace, phase, bad):
    name, _ = bad[0]
    return Diagnosis(
        code=UNKNOWN.code,
        title=UNKNOWN.title,
        cause=f"{name} is not finite, and no op that made it so was found",
        remedy=UNKNOWN.fix,
        phase=phase,
        evidence=(*sink_facts(trace), *trace.notes),
    )
