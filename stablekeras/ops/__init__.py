"""Elementary stable maths in the conventions of `keras.ops`."""

from stablekeras.ops.division import divide_no_nan, masked
from stablekeras.ops.elementary import expm1, log1p, tanh
from stablekeras.ops.logs import (
    clamped_log,
    entropy,
    log1mexp,
    log_sub_exp,
    logaddexp,
    xlog1py,
    xlogy,
)
from stablekeras.ops.moments import std, var
from stablekeras.ops.normal import arccos, erfinv
from stablekeras.ops.norms import cdist, global_norm, norm, normalize
from stablekeras.ops.powers import hypot, power, rsqrt, sqrt
from stablekeras.ops.sigmoids import (
    log_cosh,
    log_sigmoid,
    logit,
    sigmoid,
    softplus,
    softplus_inverse,
)
from stablekeras.ops.sums import (
    log_softmax,
    logmeanexp,
    logsumexp,
    softmax,
)

__all__ = [
    "arccos",
    "cdist",
    "clamped_log",
    "divide_no_nan",
    "entropy",
    "erfinv",
    "expm1",
    "global_norm",
    "hypot",
    "log1mexp",
    "log1p",
    "log_cosh",
    "log_sigmoid",
    "log_softmax",
    "log_sub_exp",
    "logaddexp",
    "logit",
    "logmeanexp",
    "logsumexp",
    "masked",
    "norm",
    "normalize",
    "power",
    "rsqrt",
    "sigmoid",
    "softmax",
    "softplus",
    "softplus_inverse",
    "sqrt",
    "std",
    "tanh",
    "var",
    "xlog1py",
    "xlogy",
]
