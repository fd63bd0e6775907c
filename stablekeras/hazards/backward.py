"""SK4xx: the value is finite, its derivative is not."""

import numpy as np

from stablekeras.graphs.match import LOOKED_THROUGH, anything, op
from stablekeras.graphs.views import NodeView
from stablekeras.hazards.division import is_selection
from stablekeras.hazards.formulas import (
    ADD,
    DIVIDE,
    NORM,
    SPREAD,
    SUM_OF_SQUARES,
)
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]

_BACK = ("backward",)


def _at_zero(site, found):
    value = site.at(0)
    tiny = 1e-7 if site.is_half else 1.2e-38
    if site.dtype == "float64":
        tiny = 2.3e-308
    return bool(value.size and np.all(np.abs(value) <= tiny))


def _zero_cause(what):
    def cause(site, found):
        return (
            f"{site.op_type.lower()} got {site.where} equal to zero, where "
            f"{what}"
        )

    return cause


def _below_select(site):
    """The select that leaves the bad entries out, or `None`."""
    pending, seen = [site.view.ref], set[tuple]()
    while pending and len(seen) < 300:
        ref = pending.pop(0)
        if ref in seen:
            continue
        seen.add(ref)
        for node in site.execution.users(ref):
            if site.traced.ran_backward(node):
                continue
            if node.type in ("Select", "SelectV2"):
                place = node.inputs.index(ref)
                if place and _leaves_out(site, node, place):
                    return node
            if not node.outputs or node.outputs[0].stats is None:
                continue
            if node.type in ("Mean", "Sum") and node.outputs[0].shape == ():
                continue
            pending.append((node.number, 0))
    return None


def _leaves_out(site, node, place):
    chosen = site.execution.values([node.inputs[0]])[node.inputs[0]]
    born = site.root.born
    try:
        chosen = np.broadcast_to(chosen, born.shape)
    except ValueError:
        return True
    taken = chosen if place == 1 else ~chosen
    return not np.any(taken & born)


def _trapped(site, found):
    return _below_select(site) is not None


def _trap_cause(site, found):
    select = _below_select(site)
    value = site.at(0)
    got = f" of {figure(value.flat[0])}" if value.size else ""
    return (
        f"{select.type} ({select.op.name}) leaves out the {site.op_type}"
        f"{got} in {site.where}, but its derivative is 0 * Inf = NaN"
    )


def _forward_inf(site, found):
    return not site.is_derivative and not site.traced.ran_backward(
        site.root.node
    )


def _forward_cause(site, found):
    value = site.at(0)
    got = f" from {figure(value.max())}" if value.size else ""
    return (
        f"{site.op_type} gave Inf in {site.where}{got}; the value recovers, "
        "but the derivative is 0 * Inf = NaN"
    )


def _power_zero(site, found):
    value = site.at(0)
    return bool(value.size and np.all(np.abs(value) <= 1.2e-38))


def _edge(site, found):
    value = site.at(0)
    return bool(value.size and np.all(np.abs(value) >= 1.0 - 1e-6))


def _edge_cause(site, found):
    value = site.at(0)
    return (
        f"{site.op_type.lower()} got {site.where} equal to "
        f"{figure(value.flat[0])}, where its derivative is infinite"
    )


def _small_cause(site, found):
    place = 0 if site.op_type in ("Reciprocal", "Inv", "Rsqrt") else 1
    value = np.abs(site.at(place))
    got = figure(value.min()) if value.size else "a tiny denominator"
    return (
        f"the quotient is finite, but its derivative divides by the square "
        f"of {got}, which underflows"
    )


def _equal_cause(site, found):
    return (
        f"the derivative of {site.op_type} ({site.node.op.name}) inverts "
        "what has no inverse: the matrix is singular, or some of its "
        "eigenvalues are equal"
    )


def _singular_cause(site, found):
    value = site.at(0)
    got = f" at {figure(value.flat[0])}" if value.size else ""
    return (
        f"{site.op_type} ({site.node.op.name}) is finite{got}, and its "
        f"derivative is not: {site.root.node.type} gave {site.where} not "
        "finite from finite inputs"
    )


