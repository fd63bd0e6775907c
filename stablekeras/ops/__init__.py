"""Elementary stable maths in the conventions of `keras.ops`."""

from stablekeras.ops.division import divide_no_nan, masked
from stablekeras.ops.logs import (
    clamped_log,
    entropy,
    log1mexp,
    xlog1py,
    xlogy,
)
from stablekeras.ops.norms import norm, normalize
from stablekeras.ops.powers import power, sqrt
from stablekeras.ops.sigmoids import (
    log_cosh,
    log_sigmoid,
    logit,
    sigmoid,
    softplus,
    softplus_inverse,
    tanh,
)
from stablekeras.ops.sums import (
    log_softmax,
    logaddexp,
    logmeanexp,
    logsumexp,
    softmax,
)

__all__ = [
    "clamped_log",
    "divide_no_nan",
    "entropy",
    "log1mexp",
    "log_cosh",
    "log_sigmoid",
    "log_softmax",
    "logaddexp",
    "logit",
    "logmeanexp",
    "logsumexp",
    "masked",
    "norm",
    "normalize",
    "power",
    "sigmoid",
    "softmax",
    "softplus",
    "softplus_inverse",
    "sqrt",
    "tanh",
    "xlog1py",
    "xlogy",
]
