"""The slopes of the self-gated activations near their minimum.

There the slope is zero as the difference of two terms of size one, and the
plain formula keeps only their absolute precision. Here it is the distance
from the minimum times a Taylor series, and keeps its relative precision.
"""

from keras import ops as kops

from stablekeras.ops.elementary import horner, split, terms

__all__ = ["GELU", "GELU_TANH", "MISH", "through_root"]

_REACH = 0.3125


def through_root(slope, minimum):
    """Return `slope`, replaced by its series near the minimum.

    Args:
        slope: Function of a tensor in compute precision, and of what else
            the result is given.
        minimum: One of the tables of this module.
    """
    root, series = minimum

    def mended(x, *memory):
        high, low = split(root, x)
        s = (x - high) - low
        near = kops.abs(s) < _REACH
        s = kops.where(near, s, 0.0)
        value = s * horner(series[: terms(x, 10, 20)], s)
        return kops.where(near, value, slope(x, *memory))

    return mended


# ((root, what its float64 leaves over), Taylor series of slope / distance),
# from mpmath at 60 digits.
GELU = (
    (-0.7517915246935645, 1.4956759177009883e-17),
    [
        0.4314939923140469,
        0.388284982990552,
        -0.018199676398671087,
        -0.1140082332972217,
        -0.014771522148244337,
        0.019421679838189067,
        0.004539228379125415,
        -0.002239538068073497,
        -0.0007448268386746817,
        0.00018633974623233514,
        8.615947861116571e-05,
        -1.121438018842664e-05,
        -7.74846130700372e-06,
        4.3284506257392273e-07,
        5.702764979242107e-07,
        -1.6044265494246427e-09,
        -3.5459866461783865e-08,
        -1.396942086426202e-09,
        1.90319840501314e-09,
        1.4506418938779426e-10,
    ],
)
GELU_TANH = (
    (-0.7524614220710163, 3.635560509207687e-17),
    [
        0.4304000910248585,
        0.38751844613578895,
        -0.01578285352184803,
        -0.11394448308095899,
        -0.01661932834305256,
        0.019682309459833118,
        0.005261059254921912,
        -0.0024227318458750974,
        -0.0009274420230205449,
        0.00026392764052681053,
        0.00012425227802639782,
        -3.4956171694436116e-05,
        -1.5950896871645105e-05,
        5.918611710894005e-06,
        2.4335516344299543e-06,
        -9.898647747433667e-07,
        -4.3102482988029016e-07,
        1.4157556987729473e-07,
        7.520740909289922e-08,
        -1.6978217459781023e-08,
    ],
)
MISH = (
    (-1.1924312145154952, -4.8484829848031044e-17),
    [
        0.2669479140495345,
        0.20473126408010586,
        0.04190782104360987,
        -0.020271822716684245,
        -0.01582112656173338,
        -0.0033606849270232685,
        0.0010924055409445854,
        0.0009898181021289196,
        0.00025412936386191073,
        -4.1961496031696126e-05,
        -5.582891567360688e-05,
        -1.72992708103044e-05,
        9.427361327376651e-07,
        2.9088199364912223e-06,
        1.071676702702074e-06,
        2.6879417855557728e-08,
        -1.4117255919499382e-07,
        -6.174424363104907e-08,
        -5.460186173028381e-09,
        6.3895954615089855e-09,
    ],
)
