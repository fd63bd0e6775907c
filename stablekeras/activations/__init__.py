"""Every public name of `keras.activations`, right to the last bits."""

from stablekeras.activations.gated import gelu, glu, mish, silu
from stablekeras.activations.piecewise import (
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    linear,
    relu,
    relu6,
    soft_shrink,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    threshold,
)
from stablekeras.activations.registry import deserialize, get, serialize
from stablekeras.activations.shares import log_softmax, softmax
from stablekeras.activations.smooth import (
    celu,
    elu,
    exponential,
    log_sigmoid,
    selu,
    sigmoid,
    softplus,
    softsign,
    squareplus,
    tanh,
    tanh_shrink,
)

swish = silu
hard_swish = hard_silu

__all__ = [
    "celu",
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
    "threshold",
]
