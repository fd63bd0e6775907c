"""SK5xx: the data itself: NaN, labels, masks that leave nothing."""

import numpy as np

from stablekeras.graphs.match import LOOKED_THROUGH
from stablekeras.hazards.division import QUOTIENTS, is_count
from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS", "is_feature"]

_WEIGHTED = ("MatMul", "BatchMatMul", "Einsum", "Conv", "DepthwiseConv")
_SCALED = frozenset({"Add", "AddV2", "Sub", "Mul", "RealDiv"})


def is_feature(execution, chain):
    """Returns whether an Inf of the batch is data, and not a mask.

    What meets weights, at most scaled before, is data; a mask selects, or is
    added to what a softmax makes finite again.

    Args:
        execution: The `Execution`.
        chain: Numbers of the nodes from the Inf to the loss or gradient.
    """
    if chain[0] not in execution.sources:
        return False
    for node in (execution.nodes[number] for number in chain[1:]):
        if node.type.startswith(_WEIGHTED):
            return True
        made_nan = any(
            o.stats is not None and o.stats.nan for o in node.outputs
        )
        if made_nan or node.type not in LOOKED_THROUGH | _SCALED:
            return False
    return False


def _array(site, found):
    given = site.given()
    return given is not None and given[0] == "array"


def _array_cause(site, found):
    _, name = site.given()
    born = site.root.born
    stats = site.root.node.outputs[0].stats
    kinds = []
    if stats.nan:
        kinds.append(f"{stats.nan} NaN")
    if stats.posinf + stats.neginf:
        kinds.append(f"{stats.posinf + stats.neginf} Inf")
    text = f'the array "{name}" holds {" and ".join(kinds)} of {stats.size}'
    if born.ndim:
        rows = np.flatnonzero(born.reshape(born.shape[0], -1).any(axis=1))
        text += f", in rows {_some(rows)}"
    if born.ndim == 2 and born.shape[1] > 1:
        columns = np.flatnonzero(born.any(axis=0))
        text += f", columns {_some(columns)}"
    elif born.ndim > 2:
        places = np.argwhere(born)[:3]
        text += ", at " + " ".join(
            str(tuple(int(i) for i in place)) for place in places
        )
    return text


def _some(numbers, most=10):
    shown = ", ".join(str(int(n)) for n in numbers[:most])
    more = len(numbers) - most
    return shown + (f" and {more} more" if more > 0 else "")


def _empty_count(site, found):
    if site.phase != "forward":
        return False
    place = 0 if site.op_type in ("Reciprocal", "Inv") else 1
    below = [v for v in site.view.inputs if v.stats is not None]
    if len(below) <= place:
        return False
    value = site.at(place)
    if not (value.size and np.all(value == 0.0)):
        return False
    return is_count(site, below[place])


def _count_cause(site, found):
    return (
        f"the mask or selection is empty in {site.where}: the count or sum "
        "that divides is 0"
    )


def _empty_mean(site, found):
    return bool(site.inputs) and site.inputs[0].stats.size == 0


def _mean_cause(site, found):
    shape = "x".join(map(str, site.inputs[0].stats.shape))
    return (
        f"{site.op_type} of a tensor of shape {shape}: the selection left "
        "nothing to average"
    )


def _all_masked(site, found):
    if not site.inputs:
        return False
    whole = site.whole(0)
    born = site.root.born
    if whole.ndim == 0 or born.shape != whole.shape:
        return False
    rows = np.isneginf(whole).all(axis=-1)
    return bool(np.any(rows))


def _all_masked_cause(site, found):
    whole = site.whole(0)
    rows = np.isneginf(whole).all(axis=-1)
    return (
        f"{int(rows.sum())} of {rows.size} rows of the softmax are masked "
        "with -Inf in every place: there is nothing to weigh"
    )


def _label(site, found):
    return site.label() is not None


def _label_cause(site, found):
    name, values, classes, rows = site.label()
    shown = _some(values)
    return (
        f'the labels "{name}" hold {shown} in rows {_some(rows)}, and there '
        f"are {classes} classes: 0 to {classes - 1}"
    )


def _literal(site, found):
    return site.root.node.type == "Const"


def _literal_cause(site, found):
    value = site.made()
    return (
        f"the constant {site.root.node.op.name} holds {figure(value.flat[0])}"
    )


HAZARDS = (
    Hazard(
        code="SK502",
        title="label out of range",
        why=(
            "A class number below 0 or not below the number of classes "
            "selects nothing."
        ),
        fix=(
            "Check the labels: 0 <= y < number of classes; give the last "
            "layer as many units as there are classes, and pass "
            "ignore_class=... to the loss for labels that do not count."
        ),
        phases=("forward", "backward"),
        test=_label,
        cause=_label_cause,
    ),
    Hazard(
        code="SK501",
        title="non-finite value in the data",
        why="The batch itself holds NaN or Inf.",
        fix=(
            "Clean the named array before training: "
            "numpy.isfinite(x).all(axis=...) finds the rows; drop or impute "
            "them. Masked entries must hold numbers too, unless the loss is "
            "one of stablekeras.losses, which selects them away."
        ),
        test=_array,
        cause=_array_cause,
    ),
    Hazard(
        code="SK503",
        title="mean over an empty mask",
        why="sum(x * mask) / sum(mask) is 0/0 where the mask selects nothing.",
        fix=(
            "Write stablekeras.ops.divide_no_nan(sum(x * mask), sum(mask)), "
            "or divide by keras.ops.maximum(sum(mask), 1)."
        ),
        ops=QUOTIENTS | {"DivNoNan"},
        test=_empty_count,
        cause=_count_cause,
        replacement="ops.divide_no_nan",
    ),
    Hazard(
        code="SK504",
        title="mean of nothing",
        why="The mean of a tensor without entries is 0/0.",
        fix=(
            "Keep the shape and select: "
            "stablekeras.ops.divide_no_nan(sum(where(mask, x, 0)), "
            "count(mask)) in place of reduce_mean(boolean_mask(x, mask))."
        ),
        ops=frozenset({"Mean", "Max", "Min", "Prod"}),
        test=_empty_mean,
        cause=_mean_cause,
        replacement="ops.divide_no_nan",
    ),
    Hazard(
        code="SK505",
        title="softmax of a fully masked row",
        why="A row of -Inf has no largest entry: softmax gives 0/0.",
        fix=(
            "Leave one place unmasked, or select: "
            "keras.ops.where(any(mask), stablekeras.ops.softmax(x), 0), with "
            "a finite mask such as -1e9 (float16: -1e4)."
        ),
        ops=frozenset(
            {"Softmax", "LogSoftmax", "Max", "Sub", "Exp", "RealDiv"}
        ),
        test=_all_masked,
        cause=_all_masked_cause,
        replacement="ops.softmax",
    ),
    Hazard(
        code="SK506",
        title="non-finite constant in the program",
        why="A NaN or Inf stands in the code and reaches the loss.",
        fix=(
            "Replace the constant by a finite one, or select the entries "
            "away: stablekeras.ops.masked(fn, x, mask)."
        ),
        test=_literal,
        cause=_literal_cause,
        replacement="ops.masked",
    ),
)
