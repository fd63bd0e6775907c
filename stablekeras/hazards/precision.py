"""SK7xx: half precision and the loss scale."""

from stablekeras.hazards.hazard import Hazard
from stablekeras.hazards.site import figure

__all__ = ["HAZARDS"]


def _scaled(site, found):
    return _scale_input(site) is not None


def _scale_input(site):
    if site.op_type != "Mul":
        return None
    for view in site.inputs:
        name = site.origin(view)
        if name and name.endswith("dynamic_scale"):
            return view
    return None


def _scaled_cause(site, found):
    scale = _scale_input(site).stats.max
    other = next(v for v in site.inputs if v.ref != _scale_input(site).ref)
    return (
        f"the loss of {site.range(other)} times the loss scale "
        f"{figure(scale)} is not finite"
    )


def _half_gradient(site, found):
    return site.dtype == "float16" and site.traced.ran_backward(site.root.node)


def _half_cause(site, found):
    return (
        f"the derivative of {site.op_type} ({site.node.op.name}) passed "
        f"65504, the greatest float16, in {site.where}"
    )


def _scale_lost(site, found):
    return site.lost_scale() is not None


def _scale_lost_cause(site, found):
    return f"the loss scale is {figure(site.lost_scale())}"


HAZARDS = (
    Hazard(
        code="SK702",
        title="loss scale that is zero or infinite",
        why=(
            "The search for a loss scale halves it at each bad step and "
            "doubles it after 2000 good ones, without a floor or a ceiling."
        ),
        fix=(
            "Find what made the steps bad; start again from a state with a "
            "sound scale: "
            "keras.optimizers.LossScaleOptimizer(optimizer, "
            "initial_scale=2**15). 'mixed_bfloat16' needs no scale."
        ),
        test=_scale_lost,
        cause=_scale_lost_cause,
    ),
    Hazard(
        code="SK701",
        title="scaled loss that overflows",
        why="The loss fits its dtype, the loss times the loss scale does not.",
        fix=(
            "Nothing, if it is rare: the scale adapts. Else lower the "
            "initial scale, divide the loss by a constant, or use "
            "'mixed_bfloat16', which needs no scale."
        ),
        test=_scaled,
        cause=_scaled_cause,
    ),
    Hazard(
        code="SK703",
        title="gradient too large for float16",
        why="float16 ends at 65504, and the scaled gradient passed it.",
        fix=(
            "Nothing, if it is rare: the loss scale adapts. Else give this "
            "layer dtype='float32', or use 'mixed_bfloat16'."
        ),
        phases=("backward",),
        test=_half_gradient,
        cause=_half_cause,
    ),
)
