"""`ClippedOptimizer` and its clipping rules."""

from stablekeras.optimizers.ada_gc import AdaGC
from stablekeras.optimizers.adaptive_gradient import AdaptiveGradient
from stablekeras.optimizers.clipped_optimizer import ClippedOptimizer
from stablekeras.optimizers.global_norm import GlobalNorm
from stablekeras.optimizers.log_clipping import LogClipping, clipping_logs
from stablekeras.optimizers.norm import Norm
from stablekeras.optimizers.percentile import Percentile
from stablekeras.optimizers.rule import ClippingRule
from stablekeras.optimizers.spike_skip import SpikeSkip
from stablekeras.optimizers.value import Value
from stablekeras.optimizers.z_score import ZScore

__all__ = [
    "AdaGC",
    "AdaptiveGradient",
    "ClippedOptimizer",
    "ClippingRule",
    "GlobalNorm",
    "LogClipping",
    "Norm",
    "Percentile",
    "SpikeSkip",
    "Value",
    "ZScore",
    "clipping_logs",
]
