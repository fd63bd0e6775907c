"""`diagnose` and `explain`: arguments, records, what is said and what not."""

import numpy as np
import pytest
import tensorflow as tf

import stablekeras
from stablekeras.watch.records import Diagnosis

X = np.array([[1.0, 0.0], [2.0, 300.0], [3.0, 1.0]], "float32")


def _log_of_softmax(logits):
    return -tf.reduce_mean(tf.math.log(tf.nn.softmax(logits)))


@pytest.fixture(scope="module")
def found():
    return stablekeras.diagnose(_log_of_softmax, X)


def test_fn_must_be_callable():
    """What is no function is refused with the rule and the remedy."""
    with pytest.raises(TypeError, match=r"fn must be callable\. Received: fn"):
        stablekeras.diagnose(3.0)


def test_variables_must_be_variables():
    """A list of something else is refused with the rule and the remedy."""
    with pytest.raises(TypeError, match=r"variables must be"):
        stablekeras.diagnose(_log_of_softmax, X, variables=["kernel"])


def test_what_is_said(found):
    """Every field of the diagnosis is filled from what was measured."""
    assert (found.code, found.op_type, found.phase) == (
        "SK101",
        "Log",
        "forward",
    )
    assert found.samples == (1,)
    assert found.layer is None
    assert [stats.zeros for stats in found.inputs] == [1]
    assert [line.split(":")[0] for line in found.chain] == [
        "Log",
        "Mean",
        "Neg",
    ]
    assert any(
        'array "logits", row 1, column 1: 300' in fact
        for fact in found.contributing
    )
    assert "stablekeras.ops.log_softmax(logits)" in found.remedy
    assert found.evidence[0].startswith("output: ")


def test_it_fits_one_screen(found):
    """The text has at most 24 lines and names code, line and fix."""
    lines = str(found).splitlines()
    assert len(lines) <= 24
    assert lines[0] == "SK101 log of an underflowed softmax"
    assert "test_diagnose.py:" in lines[1]


def test_json_round_trip(found):
    """A diagnosis that is written as JSON is read back as it was."""
    assert Diagnosis.from_json(found.to_json()) == found


def test_gradient_by_variables_alone():
    """With variables, what only the arguments' gradient breaks is no fault."""
    weight = tf.Variable(2.0)

    def fn(x):
        return weight * tf.reduce_sum(tf.sqrt(x))

    x = np.array([0.0, 4.0], "float32")
    assert stablekeras.diagnose(fn, x, variables=[weight]) is None
    assert stablekeras.diagnose(fn, x) is None
    diagnosis = stablekeras.diagnose(lambda x: fn(x) * 1.0, x, variables=None)
    assert diagnosis is None
    bare = stablekeras.diagnose(lambda x: tf.reduce_sum(tf.sqrt(x)), x)
    assert (bare.code, bare.samples) == ("SK401", (0,))


def test_a_tape_of_the_functions_own_is_used():
    """A function that differentiates by itself is not differentiated again."""
    weight = tf.Variable([0.0, 1.0])

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(x * tf.sqrt(weight))
        return loss, tape.gradient(loss, weight)

    diagnosis = stablekeras.diagnose(step, X)
    assert (diagnosis.code, diagnosis.phase) == ("SK401", "backward")
    assert np.isfinite(weight.numpy()).all()


def test_nested_arguments_are_named_by_their_paths():
    """An array within a dict is named by the argument and its key."""

    def fn(batch, scale):
        return tf.reduce_sum(batch["x"]) * scale

    batch = {"x": np.array([1.0, np.nan], "float32")}
    diagnosis = stablekeras.diagnose(fn, batch, 2.0)
    assert (diagnosis.code, diagnosis.samples) == ("SK501", (1,))
    assert "\"batch['x']\" holds 1 NaN of 2" in diagnosis.cause


def test_two_causes_are_both_told():
    """The second root of a loss stands in the evidence."""

    def fn(x):
        first = tf.math.log(x - 1.0)
        second = 1.0 / (x[:, 1] - 1.0)
        return tf.reduce_sum(first[:1, 0]) + tf.reduce_sum(second)

    diagnosis = stablekeras.diagnose(fn, X)
    assert diagnosis.code == "SK110"
    assert any("also RealDiv" in fact for fact in diagnosis.evidence)


def test_nothing_is_changed():
    """Variables that the function writes keep their values."""
    counter = tf.Variable(0)

    def fn(x):
        counter.assign_add(1)
        return tf.reduce_sum(tf.math.log(x))

    assert stablekeras.diagnose(fn, X).code == "SK110"
    assert counter.numpy() == 0


@pytest.mark.parametrize("scaled", [False, True])
def test_an_inf_in_a_feature_is_a_fault_of_the_data(scaled):
    """The loss is finite (tanh is 1) and the gradient 0 * Inf: rows count."""
    weight = tf.Variable(np.ones((3, 1), "float32"))
    x = np.ones((4, 3), "float32")
    x[[1, 3], 2] = np.inf

    def fn(x):
        x = (x - 0.5) / 2.0 if scaled else x
        return tf.reduce_sum(tf.tanh(x @ weight))

    diagnosis = stablekeras.diagnose(fn, x)
    assert (diagnosis.code, diagnosis.samples) == ("SK501", (1, 3))


def test_an_inf_in_a_mask_is_meant():
    """What is added before a softmax may be -Inf, until a row has no other."""
    weight = tf.Variable(np.ones((3, 3), "float32"))
    x = np.eye(3, dtype="float32")
    mask = np.zeros((3, 3), "float32")
    mask[1, :2] = -np.inf

    def fn(x, mask):
        return tf.reduce_sum(tf.nn.softmax(x @ weight + mask) * x)

    assert stablekeras.diagnose(fn, x, mask) is None
    mask[1, 2] = -np.inf
    diagnosis = stablekeras.diagnose(fn, x, mask)
    assert (diagnosis.code, diagnosis.samples) == ("SK505", (1,))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("numerator", [0.0, -1.0])
def test_what_max_pooling_hides_is_found(dtype, numerator):
    """A window of nothing but NaN or -Inf pools to a finite number on a CPU."""
    x = np.ones((3, 4, 4, 1), dtype)
    x[2] = 0.0

    def fn(x):
        y = tf.nn.max_pool2d((x + (x - 1) * -numerator) / x, 2, 2, "VALID")
        return tf.reduce_sum(tf.cast(tf.reduce_mean(y, (1, 2)), "float32"))

    diagnosis = stablekeras.diagnose(fn, x)
    assert (diagnosis.op_type, diagnosis.samples) == ("RealDiv", (2,))


def test_a_window_with_another_number_hides_nothing():
    """Max pooling goes on from the other number, and so does the replay."""
    x = np.ones((2, 2, 2, 1), "float32")
    x[:, 0, 0, 0] = 0.0

    def fn(x):
        y = tf.nn.max_pool2d(tf.math.log(x), 2, 2, "VALID")
        return tf.reduce_sum(tf.stop_gradient(y))

    assert stablekeras.diagnose(fn, x) is None
