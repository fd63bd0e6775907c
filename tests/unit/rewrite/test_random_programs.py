"""Random compositions: never another function, never worse than before."""

import mpmath as mp
import numpy as np
import pytest
import tensorflow as tf

import stablekeras
from tests.unit.rewrite.programs import SIZE, program

CHUNK = 25
FAST, FULL = 150, 2000


def results(fns, x):
    """Values and gradients of many functions, traced together."""

    @tf.function(autograph=False)
    def run(x):
        # Equal weights would hide that probabilities sum to 1.
        weights = tf.cast(tf.range(1, SIZE + 1), x.dtype)
        found = []
        for fn in fns:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = fn(x)
            found.append((y, tape.gradient(y, x, weights)))
        return found

    return [
        (y.numpy().astype("float64"), g.numpy().astype("float64"))
        for y, g in run(x)
    ]


def truth(twin, x):
    """The exact values, NaN where mpmath has none."""
    with mp.workdps(400):
        try:
            values = twin([mp.mpf(float(v)) for v in x])
            return np.array([float(mp.re(v)) for v in values])
        except (OverflowError, ZeroDivisionError, ValueError):
            return np.full(SIZE, np.nan)


def error(got, exact, floor=1e-3):
    """Relative error; below the floor what other terms leave behind counts."""
    with np.errstate(all="ignore"):
        return np.abs(got - exact) / np.maximum(np.abs(exact), floor)


def gap(new, old):
    """Relative difference, of the greatest entry, where the old is finite."""
    good = np.isfinite(old)
    if not good.any():
        return 0.0
    if not np.isfinite(new[good]).all():
        return np.inf
    # Where terms cancel to an exact 0, the original leaves a few 1e-15.
    scale = np.max(np.abs(old[good])) + 1e-5
    return np.max(np.abs(new[good] - old[good])) / scale


def check(seeds):
    programs = [program(seed) for seed in seeds]
    stable = [stablekeras.stabilize(p.fn) for p in programs]
    fns = [p.fn for p in programs]
    rng = np.random.default_rng(min(seeds))
    mild = rng.uniform(0.2, 0.9, SIZE) * rng.choice([-1, 1], SIZE)
    wild = (rng.uniform(-1, 1, SIZE) * 10 ** rng.uniform(0, 2)).astype("f4")
    mild_old, mild_new = results(fns, mild), results(stable, mild)
    wild_old, wild_new = results(fns, wild), results(stable, wild)
    wild_double = results(fns, wild.astype("float64"))
    different, worse, better = [], [], 0
    for i, p in enumerate(programs):
        if max(map(gap, mild_new[i], mild_old[i])) > 1e-9:
            different.append(p.text)
        exact = truth(p.twin, wild)
        usable = np.isfinite(exact) & (np.abs(exact) < 1e30)
        usable &= np.abs(exact) > 1e-30
        old = error(wild_old[i][0], exact)
        new = error(wild_new[i][0], exact)
        if np.any(usable & (old <= 1e-5) & ~(new <= 1e-3)):
            worse.append(p.text)
        slope = wild_double[i][1]
        good = np.isfinite(slope) & (np.abs(slope) > 1e-30)
        good &= np.abs(slope) < 1e30
        old = error(wild_old[i][1], slope)
        new = error(wild_new[i][1], slope)
        if np.any(good & (old <= 1e-5) & ~(new <= 1e-3)):
            worse.append("gradient of " + p.text)
        better += bool(
            np.any(
                usable
                & ~(error(wild_old[i][0], exact) <= 1e-3)
                & (error(wild_new[i][0], exact) <= 1e-3)
            )
        )
    assert different == []
    assert worse == []
    return len([s for s in stable if s.rewrites]), better


@pytest.mark.parametrize("first", range(0, FAST, CHUNK))
def test_random_programs_keep_their_meaning(first):
    """Same function where both are accurate; never worse where not."""
    rewritten, _ = check(range(first, first + CHUNK))
    assert rewritten >= 5


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FAST, FULL + FAST, CHUNK))
def test_many_random_programs_keep_their_meaning(first):
    """The same, for two thousand more."""
    rewritten, _ = check(range(first, first + CHUNK))
    assert rewritten >= 5


def test_the_check_sees_another_function(monkeypatch):
    """The check bites: a rewrite that is off by 1e-6 is noticed."""
    from stablekeras.rewrite import native

    wrong = native.log_sigmoid
    monkeypatch.setattr(native, "log_sigmoid", lambda x: wrong(x) * (1 + 1e-6))
    with pytest.raises(AssertionError):
        check(range(CHUNK))


def test_factors_that_need_each_other():
    """Each factor is the other's weight, and a sum to be guarded itself."""
    rewritten, _ = check([991])
    assert rewritten == 1


def test_a_repeated_number_keeps_its_length():
    """Zeros added only to repeat a number count in the softmax of it."""
    check([1941])


def test_what_stands_around_is_folded_first():
    """A sigmoid of a sum of sigmoids is not spread over logarithms of 1e5."""

    def fn(x):
        return 1 / (1 + tf.exp(tf.math.log(1 - tf.tanh(x**3) ** 2)))

    x = tf.constant([-39.0, -4.7, 0.5, 27.0])
    wanted = 1 / (1 + 1 / np.cosh(np.array([-9.9, -9.9, 0.125, 9.9])) ** 2)
    wanted[[0, 1, 3]] = 1.0
    np.testing.assert_allclose(stablekeras.stabilize(fn)(x), wanted, rtol=1e-6)
