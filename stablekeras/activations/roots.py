"""Derivatives of the self-gated activations near a zero.

There a derivative is zero as the difference of two terms of size one, and the
plain formula keeps only their absolute precision. Here it is the distance
from the zero times a Taylor series, and keeps its relative precision.
"""

from keras import ops as kops

from stablekeras.ops.elementary import horner, split, terms

__all__ = [
    "GELU",
    "GELU_TANH_BEND",
    "MISH_LEFT_BEND",
    "MISH_RIGHT_BEND",
    "through_root",
]

_REACH = 0.3125


def through_root(derivative, table):
    """Return `derivative`, replaced by its series near its zero.

    Args:
        derivative: Function of a tensor in compute precision, and of what
            else the result is given.
        table: One of the tables of this module.
    """
    root, series = table

    def mended(x, *memory):
        high, low = split(root, x)
        s = (x - high) - low
        near = kops.abs(s) < _REACH
        s = kops.where(near, s, 0.0)
        value = s * horner(series[: terms(x, 10, 20)], s)
        return kops.where(near, value, derivative(x, *memory))

    return mended


# ((root, what its float64 leaves over), Taylor series of derivative /
# distance), from mpmath at 60 digits. The slope of `gelu`; second derivatives
# are named BEND.
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
GELU_TANH_BEND = (
    (1.4185040087908283, 8.089265124388305e-17),
    [
        -0.4095488174124191,
        0.432081111593848,
        -0.008168951883944803,
        -0.16109481693213482,
        0.056750540975161724,
        0.020035361162701274,
        -0.01671150756085392,
        0.0007632001136916162,
        0.002643461146696662,
        -0.0007514200775098502,
        -0.00026173756856854425,
        0.00017619942054101047,
        6.138879668243466e-06,
        -2.918654105104775e-05,
        4.884341759522852e-06,
        3.568864966961748e-06,
        -1.501746538549582e-06,
        -2.3134876605993593e-07,
        2.779934168936508e-07,
        -2.4601994673299104e-08,
    ],
)
MISH_RIGHT_BEND = (
    (1.4905711794854284, 7.126036715834263e-17),
    [
        -0.23069451159746054,
        0.28127277803034306,
        -0.0797073551654253,
        -0.06665173991852782,
        0.05998888116276497,
        -0.008932244292082872,
        -0.011535248884490047,
        0.0070027488703032735,
        -0.00026852183677313475,
        -0.0014013096671622836,
        0.0006082701059370484,
        4.5850287012401906e-05,
        -0.00013717566879765472,
        4.3428925985047434e-05,
        9.503876307943976e-06,
        -1.1636938135269531e-05,
        2.5942176688726364e-06,
        1.1453549858100461e-06,
        -8.865033422620115e-07,
        1.222151382038124e-07,
    ],
)
MISH_LEFT_BEND = (
    (-2.256376396360793, -1.0703174875019247e-16),
    [
        0.1087544107316427,
        0.09898193805255845,
        0.03736189561023729,
        0.0033540526593358656,
        -0.003860493935188506,
        -0.002480068109334893,
        -0.0007927886724150866,
        -0.00010538381919454746,
        3.978333053066292e-05,
        3.2238496830115364e-05,
        1.1646398837640038e-05,
        2.1972274370071305e-06,
        -1.9166311947636233e-07,
        -3.2886827478945233e-07,
        -1.3816841246787867e-07,
        -3.179194815463423e-08,
        -9.041836791970716e-10,
        2.7897687645450417e-09,
        1.3947241287864647e-09,
        3.7278297023353565e-10,
    ],
)
