"""The slope of the binary focal cross-entropy from probabilities."""

import numpy as np
import pytest

from stablekeras import losses
from tests.accuracy.backends import MODES, derivatives

pytestmark = pytest.mark.backends

# Below the floor and above, on either side.
HARD = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
P = np.array([0.0, 1e-20, 1e-10, 0.75, 0.0, 1e-20, 1e-10, 0.25, 1.0])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("mode", MODES)
def test_a_soft_label_leaves_the_slopes_of_hard_ones(mode, gamma):
    """Hard labels have the same slope alone and beside a soft label."""

    def slopes(labels, p):
        y = np.asarray(labels, "float32")[:, None]
        x = np.asarray(p, "float32")[:, None]
        ((_, slope, _),) = derivatives(
            lambda x: losses.binary_focal_crossentropy(y, x, gamma=gamma),
            [x],
            1.0,
            mode,
        )
        return slope[:, 0]

    beside = slopes([*HARD, 0.25], [*P, 0.0771])
    np.testing.assert_allclose(beside[:-1], slopes(HARD, P), rtol=1e-6)
    assert beside[-1] != 0


@pytest.mark.parametrize("mode", MODES)
def test_the_slope_of_a_small_probability_is_not_that_of_the_floor(mode):
    """Under a label of 0 the loss is exact at any probability."""
    y, p = np.array([[0.0], [0.5]]), np.array([[1e-20], [0.25]], "float32")
    ((_, slope, _),) = derivatives(
        lambda x: losses.binary_focal_crossentropy(y, x, gamma=0.5),
        [p],
        1.0,
        mode,
    )
    assert slope[0, 0] == pytest.approx(1.5e-10, rel=1e-6)