def _masking_product(site, found):
    """Whether the Inf is multiplied by a zero of the data's own."""
    own = site.is_derivative or not site.traced.ran_backward(site.root.node)
    return own and _mask_user(site) is not None


def _mask_user(site):
    pending, seen = [(site.view.ref, 6)], set[tuple]()
    while pending:
        ref, left = pending.pop()
        if ref in seen or not left:
            continue
        seen.add(ref)
        for node in site.execution.users(ref):
            if site.traced.ran_backward(node):
                continue
            if node.type == "Mul":
                for other in node.inputs:
                    if other == ref or other[1] is None:
                        continue
                    view = NodeView(site.execution, other)
                    if is_selection(site, view, 8) and _is_zero_at(site, view):
                        return node
            if node.type in LOOKED_THROUGH | {"Neg", "Mul", *ADD, "Sub"}:
                pending.append(((node.number, 0), left - 1))
    return None


def _is_zero_at(site, view):
    value = site.value(view) if view.stats is not None else None
    if value is None:
        return False
    try:
        value = np.broadcast_to(value, site.root.born.shape)[site.root.born]
    except ValueError:
        return bool(np.any(value == 0))
    return bool(value.size and np.all(value == 0))


def _mask_cause(site, found):
    node = _mask_user(site)
    value = site.at(0)
    got = f" of {figure(value.flat[0])}" if value.size else ""
    return (
        f"{site.op_type}{got} is not finite in {site.where}; "
        f"{node.op.name} multiplies it by a mask of 0, and 0 * Inf is NaN"
    )


