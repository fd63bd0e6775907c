"""From the arguments that say how to clip to the list of rules."""

import copy

from stablekeras.optimizers.global_norm import GlobalNorm
from stablekeras.optimizers.norm import Norm
from stablekeras.optimizers.rule import ClippingRule, check_positive
from stablekeras.optimizers.value import Value

__all__ = ["build_rules", "collect_rules"]


def collect_rules(clip, global_clipnorm, clipnorm, clipvalue):
    """Returns the tuple of rules that the arguments of an optimizer ask for.

    Raises:
        TypeError: If `clip` is not made of rules.
        ValueError: If there is more than one way to clip, or a threshold is
            not finite and > 0.
    """
    given = {
        "clip": clip,
        "global_clipnorm": global_clipnorm,
        "clipnorm": clipnorm,
        "clipvalue": clipvalue,
    }
    given = {name: x for name, x in given.items() if x is not None}
    if len(given) > 1:
        received = ", ".join(f"{name}={x!r}" for name, x in given.items())
        raise ValueError(
            "Only one of clip, global_clipnorm, clipnorm and clipvalue can be "
            f"set. Received: {received}. Pass a list of rules as clip to "
            "combine them."
        )
    for name, rule in (
        ("global_clipnorm", GlobalNorm),
        ("clipnorm", Norm),
        ("clipvalue", Value),
    ):
        if name in given:
            disable = "Pass None to disable clipping."
            return (rule(check_positive(name, given[name], disable)),)
    if clip is None:
        return ()
    rules = tuple(clip) if isinstance(clip, (list, tuple)) else (clip,)
    for rule in rules:
        if not isinstance(rule, ClippingRule):
            raise TypeError(
                "clip must be a clipping rule or a list of them. "
                f"Received: clip={clip!r}. For a number c, pass GlobalNorm(c), "
                "Norm(c) or Value(c)."
            )
        if sum(rule is other for other in rules) > 1:
            raise ValueError(
                "A clipping rule can stand in the list only once, as it has a "
                f"memory. Received: clip={clip!r}. Make a second one."
            )
    return rules


def build_rules(rules, variables, add_variable):
    """Creates the memory of each rule.

    Args:
        rules: Tuple of rules.
        variables: See `ClippingRule.build`.
        add_variable: See `ClippingRule.build`.

    Returns:
        Tuple of built rules: a copy of each that another optimizer has built
        already, or the two would write into one memory.
    """
    built = []
    for rule in rules:
        if rule.is_built:
            rule = copy.copy(rule)
        rule.is_built = True
        rule.build(variables, add_variable)
        built.append(rule)
    return tuple(built)
