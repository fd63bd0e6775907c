"""Sums over the alignments of a labelling."""

import numpy as np
import pytest

from stablekeras import losses

pytestmark = pytest.mark.backends


def test_a_probability_of_one_costs_nothing_not_less():
    """Rounding never makes a probability larger than 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2, 2)) * 60
    x[:, :, 1] += 100
    loss = np.asarray(losses.ctc(np.ones((200, 1)), x.astype("float32")))
    assert (loss < 1e-6).any()
    assert (loss >= 0).all()
