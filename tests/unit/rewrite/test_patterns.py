"""Every formula of the list: same function, finite and right at extremes."""

import mpmath as mp
import numpy as np
import pytest
import tensorflow as tf

import stablekeras
from stablekeras.rewrite.patterns import ALL
from stablekeras.rewrite.verify import verify
from tests.unit.rewrite.cases import CASES


def exact(twin, xs):
    """Values, and derivatives of their sum, of a mpmath formula."""
    with mp.workdps(1900):
        xs = [mp.mpf(float(x)) for x in xs]
        values = twin(xs)

        def total(i):
            def of(t):
                return mp.fsum(twin([*xs[:i], t, *xs[i + 1 :]]))

            return of

        # A central difference; 1900 digits leave enough in the quotient.
        step = mp.mpf(10) ** -600
        slopes = [
            (
                total(i)(x + step * abs(x or 1))
                - total(i)(x - step * abs(x or 1))
            )
            / (2 * step * abs(x or 1))
            for i, x in enumerate(xs)
        ]
        return (
            np.array([float(v) for v in values]),
            np.array([float(s) for s in slopes]),
        )


def value_and_gradient(fn, x):
    """Values of `fn`, and derivatives of their sum, as NumPy arrays."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fn(x)
    return np.ravel(y.numpy()), np.ravel(tape.gradient(y, x).numpy())


def worst(got, truth, joint):
    """The greatest relative error; on max(|truth|, 1) for joint formulas."""
    floor = 1.0 if joint else 1.2e-38
    return np.max(np.abs(got - truth) / np.maximum(np.abs(truth), floor))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_rewrite_is_the_same_function(case):
    """On well-conditioned float64 inputs nothing changes beyond 1e-12."""
    verdict = verify(case.fn, np.array(case.normal))
    assert verdict.rewrites
    assert verdict.value_error <= 1e-12
    assert verdict.gradient_error <= 1e-12


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_rewrite_is_right_at_its_extremes(case):
    """Value and gradient agree with mpmath to 1e-5 in float32."""
    fn = stablekeras.stabilize(case.fn)
    for xs in case.extremes:
        xs = np.array(xs, np.float32)
        value, gradient = value_and_gradient(fn, xs)
        truth, slope = exact(case.twin, xs)
        assert worst(value, truth, case.joint) <= 1e-5
        assert worst(gradient, slope, case.joint) <= 1e-5
    assert case.code in {found.code for found in fn.rewrites}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_rewrite_is_needed(case):
    """The original fails at the extremes, in value or in gradient."""
    failures = []
    for xs in case.extremes:
        xs = np.array(xs, np.float32)
        value, gradient = value_and_gradient(case.fn, xs)
        truth, slope = exact(case.twin, xs)
        failures += [
            not worst(value, truth, case.joint) <= 1e-5,
            not worst(gradient, slope, case.joint) <= 1e-5,
        ]
    assert any(failures)


@pytest.mark.parametrize("pattern", ALL, ids=lambda pattern: pattern.name)
def test_a_pattern_cures_hazards_of_the_catalogue(pattern):
    """Every code of a pattern is one of the catalogue, with its title."""
    assert [found.code for found in pattern.hazards] == list(pattern.codes)
    assert all(found.title for found in pattern.hazards)