HAZARDS = (
    Hazard(
        code="SK404",
        title="where trap: the branch not taken poisons the gradient",
        why=(
            "A `where` selects values, but both branches are "
            "differentiated: the one not taken gets a gradient of 0, and 0 "
            "times its infinite derivative is NaN."
        ),
        fix=(
            "Make the argument safe before the function: "
            "stablekeras.ops.masked(fn, x, mask), or "
            "safe = where(mask, x, 1); where(mask, fn(safe), 0)."
        ),
        phases=_BACK,
        test=_trapped,
        cause=_trap_cause,
        replacement="ops.masked",
    ),
    Hazard(
        code="SK412",
        title="mask that multiplies instead of selecting",
        why=(
            "mask * f(x) is meant to drop entries, but 0 * Inf and 0 * NaN "
            "are NaN."
        ),
        fix=(
            "Select, do not multiply: stablekeras.ops.masked(fn, x, mask); "
            "of a loss, pass the mask as sample_weight to a loss of "
            "stablekeras.losses."
        ),
        test=_masking_product,
        cause=_mask_cause,
        replacement="ops.masked",
    ),
    Hazard(
        code="SK403",
        title="derivative of a standard deviation of equal values",
        why="The root of a variance of 0 has an infinite derivative.",
        fix=(
            "Write stablekeras.ops.std(x, axis=...): its gradient is 0 for "
            "equal values. Or use the variance itself."
        ),
        ops=frozenset({"Sqrt", "Pow"}),
        patterns=(SPREAD,),
        phases=_BACK,
        test=_at_zero,
        cause=_zero_cause("all values are equal and its derivative infinite"),
        replacement="ops.std",
    ),
    Hazard(
        code="SK402",
        title="derivative of a norm or distance at zero",
        why=(
            "||x|| has no derivative at x = 0: the root of a sum of squares "
            "gives 0 * Inf = NaN there. Two equal rows have distance 0."
        ),
        fix=(
            "Write stablekeras.ops.norm(x, axis=...) or "
            "stablekeras.ops.cdist(a, b): their gradient at zero is 0. Or "
            "use the squared norm."
        ),
        ops=frozenset({"Sqrt", "Pow", "EuclideanNorm"}),
        patterns=(
            NORM,
            op("Sqrt", op(("Maximum", *ADD), SUM_OF_SQUARES, anything())),
            op("Sqrt", op("Relu", SUM_OF_SQUARES)),
        ),
        phases=_BACK,
        test=lambda site, found: (
            site.op_type == "EuclideanNorm" or _at_zero(site, found)
        ),
        cause=_zero_cause("the derivative of a norm is 0/0"),
        replacement="ops.norm",
    ),
    Hazard(
        code="SK401",
        title="derivative of a square root at zero",
        why="1 / (2 sqrt(x)) is infinite at 0.",
        fix=(
            "Write stablekeras.ops.sqrt(x), whose gradient at 0 is finite, "
            "or sqrt(x + epsilon)."
        ),
        ops=frozenset({"Sqrt"}),
        phases=_BACK,
        test=_at_zero,
        cause=_zero_cause("its derivative is infinite"),
        replacement="ops.sqrt",
    ),
    Hazard(
        code="SK406",
        title="derivative of a power at zero",
        why=(
            "x**a has an infinite derivative at 0 for a < 1, and its "
            "derivative by a is x**a log(x)."
        ),
        fix=(
            "Write stablekeras.ops.power(x, a), or keep x away from 0: "
            "keras.ops.maximum(x, 1e-6) ** a."
        ),
        ops=frozenset({"Pow"}),
        phases=_BACK,
        test=_power_zero,
        cause=_zero_cause("its derivative is infinite"),
        replacement="ops.power",
    ),
    Hazard(
        code="SK407",
        title="derivative of arccos or arcsin at the edge",
        why="1 / sqrt(1 - x**2) is infinite at x = 1 and x = -1.",
        fix=(
            "Write stablekeras.ops.arccos(x), whose gradient at the edge is "
            "finite, or compare cosines instead of angles."
        ),
        ops=frozenset({"Acos", "Asin", "Atanh", "Acosh", "Erfinv"}),
        phases=_BACK,
        test=_edge,
        cause=_edge_cause,
        replacement="ops.arccos",
    ),
    Hazard(
        code="SK408",
        title="derivative of a division that overflows",
        why=(
            "The derivative of a / b by b is -a / b**2: b = 1e-25 gives a "
            "quotient that fits, and a derivative that does not."
        ),
        fix=(
            "Add an epsilon that is not small beside the numerator, or "
            "compute in logarithms; for norms use "
            "stablekeras.ops.normalize(x, axis=...)."
        ),
        ops=frozenset({*DIVIDE, "Reciprocal", "Inv", "Rsqrt", "DivNoNan"}),
        phases=_BACK,
        test=lambda site, found: site.is_derivative,
        cause=_small_cause,
        replacement="ops.normalize",
    ),
    Hazard(
        code="SK411",
        title="derivative of a decomposition of a singular matrix",
        why=(
            "It inverts a factor of the matrix, or divides by differences of "
            "its eigenvalues."
        ),
        fix=(
            "Add a small multiple of distinct diagonal entries, or use a "
            "function of the matrix itself (trace, slogdet, solve)."
        ),
        ops=frozenset({"SelfAdjointEigV2", "Svd", "Eig", "Qr", "Cholesky"}),
        phases=_BACK,
        test=lambda site, found: site.is_derivative,
        cause=_equal_cause,
    ),
    Hazard(
        code="SK405",
        title="infinity that the value survives and the gradient does not",
        why=(
            "An intermediate result overflows and becomes finite again, as "
            "in 1 / (1 + exp(-x)); its derivative is 0 * Inf = NaN."
        ),
        fix=(
            "Write the stable form: stablekeras.ops.sigmoid(x) for "
            "1 / (1 + exp(-x)), stablekeras.ops.softplus(x), "
            "stablekeras.ops.softmax(x); or clip the argument."
        ),
        phases=_BACK,
        test=_forward_inf,
        cause=_forward_cause,
        replacement="ops.sigmoid",
    ),
    Hazard(
        code="SK413",
        title="derivative that is not finite where the value is",
        why="The function has no finite derivative at that point.",
        fix=(
            "Keep the argument away from that point, or leave these entries "
            "out before the function: stablekeras.ops.masked(fn, x, mask)."
        ),
        phases=_BACK,
        test=lambda site, found: site.is_derivative,
        cause=_singular_cause,
        replacement="ops.masked",
    ),
)
