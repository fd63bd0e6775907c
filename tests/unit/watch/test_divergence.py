"""Telling a training that ran away from one that is noisy."""

import numpy as np

from stablekeras.watch.divergence import Divergence


def _feed(divergence, losses):
    """Feeds losses of single steps; returns where one ran away."""
    total, alarms = 0.0, []
    for i, loss in enumerate(losses):
        total += loss
        if divergence.call(total / (i + 1), 1):
            alarms.append(i)
    return alarms


def test_exponential_growth_is_seen_within_the_epoch():
    """The first step beyond 50 times the beginning trips."""
    assert _feed(Divergence(), [1.0, 1.0, 1.0, 20.0, 200.0])[0] == 4


def test_noise_is_not_divergence():
    """Log-normal losses of a training that does not move are let pass."""
    losses = np.random.default_rng(0).lognormal(0.0, 0.5, 2000)
    divergence = Divergence()
    assert _feed(divergence, losses) == []
    assert not divergence.epoch()


def test_negative_and_zero_losses_are_left_alone():
    """Nothing can be said of a loss that begins at 0."""
    divergence = Divergence()
    assert _feed(divergence, [0.0, 0.0, 0.0, 5.0]) == []
    assert not divergence.epoch()
    assert divergence.is_good()


def test_an_epoch_far_above_the_beginning_ran_away():
    """A mean of more than 3 times the reference is no noise."""
    divergence = Divergence()
    _feed(divergence, [1.0, 1.0, 1.0] + [10.0] * 20)
    assert divergence.epoch()
    assert not divergence.is_good()


def test_the_reference_may_only_fall():
    """After a restart a worse beginning does not raise the limit."""
    divergence = Divergence()
    _feed(divergence, [1.0, 1.0, 1.0])
    divergence.restart()
    assert _feed(divergence, [100.0])[0] == 0
    assert divergence.reference == 1.0
