"""SK6xx: the training itself ran away."""

import numpy as np

from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.overflow import PRODUCTS, SUMS
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]

# A weight of this size is not one that training is meant to find.
_HUGE = 1e6


def _variable(site, found):
    given = site.given()
    return given is not None and given[0] == "variable"


def _variable_cause(site, found):
    _, name = site.given()
    stats = site.root.node.outputs[0].stats
    return (
        f'the variable "{name}" holds {stats.size - stats.finite} entries of '
        f"{stats.size} that are not finite before the step begins"
    )


def _grown(site, found):
    if site.phase != "forward" and site.is_derivative:
        return False
    return site.largest_variable()[1] > _HUGE or _rising(site.history)


def _rising(history):
    losses = [row["loss"] for row in history if "loss" in row]
    losses = [x for x in losses if np.isfinite(x)]
    return len(losses) >= 3 and abs(losses[-1]) > 1e6 * (abs(losses[0]) + 1e-12)


def _grown_cause(site, found):
    name, size = site.largest_variable()
    text = f"{site.op_type} overflowed in {site.where}"
    if size > _HUGE:
        text += f'; the variable "{name}" has grown to {figure(size)}'
    losses = [row["loss"] for row in site.history if "loss" in row]
    if losses:
        shown = ", ".join(figure(x) for x in losses[-5:])
        text += f"; the last losses were {shown}"
    return text


def _update(site, found):
    return bool(site.is_update)


def _update_cause(site, found):
    value = [np.abs(site.at(i)) for i in range(len(site.inputs))]
    size = max((v.max() for v in value if v.size), default=0.0)
    return (
        f'the update of "{site.updates}" overflowed in {site.root.node.type}, '
        f"from values up to {figure(size)}; loss and gradient are finite"
    )


HAZARDS = (
    Hazard(
        code="SK602",
        title="variable that is not finite",
        why="An earlier step wrote a NaN or Inf into it, or it was loaded so.",
        fix=(
            "Go back to a state before it: NaNWatch(action='rollback'), or "
            "load the last good checkpoint; wrap the optimizer in "
            "stablekeras.optimizers.ClippedOptimizer so that no such step is "
            "applied again."
        ),
        test=_variable,
        cause=_variable_cause,
    ),
    Hazard(
        code="SK603",
        title="update that overflows in the optimizer",
        why=(
            "The square of a gradient of 1.8e19 is Inf in float32, and so is "
            "the second moment that Adam keeps of it."
        ),
        fix=(
            "Clip the gradient before it is squared: "
            "stablekeras.optimizers.ClippedOptimizer(optimizer, "
            "global_clipnorm=1.0)."
        ),
        test=_update,
        cause=_update_cause,
        replacement="optimizers.ClippedOptimizer",
    ),
    Hazard(
        code="SK601",
        title="divergence: weights grew until a product overflowed",
        why=(
            "The learning rate is too large for the loss: each step "
            "overshoots further than the one before."
        ),
        fix=(
            "Lower the learning rate (a tenth), scale inputs and targets to "
            "about 1, and clip: "
            "stablekeras.optimizers.ClippedOptimizer(optimizer, "
            "global_clipnorm=1.0). NaNWatch(action='rollback') goes back and "
            "lowers it by itself."
        ),
        ops=PRODUCTS
        | SUMS
        | {
            "Square",
            "SquaredDifference",
            "Pow",
            "Mul",
            "AddV2",
            "BiasAdd",
            "Exp",
            "Sub",
        },
        test=_grown,
        cause=_grown_cause,
        replacement="optimizers.ClippedOptimizer",
    ),
    Hazard(
        code="SK604",
        title="product that overflows",
        why="The result of finite numbers passed the greatest of its dtype.",
        fix=(
            "Scale the inputs to about 1 and check the initializer; then "
            "lower the learning rate and clip: "
            "stablekeras.optimizers.ClippedOptimizer(optimizer, "
            "global_clipnorm=1.0)."
        ),
        ops=PRODUCTS | {"Mul", "AddV2", "Add", "Sub", "BiasAdd"},
        phases=("forward",),
        cause=lambda site, found: (
            f"{site.op_type} gave {site.where} too large for {site.dtype}, "
            f"from inputs up to {figure(site.reach())}"
        ),
        replacement="optimizers.ClippedOptimizer",
    ),
)
