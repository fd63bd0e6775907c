"""What a model holds is found, whether Keras lists it or not."""

import keras
import tensorflow as tf
from keras import layers

from stablekeras.graphs.owned import closed_over, owned_variables


class Holder(layers.Layer):
    """Holds variables in every way Keras does not look into."""

    def __init__(self):
        super().__init__()
        self.nested = {"a": [tf.Variable(0.0), (tf.Variable(1.0),)]}
        self.__dict__["plain"] = tf.Variable(2.0)
        self.generator = tf.random.Generator.from_seed(1)


def _names(variables):
    return {id(getattr(v, "value", v)) for v in variables}


def test_unlisted_variables_are_found():
    """In containers, plain attributes, generators and inner models."""
    holder = Holder()
    model = keras.Sequential([keras.Sequential([holder])])
    wanted = [
        holder.nested["a"][0],
        holder.nested["a"][1][0],
        holder.plain,
        holder.generator.state,
    ]
    found = owned_variables(model)
    assert all(any(v is w for v in found) for w in wanted)


def test_states_of_stateful_layers_are_found():
    """Keras lists them nowhere."""
    layer = layers.GRU(3, stateful=True)
    keras.Sequential([keras.Input((4, 2), batch_size=2), layer])
    (states,) = layer.states
    assert not any(v is states for v in layer.variables)
    assert any(v is states for v in owned_variables(layer))


def test_listed_variables_are_found_once_and_slots_are_not():
    """A Keras variable stands for the TensorFlow one that it holds."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.shared = model.layers[0]
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    found = owned_variables(model)
    assert len({id(v.value) for v in found}) == len(found)
    assert all(any(v is w for v in found) for w in model.variables)
    slots = {id(v) for v in model.optimizer.variables}
    assert not slots & {id(v) for v in found}


def test_what_a_step_closes_over():
    """Closures and globals; nothing for what is not Python's."""
    counter = tf.Variable(0)

    def step():
        return counter + len(BOX)

    found = closed_over(step)
    assert any(v is counter for v in found)
    assert any(v is BOX for v in found)
    assert closed_over(len) == []
    assert owned_variables(found) == [counter, BOX["v"]]


BOX = {"v": tf.Variable(1)}
