"""A recorded incident gives the same diagnosis in another process."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import stablekeras
from stablekeras.demo import tasks
from stablekeras.errors import BundleError, ReplayError
from stablekeras.watch import rerun

FACTORY = """
import keras

def bad_loss(y_true, y_pred):
    return -keras.ops.sum(y_true * keras.ops.log(y_pred), axis=-1)

class Mine(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(3, activation="softmax", name="head")

    def call(self, x):
        return self.head(x)

def build():
    model = Mine()
    model(keras.ops.zeros((1, 4)))
    model.compile("adam", bad_loss)
    return model
"""


def _incident(model, x, y, folder):
    watch = stablekeras.NaNWatch(directory=str(folder), verbose=0)
    model.fit(x, y, batch_size=len(x), verbose=0, callbacks=[watch])
    (incident,) = watch.incidents
    return incident


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    task = tasks.cancer()
    x, y = (a[:64] for a in task.train)
    return _incident(
        task.model(task.by_hand), x, y, tmp_path_factory.mktemp("incidents")
    )


def test_command_line_reproduces_the_diagnosis(recorded):
    """`python -m stablekeras replay --json` in a new process agrees."""
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "stablekeras",
            "replay",
            "--json",
            recorded.path,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(answer.stdout)
    expected = recorded.diagnosis
    assert found["code"] == expected.code == "SK102"
    assert found["op_type"] == expected.op_type
    assert found["location"] == expected.location
    assert tuple(found["samples"]) == expected.samples


def test_a_factory_stands_in_for_a_model_without_configuration(
    tmp_path, monkeypatch
):
    """A subclassed model is replayed through `module:factory`."""
    (tmp_path / "my_training.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_training

    keras.utils.set_random_seed(0)
    x = np.full((8, 4), 1e3, "float32")
    x[:5] = 1e-3
    y = np.eye(3, dtype="float32")[np.arange(8) % 3]
    incident = _incident(my_training.build(), x, y, tmp_path / "incidents")
    with pytest.raises(ReplayError, match="module:factory"):
        stablekeras.replay(incident.path)
    found = stablekeras.replay(incident.path, model="my_training:build")
    expected = incident.diagnosis
    for field in ("code", "op_type", "layer", "location", "samples", "cause"):
        assert getattr(found, field) == getattr(expected, field)
    extreme = np.flatnonzero(incident.batch[0].max(axis=1) > 1)
    assert found.samples == tuple(extreme.tolist())
    assert len(extreme) == 3
    with pytest.raises(ValueError, match="module:factory"):
        stablekeras.replay(incident.path, model="my_training")


def test_another_model_is_refused(recorded):
    """A model of other shapes is refused, and the first difference named."""
    model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(7)])
    model.compile("adam", "mse")
    with pytest.raises(ReplayError, match="recorded shapes"):
        stablekeras.replay(recorded.path, model=model)
    with pytest.raises(ReplayError, match="compiled"):
        stablekeras.replay(recorded.path, model=lambda: None)


@keras.saving.register_keras_serializable("test_rerun")
class SelfMade(keras.Sequential):
    """Compiles itself, as KerasHub's tasks do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.compile()

    def compile(self, optimizer="sgd", loss="mse", **kwargs):
        super().compile(optimizer, loss, **kwargs)


def test_a_model_that_compiles_itself_must_be_passed(tmp_path):
    """Keras does not record its loss: another one must not be replayed."""
    x = np.full((4, 2), np.nan, "float32")
    model = SelfMade([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mae")
    incident = _incident(model, x, x[:, :1], tmp_path)
    with pytest.raises(ReplayError, match=r"SelfMade, whose .* compile"):
        stablekeras.replay(incident.path)
    found = stablekeras.replay(incident.path, model=model)
    assert found.code == incident.diagnosis.code == "SK501"


def test_missing_folder_is_named(tmp_path):
    """A path that is no incident is refused, also on the command line."""
    with pytest.raises(BundleError, match="manifest"):
        stablekeras.replay(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"module": "os", "class_name": "system", "config": "true"},
        {"module": "keras.layers", "config": {"x": [{"module": "shutil"}]}},
        {"class_name": "__lambda__", "config": {"value": "4wE="}},
    ],
)
def test_configurations_cannot_name_other_modules(config):
    """A configuration that would import or run foreign code is refused."""
    with pytest.raises(ReplayError, match="Received: "):
        rerun._refuse_untrusted(config)


def test_the_page_is_written_beside(recorded):
    """The folder holds the page, and the page the diagnosis."""
    page = pathlib.Path(recorded.path, "report.html").read_text()
    assert recorded.diagnosis.code in page
    assert "Where values are not finite" in page
