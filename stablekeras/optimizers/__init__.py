"""`ClippedOptimizer` and its clipping rules."""

from stablekeras.optimizers.clipped_optimizer import ClippedOptimizer
from stablekeras.optimizers.global_norm import GlobalNorm
from stablekeras.optimizers.norm import Norm
from stablekeras.optimizers.rule import ClippingRule
from stablekeras.optimizers.value import Value

__all__ = [
    "ClippedOptimizer",
    "ClippingRule",
    "GlobalNorm",
    "Norm",
    "Value",
]
