"""Where a run was not finite, layer by layer."""

import keras
import numpy as np

from stablekeras.graphs.badness import by_layer
from stablekeras.watch.records import Incident
from stablekeras.watch.replay import replay_step


def test_badness_is_counted_where_it_is():
    """A log of zeros is bad forward in its layer, backward in all before."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, name="hidden"),
            keras.layers.Lambda(lambda x: keras.ops.log(x * 0), name="log"),
        ]
    )
    model.compile("sgd", "mse")
    batch = (np.ones((4, 3), "float32"), np.ones((4, 2), "float32"))
    trace = replay_step(model, Incident(0, 0, "stop", batch=batch))
    counts = {(row[0], row[1]): row[2:] for row in by_layer(trace.execution)}
    assert counts["hidden", "forward"][0] == 0
    assert counts["log", "forward"][0] == 8
    bad, size = counts["hidden", "backward"]
    assert bad == size > 0
